//! gzip for JSON and NDJSON, where the client takes it. Never for values, which are somebody's bytes, nor for event
//! streams, which browsers want piece by piece.
//!
//! Compressing takes its time: it goes in small steps, between which other requests get their turn. A line of a stream
//! is sent as soon as it is there.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{FutureExt as _, TryFutureExt as _, future::Either};
use http::{
    HeaderMap, HeaderValue, Request,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, VARY},
};
use http_body::{Frame, SizeHint};
use tower::{Layer as _, Service, ServiceExt as _, util::MapResponse};
use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, Predicate},
};

use crate::limits::{COMPRESSED_BODY_BYTES_MIN, COMPRESSION_STEP_BYTES};

/// Answers a request by these routes, compressed if the client takes that and it is worth it.
pub fn around<R>(mut routes: R, mut request: Request<Body>) -> impl Future<Output = Response> + Send + use<R>
where
    R: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Send + 'static,
{
    let answered = if accepts_gzip(request.headers()) {
        // The layer need not weigh what else the client would take.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let layer = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(Worthwhile);
        let paced = MapResponse::new(routes, |response: Response| response.map(Paced::new));
        let compressed = layer.layer(paced).oneshot(request);
        Either::Left(Box::pin(compressed.map_ok(|response| response.map(Body::new))))
    } else {
        // Routes are always ready.
        Either::Right(routes.call(request))
    };
    answered.map(|answered| match answered {
        Ok(response) => vary(response),
        Err(never) => match never {},
    })
}

/// Tells caches what the answer depends on, and that what is compressed is not the same bytes.
fn vary(mut response: Response) -> Response {
    if !is_json(response.headers()) {
        return response;
    }
    let headers = response.headers_mut();
    if !headers.get_all(VARY).iter().any(|value| value == HeaderValue::from(ACCEPT_ENCODING)) {
        headers.append(VARY, ACCEPT_ENCODING.into());
    }
    if headers.contains_key(CONTENT_ENCODING)
        && let Some(tag) = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(ETAG, weak);
    }
    response
}

/// JSON that this server wrote; a value may be JSON too, and is told by the sandbox that goes with it.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let json = content_type.starts_with(b"application/json") || content_type.starts_with(b"application/x-ndjson");
    json && !headers.contains_key(CONTENT_SECURITY_POLICY)
}

/// `Accept-Encoding` as RFC 9110 has it: the most explicit mention counts.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut by_star = false;
    for part in
        headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','))
    {
        let (coding, parameters) = part.split_once(';').unwrap_or((part, ""));
        let weight = parameters.trim().strip_prefix("q=").or(parameters.trim().strip_prefix("Q="));
        let wanted = weight.is_none_or(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0));
        match coding.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => return wanted,
            "*" => by_star = wanted,
            _ => {}
        }
    }
    by_star
}

/// What the layer compresses: JSON of some size, or of a size that is not known yet.
#[derive(Clone, Copy)]
struct Worthwhile;

impl Predicate for Worthwhile {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        let small = response.body().size_hint().upper().is_some_and(|bytes| bytes < COMPRESSED_BODY_BYTES_MIN);
        !small && is_json(response.headers())
    }
}

/// A body in small pieces, with a turn for others between two pieces of one frame.
struct Paced {
    body: Body,
    rest: Bytes,
    gave_way: bool,
    /// The compressor asks once more behind the end, which not every body survives.
    ended: bool,
    /// Why the body breaks off, and how many turns later it does: what it said last leaves the compressor in the first,
    /// and the server in the second.
    failure: Option<(axum::Error, u8)>,
}

impl Paced {
    fn new(body: Body) -> Self {
        Self { body, rest: Bytes::new(), gave_way: false, ended: false, failure: None }
    }

    fn fail(&mut self, context: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some((_, turns @ 1..)) = &mut self.failure {
            *turns -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ended = true;
        Poll::Ready(self.failure.take().map(|(error, _)| Err(error)))
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.failure.is_some() {
            return self.fail(context);
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => {
                    self.failure = Some((error, 2));
                    return self.fail(context);
                }
                None => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
            }
        } else if !std::mem::replace(&mut self.gave_way, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.gave_way = false;
        let bytes = self.rest.len().min(COMPRESSION_STEP_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(bytes)))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn accepts(values: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
        }
        accepts_gzip(&headers)
    }

    #[test]
    fn gzip_is_taken_by_those_who_say_so() {
        for yes in ["gzip", "br, GZIP;q=0.5", "x-gzip", "*", "deflate, *;q=0.1", "gzip ; q=1"] {
            assert!(accepts(&[yes]), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "identity", "*;q=0", "gzip;q=0, *", "gzip;q=x"] {
            assert!(!accepts(&[no]), "{no}");
        }
        assert!(!accepts(&[]) && accepts(&["br", "gzip"]));
    }

    #[tokio::test]
    async fn a_line_of_a_stream_is_sent_before_the_next_is_there() {
        let (lines, received) = tokio::sync::mpsc::unbounded_channel::<Result<&str, std::convert::Infallible>>();
        let body = Body::from_stream(tokio_stream::wrappers::UnboundedReceiverStream::new(received));
        let answer = http::Response::builder().header(CONTENT_TYPE, "application/x-ndjson").body(body).unwrap();
        let answer = std::sync::Arc::new(std::sync::Mutex::new(Some(answer)));
        let routes = axum::Router::new().fallback(async move || answer.lock().unwrap().take().unwrap());
        let request = Request::builder().header(ACCEPT_ENCODING, "gzip").body(Body::empty()).unwrap();
        let mut response = around(routes, request).await;
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        for line in ["{\"revision\":1}\n", "{\"revision\":2}\n"] {
            lines.send(Ok(line)).unwrap();
            while decoder.get_ref().len() < line.len() {
                let frame = response.body_mut().frame().await.unwrap().unwrap();
                std::io::Write::write_all(&mut decoder, &frame.into_data().unwrap()).unwrap();
                std::io::Write::flush(&mut decoder).unwrap();
            }
            assert_eq!(std::mem::take(decoder.get_mut()), line.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_large_body_gives_way_between_its_pieces() {
        let bytes = Bytes::from(vec![7; 3 * COMPRESSION_STEP_BYTES + 1]);
        let mut paced = Paced::new(Body::from(bytes.clone()));
        let (mut pieces, mut gave_way) = (Vec::new(), 0);
        loop {
            let polled = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut paced).poll_frame(context))).await;
            match polled {
                Poll::Pending => gave_way += 1,
                Poll::Ready(None) => break,
                Poll::Ready(Some(frame)) => pieces.push(frame.unwrap().into_data().unwrap()),
            }
        }
        assert_eq!((pieces.len(), gave_way), (4, 3));
        assert_eq!(pieces.concat(), bytes);
        let whole = Paced::new(Body::from("small")).collect().await.unwrap().to_bytes();
        assert_eq!(whole, "small");
    }
}
