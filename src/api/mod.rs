//! The doors: each parses, calls the service, maps the error and answers. They never see each other.

pub mod cors;
pub mod grpc;
pub mod ops;
pub mod rest;
mod rest_of_body;
pub mod spanned;
