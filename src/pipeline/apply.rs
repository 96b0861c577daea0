//! Carries out a plan: wave by wave and pass by pass, many objects at once within each.

mod one;
mod write;

use super::Error;
use super::besides::Journal;
use super::fetch::Backup;
use super::plan::{DEFINITIONS, Plan, PlanItem};
use super::walk::{self, Load, Saved};
use crate::cluster::discover::Discovery;
use crate::cluster::{Cluster, Error as ClusterError};
use crate::report::{Counts, Event, Events, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules::owners::{Owners, Place, Uid};
use crate::rules::rights::Missing;
use crate::rules::verdict::Verdict;
use crate::rules::waves::Wave;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use write::{Failure, Written};

/// What problems of missing rights are about.
pub const MISSING: &str = "missing right";
/// How often what fails because another object isn't there yet is tried again.
const TRIES: u32 = 4;
/// The pause before that.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the API server may be away, besides the tries of each request: as long as it takes to be replaced.
const AWAY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long custom resource definitions may take until their kinds are served.
const SERVED_TIMEOUT: Duration = Duration::from_secs(60);

/// What became of one object of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was made.
    Created,
    /// It was replaced.
    Updated,
    /// It was deleted and made anew.
    Recreated,
    /// It was as it should be already.
    Unchanged,
    /// One of its name appeared since the plan was made; it was left alone.
    Exists,
    /// It could not be made; [`Restored::why`] knows why.
    Failed,
}

impl Applied {
    /// Whether it was written.
    pub fn is_written(self) -> bool {
        matches!(self, Self::Created | Self::Updated | Self::Recreated)
    }
}

/// What became of an object, in few bytes: a restore holds one for each that it writes.
#[derive(Clone, Debug)]
pub(super) struct Became {
    entry: u32,
    applied: Applied,
    /// Of what was written.
    uid: Option<Uid>,
}

/// What a restore came to.
#[derive(Debug, Default)]
pub struct Restored {
    /// What became of the objects that were to be written; by their number in the index once it is [`Restored::sort`]ed.
    became: Vec<Became>,
    /// Why objects could not be made, by the same number.
    failures: BTreeMap<usize, String>,
    /// Those of them for which rights are missing.
    pub missing: Missing,
    /// What failed.
    pub problems: Vec<Problem>,
    /// What was taken out of objects and worth a word.
    pub notes: Vec<String>,
}

impl Restored {
    /// Nothing written, with what is wrong nevertheless.
    pub fn nothing(problems: Vec<Problem>) -> Self {
        Self { problems, ..Self::default() }
    }

    /// Notes what became of an object.
    pub fn note(&mut self, number: usize, applied: Applied, uid: Option<Uid>) {
        let entry = u32::try_from(number).unwrap_or(u32::MAX);
        self.became.push(Became { entry, applied, uid: uid.filter(|_| applied.is_written()) });
    }

    /// Notes that an object could not be made.
    fn fail(&mut self, number: usize, why: &str) {
        self.note(number, Applied::Failed, None);
        self.failures.insert(number, why.to_owned());
    }

    /// Adds what earlier attempts of the same restore made.
    pub fn add(&mut self, before: Self) {
        self.sort();
        let new: Vec<Became> = before.became.into_iter().filter(|one| self.get(one.entry as usize).is_none()).collect();
        self.became.extend(new);
        self.sort();
    }

    /// Puts it in order, so that objects are found.
    fn sort(&mut self) {
        self.became.sort_by_key(|one| one.entry);
        self.became.dedup_by_key(|one| one.entry);
    }

    /// What became of an object, and the uid of what was written.
    pub fn get(&self, number: usize) -> Option<(Applied, Option<&Uid>)> {
        let at = self.became.binary_search_by_key(&number, |one| one.entry as usize).ok()?;
        self.became.get(at).map(|one| (one.applied, one.uid.as_ref()))
    }

    /// Why an object could not be made.
    pub fn why(&self, number: usize) -> Option<&str> {
        self.failures.get(&number).map(String::as_str)
    }

    /// The objects that were created, with their uids.
    fn created(&self) -> impl Iterator<Item = (usize, Option<&Uid>)> {
        let created = self.became.iter().filter(|one| one.applied == Applied::Created);
        created.map(|one| (one.entry as usize, one.uid.as_ref()))
    }

    /// Whether all that was to be written was refused for want of rights.
    pub fn is_forbidden(&self) -> bool {
        let failed = self.became.iter().all(|one| one.applied == Applied::Failed);
        failed && self.missing.objects() > 0 && self.became.len() == self.missing.objects()
    }
}

/// What carrying out needs, and what it gathers.
pub struct Apply<'a> {
    /// The target.
    pub cluster: &'a Cluster,
    /// Where the backup is.
    pub store: &'a dyn Store,
    /// The backup.
    pub backup: &'a Backup,
    /// The plan.
    pub plan: &'a Plan,
    /// Where it notes what it does besides; `None` where nothing is kept of it.
    pub journal: Option<Journal<'a>>,
    /// Where to tell what happens.
    pub events: &'a Events,
    /// Ends it between two writes.
    pub cancel: &'a CancellationToken,
}

