//! Request bodies and their content types.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::BodyExt as _;

use crate::{
    error::{Error, Reason, Result},
    limits::Limits,
    service::Share,
};

/// How large a body may be, and what it is when it is larger.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'limits> {
    bytes: usize,
    reason: Reason,
    limits: &'limits Limits,
}

impl<'limits> Bound<'limits> {
    /// The body is a value.
    pub fn value(limits: &'limits Limits) -> Self {
        Self { bytes: limits.value_bytes, reason: Reason::ValueTooLarge, limits }
    }

    /// The body is a request.
    pub fn request(limits: &'limits Limits) -> Self {
        Self { bytes: limits.request_bytes, reason: Reason::RequestTooLarge, limits }
    }

    fn passed(&self) -> Error {
        let (what, remedy) = match self.reason {
            Reason::ValueTooLarge => ("value", "split it over several keys, or raise limits.value_bytes"),
            _ => ("request", "send less at once, or raise limits.request_bytes"),
        };
        let text = format!("the {what} is larger than the limit of {} bytes: {remedy}", self.bytes);
        Error::new(self.reason, text).with(|details| {
            details.limit = Some(self.bytes as u64);
            details.field = Some(what.into());
        })
    }
}

/// Reads a body: bounded in size, before and while it arrives, and in time. `share` is to live until the answer.
pub async fn read(headers: &HeaderMap, body: Body, bound: Bound<'_>, share: &Share) -> Result<Bytes> {
    if content_length(headers).is_some_and(|length| length > bound.bytes as u64) {
        return Err(bound.passed());
    }
    let timeout = bound.limits.body_timeout;
    match tokio::time::timeout(timeout, collect(body, bound, share)).await {
        Ok(body) => body,
        Err(_) => {
            let text = format!(
                "the request's body did not arrive within {} ms: send it at once, or check the network",
                timeout.as_millis()
            );
            Err(Error::new(Reason::BodyTimeout, text))
        }
    }
}

async fn collect(mut body: Body, bound: Bound<'_>, share: &Share) -> Result<Bytes> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut read_bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::malformed("body", "the request's body broke off: send it again"))?;
        let Ok(data) = frame.into_data() else { continue };
        read_bytes += data.len();
        if read_bytes > bound.bytes {
            return Err(bound.passed());
        }
        share.grow(data.len())?;
        if first.is_empty() && all.is_empty() {
            // The common case, one piece: no copy.
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses a body where it would be silently ignored.
pub fn expect_none(headers: &HeaderMap) -> Result<()> {
    match content_length(headers) {
        None | Some(0) => Ok(()),
        Some(_) => Err(Error::invalid_field("body", "this request takes no body: use the query's parameters")),
    }
}

/// Refuses a body that would have to be unpacked first.
pub fn expect_plain(headers: &HeaderMap) -> Result<()> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let text = "bodies are taken as they are: send this one without Content-Encoding";
        return Err(Error::new(Reason::MediaTypeUnsupported, text));
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if essence(content_type).eq_ignore_ascii_case("multipart/form-data") {
        let text = "a multipart form is not taken: send the raw bytes, as curl --data-binary does";
        return Err(Error::new(Reason::MediaTypeUnsupported, text));
    }
    Ok(())
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// The content type to store; empty: the default. A form's type is what `curl -d` sends by habit and says nothing.
pub fn content_type(headers: &HeaderMap) -> Result<String> {
    expect_plain(headers)?;
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(String::new()) };
    let Ok(text) = value.to_str() else {
        return Err(Error::invalid_field("content_type", "a content type is visible ASCII, such as `text/plain`"));
    };
    if essence(text).eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(String::new());
    }
    Ok(text.to_owned())
}
