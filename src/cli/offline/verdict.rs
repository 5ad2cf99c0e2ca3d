//! What is wrong with files, one after another: a bad one does not hide those behind it.

use serde::Serialize;

use super::{Done, is_damage};
use crate::{
    cli::client::{
        failure::{EXIT_REFUSED, Failure, say},
        output::{Format, Output},
    },
    disk::{RecoveryError, RecoveryErrorKind},
};

/// The output of a command that goes on behind what it cannot read.
#[derive(Debug)]
pub struct Verdict {
    /// Where lines go.
    pub output: Output,
    damaged: bool,
    refused: bool,
}

/// What is wrong, as JSON.
#[derive(Debug, Serialize)]
struct BadJson {
    file: String,
    ok: bool,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    reason: String,
    remedy: String,
}

/// The same of a file that a running server looked into: where and what to do are in its reason.
#[derive(Debug, Serialize)]
struct BadElsewhereJson<'damage> {
    file: &'damage str,
    ok: bool,
    reason: &'damage str,
}

impl Verdict {
    /// Nothing is wrong yet.
    pub fn new(json: bool) -> Self {
        let format = if json { Format::Json } else { Format::Text };
        Self { output: Output::new(format), damaged: false, refused: false }
    }

    /// Whether lines are JSON.
    pub fn is_json(&self) -> bool {
        self.output.format() == Format::Json
    }

    /// Says what is wrong with a file.
    pub fn bad(&mut self, error: &RecoveryError) -> Done {
        if is_damage(error) {
            self.damaged = true;
        } else {
            self.refused = true;
        }
        if self.is_json() {
            self.output.json(&BadJson {
                file: error.file.display().to_string(),
                ok: false,
                kind: kind_name(error.kind),
                offset: error.offset,
                reason: error.reason.clone(),
                remedy: error.remedy.clone(),
            })?;
        }
        // What was good before it stands before it.
        self.output.flush()?;
        say(error);
        Ok(())
    }

    /// Says what a running server found wrong with a file of its own.
    pub fn bad_elsewhere(&mut self, file: &str, reason: &str) -> Done {
        self.damaged = true;
        if self.is_json() {
            self.output.json(&BadElsewhereJson { file, ok: false, reason })?;
        }
        self.output.flush()?;
        say(reason);
        Ok(())
    }

    /// Ends the output: exit code 1 after damage, 2 after what is not for this program to read.
    pub fn end(mut self) -> Done {
        self.output.flush()?;
        match (self.damaged, self.refused) {
            (true, _) => Err(Failure::not_held()),
            (false, true) => Err(Failure::of_child(EXIT_REFUSED)),
            (false, false) => Ok(()),
        }
    }
}

fn kind_name(kind: RecoveryErrorKind) -> &'static str {
    match kind {
        RecoveryErrorKind::Damaged => "damaged",
        RecoveryErrorKind::Gap => "missing",
        RecoveryErrorKind::Foreign => "foreign",
        RecoveryErrorKind::Future => "future",
        RecoveryErrorKind::Locked => "in_use",
        RecoveryErrorKind::Io => "unreadable",
    }
}
