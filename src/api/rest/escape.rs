//! Percent-decoding to bytes, and keys as paths name them.

use std::borrow::Cow;

use bytes::Bytes;

use crate::error::{Error, Reason, Result};

/// Decodes once; `+` is plus. `None` for an escape that is not `%` and two hexadecimal digits.
pub fn decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.contains(&b'%') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        if *first != b'%' {
            decoded.push(*first);
            rest = after;
            continue;
        }
        let [high, low, after @ ..] = after else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        decoded.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = after;
    }
    Some(Cow::Owned(decoded))
}

/// The key that a path names behind its route: the raw bytes, decoded once, never normalised.
pub fn key_of(raw: &str) -> Result<Bytes> {
    let key = decode(raw.as_bytes()).ok_or_else(|| {
        Error::malformed(
            "key",
            "a % in the path is not followed by two hexadecimal digits: write a percent sign as %25",
        )
    })?;
    if key.is_empty() {
        return Err(Error::new(Reason::KeyEmpty, "the key is empty: a key has at least one byte")
            .with(|details| details.field = Some("key".into())));
    }
    if key.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..") {
        return Err(Error::invalid_field(
            "key",
            "a key with a segment `.` or `..` cannot be named by a path, since clients and proxies rewrite those: read it by \
             POST /v1/kv:batchGet, write it by POST /v1/kv:batchWrite",
        ));
    }
    Ok(Bytes::copy_from_slice(&key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_the_raw_bytes_decoded_once() {
        let key = |raw| key_of(raw).map(|key| key.to_vec());
        assert_eq!(key("a%2Fb").unwrap(), b"a/b");
        assert_eq!(key("a+b").unwrap(), b"a+b");
        assert_eq!(key("a%252Fb").unwrap(), b"a%2Fb");
        assert_eq!(key("//a//").unwrap(), b"//a//");
        assert_eq!(key("%FF%00").unwrap(), [255, 0]);
        assert_eq!(key(":txn").unwrap(), b":txn");
        assert_eq!(key("...").unwrap(), b"...");
        for bad in ["%", "%2", "%zz", "a%"] {
            assert_eq!(key(bad).unwrap_err().reason, Reason::Malformed, "{bad}");
        }
        for dots in [".", "..", "a/../b", "a/.", "%2E%2e/x", "a%2F..%2Fb"] {
            assert_eq!(key(dots).unwrap_err().reason, Reason::InvalidField, "{dots}");
        }
        assert_eq!(key("").unwrap_err().reason, Reason::KeyEmpty);
    }

    proptest! {
        #[test]
        fn what_is_escaped_decodes_to_itself(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let escaped: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(decode(escaped.as_bytes()).unwrap().into_owned(), bytes);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            decode(&bytes);
        }
    }
}
