//! What a restore has written: as its report says, or, where it never ended, as the API server notes it.

use super::RestoreResult;
use super::name_of;
use crate::archive::besides::Besides;
use crate::archive::manifest::{File, manifest_key};
use crate::archive::record::Record;
use crate::cluster::discover::Discovery;
use crate::id::BackupId;
use crate::operations::read;
use crate::pipeline::undo::{Made, Undo};
use crate::pipeline::{Error, besides, restores};
use crate::resource::{Kind, ObjectName, check_namespace, check_object_name};
use crate::store::Store;
use std::collections::HashMap;

/// Bytes of a restore's report that are read: some hundred for each object.
const REPORT_LIMIT: u64 = 256 * 1024 * 1024;

/// What a restore has written.
#[derive(Default)]
pub(super) struct Written {
    /// What it made; whether it is named is said later.
    pub(super) made: Vec<Made>,
    /// The uids of all that it wrote, by kind and name, where it ended and says so.
    pub(super) uids: HashMap<String, String>,
    /// The backup of what it changed.
    pub(super) safety: Option<BackupId>,
    /// What it did besides.
    pub(super) besides: Vec<Besides>,
}

/// The report of a restore: what it did with each object.
async fn report(file: &File, store: &dyn Store) -> anyhow::Result<RestoreResult> {
    let what = "the restore's report";
    let bytes = read::whole(store, file, REPORT_LIMIT, what).await?;
    let damaged = |why: String| Error::from(crate::archive::Error::damaged(what, why));
    let report: RestoreResult =
        serde_json::from_slice(&bytes).map_err(|error| damaged(format!("line {}", error.line())))?;
    // names go into URLs
    for item in &report.items {
        let namespace = item.namespace.as_deref().map_or(Ok(()), check_namespace);
        if let Err(error) = namespace.and_then(|()| check_object_name(&item.name)) {
            return Err(damaged(format!("`{}` can't be a name: {error}", item.name.escape_debug())).into());
        }
    }
    Ok(report)
}

/// Finds it out.
pub(super) async fn find(
    undo: &Undo<'_>,
    record: &Record,
    discovery: &Discovery,
    store: &dyn Store,
) -> anyhow::Result<Written> {
    let besides = besides::read(store, &record.id).await?;
    let served = |key: &str, name: &ObjectName| -> Option<Kind> {
        // another kind by that name now, where its scope is another
        let kind = discovery.get(key).map(|served| &served.kind)?;
        (kind.namespaced == name.namespace.is_some()).then(|| kind.clone())
    };
    let Some(end) = &record.end else {
        let creates = restores::creates(store, &record.id).await?.into_iter().filter_map(|create| {
            let name = ObjectName::new(create.ns.as_deref(), &create.name);
            Some((served(&create.kind, &name)?, name))
        });
        let made = undo.find_made(creates.collect()).await?;
        let safety = record.id.safety();
        let key = manifest_key(&safety);
        let is_saved = store.list(&key).await?.iter().any(|object| object.key == key);
        return Ok(Written { made, safety: is_saved.then_some(safety), besides, ..Written::default() });
    };
    let report = report(&end.report, store).await?;
    let mut written = Written { safety: end.safety.clone(), besides, ..Written::default() };
    for item in report.items {
        let (name, Some(uid)) = (name_of(&item), item.uid) else { continue };
        if let (Some(kind), "created") = (served(&item.kind, &name), item.verdict.as_str()) {
            written.made.push(Made { kind, name: name.clone(), uid: uid.clone(), named: false });
        }
        written.uids.insert(format!("{} {name}", item.kind), uid);
    }
    Ok(written)
}
