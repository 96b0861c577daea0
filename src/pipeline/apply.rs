//! Carries out a plan: wave by wave and pass by pass, many objects at once within each.

use super::Error;
use super::fetch::{self, Backup};
use super::plan::{Plan, target_name};
use crate::archive;
use crate::cluster::discover::Discovery;
use crate::cluster::object::Created;
use crate::cluster::{Cluster, Error as ClusterError};
use crate::report::{Counts, Event, Events, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules::mapping::NamespaceMapping;
use crate::rules::owners::{Owners, Place, Uid};
use crate::rules::tidy::{Tidy, TidyOptions};
use crate::rules::verdict::Verdict;
use crate::rules::volumes::restored::Restored as NewVolumes;
use crate::rules::waves::Wave;
use crate::store::Store;
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Objects written at once; an API server on two cores takes 2,000 objects/s then, and no more with more.
const WRITES: usize = 32;
/// KiB of objects on their way at once: what is large waits, so that memory follows this and not [`WRITES`] times the
/// largest object. An object takes about three times its size on its way: its tree, its text, and the connection's.
const KIB_IN_FLIGHT: u32 = 8 * 1024;
/// How often what fails because another object isn't there yet is tried again.
const TRIES: u32 = 4;
/// The pause before that.
const PAUSE: Duration = Duration::from_secs(1);
/// How long custom resource definitions may take until their kinds are served.
const SERVED_TIMEOUT: Duration = Duration::from_secs(60);

/// What became of one object of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was made.
    Created,
    /// One of its name appeared since the plan was made; it was left alone.
    Exists,
    /// It could not be made.
    Failed(String),
}

/// What a restore came to.
#[derive(Debug, Default)]
pub struct Restored {
    /// What became of the items that were to be created, by their number in the plan.
    pub applied: BTreeMap<usize, Applied>,
    /// What failed.
    pub problems: Vec<Problem>,
    /// What was taken out of objects and worth a word.
    pub notes: Vec<String>,
}

/// An object on its way to the API server.
struct Write {
    item: usize,
    kind: Kind,
    name: ObjectName,
    was: Option<Uid>,
    body: Bytes,
    /// Its share of [`KIB_IN_FLIGHT`].
    _room: OwnedSemaphorePermit,
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
    /// Where namespaces go.
    pub mapping: &'a NamespaceMapping,
    /// Where to tell what happens.
    pub events: &'a Events,
    /// What is taken out of objects.
    pub tidy: &'a Tidy,
    /// What stays all the same.
    pub options: TidyOptions<'a>,
    /// New volumes behind restored claims.
    pub volumes: &'a NewVolumes,
    /// Ends it between two writes.
    pub cancel: &'a CancellationToken,
}

struct Gathered {
    owners: Owners,
    restored: Restored,
    counts: Counts,
}

