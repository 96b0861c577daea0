//! Snapshots of the volumes of a backup: all started together, while the lists run; then waited for with one poll.
//!
//! CreateSnapshot knows no client token, so each snapshot carries the backup's id as a tag, and whoever isn't sure
//! whether one was made looks for it: a worker whose answer got lost, and one that goes on after another was killed. EC2
//! lists new snapshots only after a while, and so a second one may be made all the same: extras are removed before the
//! commit. Another worker of the same backup may live, and commit first; both keep the same one, the oldest of a volume that
//! isn't in error, and so none removes what the other names.

use super::record::{EbsVolume, Method as Way, Snapshot, State, VolumeCopy};
use super::{Ec2, Error, Place};
use crate::cluster::Cluster;
use crate::id::{Attempt, BackupId};
use crate::report::{Counts, Event, Events, Omission, Phase, Problem, one_line};
use crate::resource::{Kind, ObjectName};
use crate::rules::claims;
use crate::rules::marks::ID;
use crate::rules::volumes::{Claim, Method, Policy, Source};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

mod freeze;
mod start;

/// The volume's id, on snapshots that were made one by one.
pub const VOLUME: &str = "kubectl-backup/volume";
/// The uid of the cluster.
pub const CLUSTER: &str = "kubectl-backup/cluster";
/// The worker's try.
pub const ATTEMPT: &str = "kubectl-backup/attempt";
/// Where the backup is.
pub const LOCATION: &str = "kubectl-backup/location";
/// The machine, on snapshots that were made of all its volumes at one instant.
pub const TOGETHER: &str = "kubectl-backup/together-on";
/// The snapshot that a copy is of.
pub const COPY_OF: &str = "kubectl-backup/copy-of";
/// `true` on snapshots that were begun while the filesystems of all their volumes were frozen.
pub const FROZEN: &str = "kubectl-backup/frozen";

/// PersistentVolumes that are read at once, and snapshots begun at once.
const AT_ONCE: usize = 16;
/// How long EC2 may take until it lists what it has made.
pub(super) const SETTLES: Duration = Duration::from_secs(15);
/// The same, where there is little time.
const LISTS: Duration = Duration::from_secs(5);
/// The same, before a snapshot that isn't listed counts as gone.
pub(super) const APPEARS: Duration = Duration::from_secs(120);
/// How long snapshots without a backup are left alone, as other garbage is: longer than any run may take.
pub(super) const GRACE: SignedDuration = SignedDuration::from_hours(24);
/// The first pause between two polls, and the longest.
pub(super) const POLL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));

/// Seconds that a run waits for snapshots at most: less than it may take in all ([`LONGEST_RUN`]), so that there is time to
/// write what it came to.
///
/// [`LONGEST_RUN`]: crate::config::LONGEST_RUN
pub const LONGEST_WAIT: u64 = 16 * 3600;

/// How volumes are saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    /// Which volumes.
    pub policy: Policy,
    /// Whether the backup waits until they are completed.
    pub wait: bool,
    /// Seconds that it waits at most.
    pub timeout_seconds: u64,
    /// Whether filesystems are frozen while snapshots are begun.
    pub freeze: bool,
}

impl Default for Options {
    /// All that can be saved, and wait for six hours: the first snapshot of many TiB takes that long.
    fn default() -> Self {
        Self { policy: Policy::default(), wait: true, timeout_seconds: 6 * 3600, freeze: false }
    }
}

/// What saving volumes needs.
#[derive(Clone)]
pub struct Request<'a> {
    /// The backup.
    pub id: &'a BackupId,
    /// This worker's try at it.
    pub attempt: &'a Attempt,
    /// Where the backup will be, as a tag says it.
    pub location: String,
    /// The uid of the cluster.
    pub cluster_uid: &'a str,
    /// The API server.
    pub cluster: &'a Cluster,
    /// The kind of PersistentVolumes, where it is served.
    pub volumes: Option<&'a Kind>,
    /// The namespace of our own Jobs.
    pub install_namespace: &'a str,
    /// How.
    pub options: &'a Options,
    /// Where to tell what happens.
    pub events: &'a Events,
}

