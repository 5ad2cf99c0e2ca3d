//! A request's body, counted against the memory for all of them as it arrives, and waited for no longer than it may take.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use super::{closing::Closing, status::to_status};
use crate::{
    error::{Error, Reason},
    service::Share,
};

/// The body, and what it has taken.
pub struct Counted<B> {
    /// What arrives.
    pub body: B,
    /// Given back once the request is answered.
    pub share: Arc<Share>,
    /// How long it may take; `None`: as long as it likes.
    pub patience: Option<Patience>,
}

/// Until when a message has to be there. The service keeps the call's deadline once it has the message; this bounds the wait
/// for the message itself, and costs nothing where that came together with its headers.
pub struct Patience {
    until: Instant,
    closing: Closing,
    /// Set once the message is waited for.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Patience until then, with the call of this end.
    pub fn new(until: Instant, closing: Closing) -> Self {
        Self { until, closing, sleep: None }
    }

    /// The refusal, once it is over.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.until.into())));
        ready!(sleep.as_mut().poll(context));
        let text = "the request's message did not arrive in time: send it at once, or check the network";
        Poll::Ready(to_status(self.closing.count(Error::new(Reason::BodyTimeout, text))))
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(status_of(error.into())))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let Some(patience) = &mut self.patience else { return Poll::Pending };
                let refusal = ready!(patience.poll_end(context));
                return Poll::Ready(Some(Err(refusal)));
            }
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
