//! The operations of batches and transactions as JSON: the schema's field names, written for people. What a request asks
//! for is in [`bodies`] and [`values`], what became of it in [`results`].

mod bodies;
mod objects;
mod results;
mod values;

pub use self::{
    bodies::GuardBody,
    objects::{object, objects},
    results::ResultJson,
    values::bytes_from_json,
};

use serde::Deserialize;
use utoipa::ToSchema;

use self::bodies::{DeleteBody, GetBody, IncrementBody, PutBody, TouchBody};
use crate::{
    error::Result,
    pb::{self, txn_op, write_op},
};

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

impl WriteBody {
    /// The write of the schema.
    pub fn into_pb(self) -> Result<pb::WriteOp> {
        let op = match self {
            Self::Put(body) => write_op::Op::Put(body.into_pb()?),
            Self::Delete(body) => write_op::Op::Delete(body.into_pb()?),
            Self::Increment(body) => write_op::Op::Increment(body.into_pb()?),
            Self::Touch(body) => write_op::Op::Touch(body.into_pb()?),
        };
        Ok(pb::WriteOp { op: Some(op) })
    }
}

impl OperationBody {
    /// The operation of the schema.
    pub fn into_pb(self) -> Result<pb::TxnOp> {
        let write = match self {
            Self::Get(body) => return Ok(pb::TxnOp { op: Some(txn_op::Op::Get(body.into_pb()?)) }),
            Self::Put(body) => WriteBody::Put(body),
            Self::Delete(body) => WriteBody::Delete(body),
            Self::Increment(body) => WriteBody::Increment(body),
            Self::Touch(body) => WriteBody::Touch(body),
        };
        Ok(pb::TxnOp { op: Some(txn_op::Op::Write(write.into_pb()?)) })
    }
}
