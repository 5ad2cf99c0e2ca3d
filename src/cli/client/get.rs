//! `tandem get`: one entry.

use bytes::Bytes;
use clap::Args;

use super::{
    arguments::bytes,
    connection::ConnectionFlags,
    failure::Result,
    output::{Format, OutputFlags},
    table::escape,
};
use crate::{
    api::rest::{EntryJson, time_text},
    pb,
};

/// What to read.
#[derive(Args, Debug)]
pub struct Get {
    /// The key.
    #[arg(value_parser = bytes())]
    key: Bytes,
    /// Everything but the value; raw: the revision.
    #[arg(long)]
    metadata: bool,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl Get {
    pub async fn run(self) -> Result<()> {
        let mut store = self.connection.connect().await?;
        let request = pb::GetRequest { key: self.key, metadata_only: self.metadata };
        let entry = store.get(request).await?.into_inner().entry.unwrap_or_default();
        let mut output = self.output.open();
        match (output.format(), self.metadata) {
            (Format::Json, metadata) => output.json(&EntryJson::new(&entry, !metadata, false))?,
            (Format::Raw, true) => output.line(entry.revision)?,
            (Format::Raw, false) => output.bytes(&entry.value)?,
            (Format::Text, true) => output.line(facts(&entry))?,
            (Format::Text, false) => output.line(escape_lines(&entry.value))?,
        }
        output.flush()
    }
}

/// Text keeps its lines.
fn escape_lines(value: &[u8]) -> String {
    let lines: Vec<_> = value.split(|byte| *byte == b'\n').map(escape).collect();
    let text = lines.join("\n");
    text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
}

fn facts(entry: &pb::Entry) -> String {
    let time = |time: &Option<_>| time.as_ref().and_then(time_text);
    format!(
        "key              {}\nversion          {}\nrevision         {}\ncreate revision  {}\ncontent type     {}\n\
         updated          {}\nexpires          {}",
        escape(&entry.key),
        entry.version,
        entry.revision,
        entry.create_revision,
        escape(entry.content_type.as_bytes()),
        time(&entry.update_time).unwrap_or_else(|| "unknown".to_owned()),
        time(&entry.expire_time).unwrap_or_else(|| "never".to_owned()),
    )
}
