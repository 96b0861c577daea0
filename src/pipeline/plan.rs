//! The plan of a restore: every selected object with its verdict and place, before anything is written.
//!
//! All selected frames are fetched, compared with their digests and opened on the way: what can't be read is found here,
//! not half-way through the writes.

use super::Error;
use super::fetch::{self, Backup};
use super::target;
use crate::archive;
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::id::Digest;
use crate::report::{Counts, Events};
use crate::resource::{Kind, ObjectName};
use crate::rules::adapt::Adapt;
use crate::rules::mapping::NamespaceMapping;
use crate::rules::owners::{Member, Owners, Place, Uid, places};
use crate::rules::restorable::{Facts, Protected};
use crate::rules::survey::Survey;
use crate::rules::verdict::{self, Case, Line, Skip, Verdict, decide};
use crate::rules::waves::wave_of;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
pub(super) const EXISTS: Verdict = Verdict::Skip(Skip::Exists);
/// Namespaces up to which each is listed on its own.
const OWN_LISTS: usize = 16;

/// What to plan.
pub struct PlanRequest<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// The entries that were asked for; `None`: all.
    pub chosen: Option<BTreeSet<usize>>,
    /// The entries that were asked for by kind and name.
    pub named: BTreeSet<usize>,
    /// Where namespaces go.
    pub mapping: &'a NamespaceMapping,
    /// What is made of what was saved.
    pub adapt: &'a Adapt,
    /// Whether the backup is another cluster's.
    pub other_cluster: bool,
    /// What must be left alone.
    pub protected: Protected<'a>,
}

/// One object of a plan.
#[derive(Debug)]
pub struct PlanItem {
    /// Its number in the index.
    pub entry: u32,
    /// What becomes of it.
    pub verdict: Verdict,
    /// When.
    pub place: Place,
    owners: Box<[Uid]>,
}

/// The plan of a restore.
#[derive(Debug)]
pub struct Plan {
    /// Every selected object.
    pub items: Vec<PlanItem>,
    /// What tells this plan from any other.
    pub digest: Digest,
    /// The uids that owners have in the target.
    pub owners: Owners,
    /// What is worth a word to the person of the objects to be created.
    pub notes: Vec<String>,
    /// The kinds whose status is a field like any other.
    pub plain_status: BTreeSet<String>,
    /// The versions, by key, of kinds that are written in another than their own.
    pub versions: BTreeMap<String, String>,
    /// The volumes that take claims back which are to be created, by the claim's entry.
    pub given_back: HashMap<u32, (Kind, ObjectName)>,
}

impl Plan {
    /// The volumes that restored claims may name: those that are created with them, and those that are there already,
    /// unless the claims go to another namespace and would take the volume of the original.
    pub fn kept_volumes(&self, backup: &Backup, mapping: &NamespaceMapping) -> BTreeSet<String> {
        let entries = backup.index.entries();
        let kept = |item: &&PlanItem| item.verdict == Verdict::Create || (item.verdict == EXISTS && mapping.is_empty());
        let volume = |item: &PlanItem| {
            let entry = &entries[item.entry as usize];
            backup.index.frame(entry).kind.is("persistentvolumes").then(|| entry.name().to_owned())
        };
        self.items.iter().filter(kept).filter_map(volume).collect()
    }

    /// The kind in the version in which its objects are written.
    pub fn written_as(&self, kind: &Kind) -> Kind {
        let version = self.versions.get(&kind.key()).unwrap_or(&kind.version).clone();
        Kind { version, ..kind.clone() }
    }

    /// How many objects are to be created.
    pub fn creates(&self) -> usize {
        self.items.iter().filter(|item| item.verdict == Verdict::Create).count()
    }
}

/// Makes a plan. Writes nothing.
///
/// # Errors
/// [`Error::Archive`] when anything selected is damaged; the API server's or the bucket's.
pub async fn make(
    cluster: &Cluster,
    store: &dyn Store,
    request: &PlanRequest<'_>,
    events: &Events,
) -> Result<Plan, Error> {
    let backup = request.backup;
    let chosen = with_namespaces(backup, request.chosen.clone());
    let mut survey = Survey::new(request.adapt, request.other_cluster);
    let facts = facts(store, backup, &chosen, &mut survey, events).await?;
    let discovery = cluster.discover().await?;
    let existing = Existing::list(cluster, &discovery, backup, &chosen, request.mapping).await?;
    let versions = target::versions(cluster, &discovery, backup).await?;
    let mut plan = judge(request, &chosen, &facts, &survey, versions, &discovery, &existing);
    plan.plain_status = discovery.plain_status(survey.plain_status());
    plan.notes.extend(survey_notes(backup, &plan, &survey));
    target::missing_classes(cluster, &discovery, request, &mut plan).await?;
    target::give_back(cluster, &discovery, request, &mut plan, &survey).await?;
    expect_owners(backup, &mut plan, &existing, request.mapping);
    place(backup, &mut plan);
    plan.digest = request.adapt.digest(digest(backup, &plan, request.mapping));
    Ok(plan)
}

