//! Proof of "one instant", on real API servers: each test starts control planes of its own (`tests/cluster/control-plane`)
//! and needs no node, no image and no cluster.
//!
//! - `one_instant`: 200 backups under writers, each compared with what a watch saw up to its revision; relaxed ones fail
//! - `compaction`: the revision is compacted in the middle of a list, once and twice
//! - `apart`: a kind with an etcd of its own, and an aggregated API
//! - `definitions`: CRDs that come and go around the revision
//!
//! With the same control planes, `broken`: what an API server can't read any more; `older`: restores onto one of an older minor
//! version; `preferred`: kinds in another version than their group's preferred one; `restores`: of what is odd, and while the API server is killed;
//! `restart`: a backup while the API server is killed; `immutable` and `versions`: that two tables of rules say what API servers say.

#![allow(clippy::expect_used, clippy::panic, reason = "tests say what went wrong by panicking")]

mod aggregated;
mod apart;
mod api;
mod broken;
mod compaction;
mod definitions;
mod engine;
mod etcd;
mod history;
mod immutable;
mod older;
mod one_instant;
mod plane;
mod preferred;
mod restart;
mod restores;
mod versions;
mod writers;
