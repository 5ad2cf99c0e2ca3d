//! Words of the command line: keys and values as bytes, times, and what stands on standard input.

use std::{ffi::OsString, fs, io, io::Read as _, os::unix::ffi::OsStringExt as _, path::Path, time::Duration};

use bytes::Bytes;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::failure::{Failure, Result};
use crate::{limits::CLIENT_INPUT_BYTES_MAX, notation::parse_duration};

/// Keys and values are bytes, as the operating system hands them over: they need not be UTF-8.
pub fn bytes() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().map(|text: OsString| Bytes::from(text.into_vec()))
}

/// Digits and a unit, such as 60s.
pub fn time_span(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write digits and a unit, ms, s, m, h or d, such as 60s".to_owned())
}

/// A time as RFC 3339 writes it.
pub fn time(text: &str) -> Result<prost_types::Timestamp, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| "write it as RFC 3339 does, such as 2030-01-01T00:00:00Z".to_owned())?;
    Ok(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
}

/// The value as given, or what stands on standard input for `-`.
pub fn value_or_stdin(value: Bytes) -> Result<Bytes> {
    if value == "-"[..] { read(io::stdin().lock(), "standard input") } else { Ok(value) }
}

/// What a file holds, or standard input for `-`.
pub fn file_or_stdin(path: &Path) -> Result<Bytes> {
    if path == Path::new("-") {
        return read(io::stdin().lock(), "standard input");
    }
    let file = fs::File::open(path).map_err(|error| unreadable(&path.display().to_string(), &error))?;
    read(file, &path.display().to_string())
}

fn read(from: impl io::Read, name: &str) -> Result<Bytes> {
    let mut all = Vec::new();
    from.take(CLIENT_INPUT_BYTES_MAX as u64 + 1).read_to_end(&mut all).map_err(|error| unreadable(name, &error))?;
    if all.len() > CLIENT_INPUT_BYTES_MAX {
        return Err(Failure::refused(format!(
            "REQUEST_TOO_LARGE: {name} has more than the {CLIENT_INPUT_BYTES_MAX} bytes that any server takes at once: \
             split it over several keys"
        )));
    }
    Ok(all.into())
}

/// An input that cannot be read.
pub fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::refused(format!("INPUT: {name} cannot be read: {error}"))
}
