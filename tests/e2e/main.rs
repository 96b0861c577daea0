//! The promises of the README, each through a Job, the real API server and MinIO; and what a person sees who makes a
//! mistake. `tests/run.sh` starts the clusters; nothing here is skipped when they are missing.
//!
//! - `hooks`: commands in pods before and after a backup
//! - `adapt`: restores that change what was saved
//! - `promises`: one test or more for each promise
//! - `interrupted`: workers that are killed, or two alive at once
//! - `mistakes`: wrong names, buckets, roles, images: each answer names the thing and the way out
//! - `planted`: what every test has in its Secrets, for `tests/leaks` to look for
//! - `selection`: kinds, names, labels, and what `--explain` says of them
//! - `restore`: onto what is there: plans, dry runs, updates
//! - `undo`: safety backups, undoing, restores of some of a backup
//! - `rights`: the verbs as users with exactly the rights that are listed
//! - `single_rights`: what fails without any single one of them
//! - `diff`: backups compared
//! - `uploads`: workers that are killed, stopped or cancelled in the middle of a multipart upload
//! - `killed`: restores and undos whose pod is killed between two writes
//! - `volumes`: EBS snapshots and volumes, with stand-ins for EC2 and its CSI driver
//! - `life`: backups deleted, verified and copied, with their snapshots
//! - `accounts`: backups copied or lent to another AWS account
//! - `verbs`: the verbs as a user runs them, in Jobs and with `--local`

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests say what went wrong by panicking")]

mod accounts;
mod adapt;
mod diff;
mod harness;
mod hooks;
mod imports;
mod interrupted;
mod killed;
mod life;
mod mistakes;
mod planted;
mod promises;
mod proxy;
mod restore;
mod rights;
mod selection;
mod single_rights;
#[path = "../ec2/standin/mod.rs"]
mod standin;
mod undo;
mod uploads;
mod verbs;
mod volumes;
