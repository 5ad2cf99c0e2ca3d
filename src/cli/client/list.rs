//! `tandem list`: a page of a range.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use bytes::Bytes;
use clap::Args;

use super::{
    arguments::bytes,
    connection::ConnectionFlags,
    failure::{Result, say},
    output::{Format, OutputFlags},
    range::RangeFlags,
};
use crate::{
    api::rest::{PageJson, in_key_order},
    limits::PAGE_ENTRIES_MAX,
    pb,
};

/// How a range is read.
#[derive(Args, Clone, Debug)]
pub struct ReadingFlags {
    /// Leave the values out.
    #[arg(long)]
    pub keys_only: bool,
    /// From the last key to the first.
    #[arg(long)]
    pub descending: bool,
    /// Fold keys that go on behind the prefix up to this into one line, as folders.
    #[arg(long, value_name = "TEXT", value_parser = bytes(), default_value = "", hide_default_value = true)]
    pub delimiter: Bytes,
    /// Begin behind this key.
    #[arg(long, value_name = "KEY", value_parser = bytes(), default_value = "", hide_default_value = true)]
    pub start_after: Bytes,
}

/// What to list.
#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    range: RangeFlags,
    #[command(flatten)]
    reading: ReadingFlags,
    /// How many entries at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=PAGE_ENTRIES_MAX as i64))]
    limit: i32,
    /// Where the page before ended, as it said.
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true, value_parser = token)]
    page_token: Bytes,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

fn token(text: &str) -> Result<Bytes, String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "write it as the page before gave it".to_owned())?;
    Ok(bytes.into())
}

impl List {
    pub async fn run(self) -> Result<()> {
        let ReadingFlags { keys_only, descending, delimiter, start_after } = self.reading;
        let with_values = !keys_only;
        let request = pb::ListRequest {
            range: Some(self.range.required()?),
            page_size: self.limit,
            page_token: self.page_token,
            start_after,
            delimiter,
            descending,
            keys_only,
        };
        let page = self.connection.connect().await?.list(request).await?.into_inner();
        let mut output = self.output.open();
        if output.format() == Format::Json {
            output.json(&PageJson::new(&page, with_values, false))?;
            return output.flush();
        }
        let items: Vec<_> = in_key_order(&page.entries, &page.common_prefixes, descending).collect();
        output.items(&items, with_values)?;
        output.flush()?;
        if !page.next_page_token.is_empty() {
            say(format_args!("there is more: --page-token {}", BASE64_URL_SAFE_NO_PAD.encode(&page.next_page_token)));
        }
        Ok(())
    }
}