/// The snapshots of a backup, and what became of each claim.
pub struct Snapshots<'a> {
    request: Request<'a>,
    ec2: Option<Ec2>,
    /// Whether snapshots are being begun: then EC2 may have some that nobody here knows.
    in_between: bool,
    /// When all were begun.
    begun: Instant,
    mounts: freeze::Mounts,
    /// By the volume's id.
    made: BTreeMap<String, Snapshot>,
    copies: Vec<VolumeCopy>,
    problems: Vec<Problem>,
    omissions: Vec<Omission>,
}

/// What saving volumes came to.
#[derive(Debug, Default)]
pub struct Ended {
    /// What was saved, and where.
    pub copies: Vec<VolumeCopy>,
    /// What wasn't.
    pub problems: Vec<Problem>,
    /// What a rule left out.
    pub omissions: Vec<Omission>,
}

impl<'a> Snapshots<'a> {
    /// Nothing is asked until the first claim comes.
    pub fn new(request: Request<'a>) -> Self {
        let (mounts, made, copies, problems, omissions) = Default::default();
        Self { request, ec2: None, in_between: false, begun: Instant::now(), mounts, made, copies, problems, omissions }
    }

    /// The same with a client that is there already.
    #[must_use]
    pub fn with_client(self, ec2: Ec2) -> Self {
        Self { ec2: Some(ec2), ..self }
    }

    fn tell(&mut self, subject: String, message: String) {
        let problem = Problem { subject, message };
        self.request.events.send(Event::Problem(problem.clone()));
        self.problems.push(problem);
    }

    /// Waits until the snapshots are completed, at most as long as was asked, and removes what was made twice.
    /// `counted` is what the backup has counted so far.
    pub async fn wait(&mut self, counted: Counts) {
        let Some(ec2) = self.ec2.clone().filter(|_| !self.copies.is_empty()) else { return };
        self.request.events.phase(Phase::Snapshots);
        if let Err(error) = self.poll(&ec2, counted).await {
            for subject in self.pending() {
                self.tell(subject, format!("whether its snapshot is completed can't be told: {}", one_line(&error)));
            }
        }
    }

