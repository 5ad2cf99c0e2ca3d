//! An entry as JSON for people: numbers are numbers, bytes are text where they are UTF-8 and base64 where not.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::shapes;
use crate::{
    limits::{JSON_INLINE_BYTES_MAX, REVISION_MAX},
    model::ms_from_timestamp,
    pb,
};

// Every number here is exact in a double.
const _: () = assert!(REVISION_MAX <= 1 << 53);

/// An entry.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Entry, examples(json!({
    "key": "greeting",
    "value": "hello",
    "revision": 2,
    "create_revision": 2,
    "version": 1,
    "update_time": "2030-01-01T00:00:00.000Z",
    "content_type": "text/plain",
})))]
pub struct EntryJson<'entry> {
    /// If it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<&'entry str>,
    /// If it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = shapes::base64)]
    key_base64: Option<String>,
    /// If it is UTF-8; missing where only keys were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    value: Option<&'entry str>,
    /// If it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = shapes::base64)]
    value_base64: Option<String>,
    /// Of the record that last wrote it: its entity tag.
    revision: u64,
    /// Of the record that created it. Like version and content type it is missing from what was removed.
    #[serde(skip_serializing_if = "is_zero")]
    create_revision: u64,
    /// 1 at creation, and one more with each write since.
    #[serde(skip_serializing_if = "is_zero")]
    version: u64,
    /// When it expires; missing if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = shapes::time)]
    expire_time: Option<String>,
    /// When it was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = shapes::time)]
    update_time: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    content_type: &'entry str,
}

// serde calls it with a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Either as text or as base64.
pub fn text_or_base64(bytes: &[u8], force_base64: bool) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !force_base64 => (Some(text), None),
        _ => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

impl<'entry> EntryJson<'entry> {
    /// The JSON of an entry, with its value or without; `force_base64` for keys and values that are text as well.
    pub fn new(entry: &'entry pb::Entry, with_value: bool, force_base64: bool) -> Self {
        let (key, key_base64) = text_or_base64(&entry.key, force_base64);
        let (value, value_base64) = match with_value {
            true => text_or_base64(&entry.value, force_base64),
            false => (None, None),
        };
        Self {
            key,
            key_base64,
            value,
            value_base64,
            revision: entry.revision,
            create_revision: entry.create_revision,
            version: entry.version,
            expire_time: entry.expire_time.as_ref().and_then(time),
            update_time: entry.update_time.as_ref().and_then(time),
            content_type: &entry.content_type,
        }
    }
}

/// The JSON of an entry.
pub fn entry(entry: &pb::Entry, force_base64: bool) -> Vec<u8> {
    // Strings and numbers always serialise.
    serde_json::to_vec(&EntryJson::new(entry, true, force_base64)).unwrap_or_default()
}

/// Writes an answer of the schema as JSON; a large one elsewhere than on this core, which others wait for.
pub async fn written<A, W>(answer: A, write: W) -> Bytes
where
    A: prost::Message + 'static,
    W: FnOnce(&A) -> Bytes + Send + 'static,
{
    if answer.encoded_len() <= JSON_INLINE_BYTES_MAX {
        return write(&answer);
    }
    match tokio::task::spawn_blocking(move || write(&answer)).await {
        Ok(json) => json,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends, and nobody reads on.
            Err(_) => Bytes::new(),
        },
    }
}

/// RFC 3339 in UTC with milliseconds.
pub fn time(timestamp: &prost_types::Timestamp) -> Option<String> {
    let time_ms = i64::try_from(ms_from_timestamp(timestamp)?).ok()?;
    Some(format!("{:.3}", jiff::Timestamp::from_millisecond(time_ms).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        let timestamp = crate::model::timestamp_from_ms(1_893_456_000_120);
        assert_eq!(time(&timestamp).unwrap(), "2030-01-01T00:00:00.120Z");
    }

    proptest! {
        #[test]
        fn any_entry_reads_back(key: Vec<u8>, value: Vec<u8>, force: bool, revision in 0..REVISION_MAX) {
            let original = pb::Entry { key: key.clone().into(), value: value.clone().into(), revision, ..Default::default() };
            let json: serde_json::Value = serde_json::from_slice(&entry(&original, force)).unwrap();
            let bytes = |name: &str| match json.get(name) {
                Some(text) => text.as_str().unwrap().as_bytes().to_vec(),
                None => BASE64_STANDARD.decode(json[format!("{name}_base64")].as_str().unwrap()).unwrap(),
            };
            prop_assert_eq!(bytes("key"), key);
            prop_assert_eq!(bytes("value"), value);
            prop_assert_eq!(json["revision"].as_u64(), Some(revision));
        }
    }
}
