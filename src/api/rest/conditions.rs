//! Entity tags: `ETag: "revision"`, and the conditions that requests make of them.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{IF_MATCH, IF_NONE_MATCH},
};

use crate::{
    error::{Error, Result},
    pb::{Condition, condition::Kind},
};

/// What an `If-Match` or `If-None-Match` lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: any entry.
    Any,
    /// These revisions. A tag that was never given out stands for a revision that no entry has.
    Revisions(Vec<u64>),
}

impl Tags {
    /// Whether an entry of this revision is among them.
    pub fn match_revision(&self, revision: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Revisions(revisions) => revisions.contains(&revision),
        }
    }
}

/// The tags of a header. Weak ones count as strong ones: proxies weaken tags that they pass on.
pub fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>> {
    let mut found = None;
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| malformed(name))?;
        for tag in text.split(',').map(str::trim) {
            match (&mut found, tag) {
                (None, "*") => found = Some(Tags::Any),
                (Some(Tags::Any), _) | (Some(_), "*") => return Err(malformed(name)),
                (Some(Tags::Revisions(revisions)), tag) => revisions.push(revision_of(tag, name)?),
                (None, tag) => found = Some(Tags::Revisions(vec![revision_of(tag, name)?])),
            }
        }
    }
    Ok(found)
}

fn revision_of(tag: &str, name: &HeaderName) -> Result<u64> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or_else(|| malformed(name))?;
    if inner.contains('"') {
        return Err(malformed(name));
    }
    let plain = inner.bytes().all(|byte| byte.is_ascii_digit()) && !inner.starts_with('0');
    Ok(inner.parse().ok().filter(|_| plain).unwrap_or(u64::MAX))
}

fn malformed(name: &HeaderName) -> Error {
    Error::malformed(name.as_str().to_owned(), format!("{name} holds \"REVISION\", in quotes, or *"))
}

/// The conditions that a write's headers and `if_version` make.
pub fn of_write(headers: &HeaderMap, if_version: Option<u64>) -> Result<Vec<Condition>> {
    let mut conditions = Vec::new();
    match tags(headers, &IF_MATCH)? {
        None => {}
        Some(Tags::Any) => conditions.push(Kind::Exists(true)),
        Some(Tags::Revisions(revisions)) => match revisions.as_slice() {
            [revision] => conditions.push(Kind::Revision(*revision)),
            _ => return Err(Error::invalid_field("if-match", "a write takes one tag: lists of them are for GET")),
        },
    }
    match tags(headers, &IF_NONE_MATCH)? {
        None => {}
        Some(Tags::Any) => conditions.push(Kind::Exists(false)),
        Some(Tags::Revisions(_)) => {
            let text = "a write takes `If-None-Match: *` alone: the key must be absent; for one state use If-Match";
            return Err(Error::invalid_field("if-none-match", text));
        }
    }
    conditions.extend(if_version.map(Kind::Version));
    Ok(conditions.into_iter().map(|kind| Condition { kind: Some(kind) }).collect())
}

/// Refuses conditions where they would be silently ignored: what they guard would happen all the same.
pub fn expect_none(headers: &HeaderMap) -> Result<()> {
    match [IF_MATCH, IF_NONE_MATCH].into_iter().find(|name| headers.contains_key(name)) {
        None => Ok(()),
        Some(name) => {
            let text = format!(
                "`{name}` is about one key: with many, each write of a batch or transaction has its own conditions"
            );
            Err(Error::invalid_field(name.as_str().to_owned(), text))
        }
    }
}

/// The strong tag of a revision.
pub fn strong_tag(revision: u64) -> Option<HeaderValue> {
    tag(b"\"", revision)
}

/// The tag of another representation of the same revision.
pub fn weak_tag(revision: u64) -> Option<HeaderValue> {
    tag(b"W/\"", revision)
}

fn tag(begin: &[u8], revision: u64) -> Option<HeaderValue> {
    // As a header writes numbers, which takes a third of what formatting does.
    let digits = HeaderValue::from(revision);
    HeaderValue::try_from([begin, digits.as_bytes(), b"\""].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    fn headers(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn tags_are_read_as_http_writes_them() {
        let read = |text: &str| tags(&headers(&[(&IF_NONE_MATCH, text)]), &IF_NONE_MATCH);
        assert_eq!(read("*").unwrap(), Some(Tags::Any));
        assert_eq!(read("\"7\", W/\"9\"").unwrap(), Some(Tags::Revisions(vec![7, 9])));
        assert_eq!(read("\"abc\"").unwrap(), Some(Tags::Revisions(vec![u64::MAX])));
        assert_eq!(read("\"007\"").unwrap(), Some(Tags::Revisions(vec![u64::MAX])));
        for bad in ["7", "\"7", "", "*, \"7\"", "\"7\", *", "\"7\" \"8\""] {
            assert_eq!(read(bad).unwrap_err().reason, Reason::Malformed, "{bad}");
        }
    }

    #[test]
    fn a_write_takes_one_tag() {
        let read = |pairs: &[(&HeaderName, &str)]| of_write(&headers(pairs), None);
        assert_eq!(read(&[(&IF_MATCH, "W/\"7\"")]).unwrap(), [Condition { kind: Some(Kind::Revision(7)) }]);
        assert_eq!(read(&[(&IF_MATCH, "\"7\", \"8\"")]).unwrap_err().reason, Reason::InvalidField);
        assert_eq!(read(&[(&IF_NONE_MATCH, "\"7\"")]).unwrap_err().reason, Reason::InvalidField);
    }
}
