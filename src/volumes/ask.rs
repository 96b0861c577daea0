//! What EC2 is asked for and tells, in words that need no SDK.

use super::record::EbsVolume;
use std::collections::{BTreeMap, BTreeSet};

/// Values in one filter; EC2 takes 200.
pub(super) const VALUES: usize = 200;

/// What a machine has attached.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// All volumes but the one it boots from.
    pub(super) data_volumes: BTreeSet<String>,
}

/// A volume to make.
#[derive(Clone, Debug)]
pub(super) struct NewVolume<'a> {
    pub(super) snapshot: &'a str,
    pub(super) like: &'a EbsVolume,
    pub(super) zone: &'a str,
    pub(super) tags: &'a BTreeMap<String, String>,
    /// Two requests with one token make one volume.
    pub(super) token: &'a str,
}

/// How far a new volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VolumeState {
    Creating,
    Ready,
    Error,
}
