//! What is left of a request's body when it was refused. Over HTTP/1 it is read and dropped, within bounds: closing the
//! connection under a client that still sends would lose the answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{Either, ready},
};
use http::{Request, Version, header::EXPECT};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::limits::DRAINED_BODY_BYTES_MAX;

/// Whoever sends nothing for so long waits for the answer.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A body that comes back, over HTTP/1, when whoever read it lets go. HTTP/2 can end one stream and needs no such thing.
pub struct Lent {
    /// There until dropped.
    body: Option<Incoming>,
    owner: Option<oneshot::Sender<Incoming>>,
    /// The client asked first and was not told to go on: it has sent nothing.
    unsent: bool,
}

/// Where it comes back to.
pub struct Lender(Option<oneshot::Receiver<Incoming>>);

/// Lends a request's body.
pub fn lend(request: Request<Incoming>) -> (Request<Lent>, Lender) {
    let comes_back = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
    let (owner, rest) = comes_back.then(oneshot::channel).unzip();
    let unsent = comes_back && request.headers().contains_key(EXPECT);
    (request.map(|body| Lent { body: Some(body), owner, unsent }), Lender(rest))
}

impl Lender {
    /// Gives the answer, once what is left of the body is read off. Whoever still reads it keeps it.
    pub fn before<R: Send>(self, answer: R, patience: Duration) -> impl Future<Output = R> + Send {
        let came_back = self.0.and_then(|mut rest| rest.try_recv().ok());
        match came_back.filter(|body| !body.is_end_stream()) {
            None => Either::Left(ready(answer)),
            Some(body) => Either::Right(Box::pin(drain(body, patience).map(|()| answer))),
        }
    }
}

async fn drain(mut body: Incoming, patience: Duration) {
    let read_off = async {
        let mut bytes = 0;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(PAUSE_MAX, body.frame()).await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DRAINED_BODY_BYTES_MAX {
                break;
            }
        }
    };
    // Too slow: then the connection is closed after all.
    let _ = tokio::time::timeout(patience, read_off).await;
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.unsent = false;
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
        if self.unsent {
            return;
        }
        if let (Some(body), Some(owner)) = (self.body.take(), self.owner.take()) {
            // Nobody waits for it where the call goes on.
            let _ = owner.send(body);
        }
    }
}
