//! What the target has already of a backup's objects, found by metadata-only lists of the kinds and namespaces that matter.
//! Kept is only what a plan needs of each, so that memory follows the backup and not the cluster.

use super::super::Error;
use super::super::adapt::Adaptation;
use super::super::fetch::Backup;
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::resource::Kind;
use crate::rules::owners::Uid;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Namespaces up to which each is listed on its own.
const OWN_LISTS: usize = 16;
/// Lists at once.
const LISTS: usize = 4;

/// An object of the target that stands where one of the backup goes.
#[derive(Debug)]
pub(super) struct Live {
    entry: u32,
    /// Whether it is the very object that was backed up, not written since.
    pub(super) same: bool,
    /// Its uid.
    pub(super) uid: Uid,
    /// Whether the API server notes this very run as one of its managers.
    pub(super) ours: bool,
}

/// What the target has already.
#[derive(Debug, Default)]
pub(super) struct Existing {
    /// By entry.
    live: Vec<Live>,
    /// The target's namespaces, and whether each is being deleted.
    namespaces: HashMap<String, bool>,
}

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
    #[serde(default)]
    deletion_timestamp: Option<serde::de::IgnoredAny>,
    #[serde(borrow, default)]
    managed_fields: Vec<Manager<'a>>,
}

#[derive(Deserialize)]
struct Manager<'a> {
    #[serde(borrow, default)]
    manager: Cow<'a, str>,
}

/// The chosen entries of a kind, ordered by where they go.
struct Wanted<'a> {
    backup: &'a Backup,
    adaptation: &'a Adaptation,
    kind: Kind,
    entries: Vec<u32>,
    namespaces: BTreeSet<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Where an entry goes: namespace and name.
    fn place(&self, number: u32) -> (&'a str, &'a str) {
        place(self.backup, self.adaptation, &self.kind, number)
    }

    fn find(&self, metadata: &Metadata<'_>, manager: &str) -> Option<Live> {
        let wanted = (metadata.namespace.as_deref().unwrap_or(""), &*metadata.name);
        let at = self.entries.binary_search_by(|number| self.place(*number).cmp(&wanted)).ok()?;
        let (number, uid) = (self.entries[at], Uid::parse(&metadata.uid));
        let version = metadata.resource_version.parse().unwrap_or(0);
        let same = self.backup.index.entries()[number as usize].is_state(&uid, version);
        let ours = metadata.managed_fields.iter().any(|fields| fields.manager == manager);
        Some(Live { entry: number, same, uid, ours })
    }
}

fn place<'a>(backup: &'a Backup, adaptation: &'a Adaptation, kind: &Kind, number: u32) -> (&'a str, &'a str) {
    let (mapping, entry) = (adaptation.mapping(), &backup.index.entries()[number as usize]);
    let name = backup.index.name(entry);
    let name = if kind.is("namespaces") { mapping.target(name) } else { name };
    (backup.index.namespace(entry).map_or("", |namespace| mapping.target(namespace)), name)
}

impl Existing {
    /// Lists what is there.
    pub(super) async fn list(
        cluster: &Cluster,
        discovery: &Discovery,
        backup: &Backup,
        chosen: &BTreeSet<usize>,
        adaptation: &Adaptation,
    ) -> Result<Self, Error> {
        let namespaces = namespaces(cluster, discovery).await?;
        let is_there = |namespace: &&str| namespaces.get(*namespace) == Some(&false);
        let wanted = wanted(backup, chosen, adaptation);
        let mut lists = Vec::new();
        for wanted in &wanted {
            let served = discovery.get(&wanted.kind.key()).filter(|served| served.can("list"));
            let Some(kind) = served.map(|served| &served.kind) else { continue };
            // a namespace that isn't there holds nothing; neither will one that goes, when it is gone
            let there: Vec<_> = wanted.namespaces.iter().copied().filter(is_there).collect();
            if kind.namespaced && there.len() <= OWN_LISTS {
                lists.extend(there.into_iter().map(|namespace| (wanted, kind, Some(namespace))));
            } else {
                lists.push((wanted, kind, None));
            }
        }
        let lists = lists.into_iter().map(|(wanted, kind, namespace)| {
            let namespaces = &namespaces;
            let pick = move |raw: &str| {
                let listed: Listed<'_> = serde_json::from_str(raw).ok()?;
                let home =
                    listed.metadata.namespace.as_deref().or(kind.is("namespaces").then_some(&*listed.metadata.name));
                let goes = home.is_some_and(|home| namespaces.get(home) == Some(&true));
                wanted.find(&listed.metadata, cluster.manager()).filter(|_| !goes)
            };
            cluster.pick(kind, namespace, pick)
        });
        let lists: Vec<_> = lists.collect();
        let mut live: Vec<Live> = stream::iter(lists).buffer_unordered(LISTS).try_concat().await?;
        live.sort_unstable_by_key(|live| live.entry);
        Ok(Self { live, namespaces })
    }

    /// What stands where an entry goes.
    pub(super) fn get(&self, number: usize) -> Option<&Live> {
        let at = self.live.binary_search_by_key(&number, |live| live.entry as usize).ok()?;
        self.live.get(at)
    }

    /// The objects that the API server notes this very run as a manager of, by entry.
    pub(super) fn ours(&self) -> impl Iterator<Item = (usize, &Uid)> {
        self.live.iter().filter(|live| live.ours).map(|live| (live.entry as usize, &live.uid))
    }

    /// Whether a namespace of the target is there to stay.
    pub(super) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get(name) == Some(&false)
    }

    /// Whether a namespace of the target is being deleted.
    pub(super) fn is_going(&self, name: &str) -> bool {
        self.namespaces.get(name) == Some(&true)
    }
}

async fn namespaces(cluster: &Cluster, discovery: &Discovery) -> Result<HashMap<String, bool>, Error> {
    let Some(served) = discovery.get("namespaces") else { return Ok(HashMap::new()) };
    let pick = |raw: &str| {
        let listed: Listed<'_> = serde_json::from_str(raw).ok()?;
        Some((listed.metadata.name.into_owned(), listed.metadata.deletion_timestamp.is_some()))
    };
    Ok(cluster.pick(&served.kind, None, pick).await?.into_iter().collect())
}

fn wanted<'a>(backup: &'a Backup, chosen: &BTreeSet<usize>, adaptation: &'a Adaptation) -> Vec<Wanted<'a>> {
    let mut kinds = BTreeMap::<String, Wanted<'a>>::new();
    for number in chosen.iter().filter_map(|number| u32::try_from(*number).ok()) {
        let entry = &backup.index.entries()[number as usize];
        let kind = &backup.index.frame(entry).kind;
        let wanted = kinds.entry(kind.key()).or_insert_with(|| Wanted {
            backup,
            adaptation,
            kind: kind.clone(),
            entries: Vec::new(),
            namespaces: BTreeSet::new(),
        });
        wanted.entries.push(number);
        wanted.namespaces.extend(backup.index.namespace(entry).map(|namespace| adaptation.mapping().target(namespace)));
    }
    let mut kinds: Vec<Wanted<'a>> = kinds.into_values().collect();
    for wanted in &mut kinds {
        let kind = &wanted.kind;
        wanted.entries.sort_unstable_by_key(|number| place(backup, adaptation, kind, *number));
    }
    kinds
}
