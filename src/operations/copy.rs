//! `copy`: a backup into another location, every byte compared with its digest on the way, and its snapshots into a region where
//! that is asked for. The manifest is written last, as with a backup; it differs in its keys, in where it came from, and in its report where
//! snapshots were copied. `sharing` lends snapshots to the account that the other location is in.

mod sharing;

use super::read::find;
use super::{Context, Done, Query, Usage, volumes};
use crate::archive::manifest::{BACKUPS, File, Files, Manifest, data_key, id_of_key};
use crate::archive::packed::Packed;
use crate::cluster::Cluster;
use crate::config::Location;
use crate::id::BackupId;
use crate::pipeline::save::commit::{self, Committed};
use crate::pipeline::{Error, catalog, copy, sweep, until_cancelled, until_settled};
use crate::report::{Counts, ExitCode, Outcome, Phase};
use crate::store::{self, Store};
use crate::volumes::copy as snapshots;
use crate::volumes::life::Regions;
use crate::volumes::record::{Snapshot, VolumeCopy};
use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What to copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyTask {
    /// Which backup.
    #[serde(flatten)]
    pub query: Query,
    /// Where to.
    pub to: Location,
    /// The region to copy snapshots into; `None`: they stay, and belong to the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The key to encrypt the copied snapshots with; `None`: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// The account to share the snapshots with: for good where they stay, while they are copied where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_with: Option<String>,
    /// Seconds that snapshots may take.
    pub timeout_seconds: u64,
}

impl CopyTask {
    /// The account that copies snapshots, where it is known.
    ///
    /// # Errors
    /// [`Usage`] where the location's role is another account's than the one that was named.
    pub fn copying_account(&self) -> Result<Option<&str>, Usage> {
        match (self.share_with.as_deref(), self.to.account()) {
            (Some(named), Some(of_role)) if self.region.is_some() && named != of_role => Err(Usage(format!(
                "{} is entered with a role of account `{of_role}`, which copies the snapshots, and not `{named}`\n\
                 hint: leave `--share-with-account` out, or `--copy-to-region` where `{named}` is to use the snapshots as they are",
                self.to
            ))),
            (named, of_role) => Ok(named.or(of_role)),
        }
    }
}

/// What `copy` gives back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyResult {
    /// The backup.
    pub id: BackupId,
    /// Where it is now, too.
    pub to: String,
    /// Whether it was there before.
    pub was_there: bool,
    /// Bytes that were copied.
    pub bytes: u64,
    /// Snapshots that were copied.
    pub snapshots: u64,
    /// The account that the snapshots are shared with, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<String>,
    /// What the person should know.
    pub notes: Vec<String>,
}

/// Copies.
///
/// # Errors
/// Before anything is written: no such backup, a location that is read-only or the same, another backup of that id there, snapshots
/// that can't be shared. Later damage, the buckets' and EC2's; what was stored by then is taken back, but for snapshots, which are used again.
pub async fn run(
    task: &CopyTask,
    location: &Location,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    if task.to.read_only {
        return Err(store::Error::ReadOnly { place: task.to.to_string() }.into());
    }
    if task.to.place == location.place {
        return Err(Usage(format!("the backup is in {} already", task.to)).into());
    }
    task.copying_account()?;
    context.events.phase(Phase::Reading);
    let began = (context.now)();
    let to = store::open_other(&task.to).await?;
    let manifest = until_cancelled(&context.cancel, find(&task.query, cluster, store)).await?;
    let mut result = CopyResult {
        id: manifest.id.clone(),
        to: to.describe(),
        was_there: true,
        bytes: 0,
        snapshots: 0,
        shared_with: None,
        notes: Vec::new(),
    };
    let copying = Copying { task, from: store, to: to.as_ref(), context, began };
    if let Some(there) = until_cancelled(&context.cancel, standing(to.as_ref(), &manifest.id)).await? {
        same(&manifest, &there, to.as_ref(), task).await?;
        until_cancelled(&context.cancel, Box::pin(copying.shared_for_good(&manifest, &mut result))).await?;
        copying.end_sharing(&manifest, &mut result).await;
        return done(result);
    }
    result.was_there = false;
    let copied = until_cancelled(&context.cancel, Box::pin(copying.all(&manifest, &mut result))).await;
    let ended = copying.end_sharing(&manifest, &mut result).await;
    match copied {
        Ok(copied) => {
            commit_copy(&copying, &copied).await?;
            // a location that is only copied to has no backups of its own that would do it
            if let Err(error) = until_cancelled(&context.cancel, sweep::garbage(to.as_ref(), (context.now)())).await {
                tracing::warn!(%error, "garbage of earlier runs could not be swept");
            }
            done(result)
        }
        // what is still shared stands in this attempt's note
        Err(error) if !ended => Err(error),
        Err(error) => {
            if let Err(left) = commit::discard(to.as_ref(), &manifest.id, &context.attempt).await {
                tracing::warn!(error = %left, "what this attempt stored is left for a later run to sweep");
            }
            Err(error)
        }
    }
}

