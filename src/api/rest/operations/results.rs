//! What became of operations, as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::rest::{collection::ReadJson, json::EntryJson, openapi::shapes},
    pb::{self, op_result::Kind},
};

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
