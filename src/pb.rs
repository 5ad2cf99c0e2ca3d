//! The one door to generated code: messages and services of `proto/`, and their descriptors.

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    pub mod tandem {
        pub mod v1 {
            tonic::include_proto!("tandem.v1");
        }
        pub mod admin {
            pub mod v1 {
                tonic::include_proto!("tandem.admin.v1");
            }
        }
        pub mod storage {
            pub mod v1 {
                tonic::include_proto!("tandem.storage.v1");
            }
        }
    }
}

/// `tandem.admin.v1`: what operators ask of a server.
pub use generated::tandem::admin::v1 as admin;
/// `tandem.storage.v1`: what the log and the snapshots hold.
pub use generated::tandem::storage::v1 as storage;
pub use generated::tandem::v1::*;

/// Descriptors of the public schema, for reflection.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public_descriptors.bin"));
/// Descriptors of the public and of the stored schema, for the tools that look inside.
pub const ALL_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/all_descriptors.bin"));
/// Descriptors of what the ops listener speaks, for its reflection.
pub const ADMIN_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/admin_descriptors.bin"));
