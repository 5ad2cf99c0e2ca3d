//! `tandem count`: how many keys a range holds.

use clap::Args;

use super::{
    connection::ConnectionFlags,
    failure::Result,
    output::{Format, OutputFlags},
    range::RangeFlags,
};
use crate::{api::rest::CountJson, pb};

/// What to count.
#[derive(Args, Debug)]
pub struct Count {
    #[command(flatten)]
    range: RangeFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl Count {
    pub async fn run(self) -> Result<()> {
        let request = pb::CountRequest { range: Some(self.range.required()?) };
        let counted = self.connection.connect().await?.count(request).await?.into_inner();
        let mut output = self.output.open();
        match output.format() {
            Format::Json => output.json(&CountJson::new(&counted))?,
            Format::Text | Format::Raw => output.line(counted.count)?,
        }
        output.flush()
    }
}
