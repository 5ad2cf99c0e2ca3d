//! Each operation, and a guard: their fields in JSON, and what the schema calls them.

use serde::Deserialize;
use utoipa::ToSchema;

use super::values::{ConditionBody, ExpiryBody, IntegerBody, bytes_from_json, conditions};
use crate::{api::rest::openapi::shapes, error::Result, pb};

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

impl PutBody {
    /// The put of the schema.
    pub fn into_pb(self) -> Result<pb::PutRequest> {
        Ok(pb::PutRequest {
            key: bytes_from_json("key", self.key, self.key_base64)?,
            value: bytes_from_json("value", self.value, self.value_base64)?,
            expiry: self.expiry.map(ExpiryBody::into_pb).transpose()?,
            content_type: self.content_type,
            conditions: conditions(self.conditions)?,
            return_previous: self.return_previous,
            options: None,
        })
    }
}

impl DeleteBody {
    /// The delete of the schema.
    pub fn into_pb(self) -> Result<pb::DeleteRequest> {
        Ok(pb::DeleteRequest {
            key: bytes_from_json("key", self.key, self.key_base64)?,
            conditions: conditions(self.conditions)?,
            return_previous: self.return_previous,
            options: None,
        })
    }
}

impl IncrementBody {
    /// The increment of the schema.
    pub fn into_pb(self) -> Result<pb::IncrementRequest> {
        Ok(pb::IncrementRequest {
            key: bytes_from_json("key", self.key, self.key_base64)?,
            by: self.by.map(|by| by.read("by")).transpose()?,
            expiry: self.expiry.map(ExpiryBody::into_pb).transpose()?,
            conditions: conditions(self.conditions)?,
            return_previous: self.return_previous,
            initial: self.initial.map(|initial| initial.read("initial")).transpose()?.unwrap_or(0),
            options: None,
        })
    }
}

impl TouchBody {
    /// The touch of the schema.
    pub fn into_pb(self) -> Result<pb::TouchRequest> {
        Ok(pb::TouchRequest {
            key: bytes_from_json("key", self.key, self.key_base64)?,
            expiry: Some(self.expiry.into_pb()?),
            conditions: conditions(self.conditions)?,
            return_previous: self.return_previous,
            options: None,
        })
    }
}

impl GetBody {
    /// The get of the schema.
    pub fn into_pb(self) -> Result<pb::GetRequest> {
        let key = bytes_from_json("key", self.key, self.key_base64)?;
        Ok(pb::GetRequest { key, metadata_only: self.metadata_only })
    }
}

impl GuardBody {
    /// The guard of the schema.
    pub fn into_pb(self) -> Result<pb::Guard> {
        let key = bytes_from_json("key", self.key, self.key_base64)?;
        Ok(pb::Guard { key, conditions: conditions(self.conditions)? })
    }
}
