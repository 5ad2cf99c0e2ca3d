//! Builds the server, binds its listeners, runs it and ends it in order.

mod cores;
mod loading;
mod memory;
mod serving;

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    cores::Cores,
    serving::{Ending, Listening},
};
use crate::{
    api::{grpc, ops, rest},
    config::{Cors, Settings, SyncMode},
    disk::{RealFileSystem, RecoveryError},
    engine::{self, Engine, Opened, Progress, clock::SystemTimeSource},
    metrics::{Door, Metrics},
    service::{Admin, Service},
    traces::Traces,
};

/// Data that cannot be served: see the message.
const EXIT_DATA_REFUSED: u8 = 2;
/// A second signal: out at once.
const EXIT_AT_ONCE: i32 = 130;

/// The three listeners, bound.
#[derive(Debug)]
struct Listeners {
    http: TcpListener,
    grpc: TcpListener,
    ops: TcpListener,
}

/// What ended a run, other than a signal.
#[derive(Debug)]
enum Trouble {
    Data(RecoveryError),
    Other(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

/// Runs a server until it is told to stop, or its log fails.
pub fn run(settings: Settings) -> ExitCode {
    match serve(&settings) {
        Ok(code) => code,
        Err(Trouble::Data(error)) => {
            tracing::error!(kind = ?error.kind, "the data is refused");
            complain(&format!("tandem: {error}"));
            ExitCode::from(EXIT_DATA_REFUSED)
        }
        Err(Trouble::Other(text)) => {
            complain(&format!("tandem: {text}"));
            ExitCode::FAILURE
        }
    }
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn serve(settings: &Settings) -> Result<ExitCode, Trouble> {
    let mut settings = settings.clone();
    let memory = memory::resolve(settings.store.memory_limit, Path::new("/"));
    settings.limits.memory_bytes = memory.bytes;
    let settings = &settings;
    tracing::info!(bytes = memory.bytes, source = memory.source, "memory limit");
    let listeners = bind(settings)?;
    let addresses = [listeners.http.local_addr()?, listeners.grpc.local_addr()?, listeners.ops.local_addr()?];
    let metrics = Metrics::new(settings.telemetry.metrics).map_err(|error| Trouble::Other(error.to_string()))?;
    let traces = traces(settings, &metrics)?;
    let service = Service::new(settings.limits.clone(), metrics.clone(), traces.clone());
    let progress = service.progress();
    let cores = Cores::start(settings.server.threads, &metrics)?;
    let doors = Ending::default();
    let ops_ending = Ending::default();
    let admin = Admin::new(service.clone(), settings.server.allows_admin());
    open_doors(&admin, &settings.cors, &cores, listeners, &doors, &ops_ending)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let loading = {
            let (settings, metrics, progress) = (settings.clone(), metrics.clone(), Arc::clone(&progress));
            tokio::task::spawn_blocking(move || open_engine(&settings, metrics, progress))
        };
        let (engine, opened) = tokio::select! {
            loaded = loading => loaded.map_err(|error| Trouble::Other(error.to_string()))?.map_err(Trouble::Data)?,
            never = loading::show(&progress) => match never {},
            // Nothing was promised yet: recovery can be broken off at any point.
            () = signals.next() => std::process::exit(0),
        };
        let health = engine.health();
        service.open(engine);
        announce(settings, addresses, &opened);
        let ended = tokio::select! {
            () = signals.next() => Ended::Signal,
            () = failed_for(health, settings.wal.failed_exit_after) => Ended::Failed,
        };
        drain(&service, &doors, signals, settings.limits.drain_timeout).await;
        let closed = service.engine().map(Engine::close).unwrap_or(true);
        ops_ending.drain.cancel();
        ops_ending.abort.cancel();
        cores.join();
        traces.shut_down();
        Ok(match ended {
            Ended::Signal if closed => {
                tracing::info!("stopped cleanly");
                ExitCode::SUCCESS
            }
            Ended::Signal | Ended::Failed => {
                tracing::error!("stopped after the write-ahead log failed");
                ExitCode::FAILURE
            }
        })
    })
}

/// Traces to the collector that the configuration names, if it does.
fn traces(settings: &Settings, metrics: &Metrics) -> Result<Traces, Trouble> {
    let telemetry = &settings.telemetry;
    let Some(endpoint) = &telemetry.otlp_endpoint else { return Ok(Traces::off()) };
    let metrics = metrics.clone();
    let report = Box::new(move |count: usize, sent| metrics.spans(count as u64, sent));
    Traces::to(endpoint, telemetry.trace_sample_millionths, report).map_err(|error| Trouble::Other(error.to_string()))
}

enum Ended {
    Signal,
    Failed,
}

fn bind(settings: &Settings) -> Result<Listeners, Trouble> {
    let bind = |key: &str, address: SocketAddr| {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        bound.map_err(|error| {
            Trouble::Other(format!("{key} {address}: {error}; stop what uses the port, or choose another address"))
        })
    };
    Ok(Listeners {
        http: bind("server.http_address", settings.server.http_address)?,
        grpc: bind("server.grpc_address", settings.server.grpc_address)?,
        ops: bind("server.ops_address", settings.server.ops_address)?,
    })
}

/// Serves all doors from now on: they answer LOADING until the engine is there.
fn open_doors(
    admin: &Admin,
    cors: &Cors,
    cores: &Cores,
    listeners: Listeners,
    doors: &Ending,
    ops_ending: &Ending,
) -> Result<(), Trouble> {
    let service = admin.service();
    let not_built = |error: grpc::BuildError| Trouble::Other(error.to_string());
    let (grpc, reporter) = grpc::door(service, cors).map_err(not_built)?;
    let rest = rest::Door::new(service.clone(), cors);
    let (ops, ops_reporter) = ops::Door::new(admin).map_err(not_built)?;
    cores.spawn(grpc::follow_health(service.clone(), reporter));
    cores.spawn(grpc::follow_health(service.clone(), ops_reporter));
    let (http_listening, grpc_listening, ops_listening) = (
        Listening::new(service, doors, Door::Http),
        Listening::new(service, doors, Door::Grpc),
        // Stays up until the end, so that probes see the drain.
        Listening::new(service, ops_ending, Door::Ops),
    );
    let spreader = cores.spreader();
    let (to_http, to_grpc, to_ops) = (spreader.clone(), spreader.clone(), spreader);
    cores.spawn(async move {
        if let Ok(listener) = tokio::net::TcpListener::from_std(listeners.http) {
            http_listening.accept(listener, to_http, move |request| rest.answer(request)).await;
        }
    });
    cores.spawn(async move {
        if let Ok(listener) = tokio::net::TcpListener::from_std(listeners.grpc) {
            grpc_listening.accept(listener, to_grpc, move |request| grpc.answer(request)).await;
        }
    });
    cores.spawn(async move {
        if let Ok(listener) = tokio::net::TcpListener::from_std(listeners.ops) {
            ops_listening.accept(listener, to_ops, move |request| ops.clone().answer(request)).await;
        }
    });
    Ok(())
}

fn open_engine(
    settings: &Settings,
    metrics: Metrics,
    progress: Arc<Progress>,
) -> Result<(Engine, Opened), RecoveryError> {
    let options = engine::Options {
        data_directory: settings.server.data_dir.clone(),
        segment_bytes: settings.wal.segment_bytes,
        sync: settings.wal.sync,
        sync_interval: settings.wal.sync_interval,
        limits: settings.limits.clone(),
        snapshot: settings.snapshot,
        progress,
    };
    let time = Box::new(SystemTimeSource::default());
    let (engine, opened) = Engine::open(Arc::new(RealFileSystem), &options, time, metrics)?;
    // Nobody could ask for it otherwise.
    if settings.server.allows_admin() {
        let followed = engine.follow_keyspace(settings.keyspace.clone());
        followed.map_err(|error| RecoveryError::io(&settings.server.data_dir, error))?;
    }
    Ok((engine, opened))
}

/// Three lines for whoever started it: where, what, and what was found.
fn announce(settings: &Settings, [http, grpc, ops]: [SocketAddr; 3], opened: &Opened) {
    let sync = match settings.wal.sync {
        SyncMode::Always => "always: acknowledged writes are on disk".to_owned(),
        SyncMode::Interval => format!("interval: synced within {:?}", settings.wal.sync_interval),
        SyncMode::Never => "never: the operating system decides".to_owned(),
    };
    let recovery = &opened.recovery;
    let found = if recovery.new_store {
        "New store".to_owned()
    } else {
        let ending = match (&recovery.tear, recovery.clean) {
            (Some(tear), _) => {
                let file = tear.file.display();
                format!("unclean stop; cut {} torn bytes at offset {} of {file}", tear.bytes_cut, tear.offset)
            }
            (None, true) => "clean stop".to_owned(),
            (None, false) => "unclean stop".to_owned(),
        };
        let time_ms = opened.elapsed.as_secs_f64() * 1e3;
        let snapshot = recovery.snapshot.map(|used| format!("a snapshot at index {} and ", used.index));
        let snapshot = snapshot.unwrap_or_default();
        format!("Recovered {snapshot}{} records in {time_ms:.1} ms ({ending})", recovery.records)
    };
    let banner = format!(
        "Tandem {}: REST http://{http}, gRPC {grpc}, ops http://{ops}\nData in {}: wal.sync {sync}\n{found}: {} keys at revision {}\n",
        env!("CARGO_PKG_VERSION"),
        settings.server.data_dir.display(),
        opened.keys,
        opened.revision,
    );
    let mut stdout = io::stdout().lock();
    // Nobody may be reading: the server runs all the same.
    let _ = stdout.write_all(banner.as_bytes()).and_then(|()| stdout.flush());
    if let Some(tear) = &recovery.tear {
        tracing::warn!(file = %tear.file.display(), offset = tear.offset, bytes = tear.bytes_cut, "a torn tail was cut off the log");
    }
    tracing::info!(%http, %grpc, %ops, keys = opened.keys, revision = opened.revision, "ready");
}

/// Not ready; accept no more; finish what is in flight, or give up on it after `patience`, or at a second signal.
async fn drain(service: &Service, doors: &Ending, mut signals: Signals, patience: Duration) {
    tracing::info!("stopping: finishing what is in flight");
    service.drain();
    doors.drain.cancel();
    doors.tasks.close();
    tokio::select! {
        () = doors.tasks.wait() => {}
        () = tokio::time::sleep(patience) => tracing::warn!(?patience, "giving up on requests still in flight"),
        () = signals.next() => {
            tracing::warn!("a second signal: stopping at once");
            std::process::exit(EXIT_AT_ONCE);
        }
    }
    doors.abort.cancel();
}

/// Resolves when the log has failed and the time for reads after that is over.
async fn failed_for(mut health: tokio::sync::watch::Receiver<engine::Health>, patience: Duration) {
    if health.wait_for(|health| *health == engine::Health::WalFailed).await.is_ok() {
        tokio::time::sleep(patience).await;
    } else {
        std::future::pending().await
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
