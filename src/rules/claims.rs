//! The data behind claims: what a backup says of it. A claim whose data nothing saves is a problem in the report, never
//! silence, unless the person said that it is meant. And the volume behind a claim that was deleted: one that is retained
//! waits, released, for a person to say who may have it.

use super::Error;
use super::json::{Text, parse};
use crate::resource::ObjectName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// The volume that a claim is bound to.
///
/// # Errors
/// When the object isn't shaped as a claim.
pub fn volume_of(raw: &str) -> Result<Option<String>, Error> {
    let name = parse::<Claim<'_>>(raw)?.spec.volume_name;
    Ok(Some(name.to_string()).filter(|name| !name.is_empty()))
}

/// The claim that a volume remembers, but for its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// `spec.claimRef.uid`.
    pub uid: String,
    /// `spec.claimRef.resourceVersion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// The patch that gives a released volume back to its claim, which is about to be restored: the volume remembers the
/// claim by name and uid, and without the uid it takes the one of that name. `None` where the volume is not released, or
/// was another claim's.
pub fn given_back(volume: &Value, claim: &ObjectName, claim_was: &str) -> Option<(Value, Remembered)> {
    let is_its = text(volume, "/status/phase") == Some("Released")
        && remembers(volume, claim)
        && text(volume, "/spec/claimRef/uid") == Some(claim_was);
    let version = text(volume, "/metadata/resourceVersion").filter(|_| is_its)?;
    let patch =
        json!({"metadata": {"resourceVersion": version}, "spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
    let resource_version = text(volume, "/spec/claimRef/resourceVersion").map(str::to_owned);
    Some((patch, Remembered { uid: claim_was.to_owned(), resource_version }))
}

/// The patch that lets a volume remember the claim again that it remembered before it was given back, when the restored
/// claim is gone. `None` where it does already, or remembers a claim of another name.
pub fn taken_back(volume: &Value, claim: &ObjectName, was: &Remembered) -> Option<Value> {
    let changes = remembers(volume, claim) && text(volume, "/spec/claimRef/uid") != Some(&was.uid);
    let version = text(volume, "/metadata/resourceVersion").filter(|_| changes)?;
    Some(json!({"metadata": {"resourceVersion": version}, "spec": {"claimRef": was}}))
}

fn remembers(volume: &Value, claim: &ObjectName) -> bool {
    text(volume, "/spec/claimRef/namespace") == claim.namespace.as_deref()
        && text(volume, "/spec/claimRef/name") == Some(&claim.name)
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_volume_goes_back_to_its_own_claim_only() {
        let volume = |phase: &str, namespace: &str, name: &str, uid: &str| {
            json!({"metadata": {"resourceVersion": "7"}, "status": {"phase": phase},
                "spec": {"claimRef": {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": "1"}}})
        };
        let claim = ObjectName::new(Some("shop"), "data");
        let (patch, was) = given_back(&volume("Released", "shop", "data", "u"), &claim, "u").unwrap();
        let expected =
            json!({"metadata": {"resourceVersion": "7"}, "spec": {"claimRef": {"uid": null, "resourceVersion": null}}});
        assert_eq!(patch, expected);
        assert_eq!(was, Remembered { uid: "u".into(), resource_version: Some("1".into()) });
        // and when that is undone
        let expected =
            json!({"metadata": {"resourceVersion": "7"}, "spec": {"claimRef": {"uid": "u", "resourceVersion": "1"}}});
        assert_eq!(taken_back(&volume("Released", "shop", "data", "new"), &claim, &was), Some(expected));
        for other in [volume("Released", "shop", "data", "u"), volume("Available", "shop", "logs", "new")] {
            assert_eq!(taken_back(&other, &claim, &was), None, "{other}");
        }
        for other in [
            volume("Bound", "shop", "data", "u"),
            volume("Released", "blog", "data", "u"),
            volume("Released", "shop", "logs", "u"),
            volume("Released", "shop", "data", "v"),
            json!({}),
        ] {
            assert_eq!(given_back(&other, &claim, "u"), None, "{other}");
        }
        assert_eq!(volume_of(r#"{"spec":{"volumeName":"pv-1"}}"#), Ok(Some("pv-1".to_owned())));
        assert_eq!(volume_of("{}"), Ok(None));
    }
}
