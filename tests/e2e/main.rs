//! The promises of the README, each through a Job, the real API server and MinIO; and what a person sees who makes a
//! mistake. `tests/run.sh` starts the clusters; nothing here is skipped when they are missing.
//!
//! - `hooks`: commands in pods before and after a backup
//! - `promises`: one test or more for each promise
//! - `interrupted`: workers that are killed, or two alive at once
//! - `mistakes`: wrong names, buckets, roles, images: each answer names the thing and the way out
//! - `volumes`: EBS snapshots and volumes, with stand-ins for EC2 and its CSI driver
//! - `verbs`: the verbs as a user runs them, in Jobs and with `--local`

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests say what went wrong by panicking")]

mod harness;
mod hooks;
mod interrupted;
mod mistakes;
mod promises;
mod proxy;
#[path = "../ec2/standin/mod.rs"]
mod standin;
mod verbs;
mod volumes;
