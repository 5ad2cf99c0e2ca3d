//! The command line.

mod healthcheck;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

use crate::{
    config::{self, Settings, Sources},
    telemetry,
};

/// Usage or configuration is wrong.
const EXIT_USAGE: u8 = 64;

const AFTER_HELP: &str = "\
Examples:
  tandem                                        serve with defaults: REST 16700, gRPC 16701, ops 16702, data in ./data
  tandem --data-dir /var/lib/tandem --log-level debug
  TANDEM__WAL__SYNC=interval tandem             any key of the configuration, from the environment
  tandem config show                            what is in force, and where it came from

Exit codes:
  0   done
  1   a failure, or a missing key
  2   the data was refused: damaged, incomplete, foreign, of a newer version, or in use
  64  usage or configuration is wrong";

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

/// Flags that win over file and environment.
#[derive(Args, Debug)]
struct Flags {
    /// Configuration file; otherwise config/tandem.yml where it is.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where the data is; created where missing.
    #[arg(long, value_name = "DIRECTORY", global = true)]
    data_dir: Option<String>,
    /// REST: address and port.
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    http_address: Option<String>,
    /// gRPC: address and port.
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    grpc_address: Option<String>,
    /// Probes and metrics: address and port.
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    ops_address: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a filter.
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: the same as no command.
    Serve,
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running server whether it is ready: exit code 0 or 1. For containers.
    Healthcheck {
        /// The server's ops listener; otherwise the configured one.
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report everything that is wrong with it, or nothing.
    Check,
    /// Print what is in force and where each value came from, as YAML.
    Show,
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
    let loaded = match config::load(&sources(&arguments.flags)) {
        Ok(loaded) => loaded,
        Err(errors) => return wrong(&errors.to_string()),
    };
    match arguments.command {
        None | Some(Command::Serve) => match telemetry::init(&loaded.settings.telemetry) {
            Ok(()) => serve(loaded.settings),
            Err(error) => wrong(&error),
        },
        Some(Command::Config(ConfigCommand::Check)) => print("the configuration is good\n"),
        Some(Command::Config(ConfigCommand::Show)) => print(&loaded.show()),
        Some(Command::Config(ConfigCommand::Example)) => print(&config::example()),
        Some(Command::Healthcheck { endpoint }) => {
            let endpoint = endpoint.unwrap_or_else(|| loaded.settings.server.ops_address.to_string());
            match healthcheck::ready(&endpoint) {
                Ok(()) => ExitCode::SUCCESS,
                Err(text) => {
                    let _ = writeln!(io::stderr().lock(), "tandem: {endpoint}: {text}");
                    ExitCode::FAILURE
                }
            }
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

fn wrong(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "tandem: {text}");
    ExitCode::from(EXIT_USAGE)
}

fn print(text: &str) -> ExitCode {
    // Whoever closed the pipe has read enough.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
