//! Claims that the CSI driver fills: a snapshot of the backup is made known to the cluster as a VolumeSnapshotContent, and the
//! claim names the VolumeSnapshot that refers to it. Contents are there and ready before the first object of a restore is
//! written, VolumeSnapshots, which need their namespace, before the first claim: [`Imports::prepare`], [`Imports::bind`].
//! Afterwards both are needed by nobody as soon as the claim is bound ([`settle`]).
//!
//! Their deletion policy is `Retain`, always: what is removed here are objects, never the backup's data.

mod settle;

use super::Error;
use super::restore::{RESTORE, Way, Wish};
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::cluster::object::{Created, Dependents, State};
use crate::id::BackupId;
use crate::report::Events;
use crate::resource::{Kind, ObjectName};
use crate::rules::marks::{CLAIM, ID, MANAGED};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

pub use settle::{Ending, Leftover};

/// The API group of VolumeSnapshots.
const GROUP: &str = "snapshot.storage.k8s.io";
/// Claims that are looked after at once.
const AT_ONCE: usize = 16;
/// How long a snapshot may take until the cluster can use it: seconds, where driver, sidecar and controller run.
const READY: Duration = Duration::from_secs(120);
/// How long what the driver says is wrong with it may go on: it is asked again meanwhile.
const ERROR_STAYS: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOKS: Duration = Duration::from_millis(500);

/// The kind of VolumeSnapshots.
pub fn snapshots() -> Kind {
    kind("VolumeSnapshot", "volumesnapshots", true)
}

/// The kind of VolumeSnapshotContents.
pub fn contents() -> Kind {
    kind("VolumeSnapshotContent", "volumesnapshotcontents", false)
}

fn kind(kind: &str, resource: &str, namespaced: bool) -> Kind {
    let (group, version) = (GROUP.to_owned(), "v1".to_owned());
    Kind { group, version, kind: kind.to_owned(), resource: resource.to_owned(), namespaced }
}

/// Whether the cluster has VolumeSnapshots.
pub fn is_served(discovery: &Discovery) -> bool {
    discovery.serves(&snapshots()) && discovery.serves(&contents())
}

/// A claim that is filled from a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// For what, and from what.
    pub wish: Wish,
    /// The name of both objects: the VolumeSnapshot is in the claim's namespace, the content in none.
    pub name: String,
}

impl Filled {
    /// The VolumeSnapshot.
    pub fn snapshot(&self) -> ObjectName {
        ObjectName::new(Some(&self.wish.namespace), &self.name)
    }

    /// The VolumeSnapshotContent.
    pub fn content(&self) -> ObjectName {
        ObjectName::new(None, &self.name)
    }

    fn claim(&self) -> ObjectName {
        ObjectName::new(Some(&self.wish.namespace), &self.wish.copy.claim)
    }
}

/// Imports of one restore.
#[derive(Clone)]
pub struct Imports {
    cluster: Cluster,
    /// The kind of claims, as the cluster serves it.
    claims: Kind,
    run: BackupId,
    events: Events,
}

/// How far an object is.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// Nobody has said anything of it.
    Untouched,
    /// What the driver or the controller says is wrong.
    Error(String),
    /// It is on its way.
    Waits,
}

impl Readiness {
    fn of(object: &Value) -> Self {
        let status = &object["status"];
        if status["readyToUse"] == true {
            return Self::Ready;
        }
        match status.pointer("/error/message").and_then(Value::as_str) {
            Some(message) => Self::Error(message.trim().to_owned()),
            None if status.is_null() => Self::Untouched,
            None => Self::Waits,
        }
    }
}

impl Imports {
    /// For a restore with this id, by a connection that writes in its name.
    pub fn new(cluster: &Cluster, claims: Kind, run: &BackupId, events: &Events) -> Self {
        Self { cluster: cluster.clone(), claims, run: run.clone(), events: events.clone() }
    }

    /// Makes the snapshots known to the cluster, and waits until it can use them, unless it is cancelled. After an error
    /// nothing is left.
    ///
    /// # Errors
    /// The first that went wrong, or [`Error::Cancelled`].
    pub async fn prepare(&self, all: &[Filled], cancelled: impl Future<Output = ()>) -> Result<(), Error> {
        let preparing = async {
            self.each(all, |one| self.make(contents(), one.content(), self.content(&one), one)).await?;
            self.each(all, |one| self.wait(contents(), one.content(), driver_of(&one).to_owned(), one)).await
        };
        let result = tokio::select! {
            biased;
            result = preparing => result,
            () = cancelled => Err(Error::Cancelled),
        };
        if result.is_err() {
            self.remove_all(all).await;
        }
        result
    }

