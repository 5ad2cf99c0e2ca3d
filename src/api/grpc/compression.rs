//! gzip of messages, where the client asks for it: in its requests by `grpc-encoding`, in answers by
//! `grpc-accept-encoding`.
//!
//! tonic would do this by itself, but a whole message at once, which holds a core for tens of milliseconds, and down to
//! the smallest answer, because many clients offer gzip by habit. Here large messages go in small steps between which
//! other requests get their turn, small ones stay as they are, and what a message inflates to is counted like a body.

use std::{
    io::{Read as _, Write as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut, buf::Reader};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body as _, Frame};
use tonic::{Status, body::Body};

use super::counted::{Counted, Patience};
use crate::{
    limits::{COMPRESSED_BODY_BYTES_MIN, COMPRESSION_STEP_BYTES},
    service::Share,
};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Names what a side takes.
pub const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// What this side takes.
pub const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip,identity");

/// Before each message: a flag and the length.
pub const HEAD_BYTES: usize = 5;

/// What one call has agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Gzip {
    /// The client's messages come as they are.
    pub plain: bool,
    inflates: bool,
    deflates: bool,
    /// A message may inflate to this much.
    pub message_bytes_max: usize,
}

impl Gzip {
    /// Takes the agreement out of a request's headers; tonic refuses any encoding that is left there.
    pub fn negotiate(headers: &mut HeaderMap, message_bytes_max: usize) -> Self {
        let encoding = headers.get(GRPC_ENCODING);
        let plain = encoding.is_none_or(|encoding| encoding == "identity");
        let inflates = encoding.is_some_and(|encoding| encoding == "gzip");
        if inflates {
            headers.remove(GRPC_ENCODING);
        }
        let accepted = headers.get(GRPC_ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let deflates = accepted.split(',').any(|encoding| encoding.trim() == "gzip");
        Self { plain, inflates, deflates, message_bytes_max }
    }

    /// A request's body as tonic shall see it, counted and waited for within `patience`.
    pub fn inflate<B>(self, body: B, share: &Arc<Share>, patience: Option<Patience>) -> Body
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let counted = Counted { body, share: Arc::clone(share), patience };
        if !self.inflates {
            return Body::new(counted);
        }
        let body = Inflated {
            body: counted,
            received: BytesMut::new(),
            current: None,
            message_bytes_max: self.message_bytes_max,
        };
        Body::new(Counted { body, share: Arc::clone(share), patience: None })
    }

    /// An answer as the client shall see it.
    pub fn deflate(self, mut response: Response<Body>) -> Response<Body> {
        // Without a message, a refusal's status is in the headers and there is nothing to compress.
        if !self.deflates || response.headers().contains_key(Status::GRPC_STATUS) {
            return response;
        }
        response.headers_mut().insert(GRPC_ENCODING, HeaderValue::from_static("gzip"));
        if response.body().size_hint().upper().is_some_and(|bytes| bytes < COMPRESSED_BODY_BYTES_MIN) {
            return response;
        }
        response.map(|body| Body::new(Deflated { body, received: BytesMut::new(), current: None, trailers: None }))
    }
}

/// The first message's flag and length, if its head is there.
pub fn head_of(received: &[u8]) -> Option<(u8, usize)> {
    let head = received.first_chunk::<HEAD_BYTES>()?;
    Some((head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize))
}

/// Gives others a turn: to be called again soon.
fn give_way<T>(context: &Context<'_>) -> Poll<T> {
    context.waker().wake_by_ref();
    Poll::Pending
}

/// A request's messages, inflated.
struct Inflated<B> {
    body: Counted<B>,
    received: BytesMut,
    /// The message at work: what is left of it, and what it inflated to so far, behind room for its head.
    current: Option<(GzDecoder<Reader<Bytes>>, BytesMut)>,
    message_bytes_max: usize,
}

impl<B> Inflated<B> {
    /// One step of the message at work: `None` while there is more to do.
    fn step(&mut self) -> Option<Result<Bytes, Status>> {
        let (decoder, inflated) = self.current.as_mut()?;
        let before = inflated.len();
        inflated.resize(before + COMPRESSION_STEP_BYTES, 0);
        let read = match decoder.read(&mut inflated[before..]) {
            Ok(read) => read,
            Err(error) => return Some(Err(Status::invalid_argument(format!("not gzip: {error}")))),
        };
        inflated.truncate(before + read);
        let bytes = inflated.len() - HEAD_BYTES;
        if bytes > self.message_bytes_max {
            return Some(Err(Status::out_of_range("the message inflates past the limit")));
        }
        if read > 0 {
            return None;
        }
        // Lengths are below the limit, which fits.
        inflated[1..HEAD_BYTES].copy_from_slice(&(bytes as u32).to_be_bytes());
        self.current.take().map(|(_, inflated)| Ok(inflated.freeze()))
    }

    /// Takes the next whole message from what was received: plain ones as they are.
    fn next_message(&mut self) -> Option<Result<Bytes, Status>> {
        let (flag, length) = head_of(&self.received)?;
        if length > self.message_bytes_max {
            return Some(Err(Status::out_of_range("the message is larger than the limit")));
        }
        if self.received.len() < HEAD_BYTES + length {
            return None;
        }
        let mut message = self.received.split_to(HEAD_BYTES + length).freeze();
        if flag != 1 {
            // A flag that does not exist is tonic's to refuse.
            return Some(Ok(message));
        }
        message.advance(HEAD_BYTES);
        self.current = Some((GzDecoder::new(message.reader()), BytesMut::zeroed(HEAD_BYTES)));
        None
    }
}

