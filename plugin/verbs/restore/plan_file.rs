//! A plan in a file (`--plan-out`), to be looked at, reviewed, and carried out later (`--plan`): what to do in full, the
//! plan as it was shown, and the digest by which it is known again.

use crate::failure::Failure;
use anyhow::Context as _;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::restore::{DryRun, RestoreResult, RestoreTask};
use serde::{Deserialize, Serialize};
use std::path::Path;

const FORMAT: &str = "kubectl-backup/plan/1";

/// A plan that can be carried out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlanFile {
    format: String,
    /// What to do, with the digest of the plan.
    pub(crate) task: RestoreTask,
    /// The plan as it was shown.
    pub(crate) plan: RestoreResult,
}

impl PlanFile {
    /// The plan that came of a task.
    pub(crate) fn new(task: RestoreTask, plan: RestoreResult) -> Self {
        let mut task = RestoreTask { dry_run: DryRun::None, approved: Some(plan.plan_digest), ..task };
        // `latest` may be another one by then
        task.query.backup = BackupQuery::Prefix(plan.backup.id.to_string());
        task.query.from_cluster = Some(plan.backup.cluster.uid.clone());
        Self { format: FORMAT.to_owned(), task, plan }
    }

    /// Writes it.
    ///
    /// # Errors
    /// What keeps the file from being written.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self).context("writing the plan")?;
        std::fs::write(path, text).with_context(|| format!("writing the plan to `{}`", path.display()))
    }

    /// Reads one.
    ///
    /// # Errors
    /// A file that can't be read, or is no plan that this version can carry out.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let unusable = |why: String| {
            let hint = "hint: make one with `kubectl backup restore ID --plan-out FILE`, with this version";
            Failure::usage(format!("`{}` is no plan that can be carried out: {why}\n{hint}", path.display()))
        };
        let bytes = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let file: Self = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        if file.format != FORMAT {
            return Err(unusable(format!("its format is `{}`", file.format)).into());
        }
        if file.task.approved != Some(file.plan.plan_digest) || file.task.dry_run != DryRun::None {
            return Err(unusable("what it says to do is not what it shows".to_owned()).into());
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::restore::shown::tests::plan;
    use crate::verbs::restore::tests::args;

    #[test]
    fn a_plan_is_read_as_it_was_written_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let task = args(&["--from-cluster", "x", "--existing=update"]).task(DryRun::Client, None, None).unwrap();
        PlanFile::new(task, plan()).write(&path).unwrap();
        let read = PlanFile::read(&path).unwrap();
        assert_eq!((read.task.approved, read.task.dry_run), (Some(plan().plan_digest), DryRun::None));
        assert_eq!(read.task.query.backup, BackupQuery::Prefix("shop-1".to_owned()));
        assert_eq!(read.plan.items.len(), plan().items.len());
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in [(FORMAT, "kubectl-backup/plan/9"), ("\"approved\"", "\"approves\""), ("{", "[")] {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = PlanFile::read(&path).unwrap_err();
            assert_eq!(crate::failure::exit_code(&error), kubectl_backup::report::ExitCode::Usage, "{error}");
            assert!(error.to_string().contains("hint:"), "{error}");
        }
        assert!(PlanFile::read(&folder.path().join("none")).is_err());
    }
}
