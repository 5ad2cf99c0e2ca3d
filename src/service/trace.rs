//! The id by which one request can be found in answers, logs and traces, and how it goes on with its caller's trace.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Service;

const KV_TRACE_ID: HeaderName = HeaderName::from_static("kv-trace-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// A request's place in a trace: its caller's, as a valid W3C `traceparent` says, or a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Of the whole trace.
    pub id: u128,
    /// The caller's span; 0: none.
    pub parent_id: u64,
    /// The request's own span; 0: it is not sampled.
    pub span_id: u64,
}

impl Service {
    /// The place of a request with these headers.
    pub fn trace(&self, headers: &HeaderMap) -> Trace {
        let parent = headers.get(TRACEPARENT).and_then(|value| Parent::parse(value.as_bytes()));
        let id = parent.map_or_else(rand::random, |parent| parent.trace_id);
        let sampled = self.inner.traces.samples(id, parent.map(|parent| parent.sampled));
        Trace {
            id,
            parent_id: parent.map_or(0, |parent| parent.span_id),
            span_id: if sampled { rand::random_range(1..=u64::MAX) } else { 0 },
        }
    }
}

impl Trace {
    /// Says the id in an answer's headers or trailers; of a sampled request the span too, as W3C's `traceresponse`.
    pub fn add_to(self, headers: &mut HeaderMap) {
        // Digits always make a header.
        if let Ok(mut id) = HeaderValue::from_bytes(&self.digits()) {
            // No two answers share it: HTTP/2 is not to put it into its table, where it would push out what they do share.
            id.set_sensitive(true);
            headers.insert(KV_TRACE_ID, id);
        }
        if self.is_sampled()
            && let Ok(response) = HeaderValue::try_from(format!("00-{self}-{:016x}-01", self.span_id))
        {
            headers.insert(TRACERESPONSE, response);
        }
    }

    /// Whether its spans are wanted.
    pub fn is_sampled(self) -> bool {
        self.span_id != 0
    }

    /// 32 hexadecimal digits, lower case.
    fn digits(self) -> [u8; 32] {
        std::array::from_fn(|place| b"0123456789abcdef"[(self.id >> (124 - 4 * place)) as usize & 15])
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.id)
    }
}

/// What a caller says of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

impl Parent {
    /// `version-traceid-parentid-flags`: 2, 32, 16 and 2 lower-case digits; a later version may say more behind them.
    fn parse(traceparent: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(traceparent.get(..55)?).ok()?;
        let lower = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let shape = [(version, 2), (trace, 32), (parent, 16), (flags, 2)];
        if version == "ff" || !shape.iter().all(|(part, length)| part.len() == *length && lower(part)) {
            return None;
        }
        let rest_fits = match traceparent.get(55) {
            None => true,
            Some(byte) => version != "00" && *byte == b'-',
        };
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        rest_fits.then_some(Self { trace_id, span_id, sampled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::Limits, metrics::Metrics, traces::Traces};

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn headers(traceparent: &str) -> HeaderMap {
        HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_bytes(traceparent.as_bytes()).unwrap())])
    }

    fn service(traces: Traces) -> Service {
        Service::new(Limits::default(), Metrics::new(false).unwrap(), traces)
    }

    #[test]
    fn a_valid_traceparent_names_the_request_and_any_other_does_not() {
        let service = service(Traces::off());
        let given = service.trace(&headers(&format!("00-{ID}-00f067aa0ba902b7-01")));
        assert_eq!((given.to_string().as_str(), given.parent_id), (ID, 0x00f0_67aa_0ba9_02b7));
        assert_eq!(given.digits(), *ID.as_bytes());
        assert!(!given.is_sampled(), "nothing is traced where no collector is");
        for bad in [
            "",
            "00-0-0-0",
            &format!("ff-{ID}-00f067aa0ba902b7-01"),
            &format!("00-{ID}-0000000000000000-01"),
            &format!("00-{ID}-00f067aa0ba902b7-01-more"),
            &"é".repeat(40),
        ] {
            assert_ne!(service.trace(&headers(bad)).to_string(), ID, "{bad}");
        }
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        assert_ne!(service.trace(&headers(&zero)).id, 0);
        let later = service.trace(&headers(&format!("01-{ID}-00f067aa0ba902b7-01-more")));
        assert_eq!(later.to_string(), ID, "a later version may say more");
    }

    #[test]
    fn a_sampled_request_answers_with_its_span() {
        let traces = Traces::to("http://127.0.0.1:1", 0, Box::new(|_, _| {})).unwrap();
        let service = service(traces);
        let mut answered = HeaderMap::new();
        let sampled = service.trace(&headers(&format!("00-{ID}-00f067aa0ba902b7-01")));
        sampled.add_to(&mut answered);
        assert_eq!(answered["kv-trace-id"], ID);
        assert_eq!(answered["traceresponse"], format!("00-{ID}-{:016x}-01", sampled.span_id));
        let mut answered = HeaderMap::new();
        service.trace(&headers(&format!("00-{ID}-00f067aa0ba902b7-00"))).add_to(&mut answered);
        assert!(answered.get("traceresponse").is_none(), "its caller did not want it sampled");
    }
}
