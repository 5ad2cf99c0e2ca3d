//! Tandem
pub mod disk;
pub mod error;
pub mod limits;
pub mod model;
pub mod pb;
pub mod store;
