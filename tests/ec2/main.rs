//! The real EC2 client of the SDK against a stand-in for EC2 (`standin/`, and its README), in one process and with a clock
//! that stands still: minutes of pauses cost nothing, and what is measured is EC2's time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accounts;
mod backup;
mod copy;
mod life;
mod limits;
mod moto;
mod removal;
mod restore;
mod retries;
mod rights;
mod standin;
mod truth;
mod world;
