//! The plan of a restore: every selected object with its verdict and place, before anything is written.
//!
//! All selected frames are fetched, compared with their digests and opened on the way: what can't be read is found here,
//! not half-way through the writes.

mod compare;
mod existing;
mod judge;
mod owners;
mod pages;

use super::adapt::Adaptation;
use super::fetch::Backup;
use super::{Error, target};
use crate::archive;
use crate::archive::index::Index;
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::id::Digest;
use crate::report::Events;
use crate::resource::{Kind, ObjectName};
use crate::rules::adapt::Target;
use crate::rules::compare::Change;
use crate::rules::head::Head;
use crate::rules::owners::{Member, Owners, Place, Uid, places};
use crate::rules::restorable::{Facts, Protected};
use crate::rules::survey::{Look, Lookout, Survey};
use crate::rules::verdict::{self, Existing, Line, Skip, Verdict};
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The kind of definitions of custom kinds.
pub(super) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
pub(super) const EXISTS: Verdict = Verdict::Skip(Skip::Exists);

/// What to plan.
pub struct PlanRequest<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// The entries that were asked for; `None`: all.
    pub chosen: Option<BTreeSet<usize>>,
    /// The entries that were asked for by kind and name.
    pub named: BTreeSet<usize>,
    /// What changes objects on their way.
    pub adaptation: Adaptation,
    /// Whether the backup is another cluster's.
    pub other_cluster: bool,
    /// What the target serves.
    pub discovery: &'a Discovery,
    /// What becomes of objects that are there.
    pub existing: Existing,
    /// What tells this plan from another one with the same objects and verdicts: which backup, cluster and options.
    pub seal: &'a [u8],
    /// Whether to find out which objects a restore has written.
    pub finds_ours: bool,
    /// Whether owners that the backup doesn't hold are looked for in the target: it is the cluster that was backed up.
    pub owners_here: bool,
    /// What must be left alone.
    pub protected: Protected<'a>,
}

/// One object of a plan.
#[derive(Debug)]
pub struct PlanItem {
    /// Its number in the index.
    pub entry: u32,
    /// When.
    pub place: Place,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What a restore changes in an object that is there.
#[derive(Debug)]
pub struct Changed {
    /// The digest of what changes.
    pub digest: Digest,
    /// What changes, for the person: without the values of Secrets, and empty where there is too much of it.
    pub changes: Vec<Change>,
}

/// The plan of a restore.
#[derive(Debug)]
pub struct Plan {
    /// Every selected object, by its number in the index.
    pub items: Vec<PlanItem>,
    /// What tells this plan from any other.
    pub digest: Digest,
    /// The uids that owners have in the target.
    pub owners: Owners,
    /// What changes objects on their way.
    pub adaptation: Adaptation,
    /// What differs in objects that are there, by their number in the index.
    pub changed: HashMap<usize, Changed>,
    /// The keys of kinds, and the namespaces, that are there only once the plan is being carried out.
    absent: Absent,
    /// The volumes that take claims back which are to be created, by the claim's number in the index.
    pub given_back: HashMap<usize, (Kind, ObjectName)>,
    /// The digests of the volumes behind claims, by the claim's namespace and name in the target.
    pub volumes: BTreeMap<String, Digest>,
    /// What is worth a word to the person of the objects to be written.
    pub notes: Vec<String>,
    /// Objects that are there and that a restore has written, where that was asked for.
    pub ours: HashMap<usize, Uid>,
    /// The owners of objects that have some.
    waits: HashMap<usize, Box<[Uid]>>,
}

/// What objects to be created need and the target hasn't got yet. Few, where the objects are many.
#[derive(Debug, Default)]
struct Absent {
    kinds: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

impl Plan {
    /// Why an object can't be tried out: its namespace or kind is there only once the plan is being carried out.
    pub fn homeless(&self, backup: &Backup, item: &PlanItem) -> Option<&'static str> {
        let entry = &backup.index.entries()[item.entry as usize];
        let kind = &backup.index.frame(entry).kind;
        let namespace = backup.index.namespace(entry).map(|namespace| self.adaptation.mapping().target(namespace));
        let Absent { kinds, namespaces } = &self.absent;
        match item.verdict {
            Verdict::Create if !kinds.is_empty() && kinds.contains(&kind.key()) => {
                Some("its kind is served only when its definition is restored")
            }
            Verdict::Create if namespace.is_some_and(|namespace| namespaces.contains(namespace)) => {
                Some("its namespace isn't there yet")
            }
            _ => None,
        }
    }