    /// Makes the VolumeSnapshots that claims name, once their namespaces are there, and waits until they can be used.
    ///
    /// # Errors
    /// The first that went wrong. What was made stays for [`Imports::settle`].
    pub async fn bind(&self, all: &[Filled]) -> Result<(), Error> {
        self.each(all, |one| self.make(snapshots(), one.snapshot(), self.snapshot(&one), one)).await?;
        let who = "the snapshot controller";
        self.each(all, |one| self.wait(snapshots(), one.snapshot(), who.to_owned(), one)).await?;
        for Filled { wish, .. } in all {
            let (namespace, claim, id) = (&wish.namespace, &wish.copy.claim, &wish.copy.snapshot.id);
            self.events.note(format!("snapshot `{id}` is imported for claim `{namespace}/{claim}`"));
        }
        Ok(())
    }

    async fn each<F: Future<Output = Result<(), Error>>>(
        &self,
        all: &[Filled],
        deed: impl Fn(Filled) -> F,
    ) -> Result<(), Error> {
        stream::iter(all.to_vec()).map(deed).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// The labels by which both objects are known, and left out of backups.
    fn metadata(&self, one: &Filled) -> Value {
        json!({
            "name": one.name,
            "labels": {ID: self.run, RESTORE: self.run, MANAGED: "true"},
            "annotations": {CLAIM: one.wish.copy.claim},
        })
    }

    fn content(&self, one: &Filled) -> Value {
        let Wish { copy, namespace, way, .. } = &one.wish;
        let mode = if let Way::Filled(import) = way { import.mode.as_str() } else { "Filesystem" };
        json!({
            "apiVersion": contents().api_version(), "kind": contents().kind, "metadata": self.metadata(one),
            "spec": {
                "driver": driver_of(one), "deletionPolicy": "Retain", "source": {"snapshotHandle": copy.snapshot.id},
                "sourceVolumeMode": mode,
                // the controller puts in the uid when it binds the two
                "volumeSnapshotRef": {"apiVersion": snapshots().api_version(), "kind": snapshots().kind,
                    "namespace": namespace, "name": one.name},
            },
        })
    }

    fn snapshot(&self, one: &Filled) -> Value {
        let mut metadata = self.metadata(one);
        metadata["namespace"] = json!(one.wish.namespace);
        json!({
            "apiVersion": snapshots().api_version(), "kind": snapshots().kind, "metadata": metadata,
            "spec": {"source": {"volumeSnapshotContentName": one.name}},
        })
    }

    /// Makes one of them. One that an earlier try of this restore has made is as good, and one that it took back goes first.
    async fn make(&self, kind: Kind, name: ObjectName, object: Value, one: Filled) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let body = Bytes::from(object.to_string());
            let Created::Exists = self.cluster.create(&kind, &name, body).await? else { return Ok(()) };
            let Some(there) = self.get(&kind, &name).await? else { continue };
            let is_same = |pointer: &str| there.pointer(pointer) == object.pointer(pointer);
            let same = self.is_own(&there)
                && ["/spec/source", "/spec/deletionPolicy", "/spec/driver"].into_iter().all(is_same);
            let is_going = there.pointer("/metadata/deletionTimestamp").is_some();
            if same && !is_going {
                return Ok(());
            }
            if !same || begun.elapsed() > READY {
                let claim = one.claim();
                let text =
                    format!("there is another {} `{name}` already, and claim `{claim}` needs its own", kind.kind);
                return Err(Error::Setting(text));
            }
            sleep(LOOKS).await;
        }
    }

    fn is_own(&self, object: &Value) -> bool {
        object["metadata"]["labels"][RESTORE] == self.run.as_str()
    }

    /// Waits until the cluster can use it. `who` is to see to that.
    async fn wait(&self, kind: Kind, name: ObjectName, who: String, one: Filled) -> Result<(), Error> {
        let (begun, mut wrong_since) = (Instant::now(), None);
        loop {
            let found = self.get(&kind, &name).await?;
            let readiness = found.as_ref().map_or(Readiness::Waits, Readiness::of);
            let wrong = match &readiness {
                Readiness::Ready => return Ok(()),
                Readiness::Error(_) => wrong_since.get_or_insert_with(Instant::now).elapsed() > ERROR_STAYS,
                _ => false,
            };
            if wrong || begun.elapsed() > READY {
                let (claim, id) = (one.claim(), &one.wish.copy.snapshot.id);
                let why = match readiness {
                    _ if found.is_none() => format!("somebody has deleted the {} `{name}`", kind.kind),
                    Readiness::Error(message) => format!("{who} says: {message}"),
                    Readiness::Untouched => format!("{who} hasn't taken up the {} `{name}`; does it run?", kind.kind),
                    _ => format!("{who} has the {} `{name}`, and doesn't say that it is ready", kind.kind),
                };
                return Err(Error::Setting(format!(
                    "claim `{claim}` can't be filled from snapshot `{id}`: after {} s {why}\n\
                     hint: `--import-snapshots=false` has EC2 make the volumes",
                    begun.elapsed().as_secs()
                )));
            }
            sleep(LOOKS).await;
        }
    }

    async fn get(&self, kind: &Kind, name: &ObjectName) -> Result<Option<Value>, Error> {
        let Some(bytes) = self.cluster.get(kind, name).await? else { return Ok(None) };
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|_| Error::Setting(format!("reading `{kind}` `{name}`: the answer is not JSON")))
    }

    /// Removes both objects of an import, where they are there; finalizers may keep them for a moment. A content that would
    /// take the snapshot along is left alone.
    async fn remove(&self, namespace: &str, name: &str) -> Result<(), Error> {
        let (snapshot, own) = (ObjectName::new(Some(namespace), name), ObjectName::new(None, name));
        let content = self.get(&contents(), &own).await?;
        if content.is_some_and(|content| content["spec"]["deletionPolicy"] != "Retain") {
            let text = format!("VolumeSnapshotContent `{name}` stays: somebody took away its policy `Retain`");
            return Err(Error::Setting(text));
        }
        // in this order: the controller marks the content of a snapshot that goes, and the sidecar lets go of it then
        self.delete(&snapshots(), &snapshot).await?;
        self.delete(&contents(), &own).await
    }

    /// Deletes an object of a restore, whichever that was.
    async fn delete(&self, kind: &Kind, name: &ObjectName) -> Result<(), Error> {
        for tried in 1.. {
            let Some(object) = self.get(kind, name).await? else { return Ok(()) };
            let is_going = object.pointer("/metadata/deletionTimestamp").is_some();
            if is_going || object["metadata"]["labels"][MANAGED] != "true" {
                return Ok(());
            }
            match self.cluster.delete(kind, name, &State::of(&object), Dependents::Deleted).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                // controllers write the same object
                Err(error) if tried < 6 && (error.is_transient() || error.code() == Some(409)) => {
                    self.cluster.rest(tried, &error).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The same, and a word in the log where something is left. Whether nothing is.
    async fn try_remove(&self, namespace: &str, name: &str) -> bool {
        let removed = self.remove(namespace, name).await;
        if let Err(error) = &removed {
            tracing::warn!(%error, name, "objects of an import are left");
        }
        removed.is_ok()
    }

    async fn remove_all(&self, all: &[Filled]) {
        let removed = stream::iter(all.to_vec()).map(|one| async move {
            self.try_remove(&one.wish.namespace, &one.name).await;
        });
        removed.buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}

/// The driver that is to fill a claim.
fn driver_of(one: &Filled) -> &str {
    match &one.wish.way {
        Way::Filled(import) => &import.driver,
        Way::Made(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_snapshot_is_stands_in_its_status() {
        for (object, expected) in [
            (json!({}), Readiness::Untouched),
            (json!({"status": {"readyToUse": true, "error": {"message": "long ago"}}}), Readiness::Ready),
            (json!({"status": {"readyToUse": false}}), Readiness::Waits),
            (
                json!({"status": {"readyToUse": false, "error": {"message": "no such snapshot\n"}}}),
                Readiness::Error("no such snapshot".into()),
            ),
        ] {
            assert_eq!(Readiness::of(&object), expected, "{object}");
        }
    }
}
