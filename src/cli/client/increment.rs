//! `tandem incr`: adds to a number.

use bytes::Bytes;
use clap::Args;

use super::{
    arguments::bytes,
    connection::ConnectionFlags,
    failure::Result,
    output::OutputFlags,
    write::{ConditionFlags, ExpiryFlags, HowFlags, Written},
};
use crate::pb;

/// What to count.
#[derive(Args, Debug)]
pub struct Increment {
    /// The key; its value is a whole number as text.
    #[arg(value_parser = bytes())]
    key: Bytes,
    /// What to add; may be negative.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, allow_negative_numbers = true)]
    by: i64,
    /// What an absent key counts from.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    initial: i64,
    /// Counts only when this creates the key.
    #[command(flatten)]
    expiry: ExpiryFlags,
    #[command(flatten)]
    conditions: ConditionFlags,
    #[command(flatten)]
    how: HowFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl Increment {
    pub async fn run(self) -> Result<()> {
        let request = pb::IncrementRequest {
            key: self.key,
            by: Some(self.by),
            expiry: self.expiry.to_pb(),
            conditions: self.conditions.to_pb(),
            return_previous: false,
            initial: self.initial,
            options: Some(self.how.to_pb()),
        };
        let done = self.connection.connect().await?.increment(request).await?.into_inner();
        let written = Written {
            result: done.result.unwrap_or_default(),
            created: Some(done.created),
            version: Some(done.version),
            value: Some(done.value),
            ..Written::default()
        };
        let mut output = self.output.open();
        written.show(&mut output)?;
        output.flush()
    }
}