    /// The volumes that restored claims may name: those that are created with them, and those that are there already,
    /// unless the claims go to another namespace and would take the volume of the original.
    fn kept_volumes(&self, backup: &Backup) -> BTreeSet<String> {
        let entries = backup.index.entries();
        let mapped = !self.adaptation.mapping().is_empty();
        let kept = |item: &&PlanItem| item.verdict == Verdict::Create || (item.verdict == EXISTS && !mapped);
        let volume = |item: &PlanItem| {
            let entry = &entries[item.entry as usize];
            backup.index.frame(entry).kind.is("persistentvolumes").then(|| backup.index.name(entry).to_owned())
        };
        self.items.iter().filter(kept).filter_map(volume).collect()
    }

    /// Notes the volumes that are given back to their claims; those of claims that get another volume stay as they are.
    pub fn note_given_back(&mut self, backup: &Backup, has_another: impl Fn(&ObjectName) -> bool) {
        let name = |number: usize| backup.index.object_name(&backup.index.entries()[number]);
        self.given_back.retain(|number, _| !has_another(&name(*number)));
        let mut notes: Vec<String> = self
            .given_back
            .iter()
            .map(|(number, (_, volume))| {
                let claim = name(*number);
                format!("volume `{volume}` was released by claim `{claim}`, which is restored: it is given back to it")
            })
            .collect();
        notes.sort_unstable();
        self.notes.append(&mut notes);
    }

    /// Takes the volumes that are to be made into what tells the plan from others.
    pub fn note_volumes(&mut self, volumes: BTreeMap<String, Digest>) {
        let told = volumes.iter().map(|(claim, digest)| format!("\n{claim} {digest}"));
        self.digest = Digest::of(format!("{}{}", self.digest, told.collect::<String>()).as_bytes());
        self.volumes = volumes;
    }

    /// The item of an entry.
    pub fn item(&self, number: usize) -> Option<&PlanItem> {
        let at = self.items.binary_search_by_key(&number, |item| item.entry as usize).ok()?;
        self.items.get(at)
    }

    fn item_mut(&mut self, number: usize) -> Option<&mut PlanItem> {
        let at = self.items.binary_search_by_key(&number, |item| item.entry as usize).ok()?;
        self.items.get_mut(at)
    }

    /// Gives an object another verdict.
    pub fn decide(&mut self, number: usize, verdict: Verdict) {
        if let Some(item) = self.item_mut(number) {
            item.verdict = verdict;
        }
    }

    /// Leaves an object out after all, and what was noted of it.
    pub fn leave_out(&mut self, backup: &Backup, number: usize, reason: &'static str) {
        let entry = &backup.index.entries()[number];
        let about = format!("`{}` `{}` ", backup.index.frame(entry).kind, backup.index.object_name(entry));
        self.notes.retain(|note| !note.starts_with(&about));
        self.decide(number, Verdict::Skip(Skip::NeverRestored(reason)));
    }

    /// How many objects have a verdict.
    pub fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.items.iter().filter(|item| is(&item.verdict)).count()
    }
}

/// Makes a plan. Writes nothing.
///
/// # Errors
/// [`Error::Archive`] when anything selected is damaged; the API server's or the bucket's.
pub async fn make(
    cluster: &Cluster,
    store: &dyn Store,
    mut request: PlanRequest<'_>,
    events: &Events,
) -> Result<Plan, Error> {
    let (backup, existing, seal) = (request.backup, request.existing, request.seal);
    let (finds_ours, owners_here) = (request.finds_ours, request.owners_here);
    let chosen = Arc::new(with_namespaces(backup, request.chosen.take()));
    let discovery = request.discovery;
    request.adaptation.write_as(target::versions(cluster, discovery, backup).await?);
    let there = existing::Existing::new(cluster, discovery, backup).await?;
    let rules = request.adaptation.rules().clone();
    let mut survey = Survey::new(&rules);
    let (mut plan, ()) = tokio::try_join!(
        judge::judge(request, store, &chosen, &there, &mut survey, events),
        there.list(cluster, discovery, backup, &chosen, rules.mapping()),
    )?;
    expect_owners(backup, &mut plan, &there);
    if owners_here {
        owners::find(cluster, store, discovery, backup, &chosen, &mut plan).await?;
    }
    if finds_ours {
        plan.ours = there.ours().map(|(number, uid)| (number, uid.clone())).collect();
    }
    let plain_status = discovery.plain_status(survey.plain_status());
    rules.aim(Target { kept_volumes: plan.kept_volumes(backup), plain_status });
    if existing != Existing::Skip {
        compare(cluster, store, backup, &mut plan, &there, existing).await?;
    }
    plan.notes.extend(survey_notes(backup, &plan, &survey));
    target::missing_classes(cluster, discovery, backup, &mut plan).await?;
    target::give_back(cluster, discovery, backup, &mut plan, &survey).await?;
    place(backup, &mut plan);
    plan.digest = rules.digest(digest(backup, &plan, seal));
    Ok(plan)
}

