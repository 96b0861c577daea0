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
use crate::rules::verdict::Verdict;
use crate::rules::waves::Wave;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use write::{Failure, Written};

/// How often what fails because another object isn't there yet is tried again.
const TRIES: u32 = 4;
/// The pause before that.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the API server may be away, besides the tries of each request: as long as it takes to be replaced.
const AWAY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long custom resource definitions may take until their kinds are served.
const SERVED_TIMEOUT: Duration = Duration::from_secs(60);

/// What became of one object of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// It could not be made.
    Failed(String),
}

impl Applied {
    /// Whether it was written.
    pub fn is_written(&self) -> bool {
        matches!(self, Self::Created | Self::Updated | Self::Recreated)
    }
}

/// What a restore came to.
#[derive(Debug, Default)]
pub struct Restored {
    /// What became of the objects that were to be written, by their number in the index.
    pub applied: BTreeMap<usize, Applied>,
    /// The uids of those that were written.
    pub uids: BTreeMap<usize, Uid>,
    /// What failed.
    pub problems: Vec<Problem>,
    /// What was taken out of objects and worth a word.
    pub notes: Vec<String>,
}

impl Restored {
    /// Adds what earlier attempts of the same restore made.
    pub fn add(&mut self, before: Self) {
        before.applied.into_iter().for_each(|(number, applied)| _ = self.applied.entry(number).or_insert(applied));
        before.uids.into_iter().for_each(|(number, uid)| _ = self.uids.entry(number).or_insert(uid));
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
        let gathered = Mutex::new(Gathered { owners, restored: Restored::default(), counts });
        let mut claims = Some(Box::pin(claims));
        for (place, items) in self.by_place() {
            if let Some(claims) = claims.take_if(|_| place.wave >= Wave::Volumes) {
                tokio::select! {
                    done = claims => done?,
                    () = self.cancel.cancelled() => return Err(Error::Cancelled),
                }
            }
            self.events.note(format!("{}: {} objects", place.wave, items.len()));
            self.pass(&gathered, &items).await?;
            if place.wave == Wave::Definitions {
                self.served(&gathered, &items).await?;
            }
        }
        self.statuses(&gathered, before).await?;
        Ok(gathered.into_inner().unwrap_or_else(PoisonError::into_inner).restored)
    }

    /// Writes the status of what earlier attempts created: they may have been killed between the two writes.
    async fn statuses(&self, gathered: &Mutex<Gathered>, before: &Restored) -> Result<(), Error> {
        let made =
            before.applied.iter().filter(|(_, applied)| **applied == Applied::Created).map(|(number, _)| *number);
        let rules = self.plan.adaptation.rules();
        let numbers: BTreeSet<usize> = made.filter(|number| rules.writes_status(&self.kind(*number))).collect();
        let write = |saved: Saved| async move {
            let uid = before.uids.get(&saved.number).map(ToString::to_string).unwrap_or_default();
            (saved.number, self.complete_status(gathered, &saved, &uid).await)
        };
        walk::each(self.store, self.backup, &numbers, Load::Alone, write, |(number, result)| {
            if let Err(failure) = result {
                self.fail(gathered, number, &failure.to_string());
            }
        })
        .await
    }

    fn by_place(&self) -> BTreeMap<Place, BTreeSet<usize>> {
        let mut places = BTreeMap::<Place, BTreeSet<usize>>::new();
        for item in self.plan.items.iter().filter(|item| item.verdict.writes()) {
            places.entry(item.place).or_default().insert(item.entry as usize);
        }
        places
    }

    /// Writes the objects of one place; those that fail because another isn't there yet are tried again.
    async fn pass(&self, gathered: &Mutex<Gathered>, numbers: &BTreeSet<usize>) -> Result<(), Error> {
        let mut open = numbers.clone();
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
                    failure => self.fail(gathered, number, &failure.to_string()),
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
        let mut gathered = lock(gathered);
        if let Some(now) = written.uid.as_deref().map(Uid::parse) {
            if let Some(was) = entry.uid() {
                let namespace = self.target(number).namespace;
                gathered.owners.record(was, now.clone(), namespace.as_deref());
            }
            gathered.restored.uids.insert(number, now);
        }
        gathered.restored.applied.insert(number, written.applied);
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

    fn fail(&self, gathered: &Mutex<Gathered>, number: usize, message: &str) {
        let kind = &self.backup.index.frame(&self.backup.index.entries()[number]).kind;
        let problem = Problem { subject: format!("{kind} {}", self.target(number)), message: message.to_owned() };
        self.events.send(Event::Problem(problem.clone()));
        let mut gathered = lock(gathered);
        gathered.restored.applied.insert(number, Applied::Failed(message.to_owned()));
        gathered.restored.problems.push(problem);
    }

    /// Waits until the kinds that were just defined are served, by the API server and by its discovery.
    async fn served(&self, gathered: &Mutex<Gathered>, items: &BTreeSet<usize>) -> Result<(), Error> {
        let mut waiting: HashSet<String> = {
            let gathered = lock(gathered);
            let made = |number: &&usize| matches!(gathered.restored.applied.get(number), Some(Applied::Created));
            let name = |number: &usize| self.backup.index.entries()[*number].name().to_owned();
            items.iter().filter(made).map(name).collect()
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
