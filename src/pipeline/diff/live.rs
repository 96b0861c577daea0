//! A backup against the live cluster.

use super::{DiffRequest, Differences, place};
use crate::archive::manifest::Scope;
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::pipeline::adapt::{self, Adaptation};
use crate::pipeline::walk::{self, Load, Saved};
use crate::pipeline::{Error, fetch::Backup};
use crate::report::Problem;
use crate::resource::{Kind, ObjectName};
use crate::rules::Labels;
use crate::rules::kinds::Served;
use crate::rules::owners::Uid;
use crate::rules::restorable::Facts;
use crate::rules::selection::{excluded_by_label, never_backed_up};
use crate::store::Store;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Lists at once, and objects read at once that only the cluster has.
const AT_ONCE: usize = 4;

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
    #[serde(borrow, default)]
    labels: Labels<'a>,
}

/// What a metadata-only list tells of an object.
enum Seen {
    /// It is in the backup; whether it wasn't written since.
    Both(usize, bool),
    /// It isn't.
    Extra(Kind, ObjectName),
}

/// Compares a backup with the live cluster.
///
/// # Errors
/// The API server's or the bucket's; [`Error::Archive`] where the backup is damaged.
pub async fn against_live(
    cluster: &Cluster,
    discovery: &Discovery,
    store: &dyn Store,
    request: &DiffRequest<'_>,
) -> Result<Differences, Error> {
    let backup = request.backup;
    let adaptation = Adaptation::plain().map_err(|error| Error::Thread(error.to_string()))?;
    let (numbers, mut extra) = (request.numbers(), Vec::new());
    let (mut there, mut same) = (BTreeSet::new(), BTreeSet::new());
    for seen in look(cluster, discovery, request, &numbers).await? {
        match seen {
            Seen::Both(number, true) => _ = same.insert(number),
            Seen::Both(number, false) => _ = there.insert(number),
            Seen::Extra(kind, name) => extra.push((kind, name)),
        }
    }
    let open: BTreeSet<usize> = numbers.difference(&same).copied().collect();
    let mut differences = Differences::default();
    let read = |saved: Saved| read(cluster, discovery, request, there.contains(&saved.number), saved);
    let mut failed = None;
    walk::each(store, backup, &open, Load::WithLive, read, |result| match result {
        Ok(Some(pair)) => differences.compare(&adaptation, pair.kind, &pair.name, Some(pair.left), pair.right),
        Ok(None) => (),
        Err(Unread::Problem(problem)) => differences.problems.push(problem),
        Err(Unread::Fatal(error)) => failed = Some(error),
    })
    .await?;
    if let Some(error) = failed {
        return Err(error);
    }
    let extra: Vec<_> = extra.into_iter().map(|(kind, name)| only_live(cluster, request, kind, name)).collect();
    let mut extra = stream::iter(extra).buffer_unordered(AT_ONCE);
    while let Some(found) = extra.try_next().await? {
        if let Some((kind, name, live)) = found {
            differences.compare(&adaptation, &kind, &name, None, Some(live));
        }
    }
    Ok(differences.sorted())
}

/// Lists what can differ: the kinds of the backup, and where all of a namespace or cluster was backed up, all others.
async fn look(
    cluster: &Cluster,
    discovery: &Discovery,
    request: &DiffRequest<'_>,
    numbers: &BTreeSet<usize>,
) -> Result<Vec<Seen>, Error> {
    let backup = request.backup;
    let mut by_kind = BTreeMap::<String, Vec<usize>>::new();
    for &number in numbers {
        let entry = &backup.index.entries()[number];
        by_kind.entry(backup.index.frame(entry).kind.key()).or_default().push(number);
    }
    by_kind.values_mut().for_each(|numbers| numbers.sort_by_cached_key(|number| place(backup, *number)));
    // what a narrowed backup left out is in the cluster, and no difference
    let named = request.named || backup.manifest.selection.is_some();
    let whole = if named { BTreeSet::new() } else { whole_namespaces(backup, numbers) };
    let mut lists = Vec::new();
    for served in discovery.kinds.iter().filter(|served| never_backed_up(served).is_none()) {
        let known = by_kind.remove(&served.kind.key()).unwrap_or_default();
        let mut namespaces = whole.clone();
        let homes = known.iter().filter_map(|number| backup.index.namespace(&backup.index.entries()[*number]));
        namespaces.extend(homes);
        let extras = !named && (served.kind.namespaced || backup.manifest.scope == Scope::Cluster);
        if served.kind.namespaced {
            lists.extend(
                namespaces
                    .into_iter()
                    .map(|n| list(cluster, request, served, Some(n), known.clone(), whole.contains(n))),
            );
        } else if !known.is_empty() || extras && request.chosen.is_none() {
            lists.push(list(cluster, request, served, None, known, extras && request.chosen.is_none()));
        }
    }
    stream::iter(lists).buffer_unordered(AT_ONCE).try_concat().await
}