/// Compares what exists. What wasn't written since it was backed up needn't be looked at.
async fn compare(
    cluster: &Cluster,
    store: &dyn Store,
    backup: &Backup,
    plan: &mut Plan,
    there: &existing::Existing,
    existing: Existing,
) -> Result<(), Error> {
    let mut numbers = BTreeSet::new();
    let neutral = plan.adaptation.is_neutral();
    for item in plan.items.iter_mut().filter(|item| item.verdict == EXISTS) {
        let number = item.entry as usize;
        if neutral && there.get(backup, number).is_some_and(|live| live.same) {
            item.verdict = Verdict::Unchanged;
        } else {
            numbers.insert(number);
        }
    }
    // an owner that is to be made counts as one that is there: what waits for it keeps its reference
    let entries = backup.index.entries();
    let creates = plan.items.iter().filter(|item| item.verdict == Verdict::Create);
    let to_be_made: Vec<Uid> = creates.filter_map(|item| entries[item.entry as usize].uid().cloned()).collect();
    for item in plan.items.iter().filter(|item| item.verdict == Verdict::Create) {
        let entry = &entries[item.entry as usize];
        let target = plan.adaptation.target(&backup.index.frame(entry).kind, &backup.index.object_name(entry));
        if let Some(uid) = entry.uid() {
            plan.owners.record(uid, Uid::parse("to be made"), target.namespace.as_deref());
        }
    }
    compare::all(cluster, store, backup, plan, existing, &numbers).await?;
    to_be_made.iter().for_each(|uid| plan.owners.forget(uid));
    Ok(())
}

/// The chosen entries, and the Namespace objects of the namespaces they are in.
fn with_namespaces(backup: &Backup, chosen: Option<BTreeSet<usize>>) -> BTreeSet<usize> {
    let entries = backup.index.entries();
    let Some(mut chosen) = chosen else { return (0..entries.len()).collect() };
    let needed: HashSet<&str> = chosen.iter().filter_map(|number| backup.index.namespace(&entries[*number])).collect();
    let is_needed =
        |entry| backup.index.frame(entry).kind.is("namespaces") && needed.contains(backup.index.name(entry));
    let namespaces: Vec<usize> = (0..entries.len()).filter(|number| is_needed(&entries[*number])).collect();
    chosen.extend(namespaces);
    chosen
}

/// The head of an object, once it was found to be the one that the index names.
fn head_of<'a>(index: &Index, number: usize, tar: &'a [u8]) -> Result<Head<'a>, Error> {
    let bytes = index.object(&index.entries()[number], tar)?;
    let text = std::str::from_utf8(bytes).map_err(|_| damaged(index, number, "it is not UTF-8".to_owned()))?;
    let head = Head::of(text).map_err(|error| damaged(index, number, error.to_string()))?;
    if is_named_so(index, number, &head) {
        return Ok(head);
    }
    Err(damaged(index, number, "it holds another object than the index says".to_owned()))
}

fn damaged(index: &Index, number: usize, why: String) -> Error {
    let entry = &index.entries()[number];
    let (kind, name) = (&index.frame(entry).kind, index.object_name(entry));
    archive::Error::Damaged { what: format!("`{kind}` `{name}`"), why }.into()
}

/// What rules need to know of an object, and what it shows to the survey.
fn seen(index: &Index, number: usize, tar: &[u8], lookout: &Lookout) -> Result<(Facts, Look), Error> {
    let kind = &index.frame(&index.entries()[number]).kind;
    let head = head_of(index, number, tar)?;
    let seen = Facts::of_head(kind, &head).and_then(|facts| {
        let look = lookout.look(kind, &facts, &head)?;
        Ok((facts, look))
    });
    seen.map_err(|error| damaged(index, number, error.to_string()))
}

