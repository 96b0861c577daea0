//! `verify`: whether backups are still what was saved: keys and sizes, every byte again, and what EC2 says of snapshots.

use super::backup::target::meant_cluster;
use super::{Context, Done, volumes};
use crate::archive::manifest::Manifest;
use crate::archive::packed::Packed;
use crate::cluster::Cluster;
use crate::id::BackupQuery;
use crate::pipeline::{Error, catalog, until_cancelled, verify};
use crate::report::{Counts, ExitCode, Outcome, Phase, Problem, one_line};
use crate::store::Store;
use crate::volumes::life::{self, Regions, Soundness};
use crate::volumes::record::VolumeCopy;
use serde::{Deserialize, Serialize};

/// What to verify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyTask {
    /// The backups.
    pub backups: Vec<BackupQuery>,
    /// The uid of the cluster whose backups are meant; `None`: this cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_cluster: Option<String>,
    /// How closely.
    pub level: Level,
}

/// How closely a backup is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Keys and sizes.
    Keys,
    /// Every byte.
    Bytes,
}

/// What `verify` gives back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResult {
    /// How closely was looked.
    pub level: Level,
    /// The backups, in the order in which they were named.
    pub backups: Vec<Verified>,
    /// What is wrong, and what is not known.
    pub problems: Vec<Problem>,
}

/// A backup that was looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The backup; where its manifest can't be read, as it was asked for.
    pub id: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Bytes that were read.
    pub bytes: u64,
    /// Its snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotState>,
}

/// A snapshot that was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotState {
    /// `snap-…`.
    pub id: String,
    /// Where it is.
    pub region: String,
    /// The claim whose data it holds: namespace and name.
    pub claim: String,
    /// `completed`, `pending 37%`, `missing`, …
    pub state: String,
}

/// What came of looking at a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All of it is as it was saved.
    Intact,
    /// Something can't be told, or not yet.
    Unsure,
    /// Something of it can't be restored.
    Damaged,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Intact => "intact",
            Self::Unsure => "unsure",
            Self::Damaged => "damaged",
        })
    }
}

/// Verifies.
///
/// # Errors
/// The bucket's. [`Error::NotFound`] where one backup is asked for and there is none. Damage is in the result.
pub async fn run(task: &VerifyTask, cluster: &Cluster, store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    until_cancelled(&context.cancel, Box::pin(verify_all(task, cluster, store, context))).await
}

async fn verify_all(
    task: &VerifyTask,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    context.events.phase(Phase::Verifying);
    let uid = meant_cluster(task.from_cluster.as_deref(), cluster).await?;
    let result = VerifyResult { level: task.level, backups: Vec::new(), problems: Vec::new() };
    let mut verifying = Verifying { store, cluster, context, result, regions: None, read: 0 };
    for query in &task.backups {
        match catalog::find(store, query, Some(&uid)).await {
            Ok(manifest) => verifying.one(&manifest).await?,
            Err(error @ Error::NotFound(_)) if task.backups.len() > 1 => {
                verifying.problem(query.to_string(), error.to_string());
            }
            Err(error @ Error::Archive(_)) => {
                verifying.problem(query.to_string(), error.to_string());
                let id = query.to_string();
                let one = Verified { id, verdict: Verdict::Damaged, bytes: 0, snapshots: Vec::new() };
                verifying.result.backups.push(one);
            }
            Err(error) => return Err(error.into()),
        }
    }
    done(verifying.result)
}

fn done(result: VerifyResult) -> anyhow::Result<Done> {
    let worst = result.backups.iter().map(|one| one.verdict).max().unwrap_or(Verdict::Intact);
    let (outcome, exit_code) = match worst {
        Verdict::Damaged => (Outcome::Failed, ExitCode::Integrity),
        Verdict::Intact if result.problems.is_empty() => (Outcome::Complete, ExitCode::Complete),
        _ => (Outcome::Partial, ExitCode::Partial),
    };
    let intact = result.backups.iter().filter(|one| one.verdict == Verdict::Intact).count();
    let message = format!("{intact} of {} backups are intact", result.backups.len());
    let result = Some(Packed::of(&result)?);
    Ok(Done { outcome, exit_code, message, result })
}

struct Verifying<'a> {
    store: &'a dyn Store,
    cluster: &'a Cluster,
    context: &'a Context,
    result: VerifyResult,
    regions: Option<Regions>,
    /// Bytes of the backups before.
    read: u64,
}

impl Verifying<'_> {
    fn problem(&mut self, subject: String, message: String) {
        self.result.problems.push(Problem { subject, message: one_line(message) });
    }

    async fn one(&mut self, manifest: &Manifest) -> anyhow::Result<()> {
        let id = manifest.id.to_string();
        let (events, before) = (&self.context.events, self.read);
        let read = |read: u64| events.progress(Counts { bytes_stored: before + read, ..Counts::default() });
        let checked = verify::files(self.store, manifest, self.result.level == Level::Bytes, read).await?;
        let bytes = checked.iter().map(|file| file.read).sum();
        self.read += bytes;
        let mut verdict = Verdict::Intact;
        for file in checked {
            if let Some(damage) = file.damage {
                verdict = Verdict::Damaged;
                self.problem(id.clone(), format!("`{}` is damaged: {damage}", file.name));
            }
        }
        let copies = match volumes::copies(self.store, manifest).await {
            Ok(copies) => copies,
            // that the report is damaged is told above; then nobody knows its snapshots
            Err(_) if verdict == Verdict::Damaged => Vec::new(),
            Err(error) => match error.downcast::<Error>() {
                Ok(Error::Archive(damage)) => {
                    verdict = Verdict::Damaged;
                    self.problem(id.clone(), damage.to_string());
                    Vec::new()
                }
                Ok(error) => return Err(error.into()),
                Err(error) => return Err(error),
            },
        };
        let mut one = Verified { id, verdict, bytes, snapshots: Vec::new() };
        self.snapshots(&copies, &mut one).await;
        self.result.backups.push(one);
        Ok(())
    }

    /// What EC2 says of the snapshots.
    async fn snapshots(&mut self, copies: &[VolumeCopy], one: &mut Verified) {
        if copies.is_empty() {
            return;
        }
        let now = (self.context.now)();
        let asking = async { life::states(Regions::once(&mut self.regions, self.cluster).await?, copies).await };
        let found = match asking.await {
            Ok(found) => found,
            Err(error) => {
                one.verdict = one.verdict.max(Verdict::Unsure);
                self.problem(one.id.clone(), format!("whether its snapshots can be restored can't be told: {error}"));
                return;
            }
        };
        for (copy, snapshot) in copies.iter().zip(found) {
            let (state, soundness) = life::judge(copy, snapshot.as_ref(), now);
            let (verdict, why) = match soundness {
                Soundness::Sound => (Verdict::Intact, None),
                Soundness::Unsure(why) => (Verdict::Unsure, Some(why)),
                Soundness::Lost(why) => (Verdict::Damaged, Some(why)),
            };
            one.verdict = one.verdict.max(verdict);
            if let Some(why) = why {
                self.problem(one.id.clone(), format!("{}: snapshot `{}` {why}", copy.subject(), copy.snapshot.id));
            }
            one.snapshots.push(SnapshotState {
                id: copy.snapshot.id.clone(),
                region: copy.snapshot.region.clone(),
                claim: format!("{}/{}", copy.namespace, copy.claim),
                state,
            });
        }
    }
}