    async fn poll(&mut self, ec2: &Ec2, counted: Counts) -> Result<(), Error> {
        let options = self.request.options;
        let deadline = Instant::now() + Duration::from_secs(options.timeout_seconds);
        let mut pause = POLL.0;
        loop {
            let listed = ec2.snapshots(ID, self.request.id.as_str()).await?;
            self.update(&listed);
            let waiting = self.pending().len();
            let volumes = self.copies.len() as u64;
            self.request.events.progress(Counts { volumes, volumes_done: volumes - waiting as u64, ..counted });
            let (now, settled) = (Instant::now(), self.begun + LISTS);
            if !options.wait || (waiting == 0 && now >= settled) || now >= deadline {
                self.remove_known_extras(ec2, &listed).await;
                break;
            }
            self.request.events.note(self.progress());
            let until = if waiting == 0 { settled } else { deadline };
            sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0).min(until - now)).await;
            pause = (pause * 2).min(POLL.1);
        }
        if options.wait {
            self.overdue();
        }
        self.judge();
        Ok(())
    }

    /// The claims whose snapshots are pending.
    fn pending(&self) -> Vec<String> {
        let pending = self.copies.iter().filter(|copy| copy.snapshot.state == State::Pending);
        pending.map(VolumeCopy::subject).collect()
    }

    /// Takes the state of each snapshot, and another one of its volume where that is the one to keep.
    fn update(&mut self, listed: &[Snapshot]) {
        let all_are_listed = self.begun.elapsed() > APPEARS;
        for copy in &mut self.copies {
            let current = listed.iter().find(|one| one.id == copy.snapshot.id);
            if current.is_none() && all_are_listed {
                copy.snapshot.state = State::Error;
                copy.snapshot.message = "EC2 doesn't list it any more: somebody has removed it".to_owned();
            }
            let unlisted = current.is_none().then_some(&copy.snapshot);
            let of_it = listed.iter().filter(|one| one.volume == copy.source.id).chain(unlisted);
            let kept =
                of_it.filter(|one| matches!(one.state, State::Pending | State::Completed)).min_by_key(|one| one.age());
            if let Some(kept) = kept.or(current) {
                let known = (kept.id == copy.snapshot.id).then_some(copy.snapshot.frozen);
                copy.snapshot = Snapshot { frozen: known.unwrap_or(kept.frozen), ..kept.clone() };
            }
        }
    }

    fn progress(&self) -> String {
        let done = self.copies.len() - self.pending().len();
        let on_their_way = self.copies.iter().filter(|copy| copy.snapshot.state == State::Pending);
        let of = |copy: &VolumeCopy| {
            let progress = if copy.snapshot.progress.is_empty() { "pending" } else { &copy.snapshot.progress };
            format!("{}/{} {progress}", copy.namespace, copy.claim)
        };
        let some: Vec<String> = on_their_way.take(5).map(of).collect();
        let all = self.copies.len();
        let gib: u64 = self.copies.iter().map(saved_gib).sum();
        let of_gib: u64 = self.copies.iter().map(|copy| copy.source.gib).sum();
        format!("{done} of {all} snapshots are completed, {gib} of {of_gib} GiB; {}", some.join(", "))
    }

    fn overdue(&mut self) {
        let seconds = self.request.options.timeout_seconds;
        let late: Vec<(String, String)> = self
            .copies
            .iter()
            .filter(|copy| copy.snapshot.state == State::Pending)
            .map(|copy| {
                let Snapshot { id, progress, .. } = &copy.snapshot;
                let progress = if progress.is_empty() { "0%" } else { progress };
                let text = format!(
                    "its snapshot `{id}` is still pending ({progress}) after {seconds} s; it goes on by itself, and \
                     can be restored once EC2 says `completed`. `--volume-timeout` waits longer"
                );
                (copy.subject(), text)
            })
            .collect();
        late.into_iter().for_each(|(subject, text)| self.tell(subject, text));
    }

    /// Says which snapshots hold nothing.
    fn judge(&mut self) {
        let broken = self.copies.iter().filter(|copy| copy.snapshot.state == State::Error);
        let text = |copy: &VolumeCopy| {
            let Snapshot { id, message, .. } = &copy.snapshot;
            let why = if message.is_empty() { "EC2 doesn't say why" } else { message };
            (copy.subject(), format!("the data on its volume is not saved: snapshot `{id}` ended in error: {why}"))
        };
        let broken: Vec<_> = broken.map(text).collect();
        broken.into_iter().for_each(|(subject, text)| self.tell(subject, text));
    }

    /// Before the commit: what was made twice of a volume, by this try or another one, and what this try made of volumes
    /// that nobody asked for. What other tries made of other volumes may be in the backup that one of them commits.
    async fn remove_known_extras(&self, ec2: &Ec2, listed: &[Snapshot]) {
        let extra = |snapshot: &&Snapshot| {
            let ours = snapshot.attempt == self.request.attempt.as_str();
            !self.copies.iter().any(|copy| copy.snapshot.id == snapshot.id)
                && (ours || self.copies.iter().any(|copy| copy.source.id == snapshot.volume))
        };
        remove(ec2, listed.iter().filter(extra), self.request.events).await;
    }

    /// What the manifest says of volumes.
    pub fn ended(&self) -> Ended {
        Ended { copies: self.copies.clone(), problems: self.problems.clone(), omissions: self.omissions.clone() }
    }

    /// Seconds between the objects' instant and the snapshot that is furthest from it.
    pub fn skew(&self, objects_at: Timestamp) -> f64 {
        let apart = |copy: &VolumeCopy| {
            (copy.snapshot.started_at - objects_at).total(jiff::Unit::Second).unwrap_or_default().abs()
        };
        self.copies.iter().map(apart).fold(0.0, f64::max)
    }

    /// After the commit: removes what has this backup's id and isn't in the backup that stands, where EC2 lists it only now.
    pub async fn remove_extras(&self, standing: &BTreeSet<String>) {
        let Some(ec2) = &self.ec2 else { return };
        match ec2.snapshots(ID, self.request.id.as_str()).await {
            Ok(listed) => {
                let extra = listed.iter().filter(|snapshot| !standing.contains(&snapshot.id));
                remove(ec2, extra, self.request.events).await;
            }
            Err(error) => tracing::warn!(%error, "snapshots that were made twice may be left"),
        }
    }

    /// Removes what runs of this cluster left in EC2 that never became a backup of this location: snapshots that are older
    /// than any run may take, and whose backup isn't among those there are.
    pub async fn sweep(&self, backups: &BTreeSet<BackupId>, now: Timestamp) {
        let Some(ec2) = &self.ec2 else { return };
        let before = now.checked_sub(GRACE).unwrap_or(Timestamp::MIN);
        match ec2.snapshots(CLUSTER, self.request.cluster_uid).await {
            Ok(listed) => {
                let ours = listed.iter().filter(|one| one.location == self.request.location && one.started_at < before);
                let left = |one: &&Snapshot| BackupId::parse(&one.backup).is_ok_and(|id| !backups.contains(&id));
                remove(ec2, ours.filter(left), self.request.events).await;
            }
            Err(error) => tracing::warn!(%error, "snapshots of runs that were killed may be left"),
        }
    }

    /// After a failure: removes what this try made. Best effort: what is left carries our tags.
    pub async fn discard(&self) {
        let Some(ec2) = &self.ec2 else { return };
        let attempt = self.request.attempt.as_str();
        if self.in_between {
            sleep(LISTS).await;
        }
        let listed = match ec2.snapshots(ATTEMPT, attempt).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "the snapshots of this run are left behind, tagged `{ATTEMPT}={attempt}`");
                Vec::new()
            }
        };
        // what EC2 doesn't list yet; those of an earlier try are another worker's to use
        let unlisted = self.made.values().filter(|snapshot| snapshot.attempt.is_empty());
        let unlisted = unlisted.filter(|snapshot| !listed.iter().any(|listed| listed.id == snapshot.id));
        remove(ec2, listed.iter().chain(unlisted), self.request.events).await;
    }
}

/// How much of a volume is saved by now, as far as EC2's percentage says it.
fn saved_gib(copy: &VolumeCopy) -> u64 {
    let percent = copy.snapshot.progress.trim_end_matches('%').parse::<u64>().unwrap_or_default().min(100);
    if copy.snapshot.state == State::Completed { copy.source.gib } else { copy.source.gib * percent / 100 }
}

impl VolumeCopy {
    /// As problems name it.
    pub fn subject(&self) -> String {
        format!("persistentvolumeclaims {}/{}", self.namespace, self.claim)
    }
}

async fn remove(ec2: &Ec2, snapshots: impl Iterator<Item = &Snapshot>, events: &Events) {
    for snapshot in snapshots {
        match ec2.delete_snapshot(&snapshot.id).await {
            Ok(()) => events.note(format!(
                "snapshot `{}` of `{}` belongs to no backup and is removed",
                snapshot.id, snapshot.volume
            )),
            Err(error) => {
                tracing::warn!(%error, snapshot = snapshot.id, "a snapshot that belongs to no backup is left")
            }
        }
    }
}
