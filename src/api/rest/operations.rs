//! The operations of batches and transactions as JSON: the schema's field names, written for people.

use std::{fmt, marker::PhantomData};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{collection::ReadJson, json::EntryJson, openapi::shapes};
use crate::{
    error::{Error, Result},
    model::duration_to_pb,
    notation::parse_duration,
    pb::{self, op_result::Kind, txn_op, write_op},
};

/// A struct from a JSON object alone: serde takes arrays of its fields as well, in their order.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Fields<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(fields))
        }
    }

    deserializer.deserialize_map(Fields(PhantomData))
}

/// The same, of many.
pub fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Object<T>(T);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            object(deserializer).map(Self)
        }
    }

    Ok(Vec::<Object<T>>::deserialize(deserializer)?.into_iter().map(|object| object.0).collect())
}

/// One write.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Write)]
pub enum WriteBody {
    #[serde(deserialize_with = "object")]
    Put(PutBody),
    #[serde(deserialize_with = "object")]
    Delete(DeleteBody),
    #[serde(deserialize_with = "object")]
    Increment(IncrementBody),
    #[serde(deserialize_with = "object")]
    Touch(TouchBody),
}

/// One operation of a transaction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Operation)]
pub enum OperationBody {
    #[serde(deserialize_with = "object")]
    Put(PutBody),
    #[serde(deserialize_with = "object")]
    Delete(DeleteBody),
    #[serde(deserialize_with = "object")]
    Increment(IncrementBody),
    #[serde(deserialize_with = "object")]
    Touch(TouchBody),
    #[serde(deserialize_with = "object")]
    Get(GetBody),
}

/// Writes a value.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Put)]
pub struct PutBody {
    #[schema(schema_with = shapes::key)]
    key: Option<String>,
    #[schema(schema_with = shapes::key_base64)]
    key_base64: Option<String>,
    value: Option<String>,
    #[schema(schema_with = shapes::base64)]
    value_base64: Option<String>,
    /// Without it, the entry stays.
    expiry: Option<ExpiryBody>,
    /// Without it, `application/octet-stream`.
    #[serde(default)]
    #[schema(schema_with = shapes::content_type)]
    content_type: String,
    /// One of each kind at most.
    #[serde(default)]
    #[schema(max_items = 4)]
    conditions: Vec<ConditionBody>,
    /// Answers with the entry that was there.
    #[serde(default)]
    return_previous: bool,
}

/// Removes a key. Its absence is an error.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Delete)]
pub struct DeleteBody {
    #[schema(schema_with = shapes::key)]
    key: Option<String>,
    #[schema(schema_with = shapes::key_base64)]
    key_base64: Option<String>,
    /// One of each kind at most.
    #[serde(default)]
    #[schema(max_items = 4)]
    conditions: Vec<ConditionBody>,
    /// Answers with the entry that was there.
    #[serde(default)]
    return_previous: bool,
}

/// Adds to a counter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Increment)]
pub struct IncrementBody {
    #[schema(schema_with = shapes::key)]
    key: Option<String>,
    #[schema(schema_with = shapes::key_base64)]
    key_base64: Option<String>,
    /// What is added; 1 without it.
    by: Option<IntegerBody>,
    /// What an absent counter starts from; 0 without it.
    initial: Option<IntegerBody>,
    /// Applies only where this creates the key.
    expiry: Option<ExpiryBody>,
    /// One of each kind at most.
    #[serde(default)]
    #[schema(max_items = 4)]
    conditions: Vec<ConditionBody>,
    /// Answers with the entry that was there.
    #[serde(default)]
    return_previous: bool,
}

/// Changes when a key expires, and nothing else. Its absence is an error.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Touch)]
pub struct TouchBody {
    #[schema(schema_with = shapes::key)]
    key: Option<String>,
    #[schema(schema_with = shapes::key_base64)]
    key_base64: Option<String>,
    expiry: ExpiryBody,
    /// One of each kind at most.
    #[serde(default)]
    #[schema(max_items = 4)]
    conditions: Vec<ConditionBody>,
    /// Answers with the entry that was there.
    #[serde(default)]
    return_previous: bool,
}

/// Reads a key, as it is before the transaction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Get)]
pub struct GetBody {
    #[schema(schema_with = shapes::key)]
    key: Option<String>,
    #[schema(schema_with = shapes::key_base64)]
    key_base64: Option<String>,
    /// Leaves the value out.
    #[serde(default)]
    metadata_only: bool,
}

/// What must hold of a key, so that `then` happens.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Guard)]
pub struct GuardBody {
    #[schema(schema_with = shapes::key)]
    key: Option<String>,
    #[schema(schema_with = shapes::key_base64)]
    key_base64: Option<String>,
    /// One of each kind at most.
    #[serde(default)]
    #[schema(required = true, min_items = 1, max_items = 4)]
    conditions: Vec<ConditionBody>,
}

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

