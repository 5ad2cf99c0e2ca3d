//! Messages of the schema as ProtoJSON lines, with the schema's own field names: any protobuf library reads them back.

use std::{io, sync::LazyLock};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::{Serialize, Serializer, ser::Error as _};

use crate::pb;

static SCHEMA: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(pb::ALL_DESCRIPTORS).unwrap_or_default());

/// A record of the log.
pub const LOG_RECORD: &str = "tandem.storage.v1.LogRecord";
/// A remembered answer.
pub const ANSWER: &str = "tandem.storage.v1.RememberedAnswer";
/// An entry.
pub const ENTRY: &str = "tandem.v1.Entry";
/// An event of the watch history.
pub const EVENT: &str = "tandem.v1.Event";

/// A message as one JSON document.
#[derive(Debug)]
pub struct Line(DynamicMessage);

impl Line {
    /// The message of this type that is stored in these bytes.
    pub fn stored(name: &str, bytes: &[u8]) -> io::Result<Self> {
        let descriptor = SCHEMA.get_message_by_name(name).ok_or_else(|| io::Error::other(name.to_owned()))?;
        DynamicMessage::decode(descriptor, bytes).map(Self).map_err(io::Error::other)
    }

    /// A message of this type.
    pub fn of(name: &str, message: &impl Message) -> io::Result<Self> {
        Self::stored(name, &message.encode_to_vec())
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let options = SerializeOptions::new().use_proto_field_name(true);
        self.0.serialize_with_options(serializer, &options).map_err(S::Error::custom)
    }
}
