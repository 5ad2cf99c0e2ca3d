//! Values of the configuration, read from the text or list that says them; what is wrong is said to people.

use std::time::Duration;

use config::{Value, ValueKind};

use super::MemoryLimit;
use crate::{
    limits::{KEYSPACE_DELIMITERS_MAX, MEMORY_BYTES_MIN, MEMORY_PERCENT_DEFAULT},
    notation::{parse_bytes, parse_duration},
};

/// Where a collector is. It is to be near, so that nothing is encrypted on the way: one beside the server may pass on.
pub fn endpoint_of(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let uri: http::Uri = text.parse().map_err(|_| format!("{text:?} is no URL"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(_)) => Ok(Some(text.to_owned())),
        (Some("https"), _) => Err(format!("{text:?}: TLS is not spoken here; run a collector beside the server")),
        _ => Err(format!("{text:?} is not of the form http://HOST:PORT")),
    }
}

/// Origins: a list, or text with commas.
pub fn origins_of(value: &Value) -> Result<Vec<String>, String> {
    let not_a_list = |_| "neither a list nor text".to_owned();
    let parts = match value.kind {
        ValueKind::Array(_) => {
            let parts = value.clone().into_array().map_err(not_a_list)?;
            parts.into_iter().map(|part| part.into_string().map_err(not_a_list)).collect::<Result<Vec<_>, _>>()?
        }
        _ => value.clone().into_string().map_err(not_a_list)?.split(',').map(str::to_owned).collect(),
    };
    let origins = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    origins
        .map(
            |origin| {
                if is_origin(origin) { Ok(origin.to_owned()) } else { Err(format!("{origin:?} is not an origin")) }
            },
        )
        .collect()
}

/// `*`, or a scheme, a host and perhaps a port, as browsers write them: lower case, nothing behind.
fn is_origin(text: &str) -> bool {
    let written = |host: &str| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]_".contains(&byte);
        !host.is_empty() && host.bytes().all(known)
    };
    let scheme = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_lowercase() || b"+-.".contains(&byte));
    text == "*"
        || text.split_once("://").is_some_and(|(before, host)| !before.is_empty() && scheme(before) && written(host))
}

/// Bytes that end prefixes.
pub fn delimiters_of(text: &str) -> Result<String, String> {
    let fits = text.len() <= KEYSPACE_DELIMITERS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err(format!("{text:?} is too long, or has other characters")) }
}

/// A size.
pub fn bytes_of(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| format!("{text:?} is not a size: units are KiB, MiB and GiB"))
}

/// How much memory the store may use.
pub fn memory_of(text: &str) -> Result<MemoryLimit, String> {
    if text == "auto" {
        return Ok(MemoryLimit::Percent(MEMORY_PERCENT_DEFAULT));
    }
    match text.strip_suffix('%') {
        Some(number) => {
            let percent = number.parse().map_err(|_| format!("{text:?} is no percentage"))?;
            within(percent, 1, 100, text).map(MemoryLimit::Percent)
        }
        None => within(bytes_of(text)?, MEMORY_BYTES_MIN, u64::MAX, text).map(MemoryLimit::Bytes),
    }
}

/// A time.
pub fn duration_of(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a time: it needs a unit, ms, s, m, h or d"))
}

/// The value, if it is in range.
pub fn within<T: PartialOrd>(value: T, least: T, most: T, text: &str) -> Result<T, String> {
    if value < least || value > most { Err(format!("{text:?} is out of range")) } else { Ok(value) }
}