/// An entry's number as it is kept in a plan.
fn number_of(entry: usize) -> u32 {
    u32::try_from(entry).unwrap_or(u32::MAX)
}

/// What the survey says of the objects that are to be written.
fn survey_notes(backup: &Backup, plan: &Plan, survey: &Survey<'_>) -> Vec<String> {
    let writes: HashSet<u32> = plan.items.iter().filter(|item| item.verdict.writes()).map(|item| item.entry).collect();
    let name = |number: u32| {
        let entry = &backup.index.entries()[number as usize];
        format!("{} {}", backup.index.frame(entry).kind, backup.index.object_name(entry))
    };
    survey.notes(|number| writes.contains(&number), name)
}

/// An archive must not name one object in its index and hold another.
fn is_named_so(index: &Index, number: usize, head: &Head<'_>) -> bool {
    let entry = &index.entries()[number];
    let kind = &index.frame(entry).kind;
    head.name() == index.name(entry)
        && head.namespace().filter(|_| kind.namespaced) == index.namespace(entry)
        && head.kind() == kind.kind
        && head.api_version() == kind.api_version()
}

/// Notes the owners that objects wait for, and those that the target has already.
fn expect_owners(backup: &Backup, plan: &mut Plan, there: &existing::Existing) {
    plan.waits.values().for_each(|owners| plan.owners.expect(owners));
    for item in plan.items.iter().filter(|item| item.verdict == EXISTS) {
        let number = item.entry as usize;
        let entry = &backup.index.entries()[number];
        let namespace = backup.index.namespace(entry).map(|namespace| plan.adaptation.mapping().target(namespace));
        if let (Some(was), Some(live)) = (entry.uid(), there.get(backup, number)) {
            plan.owners.record(was, live.uid.clone(), namespace);
        }
    }
}

/// Places what is to be written after its owners.
fn place(backup: &Backup, plan: &mut Plan) {
    let nobody = Uid::parse("");
    let writes: Vec<usize> = (0..plan.items.len()).filter(|at| plan.items[*at].verdict.writes()).collect();
    let found = places(writes.len(), |at| {
        let item = &plan.items[writes[at]];
        let number = item.entry as usize;
        Member {
            uid: backup.index.entries()[number].uid().unwrap_or(&nobody),
            owners: plan.waits.get(&number).map_or(&[], |owners| owners),
            wave: item.place.wave,
        }
    });
    for (at, place) in writes.into_iter().zip(found) {
        plan.items[at].place = place;
    }
}

fn digest(backup: &Backup, plan: &Plan, seal: &[u8]) -> Digest {
    let mapping = plan.adaptation.mapping();
    let line = |item: &'_ PlanItem| {
        let number = item.entry as usize;
        (number, &backup.index.entries()[number], backup.index.frame(&backup.index.entries()[number]))
    };
    verdict::digest(
        seal,
        plan.items.iter().map(|item| {
            let (number, entry, frame) = line(item);
            let (kind, namespace, name) = (&frame.kind, backup.index.namespace(entry), backup.index.name(entry));
            // the name of a Namespace object is where it goes, as for what is in it
            let goes = if kind.is("namespaces") { Some(name) } else { namespace };
            let target = goes.map(|namespace| mapping.target(namespace));
            let change = plan.changed.get(&number).filter(|_| item.verdict.writes()).map(|changed| &changed.digest);
            Line { kind, namespace, name, verdict: &item.verdict, target, change }
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::index::Entry;
    use crate::pipeline::apply::Became;

    // What a restore holds of each object, besides a few bytes of what is on its way. Planning: index, plan and what is
    // there. Writing: index, plan and what became of it. At the end all that and its line in the result, packed; then only
    // that line. Of what exists and differs a digest more, and where it is shown its changes, 4 MiB of them in all; of what
    // has owners, a name for each. `make bench` measures the sum.
    #[test]
    fn an_object_of_a_restore_takes_at_most_200_bytes() {
        let (name, numbers, packed) = (32, 32, 48);
        let both = size_of::<Entry>() + name + size_of::<PlanItem>();
        let planning = both + size_of::<existing::Live>() + numbers;
        let writing = both + size_of::<Became>() + numbers;
        let ending = both + size_of::<Became>() + packed;
        assert!(planning.max(writing).max(ending) <= 200, "{planning} {writing} {ending}");
    }
}
