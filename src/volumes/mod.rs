//! The data behind claims. Of EBS volumes [`snapshot`] makes snapshots while a backup's lists run, and [`restore`] makes
//! volumes of them again, with PersistentVolumes that bind; or [`import`] has the CSI driver make them. Defines the [`record::VolumeCopy`], a line of `report.json`
//! by which one finds the other. [`life`] is what becomes of snapshots after that: looked after, removed; [`copy`] takes them to other regions, [`share`] to
//! other accounts; [`removal`] is what becomes of the volumes when their restore is undone.
//!
//! `ec2` talks to EC2 with one retry policy of its own, `fault` judges its answers, `pace` keeps within its limits. Which
//! claim is saved how is decided in `rules::volumes`; knows nothing of archives and Jobs.
#![cfg_attr(not(feature = "ec2"), allow(dead_code, unused_assignments, reason = "nothing is asked without a client"))]

mod ask;
pub mod copy;
#[cfg(feature = "ec2")]
mod ec2;
#[cfg(not(feature = "ec2"))]
#[path = "without_ec2.rs"]
mod ec2;
mod error;
#[cfg(feature = "ec2")]
mod fault;
pub mod import;
pub mod life;
#[cfg(feature = "ec2")]
mod pace;
mod place;
pub mod record;
pub mod removal;
pub mod restore;
pub mod share;
pub mod snapshot;

pub use ec2::Ec2;
pub use error::Error;
pub use place::Place;
