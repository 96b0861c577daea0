//! `list --orphans`: what is left of backups that never were, or are gone: data without a manifest, and snapshots whose backup
//! isn't there. Later backups sweep most of it; here a person sees it, with the ids by which `delete` removes it. EC2 is asked in the
//! cluster's region, and in those where other backups of the location have snapshots: copies may have gone there.

use super::backup::target::cluster_uid;
use super::{Context, Done, volumes};
use crate::archive::packed::Packed;
use crate::cluster::Cluster;
use crate::id::BackupId;
use crate::pipeline::{sweep, until_cancelled};
use crate::report::{ExitCode, Outcome, Phase, Problem, one_line};
use crate::store::Store;
use crate::volumes::Ec2;
use crate::volumes::life::{self, Named, Nobodys, Regions};
use crate::volumes::record::Snapshot;
use anyhow::Context as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long EC2 may take in one region: most who ask are not waiting for snapshots.
const ANSWER: Duration = Duration::from_secs(60);

/// What `list --orphans` gives back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrphansResult {
    /// When it was looked for.
    pub read_at: Timestamp,
    /// What was found, by id.
    pub orphans: Vec<Orphan>,
    /// What is not known.
    pub problems: Vec<Problem>,
    /// What the person should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What is left of one id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// The id of the backup that isn't there.
    pub id: BackupId,
    /// When the last of it was written or begun.
    pub newest: Timestamp,
    /// Keys in the bucket.
    pub keys: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Named>,
    /// GiB of the volumes that they are of.
    #[serde(default)]
    pub snapshot_gib: u64,
}

/// Looks for what is left.
///
/// # Errors
/// The bucket's. That EC2 can't be asked is a problem.
pub async fn run(cluster: &Cluster, store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    until_cancelled(&context.cancel, Box::pin(find(cluster, store, context))).await
}

async fn find(cluster: &Cluster, store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    context.events.phase(Phase::Reading);
    let now = (context.now)();
    let uid = cluster_uid(cluster, &cluster.discover().await.context("discovery")?).await?;
    let (data, backups) = sweep::orphans(store, now).await?;
    let abandoned: BTreeSet<BackupId> =
        data.iter().filter(|(_, orphan)| orphan.marked).map(|(id, _)| id.clone()).collect();
    let mut found: BTreeMap<BackupId, Orphan> = BTreeMap::new();
    for (id, orphan) in data {
        let sweep::Orphan { newest, keys, bytes, .. } = orphan;
        found.insert(id.clone(), Orphan { id, newest, keys, bytes, snapshots: Vec::new(), snapshot_gib: 0 });
    }
    let (named, mut problems) = volumes::regions(store).await?;
    let mut notes = Vec::new();
    let location = volumes::tag_of(store);
    let which = Nobodys { cluster_uid: &uid, location: &location, backups: &backups, abandoned: &abandoned, now };
    let (snapshots, unknown) = in_all(cluster, &named, which).await;
    for text in unknown {
        // where no backup has volumes, there is most likely no EC2
        match named.is_empty() {
            false => problems.push(Problem { subject: "snapshots".to_owned(), message: text }),
            true => notes.push(format!("snapshots: {text}")),
        }
    }
    for snapshot in snapshots {
        let Ok(id) = BackupId::parse(&snapshot.backup) else { continue };
        let at = snapshot.started_at;
        let orphan = found.entry(id.clone()).or_insert_with(|| Orphan {
            id,
            newest: at,
            keys: 0,
            bytes: 0,
            snapshots: Vec::new(),
            snapshot_gib: 0,
        });
        orphan.newest = orphan.newest.max(at);
        orphan.snapshot_gib += snapshot.gib;
        orphan.snapshots.push(Named { region: snapshot.region, id: snapshot.id });
    }
    let result = OrphansResult { read_at: now, orphans: found.into_values().collect(), problems, notes };
    let outcome = if result.problems.is_empty() { Outcome::Complete } else { Outcome::Partial };
    let message = format!("{} ids without a backup in {}", result.orphans.len(), store.describe());
    let result = Some(Packed::of(&result)?);
    Ok(Done { outcome, exit_code: ExitCode::from(outcome), message, result })
}

/// What is nobody's in the cluster's region and in others; and what is not known, each in words. All regions are asked at once.
async fn in_all(cluster: &Cluster, others: &BTreeSet<String>, which: Nobodys<'_>) -> (Vec<Snapshot>, Vec<String>) {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    let mut regions = match tokio::time::timeout(ANSWER, Regions::of(cluster)).await {
        Ok(Ok(regions)) => regions,
        failed => {
            unknown.push(format!("what is left in the cluster's region is not known: {}", why(failed)));
            Regions::default()
        }
    };
    let all: BTreeSet<String> = regions.home().map(str::to_owned).into_iter().chain(others.iter().cloned()).collect();
    let mut clients: Vec<Ec2> = Vec::new();
    for region in all {
        match regions.get(&region).await {
            Ok(ec2) => clients.push(ec2),
            Err(error) => unknown.push(format!("what is left in region `{region}` is not known: {}", one_line(error))),
        }
    }
    let asked = clients
        .iter()
        .map(|ec2| async move { (ec2.region(), tokio::time::timeout(ANSWER, life::orphans(ec2, which)).await) });
    for (region, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(Ok(snapshots)) => found.extend(snapshots),
            failed => unknown.push(format!("what is left in region `{region}` is not known: {}", why(failed))),
        }
    }
    (found, unknown)
}

/// Why there is no answer.
fn why<T>(failed: Result<Result<T, crate::volumes::Error>, tokio::time::error::Elapsed>) -> String {
    match failed {
        Ok(Err(error)) => one_line(error),
        _ => format!("no answer within {} s", ANSWER.as_secs()),
    }
}
