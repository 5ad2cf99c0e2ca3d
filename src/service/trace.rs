//! The id by which one request can be found in answers and logs.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

const KV_TRACE_ID: HeaderName = HeaderName::from_static("kv-trace-id");

/// 128 bits: the trace id of a valid W3C `traceparent`, or random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceId {
    /// The id of a request with this `traceparent`.
    pub fn of(traceparent: Option<&[u8]>) -> Self {
        Self(traceparent.and_then(parse).unwrap_or_else(rand::random))
    }

    /// Says the id in an answer's headers or trailers.
    pub fn add_to(self, headers: &mut HeaderMap) {
        // Digits always make a header.
        if let Ok(id) = HeaderValue::from_bytes(&self.digits()) {
            headers.insert(KV_TRACE_ID, id);
        }
    }

    /// 32 hexadecimal digits, lower case.
    fn digits(self) -> [u8; 32] {
        std::array::from_fn(|place| b"0123456789abcdef"[(self.0 >> (124 - 4 * place)) as usize & 15])
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// `version-traceid-parentid-flags`: 2, 32, 16 and 2 lower-case digits.
fn parse(traceparent: &[u8]) -> Option<u128> {
    let text = std::str::from_utf8(traceparent.get(..55)?).ok()?;
    let lower = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let shape = [(version, 2), (trace, 32), (parent, 16), (flags, 2)];
    if version == "ff" || !shape.iter().all(|(part, length)| part.len() == *length && lower(part)) {
        return None;
    }
    u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_traceparent_names_the_request_and_any_other_does_not() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let given = TraceId::of(Some(format!("00-{id}-00f067aa0ba902b7-01").as_bytes()));
        assert_eq!(given.to_string(), id);
        assert_eq!(given.digits(), *id.as_bytes());
        for bad in ["", "00-0-0-0", &format!("ff-{id}-00f067aa0ba902b7-01"), &"é".repeat(40)] {
            assert_ne!(TraceId::of(Some(bad.as_bytes())).to_string(), id);
        }
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        assert_ne!(TraceId::of(Some(zero.as_bytes())), TraceId(0));
    }
}
