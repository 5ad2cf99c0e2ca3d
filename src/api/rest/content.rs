//! Request bodies and their content types.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT},
};
use http_body_util::BodyExt as _;

use crate::{
    error::{Error, Reason, Result},
    limits::{Limits, REQUEST_BYTES_MAX},
    service::Share,
};

/// Of a body that is too large, so much is read before the connection is closed under its sender.
const DRAIN_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// Reads a value: bounded in size, before and while it arrives, and in time. `share` is to live until the answer.
pub async fn read_value(headers: &HeaderMap, body: Body, limits: &Limits, share: &Share) -> Result<Bytes> {
    let known_too_large = content_length(headers).is_some_and(|length| length > limits.value_bytes as u64);
    if known_too_large && headers.contains_key(EXPECT) {
        // The client asked first and has sent nothing yet.
        return Err(too_large(limits));
    }
    match tokio::time::timeout(limits.body_timeout, collect(body, limits, share)).await {
        Ok(value) => value,
        Err(_) => {
            let text = format!(
                "the request's body did not arrive within {} ms: send it at once, or check the network",
                limits.body_timeout.as_millis()
            );
            Err(Error::new(Reason::BodyTimeout, text))
        }
    }
}

async fn collect(mut body: Body, limits: &Limits, share: &Share) -> Result<Bytes> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut read_bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::malformed("body", "the request's body broke off: send it again"))?;
        let Ok(data) = frame.into_data() else { continue };
        read_bytes += data.len();
        if read_bytes > limits.value_bytes {
            // Read on a while without keeping anything: most clients look for the answer only once they have sent it
            // all, and a connection closed under them would lose it.
            (first, all) = (Bytes::new(), BytesMut::new());
            if read_bytes > DRAIN_BYTES_MAX {
                return Err(too_large(limits));
            }
            continue;
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
    if read_bytes > limits.value_bytes {
        return Err(too_large(limits));
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn too_large(limits: &Limits) -> Error {
    let text = format!(
        "the value is larger than the limit of {} bytes: split it over several keys, or raise limits.value_bytes",
        limits.value_bytes
    );
    Error::new(Reason::ValueTooLarge, text).with(|details| {
        details.limit = Some(limits.value_bytes as u64);
        details.field = Some("value".into());
    })
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

/// The content type to store; empty: the default. A form's type is what `curl -d` sends by habit and says nothing.
pub fn content_type(headers: &HeaderMap) -> Result<String> {
    let encoded = headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if encoded {
        let text = "values are stored as they are: send the body without Content-Encoding";
        return Err(Error::new(Reason::MediaTypeUnsupported, text));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(String::new()) };
    let Ok(text) = value.to_str() else {
        return Err(Error::invalid_field("content_type", "a content type is visible ASCII, such as `text/plain`"));
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("multipart/form-data") {
        let text = "a multipart form is no value: send the raw bytes, as curl --data-binary does";
        return Err(Error::new(Reason::MediaTypeUnsupported, text));
    }
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(String::new());
    }
    Ok(text.to_owned())
}
