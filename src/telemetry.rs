//! Logs: structured, to standard error, as text on a terminal and as JSON elsewhere. Keys and values never appear in them.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// Sets logging up for the whole process. An unusable filter is an error of configuration.
pub fn init(telemetry: &Telemetry) -> Result<(), String> {
    let filter = EnvFilter::try_new(&telemetry.log_level)
        .map_err(|error| format!("telemetry.log_level {:?}: {error}", telemetry.log_level))?;
    let json = match telemetry.log_format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let set = if json { subscriber.json().flatten_event(true).try_init() } else { subscriber.try_init() };
    set.map_err(|error| error.to_string())
}
