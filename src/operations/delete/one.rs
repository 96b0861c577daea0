//! The removal of one backup, step by step.

use super::{DeleteResult, Deletion, Verdict};
use crate::cluster::Cluster;
use crate::id::BackupId;
use crate::operations::restore::DryRun;
use crate::operations::{Context, volumes};
use crate::pipeline::Error;
use crate::pipeline::delete::{self, Held};
use crate::report::{Problem, one_line};
use crate::store::Store;
use crate::volumes::life::{self, Kept, Named, Regions, Standing};
use crate::volumes::record::Snapshot;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;

/// For how long what is no backup may be a worker's that still works.
const GRACE: SignedDuration = SignedDuration::from_hours(24);
/// How long EC2 may take to say whether it has snapshots of a backup of which nothing says that it has volumes.
const PROBE: Duration = Duration::from_secs(20);

/// What deleting needs, and what came of it.
pub(super) struct Deleting<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) cluster: &'a Cluster,
    pub(super) context: &'a Context,
    pub(super) result: DeleteResult,
    /// EC2, once it was needed.
    pub(super) regions: Option<Regions>,
}

impl Deleting<'_> {
    /// Deletes one backup, or says what that would mean.
    ///
    /// # Errors
    /// The bucket's; [`Error::NotFound`] where there is nothing.
    pub(super) async fn one(&mut self, id: &BackupId) -> anyhow::Result<()> {
        let held = match delete::look(self.store, id).await {
            Err(error @ Error::Archive(_)) => {
                self.problem(id, error.to_string());
                return Ok(());
            }
            other => other?,
        };
        let snapshots = match self.snapshots(&held).await {
            Ok(snapshots) => snapshots,
            Err(error) => {
                self.problem(id, format!("its snapshots can't be asked for, and so it stays: {error}"));
                self.result.backups.push(deletion(&held, &[], Verdict::Kept));
                return Ok(());
            }
        };
        if held.is_empty() && snapshots.is_empty() {
            let text = format!("there is no backup `{id}` in {}, and nothing is left of one", self.store.describe());
            return Err(Error::NotFound(text).into());
        }
        let origin = held.manifest.as_ref().and_then(|manifest| manifest.copied_from.as_ref());
        let mut free = Vec::new();
        let mut is_held = false;
        for one in snapshots {
            match &one.standing {
                Standing::Free => free.push(one),
                Standing::Held(why) => {
                    is_held = true;
                    self.problem(id, format!("snapshot `{}` can't be removed: {why}", one.name.id));
                }
                // a copy of a backup without copies of its snapshots: they are the original's
                Standing::Foreign(_) if origin.is_some_and(|origin| is_originals(origin, &one.snapshot)) => (),
                Standing::Foreign(why) => self.problem(id, format!("snapshot `{}` stays: {why}", one.name.id)),
            }
        }
        let verdict = match () {
            () if held.manifest_size.is_none() && self.may_live(&held, &free) => {
                let text = "it is no backup and younger than a day, so that a worker may still be at it; a later backup \
                            sweeps it";
                self.problem(id, text.to_owned());
                Verdict::Kept
            }
            () if is_held && held.manifest_size.is_some() => Verdict::Kept,
            () if self.result.dry_run != DryRun::None => self.try_out(id, &free).await,
            () => {
                let finished = self.carry_out(&held, &free).await?;
                if finished && !is_held { Verdict::Deleted } else { Verdict::Unfinished }
            }
        };
        self.result.backups.push(deletion(&held, &free, verdict));
        Ok(())
    }

    fn problem(&mut self, id: &BackupId, message: String) {
        self.result.problems.push(Problem { subject: id.to_string(), message: one_line(message) });
    }

    /// Whether what has no manifest may still be somebody's work.
    fn may_live(&self, held: &Held, snapshots: &[Kept]) -> bool {
        let now = (self.context.now)();
        let before = now.checked_sub(GRACE).unwrap_or(Timestamp::MIN);
        let newest = snapshots.iter().map(|one| one.snapshot.started_at).chain(held.newest()).max();
        !held.is_marked() && newest.is_some_and(|newest| newest >= before)
    }

    /// The snapshots of a backup. EC2 is asked where something says that there are some, and where nothing tells.
    async fn snapshots(&mut self, held: &Held) -> Result<Vec<Kept>, crate::volumes::Error> {
        let mut named = Vec::new();
        for mark in &held.marks {
            named.extend(serde_json::from_slice::<Vec<Named>>(mark).unwrap_or_default());
        }
        let known = held.manifest.as_ref().map(|manifest| manifest.counts.volumes);
        if let Some(manifest) = &held.manifest {
            match volumes::copies(self.store, manifest).await {
                Ok(copies) => named.extend(
                    copies.into_iter().map(|copy| Named { region: copy.snapshot.region, id: copy.snapshot.id }),
                ),
                // the tags tell them, too, all but those in other regions
                Err(error) => self.context.events.note(format!("the report of `{}`: {error:#}", held.id)),
            }
        }
        if known == Some(0) || (held.is_marked() && named.is_empty()) {
            return Ok(Vec::new());
        }
        let location = volumes::tag_of(self.store);
        // of what has no manifest nobody says where its snapshots are: then everywhere that this location has some
        let others = match &held.manifest {
            Some(_) => BTreeSet::new(),
            None => volumes::regions(self.store).await.map(|(regions, _)| regions).unwrap_or_default(),
        };
        let certain = known.is_some() || !named.is_empty();
        let asking = async {
            let regions = Regions::once(&mut self.regions, self.cluster).await?;
            life::of_backup(regions, &held.id, &location, &named, &others, &self.context.events).await
        };
        if certain {
            return asking.await;
        }
        match tokio::time::timeout(PROBE, asking).await {
            Ok(Ok(found)) => Ok(found),
            failed => {
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer within {} s", PROBE.as_secs()),
                };
                if !held.is_empty() {
                    let text = format!("whether snapshots of it are left can't be told: {why}");
                    self.problem(&held.id, text);
                }
                Ok(Vec::new())
            }
        }
    }

    /// With `--dry-run=server`, EC2 is asked whether it would.
    async fn try_out(&mut self, id: &BackupId, snapshots: &[Kept]) -> Verdict {
        if self.result.dry_run == DryRun::Server && self.remove(id, snapshots, true).await > 0 {
            return Verdict::Kept;
        }
        Verdict::Delete
    }

    /// Removes all of it, and answers whether nothing is left.
    async fn carry_out(&mut self, held: &Held, snapshots: &[Kept]) -> anyhow::Result<bool> {
        let names: Vec<&Named> = snapshots.iter().map(|one| &one.name).collect();
        let note = Bytes::from(serde_json::to_vec(&names)?);
        let marked = delete::begin(self.store, held, &self.context.attempt, note).await?;
        let left = self.remove(&held.id, snapshots, false).await;
        delete::data(self.store, held).await?;
        if left == 0 {
            delete::end(self.store, marked).await?;
        }
        Ok(left == 0)
    }

    /// Removes snapshots; how many are left.
    async fn remove(&mut self, id: &BackupId, snapshots: &[Kept], try_out: bool) -> usize {
        if snapshots.is_empty() {
            return 0;
        }
        let names: Vec<Named> = snapshots.iter().map(|one| one.name.clone()).collect();
        let regions = self.regions.get_or_insert_default();
        let removed = match life::remove(regions, &names, try_out).await {
            Ok(removed) => removed,
            Err(error) => names.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut left = 0;
        for (name, result) in names.iter().zip(removed) {
            let Err(error) = result else { continue };
            left += 1;
            let again = if try_out { String::new() } else { format!("; `kubectl backup delete {id}` tries it again") };
            let error = one_line(error);
            self.problem(id, format!("snapshot `{}` in `{}` is still there: {error}{again}", name.id, name.region));
        }
        left
    }
}

/// Whether a snapshot that a copied backup names is the original's. Another account doesn't see its tags.
fn is_originals(origin: &str, snapshot: &Snapshot) -> bool {
    snapshot.location.is_empty() || snapshot.location == origin
}

/// What is told of a backup.
fn deletion(held: &Held, snapshots: &[Kept], verdict: Verdict) -> Deletion {
    Deletion {
        id: held.id.clone(),
        verdict,
        started_at: held.manifest.as_ref().map(|manifest| manifest.started_at),
        safety_of: held.manifest.as_ref().and_then(|manifest| manifest.safety_of.clone()),
        keys: held.bodies(),
        bytes: held.bytes(),
        snapshots: snapshots.iter().map(|one| one.name.clone()).collect(),
        snapshot_gib: snapshots.iter().map(|one| one.snapshot.gib).sum(),
    }
}
