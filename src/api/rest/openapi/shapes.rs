//! Schemas of single strings, exact: what the document allows the server takes, and what it forbids the server refuses.

use utoipa::{
    Number,
    openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, SchemaFormat, SchemaType, Type},
};

use crate::{
    error::{Outcome, Reason},
    limits::{BATCH_KEYS_MAX, CONTENT_TYPE_BYTES_MAX, TTL_MS_MAX, TTL_MS_MIN},
    notation::TIME_UNITS_MS,
};

/// A time as RFC 3339 writes it.
pub fn time() -> Object {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom("date-time".into()))).build()
}

/// Standard base64, padded.
pub fn base64() -> Object {
    let four = "[A-Za-z0-9+/]{4}";
    // The bits behind the last byte are zero.
    let pattern = format!("^({four})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{{2}}[AEIMQUYcgkosw048]=)?$");
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).content_encoding("base64").build()
}

/// A key in a body; `null` is as good as none.
pub fn key() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null])).min_length(Some(1)).build()
}

/// A key in a body, as base64; `null` is as good as none.
pub fn key_base64() -> Object {
    let mut key = base64();
    key.schema_type = SchemaType::from_iter([Type::String, Type::Null]);
    key.min_length = Some(1);
    key
}

/// Keys in a body; `null` is as good as none.
pub fn keys() -> Array {
    list_of(ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).build())
}

/// Keys in a body, as base64; `null` is as good as none.
pub fn keys_base64() -> Array {
    let mut key = base64();
    key.min_length = Some(1);
    list_of(key)
}

fn list_of(key: Object) -> Array {
    let types = SchemaType::from_iter([Type::Array, Type::Null]);
    ArrayBuilder::new().schema_type(types).items(key).max_items(Some(BATCH_KEYS_MAX)).build()
}

/// A content type that can be stored.
pub fn content_type() -> Object {
    let token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
    let pattern = format!("^$|^{token}/{token}( *;[ -~]*)?$");
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .max_length(Some(CONTENT_TYPE_BYTES_MAX))
        .build()
}

/// True.
pub fn always() -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])).build()
}

/// A whole number between bounds, themselves included.
pub fn whole(minimum: impl Into<Number>, maximum: impl Into<Number>) -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(minimum)).maximum(Some(maximum)).build()
}

/// A signed 64-bit number.
pub fn signed() -> Object {
    whole(i64::MIN, i64::MAX)
}

/// An unsigned 64-bit number.
pub fn unsigned() -> Object {
    whole(0_u64, u64::MAX)
}

/// What can happen to a key.
pub const EVENT_KINDS: [&str; 5] = ["put", "touch", "delete", "expire", "evict"];

/// What happened to a key.
pub fn event_kind() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(EVENT_KINDS)).build()
}

/// Whether a write happened.
pub fn outcome() -> Object {
    let names = [Outcome::NotApplied, Outcome::Unknown].map(Outcome::as_str);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

/// A time to live.
pub fn ttl() -> Object {
    let pattern = duration_pattern(TTL_MS_MIN, TTL_MS_MAX);
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).examples(["60s"]).build()
}

/// Every reason that a refusal can have.
pub fn reason() -> Object {
    let names = (1..).map_while(|number| Reason::try_from(number).ok()).map(Reason::name);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

/// A signed 64-bit number as text, since JSON's numbers lose the last digits of large ones.
pub fn integer_text() -> Object {
    let pattern = format!("^([+-]?0+|[+-]?0*({})|-0*{})$", up_to(i64::MAX as u64), i64::MIN.unsigned_abs());
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

/// Digits and a unit, of times from `minimum_ms`, which is 0 or 1, to `maximum_ms`.
pub fn duration_pattern(minimum_ms: u64, maximum_ms: u64) -> String {
    let fitting = TIME_UNITS_MS.iter().filter(|(unit_ms, _)| *unit_ms <= maximum_ms);
    let units: Vec<_> = fitting.map(|(unit_ms, unit)| format!("({}){unit}", up_to(maximum_ms / unit_ms))).collect();
    let zero = if minimum_ms == 0 { "0+(d|h|m|s|ms)|" } else { "" };
    format!("^({zero}0*({}))$", units.join("|"))
}

/// The numbers from 1 to `largest`, without leading zeros.
fn up_to(largest: u64) -> String {
    let digits: Vec<_> = largest.to_string().bytes().map(|digit| digit - b'0').collect();
    let mut parts = Vec::new();
    if digits.len() > 1 {
        parts.push(format!("[1-9][0-9]{{0,{}}}", digits.len() - 2));
    }
    // As long as the largest, and smaller by the digit at `place`.
    for (place, digit) in digits.iter().enumerate() {
        let lowest = u8::from(place == 0);
        if *digit > lowest {
            let same = &largest.to_string()[..place];
            parts.push(format!("{same}[{lowest}-{}][0-9]{{{}}}", digit - 1, digits.len() - 1 - place));
        }
    }
    parts.push(largest.to_string());
    parts.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notation::parse_duration;

    #[test]
    fn up_to_a_number_means_just_that() {
        for largest in [1, 9, 10, 60, 366, 3_660, 60_000] {
            let pattern = regex::Regex::new(&format!("^({})$", up_to(largest))).unwrap();
            for number in (0..=largest + 200).chain([largest * 10, largest * 11]) {
                let fits = (1..=largest).contains(&number);
                assert_eq!(pattern.is_match(&number.to_string()), fits, "{number} up to {largest}");
            }
        }
    }

    #[test]
    fn the_pattern_of_times_is_what_the_parser_takes() {
        let pattern = regex::Regex::new(&duration_pattern(TTL_MS_MIN, TTL_MS_MAX)).unwrap();
        for unit in ["ms", "s", "m", "h", "d", "", "w", "S"] {
            for number in [
                "0",
                "00",
                "1",
                "007",
                "60",
                "3660",
                "3661",
                "87840",
                "87841",
                "316224000000",
                "316224000001",
                "-1",
                "",
            ] {
                let text = format!("{number}{unit}");
                let taken = parse_duration(&text)
                    .is_some_and(|time| (TTL_MS_MIN..=TTL_MS_MAX).contains(&(time.as_millis() as u64)));
                assert_eq!(pattern.is_match(&text), taken, "{text}");
            }
        }
    }
}
