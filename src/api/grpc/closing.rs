//! The end of an answer that has a body: what its trailers say beyond tonic's, and when a stream ends at the latest.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use tokio::time::Sleep;
use tonic::{Code, Status, body::Body};

use super::{
    method::Method,
    refusal::{DETAILS, explain},
    status::to_status,
};
use crate::{
    error::{Error, Reason},
    metrics::{Protocol, StreamTimer},
    service::{Service, Timing, Trace},
};

/// What the end of one answer needs to know.
#[derive(Clone, Debug)]
pub struct Closing {
    /// Counts, and knows the limits.
    pub service: Service,
    /// What was called.
    pub method: Method,
    /// By which the call is found in logs.
    pub trace: Trace,
    /// When it came.
    pub started: Instant,
    /// Its client wants to know where the time goes.
    pub timing_asked: bool,
    /// When a stream ends at the latest: the client's `grpc-timeout`, if it gave one.
    pub deadline: Option<Instant>,
}

impl Closing {
    /// Puts the end in place. Unary answers need none, unless their timing was asked for.
    pub fn close(&self, response: Response<Body>) -> Response<Body> {
        let timing = self.timing();
        // Without a body the status is in the headers, which the door sees to.
        if response.headers().contains_key(Status::GRPC_STATUS) || (timing.is_none() && !self.method.streams) {
            return response;
        }
        let deadline = self.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline.into())));
        let Method { operation, streams, .. } = self.method;
        let timer = streams.then(|| self.service.metrics().stream_begins(operation, Protocol::Grpc));
        let closing = self.clone();
        response.map(|body| Body::new(Closed { body, closing, timing, deadline, ended: false, _timer: timer }))
    }

    /// Where the time went, if the client asked.
    pub fn timing(&self) -> Option<Timing> {
        self.timing_asked.then(|| Timing::so_far(self.started))
    }

    /// Counts an error and gives it its outcome.
    pub fn count(&self, error: Error) -> Error {
        match self.method.operation {
            Some(operation) => self.service.refuse(Protocol::Grpc, operation, error),
            None => error,
        }
    }
}

/// A body with its end in place.
struct Closed {
    body: Body,
    closing: Closing,
    timing: Option<Timing>,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
    _timer: Option<StreamTimer>,
}

impl Closed {
    fn trailers(&mut self, mut trailers: HeaderMap) -> Frame<Bytes> {
        let closing = &self.closing;
        let status = Status::from_header_map(&trailers).filter(|status| status.code() != Code::Ok);
        if let Some(status) = &status {
            if !trailers.contains_key(DETAILS) {
                let explained = explain(closing.method, status, closing.service.limits(), |error| closing.count(error));
                // Its message is text, which always makes a header.
                let _ = explained.add_header(&mut trailers);
            }
            closing.trace.add_to(&mut trailers);
            tracing::debug!(trace = %closing.trace, method = closing.method.label, code = ?status.code(), "a stream failed");
        }
        let timing = self.timing.and_then(|timing| HeaderValue::try_from(timing.to_string()).ok());
        trailers.extend(timing.map(|timing| (super::SERVER_TIMING, timing)));
        self.ended = true;
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Closed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // First: a stream that always has more would never hear of it.
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            let error = self.closing.count(Error::new(
                Reason::Deadline,
                "the stream's grpc-timeout is over: resume from what was received, or give it more time",
            ));
            let mut trailers = HeaderMap::new();
            let _ = to_status(error).add_header(&mut trailers);
            return Poll::Ready(Some(Ok(self.trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(trailers) => Some(Ok(self.trailers(trailers))),
                Err(data) => Some(Ok(data)),
            },
            end => end,
        })
    }
}
