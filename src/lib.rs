//! Tandem: an in-memory, durable key-value store with two doors, gRPC and REST, over one engine.
pub mod error;
pub mod limits;
pub mod model;
pub mod pb;
