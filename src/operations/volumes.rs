//! What backups and restores do about volumes at their ends.

use super::backup::{Report, Standing};
use crate::archive::manifest::Manifest;
use crate::id::Digest;
use crate::pipeline::Error;
use crate::store::Store;
use crate::volumes::record::VolumeCopy;
use crate::volumes::snapshot::Snapshots;
use std::collections::BTreeSet;
use std::time::Duration;

/// Bytes of a report that are read.
const REPORT_LIMIT: u64 = 64 * 1024 * 1024;
/// How long removing what a failed run has made may take; the worker cleans up for 40 s at most.
const CLEANING: Duration = Duration::from_secs(20);

/// After a backup: snapshots that no backup names go.
pub(super) async fn settle(result: &anyhow::Result<Standing>, snapshots: &Snapshots<'_>, store: &dyn Store) {
    let ids = |copies: Vec<VolumeCopy>| copies.into_iter().map(|copy| copy.snapshot.id).collect::<BTreeSet<_>>();
    let settling = async {
        match result {
            Ok(standing) if standing.ours => snapshots.remove_extras(&ids(snapshots.ended().copies)).await,
            Ok(standing) => match copies(store, &standing.manifest).await {
                Ok(copies) => snapshots.remove_extras(&ids(copies)).await,
                Err(error) => tracing::warn!("snapshots that no backup names may be left: {error:#}"),
            },
            // the backup may stand, and need them
            Err(error) if matches!(error.downcast_ref::<Error>(), Some(Error::Unsure { .. })) => (),
            Err(_) => snapshots.discard().await,
        }
    };
    if tokio::time::timeout(CLEANING, settling).await.is_err() {
        tracing::warn!("snapshots of this run may be left: removing them took too long");
    }
}

/// The saved volumes of a backup.
///
/// # Errors
/// The bucket's, and a report that isn't the one that the manifest names.
pub(super) async fn copies(store: &dyn Store, manifest: &Manifest) -> anyhow::Result<Vec<VolumeCopy>> {
    if manifest.counts.volumes == 0 {
        return Ok(Vec::new());
    }
    let file = &manifest.files.report;
    let bytes = store.get(&file.key, REPORT_LIMIT.min(file.size)).await?;
    let damaged = |why: String| Error::from(crate::archive::Error::damaged("the report", why));
    if Digest::of(&bytes) != file.sha256 {
        return Err(damaged("its SHA-256 is not the one that the manifest names".to_owned()).into());
    }
    let report: Report = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    Ok(report.volumes)
}
