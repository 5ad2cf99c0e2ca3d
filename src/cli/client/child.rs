//! A command that runs under a lock: signals reach it, and it is ended when it must not go on.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    time::Duration,
};

use rustix::process::{Pid, Signal as Number, kill_process, kill_process_group};
use tokio::{
    process::{Child as Process, Command},
    signal::unix::{Signal, SignalKind, signal},
};

/// Signals that are meant for the command.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes them over from here on.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Number {
        tokio::select! {
            _ = self.interrupt.recv() => Number::INT,
            _ = self.quit.recv() => Number::QUIT,
            _ = self.terminate.recv() => Number::TERM,
            _ = self.hang_up.recv() => Number::HUP,
        }
    }
}

/// The exit code of a process that a signal ended.
pub fn exit_by(signal: Number) -> u8 {
    exit_by_number(signal.as_raw())
}

fn exit_by_number(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(u8::MAX)
}

/// The exit code that stands for how a process ended.
pub fn exit_code(status: ExitStatus) -> u8 {
    match status.code() {
        Some(code) => u8::try_from(code).unwrap_or(u8::MAX),
        None => exit_by_number(status.signal().unwrap_or(0)),
    }
}

/// A running command.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// On a terminal the command shares our group, and the terminal itself signals both. Elsewhere it has one of its
    /// own, so that what it starts is ended with it.
    own_group: bool,
}

impl Child {
    /// Starts it with one more variable in its environment.
    pub fn start(command: &[OsString], variable: &str, value: &str) -> io::Result<Self> {
        let own_group = !io::stdin().is_terminal();
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).env(variable, value);
        if own_group {
            command.process_group(0);
        }
        Ok(Self { process: command.spawn()?, own_group })
    }

    /// Waits for its end and hands signals on meanwhile.
    pub async fn wait(&mut self, signals: &mut Signals) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = self.process.wait() => return status,
                number = signals.next() => {
                    let by_terminal = !self.own_group && matches!(number, Number::INT | Number::QUIT);
                    if !by_terminal {
                        self.send(number);
                    }
                }
            }
        }
    }

    /// Ends it: asks, and after `grace` does not ask.
    pub async fn end(&mut self, signals: &mut Signals, grace: Duration) -> io::Result<ExitStatus> {
        self.send(Number::TERM);
        if let Ok(status) = tokio::time::timeout(grace, self.wait(signals)).await {
            return status;
        }
        self.send(Number::KILL);
        self.process.wait().await
    }

    /// It may have ended by itself just now: then there is nobody to signal.
    fn send(&self, number: Number) {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(id) = id else { return };
        let _ = if self.own_group { kill_process_group(id, number) } else { kill_process(id, number) };
    }
}