impl<B> http_body::Body for Inflated<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if self.current.is_none()
                && let Some(message) = self.next_message()
            {
                return Poll::Ready(Some(message.map(Frame::data)));
            }
            if self.current.is_some() {
                return match self.step() {
                    Some(message) => Poll::Ready(Some(message.map(Frame::data))),
                    None => give_way(context),
                };
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.received.put(data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // Half a message is tonic's to refuse.
                None if self.received.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Ok(Frame::data(self.received.split().freeze())))),
            }
        }
    }
}

/// An answer's messages, the large ones deflated.
struct Deflated {
    body: Body,
    received: BytesMut,
    /// The message at work: as it is, how much of it went in, and what came out behind room for its head.
    current: Option<(Bytes, usize, GzEncoder<Vec<u8>>)>,
    /// Wait for what was received before them.
    trailers: Option<HeaderMap>,
}

impl Deflated {
    /// One step of the message at work: `None` while there is more to do.
    fn step(&mut self) -> Option<Result<Bytes, Status>> {
        let (message, done, encoder) = self.current.as_mut()?;
        let rest = &message[*done..];
        let piece = &rest[..rest.len().min(COMPRESSION_STEP_BYTES)];
        let first = *done == HEAD_BYTES;
        // Into memory, which takes everything.
        if let Err(error) = encoder.write_all(piece).and_then(|()| if first { encoder.flush() } else { Ok(()) }) {
            return Some(Err(Status::internal(error.to_string())));
        }
        *done += piece.len();
        let shrank = encoder.get_ref().len() - HEAD_BYTES < piece.len() / 10 * 9;
        if *done < message.len() && (shrank || !first) {
            return None;
        }
        let (message, _, encoder) = self.current.take()?;
        if first && !shrank {
            // Pictures and the like: the rest would not shrink either.
            return Some(Ok(message));
        }
        Some(match encoder.finish() {
            Ok(mut deflated) if deflated.len() < message.len() => {
                let bytes = deflated.len() - HEAD_BYTES;
                deflated[0] = 1;
                deflated[1..HEAD_BYTES].copy_from_slice(&(bytes as u32).to_be_bytes());
                Ok(deflated.into())
            }
            // It only grew.
            Ok(_) => Ok(message),
            Err(error) => Err(Status::internal(error.to_string())),
        })
    }

    /// Takes what can be sent as it is; a large message behind it is put to work.
    fn next_messages(&mut self) -> Option<Bytes> {
        let mut small_bytes = 0;
        while let Some((_, length)) = head_of(&self.received[small_bytes..]) {
            let end = small_bytes + HEAD_BYTES + length;
            if end > self.received.len() {
                break;
            }
            if length as u64 >= COMPRESSED_BODY_BYTES_MIN {
                if small_bytes == 0 {
                    let message = self.received.split_to(end).freeze();
                    let encoder = GzEncoder::new(vec![0; HEAD_BYTES], Compression::fast());
                    self.current = Some((message, HEAD_BYTES, encoder));
                    return None;
                }
                break;
            }
            small_bytes = end;
        }
        (small_bytes > 0).then(|| self.received.split_to(small_bytes).freeze())
    }
}

impl http_body::Body for Deflated {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if self.current.is_none()
                && let Some(messages) = self.next_messages()
            {
                return Poll::Ready(Some(Ok(Frame::data(messages))));
            }
            if self.current.is_some() {
                return match self.step() {
                    Some(message) => Poll::Ready(Some(message.map(Frame::data))),
                    None => give_way(context),
                };
            }
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.received.put(data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                end => return Poll::Ready(end),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    async fn deflated(messages: &[u8]) -> Bytes {
        let body = Body::new(Full::new(Bytes::copy_from_slice(messages)));
        let body = Deflated { body, received: BytesMut::new(), current: None, trailers: None };
        body.collect().await.unwrap().to_bytes()
    }

    async fn inflated(messages: Bytes, limit: usize) -> Result<Bytes, Status> {
        let service = crate::service::Service::new(
            crate::limits::Limits::default(),
            crate::metrics::Metrics::new(false).map_err(|error| Status::internal(error.to_string()))?,
            crate::traces::Traces::off(),
        );
        let share = Arc::new(service.body_share());
        let gzip = Gzip { plain: false, inflates: true, deflates: false, message_bytes_max: limit };
        gzip.inflate(Full::new(messages), &share, None).collect().await.map(|body| body.to_bytes())
    }

    #[tokio::test]
    async fn large_messages_are_deflated_small_and_random_ones_are_not_and_all_come_back() {
        let random: Vec<u8> = (0..100_000).map(|_| rand::random()).collect();
        let text = b"text ".repeat(30_000);
        let messages = [framed(b"small"), framed(b""), framed(&text), framed(&random), framed(b"more")].concat();
        let sent = deflated(&messages).await;
        assert!(sent.len() < random.len() + 10_000, "{}", sent.len());
        assert!(sent.windows(random.len()).any(|window| window == random), "what cannot shrink stays as it is");
        assert_eq!(inflated(sent, LIMIT).await.unwrap(), messages);
    }

    #[tokio::test]
    async fn what_inflates_past_the_limit_is_refused_on_the_way() {
        let sent = deflated(&framed(&vec![0; LIMIT])).await;
        assert_eq!(inflated(sent.clone(), LIMIT).await.unwrap().len(), LIMIT + HEAD_BYTES);
        assert_eq!(inflated(sent, LIMIT - 1).await.unwrap_err().code(), tonic::Code::OutOfRange);
    }

    #[tokio::test]
    async fn what_is_not_gzip_is_refused() {
        let garbage = Bytes::from_static(&[1, 0, 0, 0, 3, b'a', b'b', b'c']);
        assert_eq!(inflated(garbage, LIMIT).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
