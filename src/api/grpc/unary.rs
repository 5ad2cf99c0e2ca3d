//! One message for one answer, without tonic's codec where the message came whole with its headers, as small ones do.
//!
//! tonic copies each message into a buffer of 8 KiB, encodes the answer into another, and boxes a call five times on the
//! way: a sixth of what a small call costs. Whatever is out of the ordinary (a message in pieces, compressed, too large, not
//! what the schema says) goes to tonic as it came, so that there is one place that refuses.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body as _, Frame, SizeHint};
use prost::Message;
use tonic::{Status, body::Body, server::NamedService};

use super::{
    closing::Closing,
    compression::{Gzip, HEAD_BYTES, head_of},
    status::to_status,
};
use crate::{
    api::rest_of_body::Lent,
    error::Result,
    limits::VALUE_BYTES_MAX,
    metrics::Operation,
    pb::kv_service_server::SERVICE_NAME,
    service::{Call, Service, Share},
};

/// An answer's message is not larger.
pub const ANSWER_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;

/// A call that may be answered here.
#[derive(Debug)]
pub struct Unary {
    service: Service,
    operation: Operation,
    call: Call,
    /// Counts the message.
    share: Arc<Share>,
    /// A message of more is tonic's to refuse.
    message_bytes_max: usize,
}

/// The answer to a request; from tonic, if it is not for here.
pub async fn answer<F>(
    unary: Option<Unary>,
    request: Request<Lent>,
    tonic: impl FnOnce(Request<Begun>) -> F,
) -> Result<Response<Body>, Infallible>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let (parts, body) = request.into_parts();
    let mut begun = Begun { held: VecDeque::new(), ended: false, rest: body };
    if let Some(unary) = unary {
        begun.look().await;
        if let Some(answering) = begun.message(unary.message_bytes_max).and_then(|message| unary.begin(message)) {
            return Ok(match answering.await {
                Ok(message) => {
                    let mut response = Response::new(Body::new(Answer { message: Some(message), ended: false }));
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                    response
                }
                Err(status) => status.into_http(),
            });
        }
    }
    tonic(Request::from_parts(parts, begun)).await
}

impl Unary {
    /// A call of the service `M`, if it is of the kind that may be answered here.
    pub fn of<M: NamedService>(closing: &Closing, call: Call, share: &Arc<Share>, gzip: Gzip) -> Option<Self> {
        let operation = closing.method.operation?;
        (M::NAME == SERVICE_NAME && gzip.plain && !closing.method.streams).then(|| Self {
            service: closing.service.clone(),
            operation,
            call,
            share: Arc::clone(share),
            message_bytes_max: gzip.message_bytes_max,
        })
    }

    /// Begins to answer a message; `None`: it is not what the schema says, or there is no memory for it.
    fn begin(&self, message: Bytes) -> Option<BoxFuture<'static, Result<Bytes, Status>>> {
        let bytes = message.len();
        let (service, call) = (self.service.clone(), self.call);
        macro_rules! answer_by {
            ($method:ident) => {{
                let request = Message::decode(message).ok()?;
                self.share.grow(bytes).ok()?;
                Box::pin(async move { framed(service.$method(&call, request).await) })
            }};
        }
        Some(match self.operation {
            Operation::Get => answer_by!(get),
            Operation::BatchGet => answer_by!(batch_get),
            Operation::List => answer_by!(list),
            Operation::Count => answer_by!(count),
            Operation::Put => answer_by!(put),
            Operation::Delete => answer_by!(delete),
            Operation::Increment => answer_by!(increment),
            Operation::Touch => answer_by!(touch),
            Operation::BatchWrite => answer_by!(batch_write),
            Operation::Txn => answer_by!(txn),
            Operation::DeleteRange => answer_by!(delete_range),
            _ => return None,
        })
    }
}

/// A message behind its head.
fn framed(answer: Result<impl Message>) -> Result<Bytes, Status> {
    let answer = answer.map_err(to_status)?;
    let bytes = answer.encoded_len();
    if bytes > ANSWER_BYTES_MAX {
        return Err(Status::out_of_range(format!("the answer has {bytes} bytes, the limit is {ANSWER_BYTES_MAX}")));
    }
    let mut framed = Vec::with_capacity(HEAD_BYTES + bytes);
    framed.put_u8(0);
    // Within the limit, which fits.
    framed.put_u32(bytes as u32);
    answer.encode_raw(&mut framed);
    Ok(framed.into())
}

type Received = Result<Frame<Bytes>, hyper::Error>;

/// A body whose first frames were looked at.
pub struct Begun {
    /// What was looked at and not used.
    held: VecDeque<Received>,
    ended: bool,
    rest: Lent,
}

impl Begun {
    /// Looks at what is there, and waits for nothing.
    fn look(&mut self) -> impl Future<Output = ()> + Send {
        poll_fn(|context| {
            // The message in one frame, and perhaps an empty one that only ends the stream.
            while !self.ended && self.held.len() < 2 {
                match Pin::new(&mut self.rest).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                    Poll::Ready(Some(Ok(frame))) => self.held.push_back(Ok(frame)),
                    Poll::Ready(Some(failed)) => {
                        self.held.push_back(failed);
                        break;
                    }
                    Poll::Ready(None) => self.ended = true,
                    Poll::Pending => break,
                }
                self.ended |= self.rest.is_end_stream();
            }
            Poll::Ready(())
        })
    }

    /// The message without its head, if it is all there is, plain and of the announced length.
    fn message(&self, bytes_max: usize) -> Option<Bytes> {
        if !self.ended || self.held.len() != 1 {
            return None;
        }
        let data = self.held.front()?.as_ref().ok()?.data_ref()?;
        let (flag, bytes) = head_of(data)?;
        (flag == 0 && bytes <= bytes_max && data.len() == HEAD_BYTES + bytes).then(|| data.slice(HEAD_BYTES..))
    }
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        match self.held.pop_front() {
            Some(received) => Poll::Ready(Some(received)),
            None if self.ended => Poll::Ready(None),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && (self.ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.held.is_empty() { self.rest.size_hint() } else { SizeHint::default() }
    }
}

/// An answer's message, and that all went well.
struct Answer {
    message: Option<Bytes>,
    ended: bool,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        // Not exact: that would make a Content-Length, which gRPC does not use.
        let mut hint = SizeHint::default();
        hint.set_upper(self.message.as_ref().map_or(0, Bytes::len) as u64);
        hint
    }
}
