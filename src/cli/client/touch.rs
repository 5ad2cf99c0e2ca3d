//! `tandem touch`: changes when an entry expires, and nothing else.

use bytes::Bytes;
use clap::Args;

use super::{
    arguments::bytes,
    connection::ConnectionFlags,
    failure::{Failure, Result},
    output::OutputFlags,
    write::{ConditionFlags, ExpiryFlags, HowFlags, Written},
};
use crate::pb::{self, expiry::Kind as Expires};

/// What to touch.
#[derive(Args, Debug)]
pub struct Touch {
    /// The key.
    #[arg(value_parser = bytes())]
    key: Bytes,
    #[command(flatten)]
    expiry: ExpiryFlags,
    /// Let it stay.
    #[arg(long, group = "expiry")]
    never: bool,
    #[command(flatten)]
    conditions: ConditionFlags,
    #[command(flatten)]
    how: HowFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl Touch {
    pub async fn run(self) -> Result<()> {
        let never = self.never.then_some(pb::Expiry { kind: Some(Expires::Never(true)) });
        let missing = || Failure::usage("until when? Give --ttl TIME, --expire-time TIME or --never");
        let request = pb::TouchRequest {
            key: self.key,
            expiry: Some(self.expiry.to_pb().or(never).ok_or_else(missing)?),
            conditions: self.conditions.to_pb(),
            return_previous: false,
            options: Some(self.how.to_pb()),
        };
        let done = self.connection.connect().await?.touch(request).await?.into_inner();
        let written = Written {
            verb: "touched",
            result: done.result.unwrap_or_default(),
            version: Some(done.version),
            ..Written::default()
        };
        let mut output = self.output.open();
        written.show(&mut output)?;
        output.flush()
    }
}
