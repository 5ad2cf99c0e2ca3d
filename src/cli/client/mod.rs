//! The client's commands: what a running server can be asked, over gRPC.

pub(super) mod arguments;
mod backoff;
mod backup;
mod child;
pub(super) mod connection;
mod count;
mod delete;
mod event_command;
mod export;
pub(super) mod failure;
mod get;
mod import;
mod import_lines;
mod increment;
mod list;
mod lock;
pub(super) mod output;
pub(super) mod progress;
mod put;
mod range;
mod scan;
pub(super) mod table;
mod touch;
mod txn;
mod watch;
pub(super) mod write;

use std::{future::Future, process::ExitCode};

use clap::Subcommand;

use self::failure::Failure;

/// What a server can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read one key: exit code 1 if it is missing.
    #[command(after_help = "Examples:
  tandem get greeting
  tandem get photo > photo.jpg              raw bytes, as there is no terminal
  tandem get greeting --output json
  tandem get greeting --metadata            version, revision, times")]
    Get(get::Get),
    /// Write one key.
    #[command(after_help = "Examples:
  tandem put greeting hello
  tandem put photo - --content-type image/jpeg < photo.jpg
  tandem put session token --ttl 30m
  tandem put leader me --if-absent          exit code 1 if there is one
  tandem put config new --if-version 3")]
    Put(put::Put),
    /// Remove one key, or a range: exit code 1 if the one key is missing.
    #[command(
        name = "del",
        after_help = "Examples:
  tandem del greeting
  tandem del greeting --previous            print what it held
  tandem del leader --if-value me
  tandem del --prefix tmp: --dry-run        how many there are
  tandem del --prefix tmp:"
    )]
    Delete(delete::Delete),
    /// Add to a number and print it.
    #[command(
        name = "incr",
        after_help = "Examples:
  tandem incr visits
  tandem incr stock --by -3
  tandem incr tickets --initial 1000
  tandem incr logins:today --ttl 24h        the time to live counts from the first"
    )]
    Increment(increment::Increment),
    /// Change when a key expires, and nothing else: exit code 1 if it is missing.
    #[command(after_help = "Examples:
  tandem touch session --ttl 30m
  tandem touch session --never")]
    Touch(touch::Touch),
    /// Print a page of keys in order.
    #[command(after_help = "Examples:
  tandem list --prefix user:
  tandem list --all --limit 1000 --keys-only
  tandem list --prefix photos/ --delimiter /     as folders
  tandem list --start a --end n --descending
  tandem list --prefix user: --output json   as GET /v1/kv answers")]
    List(list::List),
    /// Print all keys of a range in order, however many.
    #[command(after_help = "Examples:
  tandem scan --prefix user: --keys-only
  tandem scan --all | head
  tandem scan --prefix user: --output json   as GET /v1/kv streams NDJSON")]
    Scan(scan::Scan),
    /// Print changes as they happen.
    #[command(after_help = "\
A connection that breaks off is made again, and watching goes on at the next revision: nothing is missed or told twice.

Examples:
  tandem watch config
  tandem watch --prefix user: --initial-state    what there is, then what changes
  tandem watch --all --from 1200                 from a revision on
  tandem watch --prefix job: --kinds put --output json
  tandem watch config --exec 'cat > /etc/app.conf && systemctl reload app'")]
    Watch(watch::Watch),
    /// Print how many keys there are.
    #[command(after_help = "Examples:
  tandem count --all
  tandem count --prefix user:")]
    Count(count::Count),
    /// Carry out a transaction: guards, then one of two branches. Exit code 1 if a guard did not hold.
    #[command(after_help = r#"Examples:
  tandem txn transfer.json
  echo '{"guards":[{"key":"a","conditions":[{"version":1}]}],
         "then":[{"put":{"key":"a","value":"new"}},{"increment":{"key":"changes"}}],
         "otherwise":[{"get":{"key":"a"}}]}' | tandem txn -"#)]
    Txn(txn::Txn),
    /// Run a command while a key is ours; its exit code is ours. Exit code 1 if another holds the key.
    #[command(after_help = "\
The key is put if it is absent, kept alive while the command runs, and deleted when it ends. The command finds the \
key's create revision in TANDEM_FENCE: it rises with each holder, so a resource can refuse what an older one sends. \
When the lock is lost, because the key was deleted or the server did not answer in time, the command is asked to end \
(SIGTERM), then killed, and the exit code is 69. Signals are handed on to the command.

Examples:
  tandem lock nightly-report -- ./report.sh
  tandem lock leader --wait -- ./serve.sh       wait until the key is free
  tandem lock leader --wait=30s -- ./serve.sh   no longer than that
  tandem lock deploy --ttl 30s -- sh -c 'deploy --fence $TANDEM_FENCE'")]
    Lock(lock::Lock),
    /// Print a range as NDJSON, to be imported elsewhere.
    #[command(after_help = "\
Each batch is exact at its own revision. What is not whole has no end mark in its last line.

Examples:
  tandem export > everything.ndjson
  tandem export --prefix user: | gzip > users.ndjson.gz")]
    Export(export::Export),
    /// Write what an export holds.
    #[command(after_help = "\
Keys, values, content types and times of expiry are those of the export; revisions and versions are new. A batch that \
was not answered is tried again and never written twice. Exit code 2 if a line cannot be taken: those before it are in.

Examples:
  tandem import everything.ndjson
  gunzip < users.ndjson.gz | tandem import -
  tandem export --endpoint http://old:16701 | tandem import --endpoint http://new:16701")]
    Import(import::Import),
    /// Write a snapshot of a running server to a file, checked and durable.
    #[command(after_help = "\
The server takes a snapshot, at one revision and without a pause, and streams it. The file appears under its name only when \
it is whole, checked to its state hash, and on disk. It asks the ops listener, which must allow it: server.admin.

Examples:
  tandem backup /backups/monday.snap
  tandem backup nightly.snap --force --endpoint http://kv-0.kv:16702
  tandem backup - | zstd > store.snap.zst        no check: verify it when it is unpacked")]
    Backup(backup::Backup),
}

impl Command {
    /// Carries the command out.
    pub fn run(self) -> ExitCode {
        carry_out(self.act()).map_or_else(Failure::report, |()| ExitCode::SUCCESS)
    }

    async fn act(self) -> failure::Result<()> {
        match self {
            Self::Get(get) => get.run().await,
            Self::Put(put) => put.run().await,
            Self::Delete(delete) => delete.run().await,
            Self::Increment(increment) => increment.run().await,
            Self::Touch(touch) => touch.run().await,
            Self::List(list) => list.run().await,
            Self::Count(count) => count.run().await,
            Self::Txn(txn) => txn.run().await,
            Self::Lock(lock) => lock.run().await,
            Self::Scan(scan) => scan.run().await,
            Self::Watch(watch) => watch.run().await,
            Self::Export(export) => export.run().await,
            Self::Import(import) => import.run().await,
            Self::Backup(backup) => backup.run().await,
        }
    }
}

/// Does what talks to a server.
pub(super) fn carry_out<T>(action: impl Future<Output = failure::Result<T>>) -> failure::Result<T> {
    // The connection lives on a thread of its own: it answers the server's pings while a reader of the output rests.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let no_thread = |error| Failure::unavailable(format!("INTERNAL: no thread can be started: {error}"));
    runtime.map_err(no_thread)?.block_on(action)
}
