//! What becomes of the objects of an import afterwards. A claim that is bound has its volume, and both can go. One that waits
//! for its first pod needs them until then, longer than a restore lasts: they stay, and a later restore removes them.

use super::{AT_ONCE, Filled, Imports, LOOKS, contents, snapshots};
use crate::resource::{Kind, ObjectName};
use crate::rules::marks::{CLAIM, ID, MANAGED};
use crate::volumes::Error;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the driver may take to fill claims until a restore that is done doesn't wait any more.
const BOUND: Duration = Duration::from_secs(30);
/// How soon something asks for a claim that a restored pod mounts.
const ASKED_FOR: Duration = Duration::from_secs(5);
/// How long an answer about events may take.
const ANSWER: Duration = Duration::from_secs(20);
/// How old objects of an import must be that no claim names, until they count as left: a restore may be about to make it.
const LEFT: SignedDuration = SignedDuration::from_hours(24);
/// The annotation by which the volume controller asks a driver for a claim's volume: at once, or when a pod needs it.
const ASKED: &str = "volume.kubernetes.io/storage-provisioner";

/// How a claim is when the restore ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Bound,
    /// The driver was asked for its volume.
    Asked,
    /// No pod has asked for it yet.
    Waits,
    /// It isn't there, or is filled from something else.
    Other,
}

impl Claim {
    fn of(claim: Option<&Value>, snapshot: &str) -> Self {
        let Some(claim) = claim else { return Self::Other };
        let is_from = |field: &str| claim["spec"][field]["name"] == snapshot;
        if !is_from("dataSource") && !is_from("dataSourceRef") {
            return Self::Other;
        }
        match claim["metadata"]["annotations"].get(ASKED) {
            _ if claim["status"]["phase"] == "Bound" => Self::Bound,
            Some(_) => Self::Asked,
            None => Self::Waits,
        }
    }
}

/// Objects of an import that are still needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The kind.
    pub kind: Kind,
    /// The object.
    pub name: ObjectName,
    /// Its uid.
    pub uid: String,
}

/// How the imports of a restore ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Objects that stay, since a claim is still to be filled from them.
    pub left: Vec<Leftover>,
    /// Claims that wait for their first pod.
    pub waiting: Vec<ObjectName>,
    /// Claims that aren't filled though the driver was asked to, with its words where there are some.
    pub unfilled: Vec<(ObjectName, Option<String>)>,
}

impl Imports {
    /// Waits a moment for claims to be filled, and removes what no claim needs any more. `done`: the restore is, and claims
    /// may be waited for.
    pub async fn settle(&self, all: &[Filled], done: bool) -> Result<Ending, Error> {
        let claims = if done { self.filled(all).await? } else { self.look(all).await? };
        let mut ending = Ending::default();
        for (one, claim) in all.iter().zip(claims) {
            match claim {
                Claim::Bound | Claim::Other => {
                    self.try_remove(&one.wish.namespace, &one.name).await;
                    continue;
                }
                Claim::Waits => ending.waiting.push(one.claim()),
                Claim::Asked => {
                    let why = if done { self.failure(&one.claim()).await } else { None };
                    ending.unfilled.push((one.claim(), why));
                }
            }
            for (kind, name) in [(snapshots(), one.snapshot()), (contents(), one.content())] {
                if let Some(object) = self.get(&kind, &name).await? {
                    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                    ending.left.push(Leftover { kind, name, uid });
                }
            }
        }
        Ok(ending)
    }

    async fn look(&self, all: &[Filled]) -> Result<Vec<Claim>, Error> {
        let looked = stream::iter(all.to_vec())
            .map(|one| async move { Ok(Claim::of(self.get(&self.claims, &one.claim()).await?.as_ref(), &one.name)) });
        looked.buffered(AT_ONCE).try_collect().await
    }

