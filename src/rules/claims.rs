//! The data behind claims: what a backup says of it. A claim whose data nothing saves is a problem in the report, never
//! silence, unless the person said that it is meant.

use serde::{Deserialize, Serialize};

/// What is to become of volume data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeData {
    /// It is to be saved; what can't be is a problem.
    #[default]
    Save,
    /// It is meant to be left out.
    Skip,
}

/// What is said of a claim whose data nothing saves.
pub fn unsaved(why: &str) -> String {
    format!("the data on its volume is not saved: {why}; `--volumes=skip` says that it is meant")
}

/// The rule by which it is an omission instead.
pub const SKIPPED: &str = "--volumes=skip: the data on the volume is not saved";