/// The chosen entries, and the Namespace objects of the namespaces they are in.
fn with_namespaces(backup: &Backup, chosen: Option<BTreeSet<usize>>) -> BTreeSet<usize> {
    let entries = backup.index.entries();
    let Some(mut chosen) = chosen else { return (0..entries.len()).collect() };
    let needed: HashSet<&str> = chosen.iter().filter_map(|number| backup.index.namespace(&entries[*number])).collect();
    let is_needed = |entry| backup.index.frame(entry).kind.is("namespaces") && needed.contains(entry.name());
    let namespaces: Vec<usize> = (0..entries.len()).filter(|number| is_needed(&entries[*number])).collect();
    chosen.extend(namespaces);
    chosen
}

/// Fetches and verifies every frame that holds a chosen entry, and keeps the facts that rules need.
async fn facts(
    store: &dyn Store,
    backup: &Backup,
    chosen: &BTreeSet<usize>,
    survey: &mut Survey<'_>,
    events: &Events,
) -> Result<HashMap<usize, Facts>, Error> {
    let entries = backup.index.entries();
    let mut by_frame = BTreeMap::<usize, Vec<usize>>::new();
    chosen.iter().for_each(|number| by_frame.entry(entries[*number].frame()).or_default().push(*number));
    let mut facts = HashMap::with_capacity(chosen.len());
    let mut counts = Counts { objects_total: chosen.len() as u64, ..Counts::default() };
    fetch::frames(store, backup, &by_frame.keys().copied().collect(), |frame, tar| {
        let mut read = || {
            for number in by_frame.get(&frame).into_iter().flatten() {
                facts.insert(*number, facts_of(backup, *number, &tar, survey)?);
            }
            counts.objects = facts.len() as u64;
            counts.bytes += tar.len() as u64;
            events.progress(counts);
            Ok(())
        };
        std::future::ready(read())
    })
    .await?;
    Ok(facts)
}

/// The facts of an object, once it was found to be the one that the index names.
fn facts_of(backup: &Backup, number: usize, tar: &[u8], survey: &mut Survey<'_>) -> Result<Facts, Error> {
    let entry = &backup.index.entries()[number];
    let kind = &backup.index.frame(entry).kind;
    let damaged = |why: String| {
        let name = backup.index.object_name(entry);
        Error::from(archive::Error::Damaged { what: format!("`{kind}` `{name}`"), why })
    };
    let text =
        std::str::from_utf8(backup.index.object(entry, tar)?).map_err(|_| damaged("it is not UTF-8".to_owned()))?;
    check_identity(backup, number, text).map_err(damaged)?;
    let facts = Facts::of(kind, text).map_err(|error| damaged(error.to_string()))?;
    survey.look(number_of(number), kind, &facts, text).map_err(|error| damaged(error.to_string()))?;
    Ok(facts)
}

/// An archive must not name one object in its index and hold another.
fn check_identity(backup: &Backup, number: usize, text: &str) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Identity {
        api_version: String,
        kind: String,
        metadata: Meta,
    }
    #[derive(serde::Deserialize)]
    struct Meta {
        name: String,
        #[serde(default)]
        namespace: Option<String>,
    }
    let entry = &backup.index.entries()[number];
    let kind = &backup.index.frame(entry).kind;
    let found: Identity = serde_json::from_str(text)
        .map_err(|error| format!("it is not an object, at line {} column {}", error.line(), error.column()))?;
    let same = found.metadata.name == entry.name()
        && found.metadata.namespace.filter(|_| kind.namespaced).as_deref() == backup.index.namespace(entry)
        && found.kind == kind.kind
        && found.api_version == kind.api_version();
    if same { Ok(()) } else { Err("it holds another object than the index says".to_owned()) }
}

/// What the target has already, of the kinds and namespaces that matter.
struct Existing(HashMap<String, HashMap<ObjectName, String>>);

