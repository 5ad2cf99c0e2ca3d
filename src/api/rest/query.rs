//! Query parameters: parsed to bytes, typed, and none that is unknown or repeated: `?tll=60s` must not store for ever.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;

use super::{escape::decode, parameters::Known};
use crate::{
    error::{Error, Result},
    notation, pb,
};

/// The parameters of a request, each known to its route and there once at most.
#[derive(Debug)]
pub struct Query<'uri>(Vec<(&'static str, Option<Cow<'uri, [u8]>>)>);

impl<'uri> Query<'uri> {
    /// Parses a query. `known` are the route's parameters.
    pub fn parse(query: Option<&'uri str>, known: Known) -> Result<Self> {
        let mut found: Vec<(&'static str, Option<Cow<'uri, [u8]>>)> = Vec::new();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (part, None),
            };
            let decoded = decode(name.as_bytes()).ok_or_else(|| bad_escape("query"))?;
            let names = known.iter().map(|parameter| parameter.name);
            let Some(name) = names.clone().find(|name| name.as_bytes() == &*decoded) else {
                let shown: String = String::from_utf8_lossy(&decoded).chars().take(40).collect();
                let text = format!("no parameter {shown:?} here; there are: {}", Vec::from_iter(names).join(", "));
                return Err(Error::invalid_field(shown, text));
            };
            if found.iter().any(|(other, _)| *other == name) {
                return Err(Error::invalid_field(name, format!("the parameter `{name}` is there twice: send it once")));
            }
            let value = match value {
                Some(value) => Some(decode(value.as_bytes()).ok_or_else(|| bad_escape(name))?),
                None => None,
            };
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// The parameter's text.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>> {
        match self.0.iter().find(|(found, _)| *found == name) {
            None => Ok(None),
            Some((_, Some(value))) => match std::str::from_utf8(value) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(Error::malformed(name, format!("`{name}` is not text"))),
            },
            Some((_, None)) => Err(Error::malformed(name, format!("`{name}` needs a value: {name}=…"))),
        }
    }

    /// The parameter's bytes.
    pub fn bytes(&self, name: &'static str) -> Result<Option<Bytes>> {
        match self.0.iter().find(|(found, _)| *found == name) {
            None => Ok(None),
            Some((_, Some(value))) => Ok(Some(Bytes::copy_from_slice(value))),
            Some((_, None)) => Err(Error::malformed(name, format!("`{name}` needs a value: {name}=…"))),
        }
    }

    /// `prefix` | `start` and `end` | `key` | `all`: exactly one of them.
    pub fn range(&self) -> Result<pb::KeyRange> {
        use pb::key_range::Kind;
        let (start, end) = (self.bytes("start")?, self.bytes("end")?);
        let span = (start.is_some() || end.is_some())
            .then(|| pb::Span { start: start.unwrap_or_default(), end: end.unwrap_or_default() });
        let kinds = [
            self.bytes("prefix")?.map(Kind::Prefix),
            span.map(Kind::Span),
            self.bytes("key")?.map(Kind::Key),
            self.flag("all")?.then_some(Kind::All(true)),
        ];
        let mut kinds = kinds.into_iter().flatten();
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Ok(pb::KeyRange { kind: Some(kind) }),
            _ => Err(Error::invalid_field("range", "send one of prefix, start and end, key, or all")),
        }
    }

    /// A switch: bare or `true` is on, `false` is off.
    pub fn flag(&self, name: &'static str) -> Result<bool> {
        match self.0.iter().find(|(found, _)| *found == name) {
            None => Ok(false),
            Some((_, None)) => Ok(true),
            Some((_, Some(value))) => match &**value {
                b"true" => Ok(true),
                b"false" => Ok(false),
                _ => Err(Error::malformed(name, format!("`{name}` is true or false"))),
            },
        }
    }

    /// A whole number.
    pub fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        // Rust would take a leading plus.
        let number = if text.starts_with('+') { None } else { text.parse().ok() };
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(Error::malformed(name, format!("`{name}` is not a whole number that fits"))),
        }
    }

    /// A time with a unit.
    pub fn duration(&self, name: &'static str) -> Result<Option<Duration>> {
        match self.text(name)? {
            Some(text) => parse_duration(name, text).map(Some),
            None => Ok(None),
        }
    }

    /// `ttl`, `expire_time`, `keep_ttl`: one of them at most.
    pub fn expiry(&self) -> Result<Option<pb::Expiry>> {
        use pb::expiry::Kind;
        let mut kinds = Vec::new();
        if let Some(text) = self.text("ttl")? {
            kinds.push(match text {
                "never" => Kind::Never(true),
                text => Kind::Ttl(crate::model::duration_to_pb(parse_duration("ttl", text)?)),
            });
        }
        if let Some(text) = self.text("expire_time")? {
            kinds.push(Kind::ExpireTime(parse_time("expire_time", text)?));
        }
        if self.flag("keep_ttl")? {
            kinds.push(Kind::Keep(true));
        }
        match kinds.len() {
            0 => Ok(None),
            1 => Ok(kinds.pop().map(|kind| pb::Expiry { kind: Some(kind) })),
            _ => Err(Error::invalid_field("ttl", "`ttl`, `expire_time` and `keep_ttl` exclude each other: send one")),
        }
    }

    /// `durability`.
    pub fn durability(&self) -> Result<pb::Durability> {
        match self.text("durability")? {
            None => Ok(pb::Durability::Unspecified),
            Some("written") => Ok(pb::Durability::Written),
            Some("fsynced") => Ok(pb::Durability::Fsynced),
            Some(_) => Err(Error::invalid_field("durability", "`durability` is written or fsynced")),
        }
    }
}

