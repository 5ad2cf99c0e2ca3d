//! `tandem txn`: a transaction, as JSON.

use std::path::PathBuf;

use clap::Args;

use super::{
    arguments::file_or_stdin,
    connection::ConnectionFlags,
    failure::{Failure, Result},
    output::{Format, OutputFlags},
    table::escape,
    write::HowFlags,
};
use crate::{
    api::rest::{TxnJson, ValuesAsked, txn_from_json},
    pb::{self, op_result::Kind, read_result},
};

/// What to carry out.
#[derive(Args, Debug)]
pub struct Txn {
    /// A file with guards and operations as JSON, as POST /v1/kv:txn takes them; - reads standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    how: HowFlags,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl Txn {
    pub async fn run(self) -> Result<()> {
        let body = file_or_stdin(&self.file)?;
        let request = txn_from_json(&body).map_err(|error| Failure::refused(error.to_string()))?;
        let request = pb::TxnRequest { options: Some(self.how.to_pb()), ..request };
        let asked = ValuesAsked::of(&request);
        let done = self.connection.connect().await?.txn(request).await?.into_inner();
        let mut output = self.output.open();
        match output.format() {
            Format::Json | Format::Raw => output.json(&TxnJson::new(&done, &asked, false))?,
            Format::Text => {
                let branch = if done.succeeded { "the guards held: then" } else { "a guard did not hold: otherwise" };
                let revision = done.result.unwrap_or_default().revision;
                output.line(format_args!("{branch} (revision {revision})"))?;
                for (number, result) in done.results.iter().enumerate() {
                    output.line(format_args!("{number:>3}  {}", sentence(result)))?;
                }
            }
        }
        output.flush()?;
        if done.succeeded { Ok(()) } else { Err(Failure::not_held()) }
    }
}

fn sentence(result: &pb::OpResult) -> String {
    match &result.kind {
        Some(Kind::Put(done)) if done.created => "put        created".to_owned(),
        Some(Kind::Put(done)) => format!("put        replaced, version {}", done.version),
        Some(Kind::Delete(_)) => "delete     deleted".to_owned(),
        Some(Kind::Increment(done)) => format!("increment  {}", done.value),
        Some(Kind::Touch(done)) => format!("touch      version {}", done.version),
        Some(Kind::Get(read)) => match &read.kind {
            Some(read_result::Kind::Entry(entry)) => format!("get        {}", escape(&entry.value)),
            Some(read_result::Kind::Absent(_)) => "get        absent".to_owned(),
            Some(read_result::Kind::Unprocessed(_)) | None => {
                "get        the answer was full: read it again".to_owned()
            }
        },
        Some(Kind::Error(error)) => format!("{}: {}", error.reason, error.message),
        None => "nothing".to_owned(),
    }
}
