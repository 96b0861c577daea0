//! Snapshots copied into a region, for a backup that is copied to another location. As with new snapshots there is no client
//! token: each copy carries the backup, the location and the snapshot that it is of as tags, and is looked for before one is made, so
//! that a copying that was interrupted goes on. EC2 runs 20 copies into a region at once; the others wait here.

use super::life::Named;
use super::record::{Snapshot, State, VolumeCopy};
use super::snapshot::{APPEARS, ATTEMPT, CLUSTER, COPY_OF, LOCATION, POLL, SETTLES};
use super::{Ec2, Error};
use crate::id::{Attempt, BackupId};
use crate::report::{Counts, Events, Phase};
use crate::rules::marks::{ID, MANAGED};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Copies into one region at once ("Amazon EBS quotas"; it can't be raised).
const AT_ONCE: usize = 20;

/// What copying snapshots needs.
pub struct Request<'a> {
    /// The backup.
    pub id: &'a BackupId,
    /// This worker's try at copying it.
    pub attempt: &'a Attempt,
    /// Where its copy will be, as a tag says it.
    pub location: String,
    /// The uid of the cluster that the backup is of.
    pub cluster_uid: &'a str,
    /// The key to encrypt with; `None`: as the source is.
    pub kms_key: Option<&'a str>,
    /// How long copies may take.
    pub timeout: Duration,
    /// Where to tell what happens.
    pub events: &'a Events,
}

/// Copies that were begun here and aren't listed yet: since when.
type Begun = BTreeMap<String, (String, Instant)>;

/// Copies the snapshots of a backup into the region of `ec2`, and waits until they are completed. Answers with the copies in
/// the order of the volumes.
///
/// # Errors
/// Any that can't be copied. What was copied stays, and is used when it is tried again.
pub async fn to_region(ec2: &Ec2, request: &Request<'_>, volumes: &[VolumeCopy]) -> Result<Vec<Snapshot>, Error> {
    request.events.phase(Phase::Snapshots);
    let deadline = Instant::now() + request.timeout;
    let sources: BTreeMap<&str, &VolumeCopy> = volumes.iter().map(|copy| (copy.snapshot.id.as_str(), copy)).collect();
    let mut begun = Begun::new();
    let mut pause = POLL.0;
    loop {
        let there = there(ec2, request, &sources, &mut begun).await?;
        let done = there.values().filter(|copy| copy.state == State::Completed).count();
        let (volumes_done, all) = (done as u64, sources.len());
        request.events.progress(Counts { volumes: all as u64, volumes_done, ..Counts::default() });
        if done == all {
            remove_extras(ec2, request, &there).await;
            return Ok(volumes.iter().filter_map(|copy| there.get(copy.snapshot.id.as_str()).cloned()).collect());
        }
        if Instant::now() >= deadline {
            let text = "they go on by themselves, and copying again uses them";
            let seconds = request.timeout.as_secs();
            return Err(Error::Setting(format!("{done} of {all} snapshots are copied after {seconds} s; {text}")));
        }
        let missing: Vec<&VolumeCopy> = sources
            .iter()
            .filter(|(id, _)| !there.contains_key(**id) && !begun.contains_key(**id))
            .map(|(_, c)| *c)
            .collect();
        let free = AT_ONCE.saturating_sub(there.len() - done + begun.len());
        for copy in missing.into_iter().take(free) {
            if !begin(ec2, request, copy, &mut begun).await? {
                break;
            }
        }
        request.events.note(format!("{done} of {all} snapshots are copied to `{}`", ec2.region()));
        sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0).min(deadline - Instant::now())).await;
        pause = (pause * 2).min(POLL.1);
    }
}

/// The copies that EC2 lists, by what they are of: the oldest of several, none that failed.
async fn there(
    ec2: &Ec2,
    request: &Request<'_>,
    sources: &BTreeMap<&str, &VolumeCopy>,
    begun: &mut Begun,
) -> Result<BTreeMap<String, Snapshot>, Error> {
    let mut found = BTreeMap::<String, Snapshot>::new();
    let mut listed = ec2.snapshots(ID, request.id.as_str()).await?;
    listed.retain(|one| one.location == request.location && sources.contains_key(one.copy_of.as_str()));
    listed.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
    for one in listed {
        if one.state == State::Error && one.attempt == request.attempt.as_str() {
            return Err(Error::Setting(failed(&one)));
        }
        if one.state == State::Error || one.state == State::Recoverable {
            continue; // of an earlier try: another is made
        }
        begun.remove(&one.copy_of);
        found.entry(one.copy_of.clone()).or_insert(one);
    }
    match begun.iter().find(|(_, (_, since))| since.elapsed() > APPEARS) {
        Some((of, (id, _))) => Err(Error::Setting(format!("the copy `{id}` of `{of}` vanished after it was begun"))),
        None => Ok(found),
    }
}

/// Why a copy holds nothing. EC2 asks for keys after it has answered ("Given key ID is not accessible").
fn failed(copy: &Snapshot) -> String {
    let why = if copy.message.is_empty() { "EC2 doesn't say why" } else { &copy.message };
    let text = format!("the copy `{}` of `{}` ended in error: {why}", copy.id, copy.copy_of);
    if !why.to_ascii_lowercase().contains("key") {
        return text;
    }
    format!(
        "{text}\nhint: whoever copies must be let use the key that the snapshot is encrypted with, by its policy where it is another \
         account's: kms:DescribeKey, kms:CreateGrant, kms:Decrypt, kms:ReEncrypt*, kms:GenerateDataKey*; and the new key alike"
    )
}

/// Begins a copy; `false` where EC2 takes no more for now.
async fn begin(ec2: &Ec2, request: &Request<'_>, copy: &VolumeCopy, begun: &mut Begun) -> Result<bool, Error> {
    let source = Named { region: copy.snapshot.region.clone(), id: copy.snapshot.id.clone() };
    let description = format!("kubectl-backup {} of {}/{}", request.id, copy.namespace, copy.claim);
    let tags = [
        (ID, request.id.as_str()),
        (ATTEMPT, request.attempt.as_str()),
        (CLUSTER, request.cluster_uid),
        (LOCATION, &request.location),
        (COPY_OF, &source.id),
        (MANAGED, "true"),
    ];
    let tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    match ec2.copy_snapshot(&source, request.kms_key, &description, &tags).await {
        Ok(id) => {
            begun.insert(source.id, (id, Instant::now()));
            Ok(true)
        }
        // it may be there: EC2 lists it after a while
        Err(Error::Unavailable { unsure: true, .. }) => {
            sleep(SETTLES).await;
            Ok(false)
        }
        Err(Error::Unavailable { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What was copied twice because an answer got lost. Best effort: what is left goes when the copied backup is deleted.
async fn remove_extras(ec2: &Ec2, request: &Request<'_>, used: &BTreeMap<String, Snapshot>) {
    let used: BTreeSet<&str> = used.values().map(|copy| copy.id.as_str()).collect();
    let listed = ec2.snapshots(ATTEMPT, request.attempt.as_str()).await.unwrap_or_default();
    for extra in listed.iter().filter(|one| !one.copy_of.is_empty() && !used.contains(one.id.as_str())) {
        if let Err(error) = ec2.delete_snapshot(&extra.id).await {
            tracing::warn!(%error, snapshot = extra.id, "a snapshot that was copied twice is left");
        }
    }
}
