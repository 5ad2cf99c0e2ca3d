//! `tandem bench`: a load on a running server, over either door, and how it is borne.

mod alarm;
mod ask;
mod door;
mod fill;
mod generator;
mod grpc;
mod keys;
mod line;
mod measure;
mod options;
mod pace;
mod place;
mod plan;
mod plot;
mod progress;
mod report;
mod rest;
mod run;
mod watching;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use self::{
    line::Target,
    options::{Options, Output},
    report::Report,
};
use super::client::failure::{Failure, Result, say};

/// What stands below the options.
pub const AFTER_HELP: &str = "\
Keys and values are of the load's own, under bench/: what else is in the store stays as it is.

Examples:
  tandem bench                                          reads over gRPC
  tandem bench --workload put --protocol rest --connections 64
  tandem bench --workload mixed --read-ratio 0.95 --distribution zipf --in-flight 16
  tandem bench --workload put --rate 20000 --duration 60s --plot put.svg     open loop
  tandem bench --workload batch-write --batch-size 500 --output json | jq .keys_per_second
  tandem bench --workload watch                         from a write to a watcher's hearing of it";

/// A load, and how it is reported.
#[derive(Args, Debug)]
pub struct Bench {
    #[command(flatten)]
    options: Options,
}

impl Bench {
    /// Carries it out: exit code 1 if any request failed.
    pub fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Failure::unavailable(format!("INTERNAL: no thread can be started: {error}")).report(),
        };
        match runtime.block_on(self.act()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        }
    }

    async fn act(self) -> Result<()> {
        let plan = self.options.check()?;
        let target = Target::parse(&plan.endpoint, plan.timeout)?;
        let plot = self.options.open_plot()?;
        fill::probe(&plan, &target).await?;
        let report = run::run(plan, target).await?;
        self.print(&report)?;
        if let Some((path, file)) = plot {
            draw(&report, path, file)?;
        }
        report.complaint().map_or(Ok(()), |text| Err(Failure::condition(text)))
    }

    fn print(&self, report: &Report) -> Result<()> {
        let mut out = io::stdout().lock();
        match self.options.output {
            Output::Json => {
                serde_json::to_writer_pretty(&mut out, &report.json()).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            Output::Table => report.table().iter().try_for_each(|line| writeln!(out, "{line}"))?,
        }
        Ok(out.flush()?)
    }
}

fn draw(report: &Report, path: PathBuf, mut file: fs::File) -> Result<()> {
    let named = path.display();
    let svg =
        plot::draw(report).map_err(|error| Failure::unavailable(format!("INTERNAL: nothing is drawn: {error}")))?;
    let drawn = file.set_len(0).and_then(|()| file.write_all(svg.as_bytes()));
    drawn.map_err(|error| Failure::unavailable(format!("OUTPUT: {named}: {error}")))?;
    say(format_args!("drawn into {named}"));
    Ok(())
}