fn bad_escape(name: &str) -> Error {
    let text = "a % in the query is not followed by two hexadecimal digits: write a percent sign as %25";
    Error::malformed(name.to_owned(), text)
}

/// Digits and a unit: `1500ms`, `60s`, `5m`, `2h`, `7d`.
fn parse_duration(name: &'static str, text: &str) -> Result<Duration> {
    notation::parse_duration(text).ok_or_else(|| {
        Error::malformed(
            name,
            format!("`{name}` is not a time: digits and a unit, ms, s, m, h or d, such as {name}=60s"),
        )
    })
}

/// RFC 3339.
fn parse_time(name: &'static str, text: &str) -> Result<prost_types::Timestamp> {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }),
        Err(_) => {
            let text = format!("`{name}` is not a time as RFC 3339 writes it, such as {name}=2030-01-01T00:00:00Z");
            Err(Error::malformed(name, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::parameters::{IncrementQuery, PutQuery},
        *,
    };
    use crate::error::Reason;

    fn parse(query: &str) -> Result<Query<'_>> {
        Query::parse(Some(query), PutQuery::KNOWN)
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        for query in ["tll=60s", "TTL=60s", "ttl=1s&ttl=1s", "ttl=1s&t%74l=2s", "ttl=1s&x"] {
            assert_eq!(parse(query).unwrap_err().reason, Reason::InvalidField, "{query}");
        }
        assert!(parse("").is_ok() && parse("&&").is_ok());
    }

    #[test]
    fn times_need_a_unit() {
        let ttl = |text: &str| parse(text)?.duration("ttl");
        assert_eq!(ttl("ttl=1500ms").unwrap(), Some(Duration::from_millis(1_500)));
        assert_eq!(ttl("ttl=2d").unwrap(), Some(Duration::from_secs(172_800)));
        for bad in
            ["ttl=60", "ttl=", "ttl", "ttl=s", "ttl=-1s", "ttl=1.5s", "ttl=1 s", "ttl=99999999999999999999s", "ttl=%zz"]
        {
            assert_eq!(ttl(bad).unwrap_err().reason, Reason::Malformed, "{bad}");
        }
    }

    #[test]
    fn expiries_exclude_each_other() {
        assert!(parse("ttl=never").unwrap().expiry().unwrap().is_some());
        assert!(parse("keep_ttl").unwrap().expiry().unwrap().is_some());
        assert!(parse("keep_ttl=false").unwrap().expiry().unwrap().is_none());
        assert!(parse("expire_time=2030-01-01T00:00:00+00:00").unwrap().expiry().unwrap().is_some());
        assert_eq!(parse("ttl=1s&keep_ttl").unwrap().expiry().unwrap_err().reason, Reason::InvalidField);
        assert_eq!(parse("expire_time=tomorrow").unwrap().expiry().unwrap_err().reason, Reason::Malformed);
    }

    proptest! {
        #[test]
        fn any_query_is_parsed_or_refused(query in "[ -~]{0,60}") {
            if let Ok(query) = parse(&query) {
                let _ = (query.expiry(), query.durability(), query.flag("validate_only"), query.number::<i64>("by"));
            }
        }

        #[test]
        fn numbers_read_back(by: i64) {
            let text = format!("by={by}");
            let query = Query::parse(Some(&text), IncrementQuery::KNOWN).unwrap();
            prop_assert_eq!(query.number::<i64>("by").unwrap(), Some(by));
        }
    }
}
