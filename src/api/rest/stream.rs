//! Bodies that come piece by piece, as the reader takes them.

use std::{future::Future, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
};
use tokio::sync::oneshot;

use super::{handlers::Held, problem};
use crate::{error::Error, metrics::StreamTimer};

/// One JSON text a line.
pub const NDJSON: &str = "application/x-ndjson";
/// Server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// How long a reader may take to hear why its stream ends.
const LAST_WORDS_MAX: Duration = Duration::from_secs(10);
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

/// How far a body has come.
enum Going<State, Next> {
    On(State, Next, StreamTimer),
    /// The last words are on their way; the receiver ends once they are written.
    Failed(oneshot::Receiver<()>),
    Broken,
}

/// Bytes that tell when they were written, or given up: whoever writes them lets go of them then.
fn last_words(bytes: Bytes) -> (Bytes, oneshot::Receiver<()>) {
    struct Held {
        bytes: Bytes,
        _written: oneshot::Sender<()>,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    let (sender, written) = oneshot::channel();
    (Bytes::from_owner(Held { bytes, _written: sender }), written)
}

/// An answer whose body `next` gives piece by piece; `None`: it is whole. `timer` goes when the body does.
pub fn response<State, Next, Pieces>(media_type: &'static str, timer: StreamTimer, state: State, next: Next) -> Response
where
    State: Send + 'static,
    Next: Fn(State) -> Pieces + Send + 'static,
    Pieces: Future<Output = Option<(Piece, State)>> + Send,
{
    let pieces = unfold(Going::On(state, next, timer), |going| async {
        match going {
            Going::On(state, next, timer) => match next(state).await? {
                (Piece::More(bytes), state) => Some((Ok(bytes), Going::On(state, next, timer))),
                (Piece::Failed(bytes), _) => {
                    let (bytes, written) = last_words(bytes);
                    Some((Ok(bytes), Going::Failed(written)))
                }
            },
            Going::Failed(written) => {
                // Breaking off drops what is not written yet: the reader is to hear the reason first.
                let _ = tokio::time::timeout(LAST_WORDS_MAX, written).await;
                tokio::task::yield_now().await;
                Some((Err(BrokenOff), Going::Broken))
            }
            Going::Broken => None,
        }
    });
    let body = Body::from_stream(pieces);
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
