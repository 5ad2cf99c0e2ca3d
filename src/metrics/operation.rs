//! Operations and doors, by the names that metrics and logs give them.

/// An operation of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads a key.
    Get,
    /// Reads many keys.
    BatchGet,
    /// Reads a page of a range.
    List,
    /// Reads all of a range.
    Scan,
    /// Counts a range.
    Count,
    /// Writes a key.
    Put,
    /// Removes a key.
    Delete,
    /// Adds to a number.
    Increment,
    /// Changes an expiry.
    Touch,
    /// Writes many keys, each on its own.
    BatchWrite,
    /// Writes many keys, all or none.
    Txn,
    /// Removes a range.
    DeleteRange,
    /// Hears of changes.
    Watch,
    /// Tells an operator how the server is.
    Status,
    /// Takes a snapshot.
    CreateSnapshot,
    /// Lists the snapshots.
    ListSnapshots,
    /// Streams a snapshot.
    Backup,
    /// Checks the files of the store.
    VerifyIntegrity,
    /// Brings everything that is written to disk.
    Sync,
    /// Tells of the last slow requests.
    SlowRequests,
    /// Tells what the keys take.
    KeyspaceStats,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Get,
        Self::BatchGet,
        Self::List,
        Self::Scan,
        Self::Count,
        Self::Put,
        Self::Delete,
        Self::Increment,
        Self::Touch,
        Self::BatchWrite,
        Self::Txn,
        Self::DeleteRange,
        Self::Watch,
        Self::Status,
        Self::CreateSnapshot,
        Self::ListSnapshots,
        Self::Backup,
        Self::VerifyIntegrity,
        Self::Sync,
        Self::SlowRequests,
        Self::KeyspaceStats,
    ];

    /// Whether it writes.
    pub fn is_write(self) -> bool {
        match self {
            Self::Get | Self::BatchGet | Self::List | Self::Scan | Self::Count | Self::Watch => false,
            Self::Put | Self::Delete | Self::Increment | Self::Touch => true,
            Self::BatchWrite | Self::Txn | Self::DeleteRange => true,
            Self::Status | Self::CreateSnapshot | Self::ListSnapshots | Self::Sync => false,
            Self::Backup | Self::VerifyIntegrity | Self::SlowRequests | Self::KeyspaceStats => false,
        }
    }

    /// Whether it lasts as long as files are long, which no request timeout bounds.
    pub fn is_lengthy(self) -> bool {
        matches!(self, Self::CreateSnapshot | Self::Backup | Self::VerifyIntegrity)
    }

    /// As metrics and logs name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::BatchGet => "batch_get",
            Self::List => "list",
            Self::Scan => "scan",
            Self::Count => "count",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Increment => "increment",
            Self::Touch => "touch",
            Self::BatchWrite => "batch_write",
            Self::Txn => "txn",
            Self::DeleteRange => "delete_range",
            Self::Watch => "watch",
            Self::Status => "status",
            Self::CreateSnapshot => "create_snapshot",
            Self::ListSnapshots => "list_snapshots",
            Self::Backup => "backup",
            Self::VerifyIntegrity => "verify_integrity",
            Self::Sync => "sync",
            Self::SlowRequests => "slow_requests",
            Self::KeyspaceStats => "keyspace_stats",
        }
    }

    /// As metrics and logs name what a request asked for; `None`: none of the store's operations.
    pub fn label_of(operation: Option<Self>) -> &'static str {
        operation.map_or("_OTHER", Self::label)
    }
}

/// A door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// REST.
    Http,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    /// As metrics and logs name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}