impl Existing {
    async fn list(
        cluster: &Cluster,
        discovery: &Discovery,
        backup: &Backup,
        chosen: &BTreeSet<usize>,
        mapping: &NamespaceMapping,
    ) -> Result<Self, Error> {
        let mut wanted = BTreeMap::<String, BTreeSet<&str>>::new();
        for entry in chosen.iter().map(|number| &backup.index.entries()[*number]) {
            let namespaces = wanted.entry(backup.index.frame(entry).kind.key()).or_default();
            namespaces.extend(backup.index.namespace(entry).map(|namespace| mapping.target(namespace)));
        }
        let namespaces_kind = discovery.get("namespaces").map(|served| served.kind.clone());
        let there: HashSet<String> = match &namespaces_kind {
            Some(kind) => cluster.list_names(kind, None).await?.into_iter().map(|listed| listed.name.name).collect(),
            None => HashSet::new(),
        };
        let mut found = HashMap::new();
        for (key, namespaces) in wanted {
            let Some(served) = discovery.get(&key).filter(|served| served.can("list")) else { continue };
            let kind = &served.kind;
            let lists: Vec<Option<&str>> = if kind.namespaced && namespaces.len() <= OWN_LISTS {
                // a namespace that isn't there yet holds nothing
                namespaces.into_iter().filter(|namespace| there.contains(*namespace)).map(Some).collect()
            } else {
                vec![None]
            };
            let names: &mut HashMap<_, _> = found.entry(key).or_default();
            for namespace in lists {
                names.extend(
                    cluster.list_names(kind, namespace).await?.into_iter().map(|listed| (listed.name, listed.uid)),
                );
            }
        }
        Ok(Self(found))
    }

    /// The uid of an object of the target.
    fn uid(&self, kind: &Kind, name: &ObjectName) -> Option<&str> {
        self.0.get(&kind.key())?.get(name).map(String::as_str)
    }
}

/// Gives every object its verdict.
fn judge(
    request: &PlanRequest<'_>,
    chosen: &BTreeSet<usize>,
    facts: &HashMap<usize, Facts>,
    survey: &Survey<'_>,
    versions: BTreeMap<String, String>,
    discovery: &Discovery,
    existing: &Existing,
) -> Plan {
    let backup = request.backup;
    let services = services(backup, chosen);
    let defined = defined(backup, chosen);
    let mut plan = Plan {
        items: Vec::new(),
        digest: Digest::of(b""),
        owners: Owners::default(),
        notes: Vec::new(),
        plain_status: BTreeSet::new(),
        versions,
        given_back: HashMap::new(),
    };
    for &number in chosen {
        let entry = &backup.index.entries()[number];
        let kind = &backup.index.frame(entry).kind;
        let source = backup.index.object_name(entry);
        let target = target_name(kind, &source, request.mapping);
        let Some(own) = facts.get(&number) else { continue };
        let case = Case {
            kind,
            name: &source,
            facts: own,
            service: services.get(&source).and_then(|service| facts.get(service)),
            named: request.named.contains(&number),
            served: is_served(kind, discovery, &plan.versions, &defined),
            exists: existing.uid(kind, &target).is_some(),
        };
        let left_behind = request.adapt.left_behind(source.namespace.as_deref(), own);
        let refused = survey.refused(number_of(number));
        let verdict = match decide(&case, &request.protected) {
            Verdict::Create if let Some(reason) = left_behind => Verdict::Skip(Skip::NeverRestored(reason)),
            Verdict::Create if let Some(reason) = refused => Verdict::Refused(reason.into()),
            verdict => verdict,
        };
        if verdict == Verdict::Create {
            plan.notes.extend(notes(kind, &source, own));
        }
        let owners = if verdict == Verdict::Create { own.owners().into() } else { Box::default() };
        let place = Place { wave: wave_of(kind), pass: 0 };
        let entry = number_of(number);
        plan.items.push(PlanItem { entry, verdict, place, owners });
    }
    plan
}

/// Whether the target takes objects of a kind, or will. What it serves in other versions only, and not for want of the
/// backup's own definition, it won't take in this one.
fn is_served(kind: &Kind, discovery: &Discovery, versions: &BTreeMap<String, String>, defined: &HashSet<&str>) -> bool {
    let key = kind.key();
    let comes = discovery.versions(&key).is_empty() && defined.contains(key.as_str());
    discovery.serves(kind) || versions.contains_key(&key) || comes
}

/// An entry's number as it is kept in a plan.
fn number_of(entry: usize) -> u32 {
    u32::try_from(entry).unwrap_or(u32::MAX)
}