/// What became of one operation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = OperationResult)]
pub enum ResultJson<'answer> {
    Put(PutJson<'answer>),
    Delete(DeleteJson<'answer>),
    Increment(IncrementJson<'answer>),
    Touch(TouchJson<'answer>),
    Get(ReadJson<'answer>),
    Error(ErrorJson<'answer>),
}

/// What a put did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PutResult)]
pub struct PutJson<'answer> {
    created: bool,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    previous: Option<EntryJson<'answer>>,
}

/// What a delete did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeleteResult)]
pub struct DeleteJson<'answer> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    previous: Option<EntryJson<'answer>>,
}

/// What an addition did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IncrementResult)]
pub struct IncrementJson<'answer> {
    created: bool,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    previous: Option<EntryJson<'answer>>,
    /// The new number. A string: JSON's numbers lose the last digits of large ones.
    #[schema(schema_with = shapes::integer_text)]
    value: String,
}

/// What a touch did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TouchResult)]
pub struct TouchJson<'answer> {
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    previous: Option<EntryJson<'answer>>,
}

/// Why a write of a batch did not happen.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperationError)]
pub struct ErrorJson<'answer> {
    #[schema(schema_with = shapes::reason)]
    reason: &'answer str,
    message: &'answer str,
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
    fn read(self, name: &'static str) -> Result<i64> {
        match self {
            Self::Number(Signed(number)) => Ok(number),
            Self::Text(IntegerText(text)) => {
                text.parse().map_err(|_| Error::malformed(name, format!("`{name}` is not a whole number that fits")))
            }
        }
    }
}

impl ExpiryBody {
    fn into_pb(self) -> Result<pb::Expiry> {
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
    fn into_pb(self) -> Result<pb::Condition> {
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

fn conditions(conditions: Vec<ConditionBody>) -> Result<Vec<pb::Condition>> {
    conditions.into_iter().map(ConditionBody::into_pb).collect()
}

impl GuardBody {
    /// The guard of the schema.
    pub fn into_pb(self) -> Result<pb::Guard> {
        let key = bytes_from_json("key", self.key, self.key_base64)?;
        Ok(pb::Guard { key, conditions: conditions(self.conditions)? })
    }
}

impl WriteBody {
    /// The write of the schema.
    pub fn into_pb(self) -> Result<pb::WriteOp> {
        let op = match self {
            Self::Put(body) => write_op::Op::Put(pb::PutRequest {
                key: bytes_from_json("key", body.key, body.key_base64)?,
                value: bytes_from_json("value", body.value, body.value_base64)?,
                expiry: body.expiry.map(ExpiryBody::into_pb).transpose()?,
                content_type: body.content_type,
                conditions: conditions(body.conditions)?,
                return_previous: body.return_previous,
                options: None,
            }),
            Self::Delete(body) => write_op::Op::Delete(pb::DeleteRequest {
                key: bytes_from_json("key", body.key, body.key_base64)?,
                conditions: conditions(body.conditions)?,
                return_previous: body.return_previous,
                options: None,
            }),
            Self::Increment(body) => write_op::Op::Increment(pb::IncrementRequest {
                key: bytes_from_json("key", body.key, body.key_base64)?,
                by: body.by.map(|by| by.read("by")).transpose()?,
                expiry: body.expiry.map(ExpiryBody::into_pb).transpose()?,
                conditions: conditions(body.conditions)?,
                return_previous: body.return_previous,
                initial: body.initial.map(|initial| initial.read("initial")).transpose()?.unwrap_or(0),
                options: None,
            }),
            Self::Touch(body) => write_op::Op::Touch(pb::TouchRequest {
                key: bytes_from_json("key", body.key, body.key_base64)?,
                expiry: Some(body.expiry.into_pb()?),
                conditions: conditions(body.conditions)?,
                return_previous: body.return_previous,
                options: None,
            }),
        };
        Ok(pb::WriteOp { op: Some(op) })
    }
}

impl OperationBody {
    /// The operation of the schema.
    pub fn into_pb(self) -> Result<pb::TxnOp> {
        let write = match self {
            Self::Get(body) => {
                let key = bytes_from_json("key", body.key, body.key_base64)?;
                let get = pb::GetRequest { key, metadata_only: body.metadata_only };
                return Ok(pb::TxnOp { op: Some(txn_op::Op::Get(get)) });
            }
            Self::Put(body) => WriteBody::Put(body),
            Self::Delete(body) => WriteBody::Delete(body),
            Self::Increment(body) => WriteBody::Increment(body),
            Self::Touch(body) => WriteBody::Touch(body),
        };
        Ok(pb::TxnOp { op: Some(txn_op::Op::Write(write.into_pb()?)) })
    }
}

impl<'answer> ResultJson<'answer> {
    /// What became of an operation; `with_value` for a read that asked for it.
    pub fn new(result: &'answer pb::OpResult, with_value: bool, force_base64: bool) -> Self {
        let shown =
            |entry: &'answer Option<pb::Entry>| entry.as_ref().map(|entry| EntryJson::new(entry, true, force_base64));
        match &result.kind {
            Some(Kind::Put(done)) => {
                Self::Put(PutJson { created: done.created, version: done.version, previous: shown(&done.previous) })
            }
            Some(Kind::Delete(done)) => Self::Delete(DeleteJson { previous: shown(&done.previous) }),
            Some(Kind::Increment(done)) => Self::Increment(IncrementJson {
                created: done.created,
                version: done.version,
                previous: shown(&done.previous),
                value: done.value.to_string(),
            }),
            Some(Kind::Touch(done)) => {
                Self::Touch(TouchJson { version: done.version, previous: shown(&done.previous) })
            }
            Some(Kind::Get(read)) => Self::Get(ReadJson::new(read, with_value, force_base64)),
            Some(Kind::Error(error)) => Self::Error(ErrorJson { reason: &error.reason, message: &error.message }),
            None => Self::Error(ErrorJson { reason: "INTERNAL", message: "an empty result" }),
        }
    }
}
