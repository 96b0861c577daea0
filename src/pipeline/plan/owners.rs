//! Owners that a backup doesn't hold and that the cluster has as they were: in a safety backup most are.

use super::{Plan, head_of};
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::pipeline::Error;
use crate::pipeline::fetch::{self, Backup};
use crate::resource::{Kind, ObjectName};
use crate::rules::owners::Uid;
use crate::store::Store;
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap, HashSet};

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    uid: String,
    #[serde(default)]
    owner_references: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
}

/// Looks for the missing owners by name, and takes those that have their uid still.
pub(super) async fn find(
    cluster: &Cluster,
    store: &dyn Store,
    discovery: &Discovery,
    backup: &Backup,
    chosen: &BTreeSet<usize>,
    plan: &mut Plan,
) -> Result<(), Error> {
    let missing: HashSet<Uid> = plan.owners.missing().cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut wanted = HashMap::<Uid, (Kind, ObjectName)>::new();
    fetch::frames(store, backup, &backup.index.frames_of(chosen), |frame, tar| {
        let mut read = || {
            for &number in chosen.range(backup.index.of_frame(frame)) {
                let head = head_of(&backup.index, number, &tar)?;
                let entry = &backup.index.entries()[number];
                let Ok(object) = serde_json::from_str::<Object>(head.raw()) else { continue };
                for reference in object.metadata.owner_references {
                    let is_kind =
                        |kind: &&Kind| kind.kind == reference.kind && kind.api_version() == reference.api_version;
                    let kind = discovery.kinds.iter().map(|served| &served.kind).find(is_kind);
                    if let Some(kind) = kind.filter(|_| missing.contains(&Uid::parse(&reference.uid))) {
                        let namespace = backup.index.namespace(entry).filter(|_| kind.namespaced);
                        let name = ObjectName::new(namespace, &reference.name);
                        wanted.insert(Uid::parse(&reference.uid), (kind.clone(), name));
                    }
                }
            }
            Ok(())
        };
        std::future::ready(read())
    })
    .await?;
    for (uid, (kind, name)) in wanted {
        let Some(json) = cluster.get(&kind, &name).await? else { continue };
        let is_there = serde_json::from_slice::<Object>(&json).is_ok_and(|live| Uid::parse(&live.metadata.uid) == uid);
        if is_there {
            plan.owners.record(&uid, uid.clone(), name.namespace.as_deref());
        }
    }
    Ok(())
}
