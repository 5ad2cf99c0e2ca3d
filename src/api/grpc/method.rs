//! The methods that are known, by path: how metrics name them, what they do, and whether they stream.

use crate::metrics::Operation;

/// What a path means.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// As metrics name it.
    pub label: &'static str,
    /// What it does, if it is the store's.
    pub operation: Option<Operation>,
    /// Streams last as long as their readers like: no histogram of calls should see them, and no request timeout ends
    /// them.
    pub streams: bool,
}

impl Method {
    /// The method of a path.
    pub fn of(path: &str) -> Self {
        let call = |label, operation| Self { label, operation: Some(operation), streams: false };
        let stream = |label, operation| Self { label, operation: Some(operation), streams: true };
        match path {
            "/tandem.v1.KvService/Get" => call("tandem.v1.KvService/Get", Operation::Get),
            "/tandem.v1.KvService/BatchGet" => call("tandem.v1.KvService/BatchGet", Operation::BatchGet),
            "/tandem.v1.KvService/List" => call("tandem.v1.KvService/List", Operation::List),
            "/tandem.v1.KvService/Count" => call("tandem.v1.KvService/Count", Operation::Count),
            "/tandem.v1.KvService/Put" => call("tandem.v1.KvService/Put", Operation::Put),
            "/tandem.v1.KvService/Delete" => call("tandem.v1.KvService/Delete", Operation::Delete),
            "/tandem.v1.KvService/Increment" => call("tandem.v1.KvService/Increment", Operation::Increment),
            "/tandem.v1.KvService/Touch" => call("tandem.v1.KvService/Touch", Operation::Touch),
            "/tandem.v1.KvService/BatchWrite" => call("tandem.v1.KvService/BatchWrite", Operation::BatchWrite),
            "/tandem.v1.KvService/Txn" => call("tandem.v1.KvService/Txn", Operation::Txn),
            "/tandem.v1.KvService/DeleteRange" => call("tandem.v1.KvService/DeleteRange", Operation::DeleteRange),
            "/tandem.v1.KvService/Scan" => stream("tandem.v1.KvService/Scan", Operation::Scan),
            "/tandem.v1.KvService/Watch" => stream("tandem.v1.KvService/Watch", Operation::Watch),
            "/tandem.admin.v1.AdminService/Status" => call("tandem.admin.v1.AdminService/Status", Operation::Status),
            "/tandem.admin.v1.AdminService/CreateSnapshot" => {
                call("tandem.admin.v1.AdminService/CreateSnapshot", Operation::CreateSnapshot)
            }
            "/tandem.admin.v1.AdminService/ListSnapshots" => {
                call("tandem.admin.v1.AdminService/ListSnapshots", Operation::ListSnapshots)
            }
            "/tandem.admin.v1.AdminService/Backup" => stream("tandem.admin.v1.AdminService/Backup", Operation::Backup),
            "/tandem.admin.v1.AdminService/VerifyIntegrity" => {
                call("tandem.admin.v1.AdminService/VerifyIntegrity", Operation::VerifyIntegrity)
            }
            "/tandem.admin.v1.AdminService/SlowRequests" => {
                call("tandem.admin.v1.AdminService/SlowRequests", Operation::SlowRequests)
            }
            "/tandem.admin.v1.AdminService/KeyspaceStats" => {
                call("tandem.admin.v1.AdminService/KeyspaceStats", Operation::KeyspaceStats)
            }
            "/tandem.admin.v1.AdminService/Sync" => call("tandem.admin.v1.AdminService/Sync", Operation::Sync),
            "/grpc.health.v1.Health/Check" => {
                Self { label: "grpc.health.v1.Health/Check", operation: None, streams: false }
            }
            "/grpc.health.v1.Health/Watch" => {
                Self { label: "grpc.health.v1.Health/Watch", operation: None, streams: true }
            }
            _ => Self { label: "_OTHER", operation: None, streams: path.starts_with("/grpc.reflection.") },
        }
    }
}