/// The manifest of this id in a location, if there is one. Asked by LIST: with rights limited to a prefix S3 may answer
/// 403 to a GET of what isn't there.
async fn standing(to: &dyn Store, id: &BackupId) -> Result<Option<Manifest>, Error> {
    let listed = to.list(&format!("{BACKUPS}{id}.json")).await?;
    match listed.iter().any(|object| id_of_key(&object.key).as_ref() == Some(id)) {
        true => catalog::manifest(to, id).await.map(Some),
        false => Ok(None),
    }
}

/// Whether what is there is this very backup, with its snapshots where they were asked for.
async fn same(manifest: &Manifest, there: &Manifest, to: &dyn Store, task: &CopyTask) -> anyhow::Result<()> {
    let (ours, theirs) = (&manifest.files, &there.files);
    if ours.objects.sha256 != theirs.objects.sha256 || ours.index.sha256 != theirs.index.sha256 {
        anyhow::bail!("there is another backup `{}` in {}, with other objects", manifest.id, to.describe());
    }
    let Some(region) = &task.region else { return Ok(()) };
    let copies = volumes::copies(to, there).await?;
    if copies.iter().any(|copy| copy.snapshot.region != *region) {
        anyhow::bail!(
            "`{}` is in {} already, with snapshots in another region than `{region}`\nhint: a manifest is written once: \
             `kubectl backup delete` it there and copy again",
            manifest.id,
            to.describe()
        );
    }
    Ok(())
}

async fn commit_copy(copying: &Copying<'_>, copied: &Manifest) -> anyhow::Result<()> {
    let (to, context) = (copying.to, copying.context);
    context.events.phase(Phase::Committing);
    let stored = commit::check_stored(to, copied, copying.began, (context.now)());
    until_cancelled(&context.cancel, stored).await.context("looking at what is stored")?;
    let committed =
        until_settled(&context.cancel, commit::manifest(to, copied)).await.context("writing the manifest")?;
    match committed {
        Committed::Ours => Ok(()),
        Committed::Theirs(there) => same(copied, &there, to, copying.task).await,
    }
}

fn done(result: CopyResult) -> anyhow::Result<Done> {
    let shared = match &result.shared_with {
        Some(account) => format!("; its snapshots are shared with account `{account}`"),
        None => String::new(),
    };
    let message = match result.was_there {
        true => format!("backup `{}` is in {} already{shared}", result.id, result.to),
        false => format!("backup `{}` is copied to {}{shared}", result.id, result.to),
    };
    let result = Some(Packed::of(&result)?);
    Ok(Done { outcome: Outcome::Complete, exit_code: ExitCode::Complete, message, result })
}

struct Copying<'a> {
    task: &'a CopyTask,
    from: &'a dyn Store,
    to: &'a dyn Store,
    context: &'a Context,
    began: Timestamp,
}

