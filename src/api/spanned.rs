//! The body of a stream that is traced: its span lasts as long as the body does.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};

use crate::service::StreamSpan;

/// A body, and the span that ends with it.
#[derive(Debug)]
pub struct Spanned<B> {
    /// What is sent.
    pub body: B,
    /// Sent when the body is done with.
    pub span: StreamSpan,
}

impl<B: Body + Unpin> Body for Spanned<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
