//! Bodies that come piece by piece, as the reader takes them.

use std::future::Future;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
};

use super::{handlers::Held, problem};
use crate::error::Error;

/// One JSON text a line.
pub const NDJSON: &str = "application/x-ndjson";
/// Server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Whether a request asks for a media type by name.
pub fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let named = |range: &str| {
        let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
        let refused = parameters
            .split(';')
            .any(|parameter| parameter.trim().strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0)));
        name.trim().eq_ignore_ascii_case(media_type) && !refused
    };
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.split(',').any(named))
}

/// A piece of a body, and whether it is the last. An error after it breaks the body off, so that the reader cannot take
/// it for whole.
#[derive(Debug)]
pub enum Piece {
    /// More follows.
    More(Bytes),
    /// The last words of a stream that failed.
    Failed(Bytes),
}

/// An answer whose body `next` gives piece by piece; `None`: it is whole.
pub fn response<State, Next, Pieces>(media_type: &'static str, state: State, next: Next) -> Response
where
    State: Send + 'static,
    Next: Fn(State) -> Pieces + Send + 'static,
    Pieces: Future<Output = Option<(Piece, State)>> + Send,
{
    let pieces = unfold(Some((state, next)), |going| async {
        let (state, next) = going?;
        match next(state).await? {
            (Piece::More(bytes), state) => Some((vec![Ok(bytes)], Some((state, next)))),
            (Piece::Failed(bytes), _) => Some((vec![Ok(bytes), Err(BrokenOff)], None)),
        }
    });
    let body = Body::from_stream(futures_util::StreamExt::flat_map(pieces, futures_util::stream::iter));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response.extensions_mut().insert(Held);
    response
}

/// Why a body ends early. The reader was told the reason before.
#[derive(Clone, Copy, Debug)]
struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the stream failed; its last line says why")
    }
}

impl std::error::Error for BrokenOff {}

/// The last line of an NDJSON stream that failed.
pub fn error_line(error: &Error) -> Bytes {
    format!("{{\"error\":{}}}\n", problem::to_json(error)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_asked_for_by_name() {
        let ask = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            accepts(&headers, NDJSON)
        };
        for yes in ["application/x-ndjson", "text/html, Application/X-NDJSON;q=0.5"] {
            assert!(ask(yes), "{yes}");
        }
        for no in ["*/*", "application/json", "application/x-ndjson;q=0", ""] {
            assert!(!ask(no), "{no}");
        }
    }
}
