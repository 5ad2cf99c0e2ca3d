//! What commands print: text for people, JSON in REST's shapes, or raw bytes.

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _},
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{failure::Result, table::Table};
use crate::pb;

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
        let stdout = io::stdout().lock();
        let fitting = if stdout.is_terminal() { Format::Text } else { Format::Raw };
        Output {
            format: self.output.unwrap_or(fitting),
            table: Table::new(stdout.is_terminal()),
            out: BufWriter::new(stdout),
        }
    }
}

impl Output {
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

    /// Keys, and values unless only keys were asked for, raw: a line each, a tab between.
    pub fn raw_entries(&mut self, entries: &[pb::Entry], with_values: bool) -> Result<()> {
        for entry in entries {
            self.bytes(&entry.key)?;
            if with_values {
                self.bytes(b"\t")?;
                self.bytes(&entry.value)?;
            }
            self.bytes(b"\n")?;
        }
        Ok(())
    }

    /// Entries in aligned columns.
    pub fn table(&mut self, entries: &[pb::Entry], with_values: bool) -> Result<()> {
        for line in self.table.lines(entries, with_values) {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Hands on what was written, so that a reader sees it now.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush()?;
        Ok(())
    }
}
