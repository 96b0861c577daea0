//! In a build without the feature `ec2`: there is no client, and who wants one is told so.

use super::Error;
use super::ask::{Machine, NewVolume, VolumeState};
use super::life::Named;
use super::record::{EbsVolume, Snapshot};
use crate::aws::Access;
use crate::rules::volumes::Zone;
use std::collections::BTreeMap;
use std::time::Duration;

/// EC2 in one region; there is none in this build.
#[derive(Clone, Debug)]
pub enum Ec2 {}

type Tags = BTreeMap<String, String>;

#[expect(clippy::unused_async, reason = "as in a build with EC2")]
impl Ec2 {
    /// Says that this build has no EC2.
    ///
    /// # Errors
    /// Always.
    pub async fn open(_: &str) -> Result<Self, Error> {
        Err(Error::Setting("this build can't talk to EC2: it was made without the feature `ec2`".to_owned()))
    }

    pub(super) async fn open_with(region: &str, _: &Access) -> Result<Self, Error> {
        Self::open(region).await
    }

    /// Any: what is asked there says that there is no EC2.
    pub async fn told_region() -> Option<String> {
        Some(String::new())
    }

    /// The region.
    pub fn region(&self) -> &str {
        match *self {}
    }

    pub(super) async fn volumes(&self, _: &[String]) -> Result<Vec<(EbsVolume, VolumeState)>, Error> {
        match *self {}
    }

    pub(super) async fn volumes_tagged(&self, _: &[(&str, &[String])]) -> Result<Vec<EbsVolume>, Error> {
        match *self {}
    }

    pub(super) async fn machines(&self, _: &[String]) -> Result<BTreeMap<String, Machine>, Error> {
        match *self {}
    }

    pub(super) async fn snapshots(&self, _: &str, _: &str) -> Result<Vec<Snapshot>, Error> {
        match *self {}
    }

    pub(super) async fn snapshots_by_id(&self, _: &[String]) -> Result<Vec<Snapshot>, Error> {
        match *self {}
    }

    pub(super) async fn create_snapshot(&self, _: &str, _: &str, _: &Tags, _: Duration) -> Result<Snapshot, Error> {
        match *self {}
    }

    pub(super) async fn create_snapshots(
        &self,
        _: &str,
        _: &[String],
        _: &str,
        _: &Tags,
        _: Duration,
    ) -> Result<Vec<Snapshot>, Error> {
        match *self {}
    }

    pub(super) async fn copy_snapshot(&self, _: &Named, _: Option<&str>, _: &str, _: &Tags) -> Result<String, Error> {
        match *self {}
    }

    pub(super) async fn set_shared(&self, _: &str, _: &str, _: bool) -> Result<(), Error> {
        match *self {}
    }

    pub(super) async fn locks(&self, _: &[String]) -> Result<Tags, Error> {
        match *self {}
    }

    pub(super) async fn images(&self, _: &[String]) -> Result<Tags, Error> {
        match *self {}
    }

    pub(super) async fn may_delete_snapshot(&self, _: &str) -> Result<(), Error> {
        match *self {}
    }

    pub(super) async fn delete_snapshot(&self, _: &str) -> Result<(), Error> {
        match *self {}
    }

    pub(super) async fn create_volume(&self, _: &NewVolume<'_>) -> Result<String, Error> {
        match *self {}
    }

    pub(super) async fn delete_volume(&self, _: &str) -> Result<(), Error> {
        match *self {}
    }

    pub(super) async fn zones(&self) -> Result<Vec<Zone>, Error> {
        match *self {}
    }
}