impl Apply<'_> {
    /// Carries the plan out. An object that fails is a problem in the result.
    ///
    /// # Errors
    /// When the backup can't be read any more, or on a signal; what was written by then stays, and a second run goes on
    /// from there.
    pub async fn run(&self, owners: Owners) -> Result<Restored, Error> {
        let counts = Counts { objects_total: self.plan.creates() as u64, ..Counts::default() };
        let gathered = Mutex::new(Gathered { owners, restored: Restored::default(), counts });
        for (place, items) in self.by_place() {
            self.events.note(format!("{}: {} objects", place.wave, items.len()));
            self.pass(&gathered, &items).await?;
            if place.wave == Wave::Definitions {
                self.served(&gathered, &items).await?;
            }
        }
        Ok(gathered.into_inner().unwrap_or_else(PoisonError::into_inner).restored)
    }

    fn by_place(&self) -> BTreeMap<Place, BTreeSet<usize>> {
        let mut places = BTreeMap::<Place, BTreeSet<usize>>::new();
        for (number, item) in self.plan.items.iter().enumerate().filter(|(_, item)| item.verdict == Verdict::Create) {
            places.entry(item.place).or_default().insert(number);
        }
        places
    }

    /// Writes the objects of one place; those that fail because another isn't there yet are tried again.
    async fn pass(&self, gathered: &Mutex<Gathered>, items: &BTreeSet<usize>) -> Result<(), Error> {
        let mut open = items.clone();
        for tried in 1..=TRIES {
            let failed = tokio::select! {
                failed = self.write_all(gathered, &open) => failed?,
                () = self.cancel.cancelled() => return Err(Error::Cancelled),
            };
            open.clear();
            for (item, error) in failed {
                if tried < TRIES && may_come_right(&error) {
                    open.insert(item);
                } else {
                    self.fail(gathered, item, &error);
                }
            }
            if open.is_empty() {
                return Ok(());
            }
            self.events.note(format!("{} objects are tried again: what they need isn't there yet", open.len()));
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Fetches, adapts and writes objects, joined by a bounded channel. Returns those that failed.
    async fn write_all(
        &self,
        gathered: &Mutex<Gathered>,
        items: &BTreeSet<usize>,
    ) -> Result<Vec<(usize, ClusterError)>, Error> {
        let (sender, mut receiver) = mpsc::channel::<Write>(WRITES);
        let writes = stream::poll_fn(move |context| receiver.poll_recv(context));
        let write = async {
            let failed = writes
                .map(|write| async move {
                    let result = self.cluster.create(&write.kind, &write.name, write.body.clone()).await;
                    (write, result)
                })
                .buffer_unordered(WRITES)
                .filter_map(|(write, result)| std::future::ready(self.note(gathered, &write, result)))
                .collect::<Vec<_>>();
            Ok(failed.await)
        };
        let (_, failed) = tokio::try_join!(self.fetch(gathered, items, sender), write)?;
        Ok(failed)
    }

    async fn fetch(
        &self,
        gathered: &Mutex<Gathered>,
        items: &BTreeSet<usize>,
        sender: mpsc::Sender<Write>,
    ) -> Result<(), Error> {
        let entries = self.backup.index.entries();
        let mut by_frame = BTreeMap::<usize, Vec<usize>>::new();
        for &item in items {
            by_frame.entry(entries[self.plan.items[item].entry as usize].frame()).or_default().push(item);
        }
        let frames = by_frame.keys().copied().collect();
        let room = Arc::new(Semaphore::new(KIB_IN_FLIGHT as usize));
        fetch::frames(self.store, self.backup, &frames, |frame, tar| {
            let (by_frame, sender, room) = (&by_frame, &sender, &room);
            async move {
                for &item in by_frame.get(&frame).into_iter().flatten() {
                    let size = entries[self.plan.items[item].entry as usize].size() / 1024 + 1;
                    let share = u32::try_from(size).unwrap_or(KIB_IN_FLIGHT).min(KIB_IN_FLIGHT);
                    let room = room.clone().acquire_many_owned(share).await;
                    let room = room.map_err(|_| Error::Thread("nobody writes any more".to_owned()))?;
                    let write = self.adapt(gathered, item, &tar, room)?;
                    sender.send(write).await.map_err(|_| Error::Thread("nobody writes any more".to_owned()))?;
                }
                Ok(())
            }
        })
        .await
    }

    /// Makes of a saved object what is written.
    fn adapt(
        &self,
        gathered: &Mutex<Gathered>,
        item: usize,
        tar: &[u8],
        room: OwnedSemaphorePermit,
    ) -> Result<Write, Error> {
        let entry = &self.backup.index.entries()[self.plan.items[item].entry as usize];
        let kind = &self.backup.index.frame(entry).kind;
        let source = self.backup.index.object_name(entry);
        let damaged = |error: &serde_json::Error| {
            let why = format!("it is not JSON at line {} column {}", error.line(), error.column());
            Error::from(archive::Error::Damaged { what: format!("`{kind}` `{source}`"), why })
        };
        let mut object: Value =
            serde_json::from_slice(self.backup.index.object(entry, tar)?).map_err(|error| damaged(&error))?;
        self.mapping.apply(kind, &mut object);
        self.volumes.apply(kind, &mut object);
        self.tidy.apply(kind, &mut object, &self.options);
        let mut gathered = lock(gathered);
        for stripped in gathered.owners.rewrite(kind, &mut object) {
            let note =
                format!("`{kind}` `{source}`: the owner `{}` was taken out: {}", stripped.owner, stripped.reason);
            gathered.restored.notes.push(note);
        }
        let body = serde_json::to_vec(&object).map_err(|error| damaged(&error))?;
        Ok(Write {
            item,
            kind: kind.clone(),
            name: target_name(kind, &source, self.mapping),
            was: entry.uid().cloned(),
            body: Bytes::from(body),
            _room: room,
        })
    }

    /// Notes what became of a write; a failure is returned for the caller to judge.
    fn note(
        &self,
        gathered: &Mutex<Gathered>,
        write: &Write,
        result: Result<Created, ClusterError>,
    ) -> Option<(usize, ClusterError)> {
        let mut gathered = lock(gathered);
        let applied = match result {
            Err(error) => return Some((write.item, error)),
            Ok(Created::Exists) => Applied::Exists,
            Ok(Created::Made(meta)) => {
                if let Some(was) = &write.was {
                    gathered.owners.record(was, Uid::parse(&meta.uid), write.name.namespace.as_deref());
                }
                Applied::Created
            }
        };
        gathered.restored.applied.insert(write.item, applied);
        gathered.counts.objects += 1;
        gathered.counts.bytes += write.body.len() as u64;
        let counts = gathered.counts;
        drop(gathered);
        self.events.progress(counts);
        None
    }

    fn fail(&self, gathered: &Mutex<Gathered>, item: usize, error: &ClusterError) {
        let entry = &self.backup.index.entries()[self.plan.items[item].entry as usize];
        let kind = &self.backup.index.frame(entry).kind;
        let name = target_name(kind, &self.backup.index.object_name(entry), self.mapping);
        let problem = Problem { subject: format!("{kind} {name}"), message: error.to_string() };
        self.events.send(Event::Problem(problem.clone()));
        let mut gathered = lock(gathered);
        gathered.restored.applied.insert(item, Applied::Failed(error.to_string()));
        gathered.restored.problems.push(problem);
    }

    /// Waits until the kinds that were just defined are served, by the API server and by its discovery.
    async fn served(&self, gathered: &Mutex<Gathered>, items: &BTreeSet<usize>) -> Result<(), Error> {
        let mut waiting: HashSet<String> = {
            let gathered = lock(gathered);
            let made = |item: &&usize| matches!(gathered.restored.applied.get(item), Some(Applied::Created));
            let name =
                |item: &usize| self.backup.index.entries()[self.plan.items[*item].entry as usize].name().to_owned();
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
        let Some(definitions) = discovery.get("customresourcedefinitions.apiextensions.k8s.io") else {
            return Ok(false);
        };
        let Some(bytes) = self.cluster.get(&definitions.kind, &ObjectName::new(None, name)).await? else {
            return Ok(false);
        };
        Ok(Discovery::is_established(&bytes))
    }
}

fn lock(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
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