    /// Looks until no claim gets anything any more, or it has been long enough.
    async fn filled(&self, all: &[Filled]) -> Result<Vec<Claim>, Error> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            let claims = self.look(all).await?;
            let goes_on = |claim: &Claim| match claim {
                Claim::Asked => begun.elapsed() < BOUND,
                Claim::Waits => begun.elapsed() < ASKED_FOR,
                Claim::Bound | Claim::Other => false,
            };
            if !claims.iter().any(goes_on) {
                return Ok(claims);
            }
            if !told {
                self.events.note(format!("waiting until claims are filled, at most {} s", BOUND.as_secs()));
                told = true;
            }
            sleep(LOOKS).await;
        }
    }

    /// What the driver said of a claim that it couldn't fill.
    async fn failure(&self, claim: &ObjectName) -> Option<String> {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Event".to_owned(),
            plural: "events".to_owned(),
        };
        let namespace = claim.namespace.as_deref().unwrap_or_default();
        let events: Api<DynamicObject> = Api::namespaced_with(self.cluster.client().clone(), namespace, &resource);
        let about = format!(
            "involvedObject.kind=PersistentVolumeClaim,involvedObject.name={},reason=ProvisioningFailed",
            claim.name
        );
        let params = ListParams::default().fields(&about);
        let listed = tokio::time::timeout(ANSWER, events.list(&params)).await.ok()?.ok()?;
        let at = |event: &DynamicObject| event.data["lastTimestamp"].as_str().unwrap_or_default().to_owned();
        let last = listed.items.iter().max_by_key(|event| at(event))?;
        Some(last.data["message"].as_str()?.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Removes what earlier restores, or an earlier try of this one, have left and no claim needs any more.
    ///
    /// # Errors
    /// The API server's.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Meta,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta {
            name: String,
            creation_timestamp: Option<Timestamp>,
            #[serde(default)]
            labels: BTreeMap<String, String>,
            #[serde(default)]
            annotations: BTreeMap<String, String>,
        }
        let pick = |raw: &str| {
            let meta = serde_json::from_str::<Object>(raw).ok()?.metadata;
            let is_managed = meta.labels.get(MANAGED).is_some_and(|managed| managed == "true");
            (is_managed && meta.labels.contains_key(ID)).then_some(meta)
        };
        for Meta { name, creation_timestamp, annotations, .. } in self.cluster.pick(&contents(), None, pick).await? {
            let Some(content) = self.get(&contents(), &ObjectName::new(None, &name)).await? else { continue };
            let namespace = content.pointer("/spec/volumeSnapshotRef/namespace").and_then(Value::as_str);
            let (Some(namespace), Some(claim)) = (namespace, annotations.get(CLAIM)) else { continue };
            let claim = self.get(&self.claims, &ObjectName::new(Some(namespace), claim)).await?;
            let is_left = match Claim::of(claim.as_ref(), &name) {
                Claim::Bound => true,
                Claim::Other => creation_timestamp.is_some_and(|at| now.duration_since(at) > LEFT),
                Claim::Asked | Claim::Waits => false,
            };
            if is_left && self.try_remove(namespace, &name).await {
                self.events.note(format!("the import `{name}` of an earlier restore is removed: no claim needs it"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_needs_its_snapshot_until_it_is_bound() {
        let claim = |phase: &str, source: &str, annotations: Value| {
            json!({"metadata": {"annotations": annotations}, "status": {"phase": phase},
                "spec": {"dataSource": {"kind": "VolumeSnapshot", "name": source}}})
        };
        let asked = json!({ASKED: "ebs.csi.aws.com"});
        for (claim, expected) in [
            (None, Claim::Other),
            (Some(claim("Bound", "s", asked.clone())), Claim::Bound),
            (Some(claim("Pending", "s", asked.clone())), Claim::Asked),
            (Some(claim("Pending", "s", json!({}))), Claim::Waits),
            (Some(claim("Pending", "theirs", asked)), Claim::Other),
        ] {
            assert_eq!(Claim::of(claim.as_ref(), "s"), expected, "{claim:?}");
        }
    }
}