impl Copying<'_> {
    /// Everything but the manifest, which it answers with.
    async fn all(&self, manifest: &Manifest, result: &mut CopyResult) -> anyhow::Result<Manifest> {
        let events = &self.context.events;
        // before anything is written: what can't be shared is told now
        self.shared_for_good(manifest, result).await?;
        let copies = volumes::copies(self.from, manifest).await?;
        if self.task.region.is_some() && !copies.is_empty() {
            self.shared_to_copy(manifest, &copies).await?;
        }
        events.phase(Phase::Saving);
        let (files, attempt) = (&manifest.files, &self.context.attempt);
        let mut moved = 0;
        let mut file = async |file: &File, name: &str| {
            let progress = |bytes| {
                moved += bytes;
                events.progress(Counts { bytes_stored: moved, ..Counts::default() });
            };
            let key = data_key(&manifest.id, attempt, name);
            copy::file(self.from, self.to, file, key, progress).await.with_context(|| format!("copying {name}"))
        };
        let objects = file(&files.objects, "objects.tar.zst").await?;
        let index = file(&files.index, "index.jsonl.zst").await?;
        let report = self.report(manifest, &copies, result).await?;
        // last: what is taken back after a failure is all but the log
        let log = file(&files.log, "log.jsonl.zst").await?;
        result.bytes = moved + report.size;
        Ok(Manifest {
            attempt: self.context.attempt.clone(),
            copied_from: Some(volumes::tag_of(self.from)),
            files: Files { objects, index, report, log },
            ..manifest.clone()
        })
    }

    /// The report, with the snapshots' copies instead of the snapshots where they were copied.
    async fn report(
        &self,
        manifest: &Manifest,
        copies: &[VolumeCopy],
        result: &mut CopyResult,
    ) -> anyhow::Result<File> {
        let key = data_key(&manifest.id, &self.context.attempt, "report.json");
        let Some(region) = self.task.region.as_ref().filter(|_| !copies.is_empty()) else {
            if !copies.is_empty() {
                let shared = result.shared_with.as_ref().map(|account| format!(", shared with account `{account}`"));
                result.notes.push(format!(
                    "its snapshots ({}) stay where they are{}, and belong to the backup in {}: deleted there, they are gone here too. \
                     --copy-to-region makes copies of them",
                    copies.len(),
                    shared.unwrap_or_default(),
                    self.from.describe()
                ));
            }
            return Ok(copy::file(self.from, self.to, &manifest.files.report, key, |_| ()).await?);
        };
        let mut regions = Regions::of_other(&self.task.to);
        let ec2 = regions.get(region).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        let request = snapshots::Request {
            id: &manifest.id,
            attempt: &self.context.attempt,
            location: volumes::tag_of(self.to),
            cluster_uid: &manifest.cluster.uid,
            kms_key: self.task.kms_key.as_deref(),
            timeout: Duration::from_secs(self.task.timeout_seconds),
            events: &self.context.events,
        };
        let copied = snapshots::to_region(&ec2, &request, copies).await;
        let copied = copied.map_err(|error| anyhow::anyhow!("{error}")).context("copying snapshots")?;
        let mut report = super::read::report(self.from, manifest).await?;
        for (copy, snapshot) in report.volumes.iter_mut().zip(copied) {
            // the instant stays that of the data
            let started_at = copy.snapshot.started_at;
            // a restore makes volumes with the key that the copy has: that of the source may be another region's or account's
            copy.source.kms_key_id = snapshot.kms_key.clone().or_else(|| self.task.kms_key.clone());
            copy.snapshot = Snapshot { started_at, ..snapshot };
            result.snapshots += 1;
        }
        let bytes = Bytes::from(serde_json::to_vec_pretty(&report)?);
        Ok(commit::put_file(self.to, &manifest.id, &self.context.attempt, "report.json", bytes).await?)
    }
}
