//! What operations are made of: bytes, numbers, expiries and conditions.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::Error as _};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    api::rest::openapi::shapes,
    error::{Error, Result},
    model::duration_to_pb,
    notation::parse_duration,
    pb,
};

/// Names what a variant of an enum holds, with its schema.
macro_rules! shaped {
    ($($(#[$about:meta])* $name:ident($(#[$read:meta])? $inner:ty): $shape:path;)+) => {$(
        $(#[$about])*
        #[derive(Debug, Deserialize)]
        pub struct $name($(#[$read])? $inner);

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $shape().into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

shaped! {
    /// A signed 64-bit number as text.
    IntegerText(String): shapes::integer_text;
    /// A signed number.
    Signed(#[serde(deserialize_with = "whole")] i64): shapes::signed;
    /// A number that counts.
    Unsigned(#[serde(deserialize_with = "whole")] u64): shapes::unsigned;
    /// A time to live.
    Ttl(String): shapes::ttl;
    /// A time.
    Time(String): shapes::time;
    /// Bytes.
    Base64(String): shapes::base64;
    /// Nothing but true.
    True(bool): shapes::always;
}

/// Floating-point numbers hold every whole number up to this.
const EXACT_MAX: f64 = (1_u64 << 53) as f64;

/// A whole number. JSON does not tell 3 from 3.0, nor does this.
fn whole<'de, D: Deserializer<'de>, T: TryFrom<i128>>(deserializer: D) -> Result<T, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let exact = |float: &f64| float.fract() == 0.0 && float.abs() <= EXACT_MAX;
    let whole = number.as_i128().or_else(|| number.as_f64().filter(exact).map(|float| float as i128));
    let whole = whole.and_then(|whole| T::try_from(whole).ok());
    whole.ok_or_else(|| D::Error::custom("a whole number that fits is expected"))
}

/// A signed 64-bit number: as a string, since JSON's numbers lose the last digits of large ones, or as a number.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a whole number is expected, as a number or as text")]
#[schema(as = Integer)]
pub enum IntegerBody {
    Number(Signed),
    Text(IntegerText),
}

/// When an entry expires.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Expiry)]
pub enum ExpiryBody {
    /// After this time: digits and a unit, `ms`, `s`, `m`, `h` or `d`, from 1 ms to ten years.
    Ttl(Ttl),
    /// At this time, which lies ahead, within ten years.
    ExpireTime(Time),
    /// When it does now.
    Keep(True),
    /// Never.
    Never(True),
}

/// What must hold of an entry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Condition)]
pub enum ConditionBody {
    /// Whether it is there.
    Exists(bool),
    /// Its revision; 0: it is absent.
    Revision(Unsigned),
    /// Its version; 0: it is absent.
    Version(Unsigned),
    /// Its value.
    Value(String),
    /// Its value.
    ValueBase64(Base64),
}

/// Exactly one of a text and its base64.
pub fn bytes_from_json(name: &'static str, text: Option<String>, base64: Option<String>) -> Result<Bytes> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => BASE64_STANDARD
            .decode(base64)
            .map(Bytes::from)
            .map_err(|_| Error::malformed(name, format!("`{name}_base64` is not base64"))),
        _ => Err(Error::invalid_field(name, format!("send exactly one of `{name}` and `{name}_base64`"))),
    }
}

impl IntegerBody {
    /// The number in a field.
    pub fn read(self, name: &'static str) -> Result<i64> {
        match self {
            Self::Number(Signed(number)) => Ok(number),
            Self::Text(IntegerText(text)) => {
                text.parse().map_err(|_| Error::malformed(name, format!("`{name}` is not a whole number that fits")))
            }
        }
    }
}

impl ExpiryBody {
    /// The expiry of the schema.
    pub fn into_pb(self) -> Result<pb::Expiry> {
        use pb::expiry::Kind as Expires;
        let kind = match self {
            Self::Ttl(Ttl(text)) => {
                let ttl = parse_duration(&text).ok_or_else(|| {
                    Error::malformed("expiry.ttl", "`ttl` is digits and a unit, ms, s, m, h or d, such as 60s")
                })?;
                Expires::Ttl(duration_to_pb(ttl))
            }
            Self::ExpireTime(Time(text)) => {
                let time: jiff::Timestamp = text.parse().map_err(|_| {
                    Error::malformed(
                        "expiry.expire_time",
                        "`expire_time` is as RFC 3339 writes it, such as 2030-01-01T00:00:00Z",
                    )
                })?;
                let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
                Expires::ExpireTime(prost_types::Timestamp { seconds, nanos })
            }
            Self::Keep(True(keep)) => Expires::Keep(keep),
            Self::Never(True(never)) => Expires::Never(never),
        };
        Ok(pb::Expiry { kind: Some(kind) })
    }
}

impl ConditionBody {
    /// The condition of the schema.
    pub fn into_pb(self) -> Result<pb::Condition> {
        use pb::condition::Kind as Is;
        let kind = match self {
            Self::Exists(exists) => Is::Exists(exists),
            Self::Revision(Unsigned(revision)) => Is::Revision(revision),
            Self::Version(Unsigned(version)) => Is::Version(version),
            Self::Value(text) => Is::Value(text.into()),
            Self::ValueBase64(Base64(base64)) => Is::Value(bytes_from_json("value", None, Some(base64))?),
        };
        Ok(pb::Condition { kind: Some(kind) })
    }
}

/// The conditions of the schema.
pub fn conditions(conditions: Vec<ConditionBody>) -> Result<Vec<pb::Condition>> {
    conditions.into_iter().map(ConditionBody::into_pb).collect()
}
