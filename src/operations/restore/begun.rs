//! What a restore writes down before its first write, so that `undo` finds it though it never ends: that it began, and
//! what it is about to create. Which of it it came to, the API server knows: it notes the run's name in what the run writes.

use super::super::Context;
use crate::archive::lines::LineWriter;
use crate::archive::manifest::FORMAT;
use crate::archive::record::{CREATES, Create, Record, begun_key};
use crate::id::BackupId;
use crate::pipeline::fetch::Backup;
use crate::pipeline::plan::Plan;
use crate::pipeline::save::commit;
use crate::rules::verdict::Verdict;
use crate::store::{self, Store};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

/// A restore that begins to write.
pub(super) struct Begins<'a> {
    pub(super) id: &'a BackupId,
    pub(super) started: Timestamp,
    /// The uid of the cluster.
    pub(super) cluster: &'a str,
    pub(super) backup: &'a Backup,
    pub(super) plan: &'a Plan,
    /// What is created that the backup doesn't hold.
    pub(super) besides: Vec<Create>,
}

impl Begins<'_> {
    /// Writes it down, where there is a place to. A plan that writes nothing leaves nothing.
    pub(super) async fn note(self, home: Option<&dyn Store>, context: &Context) -> anyhow::Result<()> {
        let Self { id, started, cluster, backup, plan, besides } = self;
        let Some(home) = home.filter(|_| plan.count(Verdict::writes) > 0) else { return Ok(()) };
        commit::put_file(home, id, &context.attempt, CREATES, creates(backup, plan, besides)?).await?;
        let record = Record {
            format: FORMAT.to_owned(),
            id: id.clone(),
            attempt: context.attempt.clone(),
            cluster: cluster.to_owned(),
            backup: backup.manifest.id.clone(),
            plan_digest: plan.digest,
            started_at: started,
            job_namespace: context.job_namespace(),
            end: None,
        };
        match home.create(&begun_key(id), Bytes::from(serde_json::to_vec_pretty(&record)?)).await {
            Err(store::Error::Exists { .. }) => Ok(()), // an earlier attempt has begun
            other => Ok(other?),
        }
    }
}

/// A line for each object that is to be created, in some 10 bytes.
fn creates(backup: &Backup, plan: &Plan, besides: Vec<Create>) -> anyhow::Result<Bytes> {
    let (mut lines, mut bytes) = (LineWriter::new()?, BytesMut::new());
    let items = plan.items.iter().filter(|item| item.verdict == Verdict::Create).map(|item| {
        let entry = &backup.index.entries()[item.entry as usize];
        let kind = &backup.index.frame(entry).kind;
        let target = plan.adaptation.target(kind, &backup.index.object_name(entry));
        Create { kind: kind.key(), ns: target.namespace, name: target.name }
    });
    for create in items.chain(besides) {
        lines.line(&create)?;
        bytes.extend_from_slice(&lines.ready());
    }
    bytes.extend_from_slice(&lines.finish()?);
    Ok(bytes.freeze())
}