/// What the survey says of the objects that are to be created.
fn survey_notes(backup: &Backup, plan: &Plan, survey: &Survey<'_>) -> Vec<String> {
    let creates: HashSet<u32> =
        plan.items.iter().filter(|item| item.verdict == Verdict::Create).map(|item| item.entry).collect();
    let name = |number: u32| {
        let entry = &backup.index.entries()[number as usize];
        format!("{} {}", backup.index.frame(entry).kind, backup.index.object_name(entry))
    };
    survey.notes(|number| creates.contains(&number), name)
}

fn notes(kind: &Kind, name: &ObjectName, facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.has_finalizers() {
        notes.push(format!("`{kind}` `{name}` has finalizers: it can't be deleted unless their controllers run"));
    }
    if facts.was_being_deleted() {
        notes.push(format!("`{kind}` `{name}` was being deleted when it was backed up"));
    }
    notes
}

/// The Services of the selection, by name: Endpoints follow them.
fn services(backup: &Backup, chosen: &BTreeSet<usize>) -> HashMap<ObjectName, usize> {
    let entries = backup.index.entries();
    let is_service = |number: &&usize| backup.index.frame(&entries[**number]).kind.is("services");
    chosen.iter().filter(is_service).map(|number| (backup.index.object_name(&entries[*number]), *number)).collect()
}

/// The kinds that the selection itself defines.
fn defined<'a>(backup: &'a Backup, chosen: &BTreeSet<usize>) -> HashSet<&'a str> {
    let entries = backup.index.entries();
    let definition = |number: &usize| {
        let entry = &entries[*number];
        backup.index.frame(entry).kind.is(DEFINITIONS).then(|| entry.name())
    };
    chosen.iter().filter_map(definition).collect()
}

/// Where an object goes.
pub fn target_name(kind: &Kind, source: &ObjectName, mapping: &NamespaceMapping) -> ObjectName {
    let name = if kind.is("namespaces") { mapping.target(&source.name) } else { &source.name };
    ObjectName::new(source.namespace.as_deref().map(|namespace| mapping.target(namespace)), name)
}

/// Notes the owners that objects wait for, and those that the target has already.
fn expect_owners(backup: &Backup, plan: &mut Plan, existing: &Existing, mapping: &NamespaceMapping) {
    for item in &plan.items {
        plan.owners.expect(&item.owners);
    }
    for item in plan.items.iter().filter(|item| item.verdict == EXISTS) {
        let entry = &backup.index.entries()[item.entry as usize];
        let kind = &backup.index.frame(entry).kind;
        let target = target_name(kind, &backup.index.object_name(entry), mapping);
        if let (Some(was), Some(now)) = (entry.uid(), existing.uid(kind, &target)) {
            plan.owners.record(was, Uid::parse(now), target.namespace.as_deref());
        }
    }
}

/// Places what is to be created after its owners.
fn place(backup: &Backup, plan: &mut Plan) {
    let nobody = Uid::parse("");
    let creates: Vec<usize> = (0..plan.items.len()).filter(|at| plan.items[*at].verdict == Verdict::Create).collect();
    let found = places(creates.len(), |at| {
        let item = &plan.items[creates[at]];
        let entry = &backup.index.entries()[item.entry as usize];
        Member { uid: entry.uid().unwrap_or(&nobody), owners: &item.owners, wave: item.place.wave }
    });
    for (at, place) in creates.into_iter().zip(found) {
        plan.items[at].place = place;
    }
}

fn digest(backup: &Backup, plan: &Plan, mapping: &NamespaceMapping) -> Digest {
    verdict::digest(plan.items.iter().map(|item| {
        let entry = &backup.index.entries()[item.entry as usize];
        let kind = &backup.index.frame(entry).kind;
        let namespace = backup.index.namespace(entry);
        // the name of a Namespace object is where it goes, as for what is in it
        let goes = if kind.is("namespaces") { Some(entry.name()) } else { namespace };
        let target = goes.map(|namespace| mapping.target(namespace));
        Line { kind, namespace, name: entry.name(), verdict: &item.verdict, target }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::index::Entry;

    #[test]
    fn an_object_of_a_plan_takes_at_most_200_bytes() {
        let name = 64; // on the heap, with the allocator's own
        let sum = size_of::<Entry>() + size_of::<PlanItem>() + size_of::<Facts>() + name;
        assert!(sum <= 200, "{sum}");
    }
}
