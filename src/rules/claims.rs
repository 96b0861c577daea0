//! The data behind claims: what a backup says of it. A claim whose data nothing saves is a problem in the report, never
//! silence, unless the person said that it is meant.

use super::Error;
use super::json::{Text, parse};
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

/// Why the data of a claim is a problem, as long as no method saves any.
pub const UNSAVED: &str =
    "the data on its volume is not saved: this version saves no volume data; `--volumes=skip` says that it is meant";
/// The rule by which it is an omission instead.
pub const SKIPPED: &str = "--volumes=skip: the data on the volume is not saved";

#[derive(Deserialize)]
struct Claim<'a> {
    #[serde(borrow, default)]
    spec: Spec<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    volume_name: Text<'a>,
}

/// Whether a claim has a volume, and so may have data. One that waits for its first consumer has none yet.
///
/// # Errors
/// When the object isn't shaped as a claim.
pub fn has_volume(raw: &str) -> Result<bool, Error> {
    Ok(!parse::<Claim<'_>>(raw)?.spec.volume_name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bound_claims_have_data() {
        assert_eq!(has_volume(r#"{"spec":{"volumeName":"pvc-1"}}"#), Ok(true));
        for unbound in [r#"{"spec":{"volumeName":""}}"#, r#"{"spec":{}}"#, "{}"] {
            assert_eq!(has_volume(unbound), Ok(false), "{unbound}");
        }
        assert!(has_volume(r#"{"spec":[]"#).is_err());
    }
}
