//! What the target has already of a backup's objects, found by metadata-only lists of the kinds and namespaces that matter.
//! Kept is only what a plan needs of each, so that memory follows the backup and not the cluster. Kinds are listed in the
//! order in which the archive has them: what reads its frames meanwhile waits for a kind, and not for all of them.

use super::super::Error;
use super::super::fetch::Backup;
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::resource::Kind;
use crate::rules::mapping::NamespaceMapping;
use crate::rules::owners::Uid;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::OnceLock;
use tokio::sync::Notify;

/// Namespaces up to which each is listed on its own.
const OWN_LISTS: usize = 16;
/// Lists at once.
const LISTS: usize = 8;

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
#[derive(Debug)]
pub(super) struct Existing {
    /// The kind of each frame, by its number in `kinds`.
    frames: Vec<usize>,
    /// Of each kind what is there, by entry, once it was listed.
    kinds: Vec<OnceLock<Vec<Live>>>,
    /// Told whenever a kind was listed.
    listed: Notify,
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
    mapping: &'a NamespaceMapping,
    kind: Kind,
    entries: Vec<u32>,
    namespaces: BTreeSet<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Where an entry goes: namespace and name.
    fn place(&self, number: u32) -> (&'a str, &'a str) {
        place(self.backup, self.mapping, &self.kind, number)
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

fn place<'a>(backup: &'a Backup, mapping: &'a NamespaceMapping, kind: &Kind, number: u32) -> (&'a str, &'a str) {
    let entry = &backup.index.entries()[number as usize];
    let name = backup.index.name(entry);
    let name = if kind.is("namespaces") { mapping.target(name) } else { name };
    (backup.index.namespace(entry).map_or("", |namespace| mapping.target(namespace)), name)
}

impl Existing {
    /// Knows the target's namespaces, and nothing else yet.
    pub(super) async fn new(cluster: &Cluster, discovery: &Discovery, backup: &Backup) -> Result<Self, Error> {
        let (mut numbers, frames) = (HashMap::new(), backup.index.frames());
        let mut number = |kind: &Kind| {
            let next = numbers.len();
            *numbers.entry(kind.key()).or_insert(next)
        };
        let frames: Vec<usize> = frames.iter().map(|frame| number(&frame.kind)).collect();
        let kinds = numbers.iter().map(|_| OnceLock::new()).collect();
        let namespaces = namespaces(cluster, discovery).await?;
        Ok(Self { frames, kinds, listed: Notify::new(), namespaces })
    }

    /// Lists what is there, kind by kind.
    pub(super) async fn list(
        &self,
        cluster: &Cluster,
        discovery: &Discovery,
        backup: &Backup,
        chosen: &BTreeSet<usize>,
        mapping: &NamespaceMapping,
    ) -> Result<(), Error> {
        let wanted = self.wanted(backup, chosen, mapping);
        let mut lists = Vec::new();
        // of each kind how many of its lists are to come, and what those that came have brought
        let mut open: BTreeMap<usize, (usize, Vec<Live>)> = BTreeMap::new();
        for (&number, wanted) in &wanted {
            let of_kind = self.lists(wanted, discovery);
            if of_kind.is_empty() {
                self.note(number, Vec::new());
            }
            open.insert(number, (of_kind.len(), Vec::new()));
            lists.extend(of_kind.into_iter().map(|(kind, namespace)| (number, wanted, kind, namespace)));
        }
        let lists = lists.into_iter().map(|(number, wanted, kind, namespace)| async move {
            let pick = |raw: &str| {
                let listed: Listed<'_> = serde_json::from_str(raw).ok()?;
                let home =
                    listed.metadata.namespace.as_deref().or(kind.is("namespaces").then_some(&*listed.metadata.name));
                let goes = home.is_some_and(|home| self.is_going(home));
                wanted.find(&listed.metadata, cluster.manager()).filter(|_| !goes)
            };
            Ok::<_, Error>((number, cluster.pick(kind, namespace, pick).await?))
        });
        let mut lists = stream::iter(lists.collect::<Vec<_>>()).buffer_unordered(LISTS);
        while let Some((number, found)) = lists.try_next().await? {
            let Some((to_come, live)) = open.get_mut(&number) else { continue };
            live.extend(found);
            *to_come -= 1;
            if *to_come == 0 {
                self.note(number, std::mem::take(live));
            }
        }
        Ok(())
    }

    /// The lists that show what is there of a kind: of which kind, in the target's version, and of which namespace.
    fn lists<'a>(&self, wanted: &Wanted<'a>, discovery: &'a Discovery) -> Vec<(&'a Kind, Option<&'a str>)> {
        let served = discovery.get(&wanted.kind.key()).filter(|served| served.can("list"));
        let Some(kind) = served.map(|served| &served.kind) else { return Vec::new() };
        // a namespace that isn't there holds nothing; neither will one that goes, when it is gone
        let there: Vec<_> = wanted.namespaces.iter().copied().filter(|name| self.has_namespace(name)).collect();
        if kind.namespaced && there.len() <= OWN_LISTS {
            there.into_iter().map(|namespace| (kind, Some(namespace))).collect()
        } else {
            vec![(kind, None)]
        }
    }

    /// Notes all that is there of a kind.
    fn note(&self, kind: usize, mut live: Vec<Live>) {
        live.sort_unstable_by_key(|live| live.entry);
        live.shrink_to_fit();
        if self.kinds[kind].set(live).is_ok() {
            self.listed.notify_waiters();
        }
    }

    /// Waits until the kind of a frame has been listed.
    pub(super) async fn listed(&self, frame: usize) {
        loop {
            let listed = self.listed.notified();
            if self.kinds[self.frames[frame]].get().is_some() {
                return;
            }
            listed.await;
        }
    }

    /// What stands where an entry goes, as far as its kind has been listed.
    pub(super) fn get(&self, backup: &Backup, number: usize) -> Option<&Live> {
        let kind = self.frames[backup.index.entries()[number].frame()];
        let live = self.kinds[kind].get()?;
        let at = live.binary_search_by_key(&number, |live| live.entry as usize).ok()?;
        live.get(at)
    }

    /// The objects that the API server notes this very run as a manager of, by entry.
    pub(super) fn ours(&self) -> impl Iterator<Item = (usize, &Uid)> {
        let live = self.kinds.iter().filter_map(OnceLock::get).flatten();
        live.filter(|live| live.ours).map(|live| (live.entry as usize, &live.uid))
    }

    /// What is to be looked for of each kind, by its number and so in the archive's order.
    fn wanted<'a>(
        &self,
        backup: &'a Backup,
        chosen: &BTreeSet<usize>,
        mapping: &'a NamespaceMapping,
    ) -> BTreeMap<usize, Wanted<'a>> {
        let mut kinds = BTreeMap::<usize, Wanted<'a>>::new();
        for number in chosen.iter().filter_map(|number| u32::try_from(*number).ok()) {
            let entry = &backup.index.entries()[number as usize];
            let kind = &backup.index.frame(entry).kind;
            let wanted = kinds.entry(self.frames[entry.frame()]).or_insert_with(|| Wanted {
                backup,
                mapping,
                kind: kind.clone(),
                entries: Vec::new(),
                namespaces: BTreeSet::new(),
            });
            wanted.entries.push(number);
            wanted.namespaces.extend(backup.index.namespace(entry).map(|namespace| mapping.target(namespace)));
        }
        for wanted in kinds.values_mut() {
            let kind = &wanted.kind;
            wanted.entries.sort_unstable_by_key(|number| place(backup, mapping, kind, *number));
        }
        kinds
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
