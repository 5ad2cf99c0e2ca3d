//! `tandem put`: writes one key.

use bytes::Bytes;
use clap::Args;

use super::{
    arguments::{bytes, value_or_stdin},
    connection::ConnectionFlags,
    failure::Result,
    output::OutputFlags,
    write::{ConditionFlags, ExpiryFlags, HowFlags, Written},
};
use crate::pb::{self, expiry::Kind as Expires};

/// What to write.
#[derive(Args, Debug)]
pub struct Put {
    /// The key.
    #[arg(value_parser = bytes())]
    key: Bytes,
    /// The value; - reads it from standard input.
    #[arg(value_parser = bytes(), allow_negative_numbers = true)]
    value: Bytes,
    #[command(flatten)]
    expiry: ExpiryFlags,
    /// Keep the expiry that the entry has.
    #[arg(long, group = "expiry")]
    keep_ttl: bool,
    /// Media type of the value.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    /// Print the entry that was replaced; raw: its value.
    #[arg(long)]
    previous: bool,
    #[command(flatten)]
    conditions: ConditionFlags,
    #[command(flatten)]
    how: HowFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl Put {
    pub async fn run(self) -> Result<()> {
        let keep = self.keep_ttl.then_some(pb::Expiry { kind: Some(Expires::Keep(true)) });
        let request = pb::PutRequest {
            key: self.key,
            value: value_or_stdin(self.value)?,
            expiry: self.expiry.to_pb().or(keep),
            content_type: self.content_type,
            conditions: self.conditions.to_pb(),
            return_previous: self.previous,
            options: Some(self.how.to_pb()),
        };
        let done = self.connection.connect().await?.put(request).await?.into_inner();
        let written = Written {
            verb: if done.created { "created" } else { "replaced" },
            result: done.result.unwrap_or_default(),
            created: Some(done.created),
            version: Some(done.version),
            previous: done.previous,
            ..Written::default()
        };
        let mut output = self.output.open();
        written.show(&mut output)?;
        output.flush()
    }
}
