//! What a request must be before it is carried out: shape and limits, the same for both doors.

use crate::{
    error::{Error, Reason, Result},
    limits::{CONDITIONS_MAX, CONTENT_TYPE_BYTES_MAX, Limits, REQUEST_ID_BYTES_MAX},
    model::{Conditions, Expiry},
    pb,
};

/// A key within the limit.
pub fn key(key: &[u8], limits: &Limits) -> Result<()> {
    if key.is_empty() {
        return Err(Error::new(Reason::KeyEmpty, "the key is empty: a key has at least one byte")
            .with(|details| details.field = Some("key".into())));
    }
    if key.len() > limits.key_bytes {
        let text = format!("the key has {} bytes, the limit is {}: choose a shorter key", key.len(), limits.key_bytes);
        return Err(over(Reason::KeyTooLong, "key", limits.key_bytes, text));
    }
    Ok(())
}

/// A value within the limit.
pub fn value(bytes: usize, limits: &Limits) -> Result<()> {
    if bytes > limits.value_bytes {
        let text = format!(
            "the value has {bytes} bytes, the limit is {}: split it over several keys, or raise limits.value_bytes",
            limits.value_bytes
        );
        return Err(over(Reason::ValueTooLarge, "value", limits.value_bytes, text));
    }
    Ok(())
}

/// A content type that an HTTP header can carry: a media type, perhaps with parameters.
pub fn content_type(content_type: &str) -> Result<()> {
    if content_type.len() > CONTENT_TYPE_BYTES_MAX {
        let text = format!("the content type has {} bytes, the limit is {CONTENT_TYPE_BYTES_MAX}", content_type.len());
        return Err(over(Reason::InvalidField, "content_type", CONTENT_TYPE_BYTES_MAX, text));
    }
    if !content_type.is_empty() && !is_media_type(content_type) {
        return Err(Error::invalid_field("content_type", "a content type is a media type, such as `text/plain`"));
    }
    Ok(())
}

/// Bytes that a name in a header may have, as a table: each write's content type is looked at.
const IS_TOKEN: [bool; 256] = {
    let mut is_token = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        is_token[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others: &[u8] = b"!#$%&'*+-.^_`|~";
    while let [first, rest @ ..] = others {
        is_token[*first as usize] = true;
        others = rest;
    }
    is_token
};

/// `type/subtype`, and perhaps parameters behind a semicolon, which are visible ASCII and not looked at.
fn is_media_type(text: &str) -> bool {
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let token = |text: &str| !text.is_empty() && text.bytes().all(|byte| IS_TOKEN[usize::from(byte)]);
    let names = essence.trim_end_matches(' ').split_once('/');
    names.is_some_and(|(kind, subtype)| token(kind) && token(subtype))
        && parameters.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Conditions that could hold together.
pub fn conditions(conditions: &[pb::Condition], limits: &Limits) -> Result<()> {
    if conditions.is_empty() {
        return Ok(());
    }
    if conditions.len() > CONDITIONS_MAX {
        let text = format!("{} conditions, the limit is {CONDITIONS_MAX}: one of each kind", conditions.len());
        return Err(over(Reason::InvalidField, "conditions", CONDITIONS_MAX, text));
    }
    let checked = Conditions::from_pb(conditions)?;
    value(checked.value.map_or(0, |value| value.len()), limits)
}

/// An expiry within its bounds; a time of expiry lies ahead of now, which is asked for only where there is one.
pub fn expiry(expiry: Option<&pb::Expiry>, now_ms: impl FnOnce() -> u64) -> Result<Option<Expiry>> {
    let checked = Expiry::from_pb(expiry)?;
    let Some(Expiry::AtMs(deadline_ms)) = checked else { return Ok(checked) };
    match deadline_ms.checked_sub(now_ms()) {
        None | Some(0) => Err(Error::invalid_field(
            "expiry.expire_time",
            "the time of expiry has passed: send one that lies ahead, or delete the key",
        )),
        Some(ahead_ms) if ahead_ms > crate::limits::TTL_MS_MAX => {
            Err(Error::invalid_field("expiry.expire_time", "the time of expiry lies more than 10 years ahead"))
        }
        Some(_) => Ok(checked),
    }
}

/// Options that mean something.
pub fn options(options: &pb::WriteOptions) -> Result<()> {
    if pb::Durability::try_from(options.durability).is_err() {
        return Err(Error::invalid_field("options.durability", "no such durability: ask for WRITTEN or FSYNCED"));
    }
    let id = &options.request_id;
    if id.len() > REQUEST_ID_BYTES_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid_field(
            "options.request_id",
            "a request id has 1 to 128 visible ASCII characters, without spaces",
        )
        .with(|details| details.limit = Some(REQUEST_ID_BYTES_MAX as u64)));
    }
    Ok(())
}

/// A whole request within the limit.
pub fn request(bytes: usize, limits: &Limits) -> Result<()> {
    if bytes > limits.request_bytes {
        let text = format!("the request has {bytes} bytes, the limit is {}: send less at once", limits.request_bytes);
        return Err(over(Reason::RequestTooLarge, "", limits.request_bytes, text));
    }
    Ok(())
}

fn over(reason: Reason, field: &'static str, limit: usize, text: String) -> Error {
    Error::new(reason, text).with(|details| {
        details.limit = Some(limit as u64);
        details.field = (!field.is_empty()).then(|| field.into());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_visible_ascii_of_bounded_length() {
        let with = |request_id: &str| pb::WriteOptions { request_id: request_id.into(), ..Default::default() };
        for good in ["", "a", "0f-{}!", &"x".repeat(128)] {
            assert!(options(&with(good)).is_ok(), "{good:?}");
        }
        for bad in [" ", "a b", "é", "a\n", &"x".repeat(129)] {
            assert_eq!(options(&with(bad)).unwrap_err().reason, Reason::InvalidField, "{bad:?}");
        }
    }

    #[test]
    fn a_content_type_is_a_media_type() {
        for good in ["", "text/plain", "text/plain; charset=utf-8", "application/vnd.a+json ;q=\"x\"", "*/*"] {
            assert!(content_type(good).is_ok(), "{good:?}");
        }
        for bad in ["text", "/", "text/", "a/b/c", " text/plain", "te xt/plain", "text/plain; é", "text/plain\n", ";"]
        {
            assert_eq!(content_type(bad).unwrap_err().reason, Reason::InvalidField, "{bad:?}");
        }
    }

    #[test]
    fn a_time_of_expiry_lies_ahead_and_within_ten_years() {
        let at = |time_ms| {
            let time = crate::model::timestamp_from_ms(time_ms);
            expiry(Some(&pb::Expiry { kind: Some(pb::expiry::Kind::ExpireTime(time)) }), || 1_000)
        };
        assert!(at(1_000).is_err());
        assert_eq!(at(1_001).unwrap(), Some(Expiry::AtMs(1_001)));
        assert!(at(1_001 + crate::limits::TTL_MS_MAX).is_err());
    }
}