/// The namespaces of which the backup holds everything: those whose Namespace object it holds.
fn whole_namespaces<'a>(backup: &'a Backup, numbers: &BTreeSet<usize>) -> BTreeSet<&'a str> {
    let entries = backup.index.entries();
    let all = entries
        .iter()
        .filter(|entry| backup.index.frame(entry).kind.is("namespaces"))
        .map(|entry| backup.index.name(entry));
    let chosen: BTreeSet<&str> =
        numbers.iter().filter_map(|number| backup.index.namespace(&entries[*number])).collect();
    all.filter(|name| chosen.contains(name)).collect()
}

async fn list(
    cluster: &Cluster,
    request: &DiffRequest<'_>,
    served: &Served,
    namespace: Option<&str>,
    known: Vec<usize>,
    extras: bool,
) -> Result<Vec<Seen>, Error> {
    let (backup, kind) = (request.backup, &served.kind);
    let key = kind.key();
    let pick = |raw: &str| {
        let listed: Listed<'_> = serde_json::from_str(raw).ok()?;
        let metadata = listed.metadata;
        let wanted = (metadata.namespace.as_deref().unwrap_or(""), &*metadata.name);
        let found = known.binary_search_by(|number| {
            let (_, namespace, name) = place(backup, *number);
            (namespace, name).cmp(&wanted)
        });
        if let Ok(at) = found {
            let (uid, version) = (Uid::parse(&metadata.uid), metadata.resource_version.parse().unwrap_or(0));
            return Some(Seen::Both(known[at], backup.index.entries()[known[at]].is_state(&uid, version)));
        }
        let name = ObjectName::new(metadata.namespace.as_deref(), &metadata.name);
        let left_out = excluded_by_label(&metadata.labels).is_some()
            || Facts::of(kind, raw).is_ok_and(|facts| request.is_left_out(kind, &name, &facts));
        (extras && !left_out).then(|| Seen::Extra(kind.clone(), name))
    };
    match cluster.pick(kind, namespace, pick).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        other => {
            tracing::debug!("{key}: listed for a comparison");
            Ok(other?)
        }
    }
}

/// An object of the backup and what stands in its place.
struct Pair<'a> {
    kind: &'a Kind,
    name: ObjectName,
    left: Value,
    right: Option<Value>,
}

/// Why an object isn't compared.
enum Unread {
    Problem(Problem),
    Fatal(Error),
}

async fn read<'a>(
    cluster: &Cluster,
    discovery: &Discovery,
    request: &'a DiffRequest<'_>,
    is_there: bool,
    saved: Saved,
) -> Result<Option<Pair<'a>>, Unread> {
    let backup = request.backup;
    let entry = &backup.index.entries()[saved.number];
    let (kind, name) = (&backup.index.frame(entry).kind, backup.index.object_name(entry));
    let left = adapt::parse(backup, saved.number, &saved.json).map_err(|error| Unread::Fatal(error.into()))?;
    let facts = std::str::from_utf8(&saved.json).ok().and_then(|text| Facts::of(kind, text).ok());
    if facts.is_some_and(|facts| request.is_left_out(kind, &name, &facts)) {
        return Ok(None);
    }
    if !is_there {
        return Ok(Some(Pair { kind, name, left, right: None }));
    }
    if !discovery.serves(kind) {
        let message = format!("the cluster doesn't serve it as `{}`: it can't be compared", kind.api_version());
        return Err(Unread::Problem(Problem { subject: format!("{kind} {name}"), message }));
    }
    let live = cluster.get(kind, &name).await.map_err(|error| Unread::Fatal(error.into()))?;
    let right = live.map(|json| adapt::live(kind, &name, &json)).transpose();
    Ok(Some(Pair { right: right.map_err(|error| Unread::Fatal(error.into()))?, kind, name, left }))
}

/// An object that only the cluster has, unless it is one that comes and goes by itself.
async fn only_live(
    cluster: &Cluster,
    request: &DiffRequest<'_>,
    kind: Kind,
    name: ObjectName,
) -> Result<Option<(Kind, ObjectName, Value)>, Error> {
    let Some(json) = cluster.get(&kind, &name).await? else { return Ok(None) };
    let facts = std::str::from_utf8(&json).ok().and_then(|text| Facts::of(&kind, text).ok());
    if facts.is_some_and(|facts| request.is_left_out(&kind, &name, &facts)) {
        return Ok(None);
    }
    let live = adapt::live(&kind, &name, &json)?;
    Ok(Some((kind, name, live)))
}
