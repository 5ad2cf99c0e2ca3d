//! Watching: what changed, for whom, and from when.
//!
//! `apply` notes each change ([`changes`]) into a bounded [`history`]. Once records are on disk the log thread publishes
//! them to the [`hub`], which finds the watchers they concern ([`matching`]) and fills their [`inbox`]es. A
//! [`subscription`] reads the history until it has caught up, then its inbox. [`initial`] reads a range as it was at one
//! revision, from which a subscription goes on.

pub mod changes;
pub mod history;
pub mod hub;
pub mod inbox;
pub mod initial;
pub mod matching;
pub mod subscription;

#[cfg(test)]
mod tests;
