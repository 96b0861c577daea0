//! The safety backup: what a restore is about to change, saved before it changes any of it. Made once for a restore, also
//! when that is tried again, and in the way of every other backup: its manifest last.

use super::super::backup::{BackupTask, Report, Resolved};
use super::super::log::RunLog;
use super::super::{Context, Usage};
use super::approval;
use crate::archive::manifest::{
    ClusterIdentity, Consistency, Counts, FORMAT, Files, Manifest, Scope, Unpinned, manifest_key,
};
use crate::cluster::Cluster;
use crate::id::BackupId;
use crate::pipeline::catalog;
use crate::pipeline::fetch::Backup;
use crate::pipeline::plan::Plan;
use crate::pipeline::save::commit::{self, Committed};
use crate::pipeline::save::named::{self, Names, SavedNames};
use crate::report::Outcome;
use crate::rules::selection::Selection;
use crate::rules::verdict::Verdict;
use crate::store::Store;
use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// A restore that may need a safety backup.
pub(super) struct Safety<'a> {
    pub(super) restore: &'a BackupId,
    pub(super) backup: &'a Backup,
    pub(super) cluster: &'a Cluster,
    pub(super) identity: &'a ClusterIdentity,
    /// Where it may write; `None` where the source is read-only and no other location is named.
    pub(super) home: Option<&'a dyn Store>,
    pub(super) context: &'a Context,
}

impl Safety<'_> {
    /// Saves what the plan changes, or takes what an earlier attempt has saved. What is not in it is not changed: the plan
    /// refuses it from then on. `None`: nothing is changed.
    pub(super) async fn ensure(&self, plan: &mut Plan, is_retry: bool) -> anyhow::Result<Option<BackupId>> {
        let names = self.names(plan);
        if names.is_empty() && !is_retry {
            return Ok(None);
        }
        let Some(home) = self.home else {
            return if names.is_empty() { Ok(None) } else { Err(read_only(&names).into()) };
        };
        let id = self.restore.safety();
        let standing = match self.standing(&id, home).await? {
            Some(standing) => standing,
            None if names.is_empty() => return Ok(None),
            None => match self.save(&id, &names, home).await.context("saving what the restore changes")? {
                Committed::Ours => return Ok(Some(id)),
                Committed::Theirs(standing) => *standing,
            },
        };
        if standing.attempt != self.context.attempt {
            let saved = approval::begun(self.restore, &standing.attempt, home).await?;
            approval::spare(plan, saved.as_ref());
        }
        Ok(Some(id))
    }

    fn names(&self, plan: &Plan) -> Names {
        let mut names = Names::new();
        for item in plan.items.iter().filter(|item| matches!(item.verdict, Verdict::Update | Verdict::Recreate)) {
            let entry = &self.backup.index.entries()[item.entry as usize];
            let kind = plan.adaptation.written_as(&self.backup.index.frame(entry).kind);
            let name = plan.adaptation.target(&kind, &self.backup.index.object_name(entry));
            names.entry(kind).or_default().push(name);
        }
        names
    }

    /// The safety backup that an earlier attempt, or one beside us, has made. Presence is asked by LIST: with rights limited
    /// to a prefix S3 may answer 403 to a GET of what isn't there.
    async fn standing(&self, id: &BackupId, home: &dyn Store) -> anyhow::Result<Option<Manifest>> {
        let key = manifest_key(id);
        let found = home.list(&key).await?.iter().any(|object| object.key == key);
        Ok(if found { Some(catalog::manifest(home, id).await?) } else { None })
    }

    async fn save(&self, id: &BackupId, names: &Names, home: &dyn Store) -> anyhow::Result<Committed> {
        let (log, events) = RunLog::tee(self.context.now.clone(), &self.context.events)?;
        let started = (self.context.now)();
        events.note(format!("saving what `{}` changes as `{id}`", self.restore));
        let attempt = &self.context.attempt;
        let saved = named::objects(self.cluster, home, id, attempt, names, &self.context.cancel).await?;
        let namespaces: BTreeSet<String> = names.values().flatten().filter_map(|name| name.namespace.clone()).collect();
        let manifest = self.manifest(id, saved, namespaces.into_iter().collect(), home, &log, started).await?;
        Ok(commit::manifest(home, &manifest).await?)
    }

    /// Stores report and log, and makes the manifest of it all.
    async fn manifest(
        &self,
        id: &BackupId,
        saved: SavedNames,
        namespaces: Vec<String>,
        home: &dyn Store,
        log: &RunLog,
        started: Timestamp,
    ) -> anyhow::Result<Manifest> {
        let attempt = &self.context.attempt;
        let ended = (self.context.now)();
        let seconds = (ended - started).total(jiff::Unit::Second).unwrap_or_default();
        let reason = "its objects were read one by one, just before a restore changed them".to_owned();
        let unpinned = |kind: &String| Unpinned { kind: kind.clone(), reason: reason.clone(), revision: String::new() };
        let consistency = Consistency {
            revision: None,
            unpinned: saved.kinds.iter().map(|kind| unpinned(&kind.kind)).collect(),
            skew_seconds: seconds,
        };
        let selection = BackupTask {
            selection: Selection::of_namespaces(namespaces.clone()),
            hooks: false,
            ..BackupTask::default()
        };
        let report = Report {
            selection,
            namespaces: namespaces.clone(),
            resolved: Resolved::default(),
            kinds: saved.kinds,
            problems: Vec::new(),
            omissions: Vec::new(),
            hooks: Vec::new(),
            volumes: Vec::new(),
            seconds,
        };
        let report = Bytes::from(serde_json::to_vec_pretty(&report)?);
        let files = Files {
            objects: saved.objects,
            index: saved.index,
            report: commit::put_file(home, id, attempt, "report.json", report).await?,
            log: commit::put_file(home, id, attempt, "log.jsonl.zst", log.take()?).await?,
        };
        Ok(Manifest {
            format: FORMAT.to_owned(),
            requires: Vec::new(),
            id: id.clone(),
            attempt: attempt.clone(),
            cluster: self.identity.clone(),
            scope: Scope::Namespaces,
            namespaces,
            selection: None,
            safety_of: Some(self.restore.clone()),
            copied_from: None,
            started_at: started,
            ended_at: ended,
            outcome: Outcome::Complete,
            consistency,
            counts: Counts { objects: saved.counts.objects, bytes: saved.counts.bytes, ..Counts::default() },
            files,
            tool: concat!("kubectl-backup ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }
}

fn read_only(names: &Names) -> Usage {
    let changed: usize = names.values().map(Vec::len).sum();
    Usage(format!(
        "{changed} objects would be changed, and what they are now can't be saved: the location is read-only; nothing was \
         written\nhint: `--safety-location NAME|URL` says where to save it"
    ))
}
