//! What a plan has to look up in the target beyond names: in which version a kind can be written there, and which
//! released volumes wait for claims that come back.

use super::Error;
use super::fetch::Backup;
use super::plan::{DEFINITIONS, EXISTS, Plan, PlanItem};
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::resource::{Kind, ObjectName};
use crate::rules::survey::Survey;
use crate::rules::verdict::Verdict;
use crate::rules::{claims, versions};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The versions, by key, in which kinds are written that the target serves in other versions only, and may be.
///
/// # Errors
/// The API server's.
pub async fn versions(
    cluster: &Cluster,
    discovery: &Discovery,
    backup: &Backup,
) -> Result<BTreeMap<String, String>, Error> {
    let mut found = BTreeMap::new();
    let kinds: BTreeSet<Kind> = backup.index.frames().iter().map(|frame| frame.kind.clone()).collect();
    for kind in &kinds {
        let (key, served) = (kind.key(), discovery.versions(&kind.key()));
        if served.is_empty() || served.contains(&kind.version) {
            continue;
        }
        let unconverted = is_unconverted(cluster, discovery, &key).await?;
        if let Some(version) = versions::written_as(kind, served, unconverted) {
            found.insert(key, version.to_owned());
        }
    }
    Ok(found)
}

/// Whether a kind has a definition, and that has no conversion.
async fn is_unconverted(cluster: &Cluster, discovery: &Discovery, key: &str) -> Result<bool, Error> {
    let Some(definitions) = discovery.get(DEFINITIONS) else { return Ok(false) };
    let Some(bytes) = cluster.get(&definitions.kind, &ObjectName::new(None, key)).await? else { return Ok(false) };
    let definition: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let strategy = definition.pointer("/spec/conversion/strategy").and_then(Value::as_str);
    Ok(!definition.is_null() && strategy.is_none_or(|strategy| strategy == "None"))
}

/// Notes the storage classes that claims would get by a flag and that are nowhere.
///
/// # Errors
/// The API server's.
pub async fn missing_classes(
    cluster: &Cluster,
    discovery: &Discovery,
    backup: &Backup,
    plan: &mut Plan,
) -> Result<(), Error> {
    let Some(classes) = discovery.get("storageclasses.storage.k8s.io") else { return Ok(()) };
    for class in plan.adaptation.rules().clone().new_storage_classes() {
        let name = ObjectName::new(None, class);
        let index = &backup.index;
        let is_it = |item: &PlanItem| {
            let entry = &index.entries()[item.entry as usize];
            index.name(entry) == class && index.frame(entry).kind.is("storageclasses.storage.k8s.io")
        };
        if !plan.items.iter().any(is_it) && cluster.get(&classes.kind, &name).await?.is_none() {
            plan.notes.push(format!("storage class `{class}` is not in this cluster: claims of it stay pending"));
        }
    }
    Ok(())
}

/// Finds the released volumes of claims that are to be created.
///
/// # Errors
/// The API server's.
pub async fn give_back(
    cluster: &Cluster,
    discovery: &Discovery,
    backup: &Backup,
    plan: &mut Plan,
    survey: &Survey<'_>,
) -> Result<(), Error> {
    let Some(volumes) = discovery.get("persistentvolumes") else { return Ok(()) };
    let (index, items) = (&backup.index, &plan.items);
    let is_volume = |item: &&PlanItem| {
        item.verdict == EXISTS && index.frame(&index.entries()[item.entry as usize]).kind.is("persistentvolumes")
    };
    let there: HashSet<&str> =
        items.iter().filter(is_volume).map(|item| index.name(&index.entries()[item.entry as usize])).collect();
    let creates: HashSet<u32> =
        items.iter().filter(|item| item.verdict == Verdict::Create).map(|item| item.entry).collect();
    for (number, volume) in survey.volumes() {
        let entry = &index.entries()[number as usize];
        let namespace = index.namespace(entry).unwrap_or_default();
        // a claim that goes elsewhere must not take the volume of the original
        let stays = plan.adaptation.mapping().target(namespace) == namespace;
        let (true, Some(was)) = (stays && creates.contains(&number) && there.contains(volume), entry.uid()) else {
            continue;
        };
        let name = ObjectName::new(None, volume);
        let Some(bytes) = cluster.get(&volumes.kind, &name).await? else { continue };
        let live: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let claim = index.object_name(entry);
        if claims::given_back(&live, &claim, &was.to_string()).is_some() {
            plan.given_back.insert(number as usize, (volumes.kind.clone(), name));
        }
    }
    Ok(())
}
