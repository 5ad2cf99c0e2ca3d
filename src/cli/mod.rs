//! The command line.

mod bench;
mod client;
mod healthcheck;
mod offline;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use crate::{
    config::{self, ConfigErrors, Settings, Sources},
    telemetry,
};

/// Usage or configuration is wrong.
const EXIT_USAGE: u8 = 64;

const AFTER_HELP: &str = "\
Examples:
  tandem                                serve: REST 16700, gRPC 16701, ops 16702, data in ./data
  tandem --data-dir /var/lib/tandem --log-level debug
  TANDEM__WAL__SYNC=interval tandem     any key of the configuration, from the environment
  tandem config show                    what is in force, and where it came from
  tandem put greeting hello --ttl 1h    talk to a running server: --endpoint, TANDEM_ENDPOINT
  tandem get greeting
  tandem bench --workload mixed         a load, and how it is borne
  tandem wal stat --data-dir data       look into the files of a stopped server

Exit codes:
  0   done
  1   a key is missing, a condition did not hold, the server failed, or files that were looked
      into are damaged
  2   data was refused: a request or an import that cannot be taken, or stored data that is
      damaged, incomplete, foreign, of a newer version, or in use
  64  usage or configuration is wrong
  69  the server cannot be reached, or cannot do it now: trying again may help";

/// An in-memory, durable key-value store with two doors, gRPC and REST, over one engine.
///
/// Without a command it serves. Every acknowledged write is on disk before its answer; see `tandem config show` for what
/// can be set.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags of the server that win over file and environment.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
struct Flags {
    /// Configuration file; otherwise config/tandem.yml where it is.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the data is; created where missing.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// REST: address and port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    http_address: Option<String>,
    /// gRPC: address and port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    grpc_address: Option<String>,
    /// Probes, metrics and administration: address and port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    ops_address: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a filter.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: the same as no command.
    Serve(Flags),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running server whether it is ready: exit code 0 or 1. For containers.
    Healthcheck {
        /// The server's ops listener; otherwise the configured one.
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        #[command(flatten)]
        flags: Flags,
    },
    #[command(flatten)]
    Client(client::Command),
    /// Put a load on a running server and measure how it bears it: exit code 1 if any request failed.
    #[command(after_help = bench::AFTER_HELP)]
    Bench(bench::Bench),
    #[command(flatten)]
    Offline(offline::Command),
    /// Print a script that lets a shell complete commands and flags.
    #[command(after_help = "Example:\n  tandem completions bash > ~/.local/share/bash-completion/completions/tandem")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report everything that is wrong with it, or nothing.
    Check(Flags),
    /// Print what is in force and where each value came from, as YAML.
    Show(Flags),
    /// Print every key with its meaning, its range and its default: a file to begin from.
    Example,
}

/// Runs the program: `serve` is what to do with checked settings.
pub fn run(arguments: impl Iterator<Item = OsString>, serve: impl FnOnce(Settings) -> ExitCode) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(message) => {
            let _ = message.print();
            return match message.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_USAGE),
            };
        }
    };
    execute(arguments, serve).unwrap_or_else(|text| {
        let _ = writeln!(io::stderr().lock(), "tandem: {text}");
        ExitCode::from(EXIT_USAGE)
    })
}

/// Does what the command line asks for; an error is one of usage or configuration.
fn execute(arguments: Arguments, serve: impl FnOnce(Settings) -> ExitCode) -> Result<ExitCode, String> {
    let before = arguments.flags;
    let load = |flags: Flags| {
        config::load(&sources(&flags.or(before.clone()))).map_err(|errors: ConfigErrors| errors.to_string())
    };
    Ok(match arguments.command.unwrap_or(Command::Serve(Flags::default())) {
        Command::Serve(flags) => {
            let settings = load(flags)?.settings;
            telemetry::init(&settings.telemetry)?;
            serve(settings)
        }
        Command::Config(ConfigCommand::Check(flags)) => {
            load(flags)?;
            print(b"the configuration is good\n")
        }
        Command::Config(ConfigCommand::Show(flags)) => print(load(flags)?.show().as_bytes()),
        Command::Config(ConfigCommand::Example) => print(config::example().as_bytes()),
        Command::Healthcheck { endpoint, flags } => {
            let configured = load(flags)?.settings.server.ops_address;
            ask_health(&endpoint.unwrap_or_else(|| configured.to_string()))
        }
        Command::Client(command) if before == Flags::default() => command.run(),
        Command::Client(_) => return Err("a flag of the server stands before a client's command: leave it out".into()),
        Command::Bench(bench) if before == Flags::default() => bench.run(),
        Command::Bench(_) => return Err("a flag of the server stands before bench: leave it out".into()),
        Command::Offline(command) if before == Flags::default() => command.run(),
        Command::Offline(_) => return Err("a flag of the server stands before the command: write it behind".into()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tandem", &mut script);
            print(&script)
        }
    })
}

fn ask_health(endpoint: &str) -> ExitCode {
    match healthcheck::ready(endpoint) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            let _ = writeln!(io::stderr().lock(), "tandem: {endpoint}: {text}");
            ExitCode::FAILURE
        }
    }
}

impl Flags {
    /// These, and where one is not given, the others'.
    fn or(self, others: Self) -> Self {
        Self {
            config: self.config.or(others.config),
            data_dir: self.data_dir.or(others.data_dir),
            http_address: self.http_address.or(others.http_address),
            grpc_address: self.grpc_address.or(others.grpc_address),
            ops_address: self.ops_address.or(others.ops_address),
            log_level: self.log_level.or(others.log_level),
        }
    }
}

fn sources(flags: &Flags) -> Sources {
    let given = [
        ("server.data_dir", "--data-dir", &flags.data_dir),
        ("server.http_address", "--http-address", &flags.http_address),
        ("server.grpc_address", "--grpc-address", &flags.grpc_address),
        ("server.ops_address", "--ops-address", &flags.ops_address),
        ("telemetry.log_level", "--log-level", &flags.log_level),
    ];
    let flags_given = given.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value.clone()?))).collect();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    Sources { file: flags.config.clone(), environment, flags: flags_given }
}

fn print(text: &[u8]) -> ExitCode {
    // Whoever closed the pipe has read enough.
    let _ = io::stdout().lock().write_all(text);
    ExitCode::SUCCESS
}