struct Gathered {
    owners: Owners,
    restored: Restored,
    counts: Counts,
}

impl Apply<'_> {
    /// Carries the plan out. `before` is what earlier attempts of the same restore made of it already, `claims` what is done
    /// once the namespaces are there and no claim is. An object that fails is a problem in the result.
    ///
    /// # Errors
    /// When the backup can't be read any more, what comes before the claims fails, or on a signal; what was written by then
    /// stays, and a second run goes on from there.
    pub async fn run(
        &self,
        owners: Owners,
        before: &Restored,
        claims: impl Future<Output = Result<(), Error>>,
    ) -> Result<Restored, Error> {
        let counts = Counts { objects_total: self.plan.count(Verdict::writes) as u64, ..Counts::default() };
        // in the size that it gets: growing, it would take twice as much at times
        let became = Vec::with_capacity(self.plan.count(Verdict::writes));
        let gathered = Mutex::new(Gathered { owners, restored: Restored { became, ..Restored::default() }, counts });
        let mut claims = Some(Box::pin(claims));
        let writes = || self.plan.items.iter().filter(|item| item.verdict.writes());
        // no more is kept of the places than which there are
        for place in writes().map(|item| item.place).collect::<BTreeSet<Place>>() {
            let items = writes().filter(|item| item.place == place).map(|item| item.entry as usize);
            let items: BTreeSet<usize> = items.collect();
            if let Some(claims) = claims.take_if(|_| place.wave >= Wave::Volumes) {
                tokio::select! {
                    done = claims => done?,
                    () = self.cancel.cancelled() => return Err(Error::Cancelled),
                }
            }
            self.events.note(format!("{}: {} objects", place.wave, items.len()));
            let definitions = (place.wave == Wave::Definitions).then(|| items.clone());
            self.pass(&gathered, items).await?;
            if let Some(definitions) = definitions {
                self.served(&gathered, &definitions).await?;
            }
        }
        self.statuses(&gathered, before).await?;
        let mut restored = gathered.into_inner().unwrap_or_else(PoisonError::into_inner).restored;
        let missing = restored.missing.lines().map(|message| Problem { subject: MISSING.to_owned(), message });
        let missing: Vec<Problem> = missing.collect();
        missing.iter().for_each(|problem| self.events.send(Event::Problem(problem.clone())));
        restored.problems.extend(missing);
        restored.sort();
        Ok(restored)
    }

    /// Writes the status of what earlier attempts created: they may have been killed between the two writes.
    async fn statuses(&self, gathered: &Mutex<Gathered>, before: &Restored) -> Result<(), Error> {
        let rules = self.plan.adaptation.rules();
        let made: BTreeMap<usize, String> = before
            .created()
            .filter(|(number, _)| rules.writes_status(&self.kind(*number)))
            .map(|(number, uid)| (number, uid.map(ToString::to_string).unwrap_or_default()))
            .collect();
        let numbers: BTreeSet<usize> = made.keys().copied().collect();
        let made = &made;
        let write = |saved: Saved| async move {
            let uid = made.get(&saved.number).map_or("", String::as_str);
            (saved.number, self.complete_status(gathered, &saved, uid).await)
        };
        walk::each(self.store, self.backup, &numbers, Load::Alone, write, |(number, result)| {
            if let Err(failure) = result {
                self.fail(gathered, number, &failure);
            }
        })
        .await
    }

    /// Writes the objects of one place; those that fail because another isn't there yet are tried again.
    async fn pass(&self, gathered: &Mutex<Gathered>, mut open: BTreeSet<usize>) -> Result<(), Error> {
        let deadline = Instant::now() + AWAY_TIMEOUT;
        for tried in 1.. {
            let failed = tokio::select! {
                failed = self.write_all(gathered, &open) => failed?,
                () = self.cancel.cancelled() => return Err(Error::Cancelled),
            };
            open.clear();
            for (number, failure) in failed {
                match failure {
                    Failure::Fatal(error) => return Err(error),
                    Failure::Cluster(error) if tried < TRIES && may_come_right(&error) => _ = open.insert(number),
                    Failure::Cluster(error) if Instant::now() < deadline && is_away(&error) => _ = open.insert(number),
                    failure => self.fail(gathered, number, &failure),
                }
            }
            if open.is_empty() {
                return Ok(());
            }
            self.events.note(format!(
                "{} objects are tried again: what they need isn't there yet, or no API server is",
                open.len()
            ));
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Writes objects, many at once. Returns those that failed.
    async fn write_all(
        &self,
        gathered: &Mutex<Gathered>,
        numbers: &BTreeSet<usize>,
    ) -> Result<Vec<(usize, Failure)>, Error> {
        let mut failed = Vec::new();
        let reads_live = |number: &usize| self.plan.item(*number).is_some_and(|item| item.verdict != Verdict::Create);
        let load = if numbers.iter().any(reads_live) { Load::WithLive } else { Load::Alone };
        let write = |saved: Saved| async move { (saved.number, saved.json.len(), self.write(gathered, &saved).await) };
        walk::each(self.store, self.backup, numbers, load, write, |(number, size, result)| match result {
            Ok(written) => self.note(gathered, number, size, written),
            Err(failure) => failed.push((number, failure)),
        })
        .await?;
        Ok(failed)
    }

    /// The kind of an entry, in the version in which it is written.
    fn kind(&self, number: usize) -> Kind {
        let entry = &self.backup.index.entries()[number];
        self.plan.adaptation.written_as(&self.backup.index.frame(entry).kind)
    }

    /// Where the object of an item goes.
    fn target(&self, number: usize) -> ObjectName {
        let entry = &self.backup.index.entries()[number];
        self.plan.adaptation.target(&self.backup.index.frame(entry).kind, &self.backup.index.object_name(entry))
    }

    /// Notes what became of a write.
    fn note(&self, gathered: &Mutex<Gathered>, number: usize, size: usize, written: Written) {
        let entry = &self.backup.index.entries()[number];
        let now = written.uid.as_deref().map(Uid::parse);
        let mut gathered = lock(gathered);
        if let (Some(was), Some(now)) = (entry.uid(), &now) {
            let namespace = self.target(number).namespace;
            gathered.owners.record(was, now.clone(), namespace.as_deref());
        }
        gathered.restored.note(number, written.applied, now);
        if !written.unknown.is_empty() {
            let kind = &self.backup.index.frame(entry).kind;
            let message = format!("it was written without {}", unknown(&written.unknown));
            let problem = Problem { subject: format!("{kind} {}", self.target(number)), message };
            self.events.send(Event::Problem(problem.clone()));
            gathered.restored.problems.push(problem);
        }
        gathered.counts.objects += 1;
        gathered.counts.bytes += size as u64;
        let counts = gathered.counts;
        drop(gathered);
        self.events.progress(counts);
    }

    fn fail(&self, gathered: &Mutex<Gathered>, number: usize, failure: &Failure) {
        let message = failure.to_string();
        let refusal = match failure {
            Failure::Cluster(error) => error.status(),
            _ => None,
        };
        let (kind, name) = (self.kind(number), self.target(number));
        let restored = &mut lock(gathered).restored;
        restored.fail(number, &message);
        // what is refused for want of one right is told once
        if refusal.is_some_and(|status| restored.missing.note(&kind, &name, &status.message)) {
            return;
        }
        let problem = Problem { subject: format!("{kind} {name}"), message };
        self.events.send(Event::Problem(problem.clone()));
        restored.problems.push(problem);
    }

    /// Waits until the kinds that were just defined are served, by the API server and by its discovery.
    async fn served(&self, gathered: &Mutex<Gathered>, items: &BTreeSet<usize>) -> Result<(), Error> {
        let mut waiting: HashSet<String> = {
            let gathered = lock(gathered);
            let made = gathered.restored.created().map(|(number, _)| number).filter(|number| items.contains(number));
            made.map(|number| self.backup.index.name(&self.backup.index.entries()[number]).to_owned()).collect()
        };
        let deadline = Instant::now() + SERVED_TIMEOUT;
        while !waiting.is_empty() {
            let discovery = self.cluster.discover().await?;
            let mut still = HashSet::new();
            for name in waiting {
                let listed = discovery.get(&name).is_some() && self.established(&discovery, &name).await?;
                if !listed {
                    still.insert(name);
                }
            }
            waiting = still;
            if Instant::now() > deadline {
                break; // their objects will say what is wrong with each
            }
            if !waiting.is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    async fn established(&self, discovery: &Discovery, name: &str) -> Result<bool, Error> {
        let Some(definitions) = discovery.get(DEFINITIONS) else {
            return Ok(false);
        };
        let Some(bytes) = self.cluster.get(&definitions.kind, &ObjectName::new(None, name)).await? else {
            return Ok(false);
        };
        Ok(Discovery::is_established(&bytes))
    }
}

/// Fields that are lost, in words.
pub(super) fn unknown(fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
    format!("{}, which this API server doesn't know", fields.join(", "))
}

fn lock(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether no API server is there.
fn is_away(error: &ClusterError) -> bool {
    error.is_transient() && error.code().is_none_or(|code| matches!(code, 429 | 502 | 503 | 504))
}

/// Whether an object may be accepted once others are there: its namespace or kind (404), its service account (403), a
/// webhook's service (500), a service that is being set up.
fn may_come_right(error: &ClusterError) -> bool {
    let Some(status) = error.status() else { return false };
    match status.code {
        404 => true,
        403 => status.message.contains("error looking up service account"),
        500 => status.message.contains("failed calling webhook"),
        _ => false,
    }
}
