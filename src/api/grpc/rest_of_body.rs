//! What is left of a request's body when its call was refused. Over HTTP/1 it is read and dropped, within bounds: closing
//! the connection under a client that still sends would lose the answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::limits::DRAINED_BODY_BYTES_MAX;

/// A body that comes back, over HTTP/1, when whoever read it lets go. HTTP/2 can end one stream and needs no such thing.
pub struct Lent {
    /// There until dropped.
    body: Option<Incoming>,
    owner: Option<oneshot::Sender<Incoming>>,
}

/// Where it comes back to.
pub struct Lender(Option<oneshot::Receiver<Incoming>>);

/// What came back.
pub struct Rest(Incoming);

/// Lends a request's body.
pub fn lend(request: Request<Incoming>) -> (Request<Lent>, Lender) {
    let (owner, rest) = (request.version() < Version::HTTP_2).then(oneshot::channel).unzip();
    (request.map(|body| Lent { body: Some(body), owner }), Lender(rest))
}

impl Lender {
    /// What is left, if there is something that nobody else reads.
    pub fn left(self) -> Option<Rest> {
        let body = self.0?.try_recv().ok()?;
        (!body.is_end_stream()).then_some(Rest(body))
    }
}

impl Rest {
    /// Reads it off.
    pub async fn drain(self, patience: Duration) {
        let Self(mut body) = self;
        let read_off = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > DRAINED_BODY_BYTES_MAX {
                    break;
                }
            }
        };
        // Too slow: then the connection is closed after all.
        let _ = tokio::time::timeout(patience, read_off).await;
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(owner)) = (self.body.take(), self.owner.take()) {
            // Nobody waits for it where the call goes on.
            let _ = owner.send(body);
        }
    }
}
