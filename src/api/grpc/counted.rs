//! A request's body, counted against the memory for all of them as it arrives.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::service::Share;

/// The body, and what it has taken.
pub struct Counted<B> {
    /// What arrives.
    pub body: B,
    /// Given back once the request is answered.
    pub share: Arc<Share>,
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(status_of(error.into())))),
            None => return Poll::Ready(None),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match self.share.grow(bytes) {
            Ok(()) => Poll::Ready(Some(Ok(frame))),
            // The reason is given outside, where the refusal is counted.
            Err(error) => Poll::Ready(Some(Err(Status::resource_exhausted(error.message)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What the translator of gRPC-Web found, or a broken connection.
fn status_of(error: Box<dyn std::error::Error + Send + Sync>) -> Status {
    match error.downcast::<Status>() {
        Ok(status) => *status,
        Err(error) => Status::unavailable(error.to_string()),
    }
}
