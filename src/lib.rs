//! The engine of kubectl-backup: everything between the arguments of a person (`plugin/`) and the outside world.
//!
//! The way of a backup is `operations::backup` (the order of its steps) and `pipeline::save` (how objects travel from
//! the API server into the bucket). Rooms are arranged in floors, and a room imports lower floors only; the list is in
//! `docs/architecture.md` and `tests/floors.rs` enforces it.
//!
//! The engine prints nothing and reads no clock and no environment of its own: both arrive in
//! [`operations::Context`]. The exceptions are the constructors of the AWS and Kubernetes clients, which read the
//! environment because their users expect them to.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod archive;
mod aws;
pub mod cluster;
pub mod config;
pub mod id;
pub mod jobs;
pub mod operations;
pub mod pipeline;
pub mod report;
pub mod resource;
pub mod rules;
pub mod runtime;
pub mod store;
pub mod volumes;
pub mod worker;
