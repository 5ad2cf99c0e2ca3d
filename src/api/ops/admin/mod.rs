//! The administration, both ways: `tandem.admin.v1.AdminService`, and `/v1/admin/` as JSON.

mod grpc;
mod json;
mod keyspace_json;
mod rest;

pub use self::{
    grpc::{Administration, door as grpc_door},
    rest::door as rest_door,
};
