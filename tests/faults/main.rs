//! The engine among failures: every request to the API server and every call of the store goes wrong once, or for ever,
//! or is the last thing that a killed process did. Time stands still: retries and timeouts cost nothing.
//!
//! `Complete` is believed of no backup here. Each is read back by the engine and by zstd, tar and SHA-256 alone, and
//! compared byte for byte with what the fake API server held at the manifest's revision. And whatever fails, no value of a
//! Secret is in an error, an event, a result, a report or a log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adapt;
mod api;
mod backup;
mod besides;
mod broken;
mod bucket;
mod cancel;
mod clean;
mod consistency;
mod copy;
mod delete;
mod diff;
mod existing;
mod import;
mod kill;
mod namespaces;
mod pages;
#[allow(dead_code, reason = "the tests on clusters plant more")]
#[path = "../e2e/planted.rs"]
mod planted;
mod restore;
mod run;
mod s3;
mod selection;
mod storing;
mod troubled;
mod undo;
mod unended;
mod verify;
mod world;
