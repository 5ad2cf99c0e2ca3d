//! What commands print: text for people, JSON in REST's shapes, or raw bytes.

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _},
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{failure::Result, table::Table};
use crate::api::rest::ScanItem;

/// How answers look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: aligned, with what cannot be printed escaped.
    Text,
    /// One JSON document, or one a line, in the shapes of the REST door.
    Json,
    /// The bytes as they are.
    Raw,
}

/// Flags of every command that prints answers.
#[derive(Args, Clone, Debug)]
pub struct OutputFlags {
    /// How answers look: text on a terminal, raw elsewhere, unless given.
    #[arg(long, short, value_enum, value_name = "FORMAT", help_heading = "Output")]
    output: Option<Format>,
}

/// Standard output, in a format.
#[derive(Debug)]
pub struct Output {
    format: Format,
    out: BufWriter<StdoutLock<'static>>,
    table: Table,
}

impl OutputFlags {
    /// Standard output in this format.
    pub fn open(&self) -> Output {
        let fitting = if io::stdout().is_terminal() { Format::Text } else { Format::Raw };
        Output::new(self.output.unwrap_or(fitting))
    }
}

impl Output {
    /// Standard output in this format.
    pub fn new(format: Format) -> Self {
        let stdout = io::stdout().lock();
        Self { format, table: Table::new(stdout.is_terminal()), out: BufWriter::new(stdout) }
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// A document and a line's end.
    pub fn json(&mut self, json: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.out, json).map_err(io::Error::from)?;
        self.line("")
    }

    /// Text and a line's end.
    pub fn line(&mut self, text: impl fmt::Display) -> Result<()> {
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        Ok(())
    }

    /// Keys, and values unless only keys were asked for, as text in aligned columns or raw: a line each, a tab between.
    pub fn items(&mut self, items: &[ScanItem<'_>], with_values: bool) -> Result<()> {
        if self.format == Format::Raw {
            return items.iter().try_for_each(|item| self.raw_item(item, with_values));
        }
        for line in self.table.lines(items, with_values) {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    fn raw_item(&mut self, item: &ScanItem<'_>, with_values: bool) -> Result<()> {
        match item {
            ScanItem::CommonPrefix(prefix) => self.bytes(prefix)?,
            ScanItem::Entry(entry) => {
                self.bytes(&entry.key)?;
                if with_values {
                    self.bytes(b"\t")?;
                    self.bytes(&entry.value)?;
                }
            }
        }
        self.bytes(b"\n")
    }

    /// Hands on what was written, so that a reader sees it now.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush()?;
        Ok(())
    }
}
