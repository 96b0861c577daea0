//! Snapshots that are shared with the account of the other location: for good, so that it can restore from them; or while that account
//! copies them. In the second case a note beside the copied data says so before it is done, and whoever goes on after a worker that
//! was killed takes that back, too.

use super::{CopyResult, Copying};
use crate::archive::manifest::{Manifest, data_key};
use crate::id::Attempt;
use crate::operations::Usage;
use crate::operations::volumes::{self, CLEANING};
use crate::volumes::life::{Named, Regions};
use crate::volumes::record::{Snapshot, VolumeCopy};
use crate::volumes::share;
use anyhow::Context as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The file among an attempt's data that says what it shares while it copies.
const NOTE: &str = "shared.json";
/// Bytes of a note that are read.
const NOTE_LIMIT: u64 = 16 * 1024 * 1024;

/// What an attempt shares while it copies.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    account: String,
    snapshots: Vec<Named>,
}

fn names(copies: &[VolumeCopy]) -> Vec<Named> {
    copies.iter().map(|copy| Named { region: copy.snapshot.region.clone(), id: copy.snapshot.id.clone() }).collect()
}

impl Copying<'_> {
    /// Shares the snapshots for good where that was asked for and they stay where they are.
    pub(super) async fn shared_for_good(&self, manifest: &Manifest, result: &mut CopyResult) -> anyhow::Result<()> {
        let Some(account) = self.task.share_with.as_ref().filter(|_| self.task.region.is_none()) else { return Ok(()) };
        let copies = volumes::copies(self.from, manifest).await?;
        if copies.is_empty() {
            result.notes.push(format!("it has no snapshots that account `{account}` could be given"));
            return Ok(());
        }
        let mut regions = Regions::default();
        let owned = self.owned(&mut regions, manifest, &copies, account).await?;
        let shared = share::share(&mut regions, &names(&copies), account).await;
        shared.map_err(|error| anyhow::anyhow!("{error}")).context("sharing snapshots")?;
        let keys: BTreeSet<&str> = owned.iter().filter_map(|snapshot| snapshot.kms_key.as_deref()).collect();
        result.notes.extend(keys.iter().map(|key| {
            format!(
                "the policy of the key `{key}` must let account `{account}` use it, too: kms:DescribeKey, kms:CreateGrant, kms:Decrypt, \
                 kms:ReEncrypt*, kms:GenerateDataKey*"
            )
        }));
        result.shared_with = Some(account.clone());
        Ok(())
    }

    /// Shares those snapshots that the account which is to copy them can't use, until [`Copying::end_sharing`].
    pub(super) async fn shared_to_copy(&self, manifest: &Manifest, copies: &[VolumeCopy]) -> anyhow::Result<()> {
        let wrong = |error| anyhow::anyhow!("{error}");
        let mut theirs = Regions::of_other(&self.task.to);
        let unseen = share::unseen(&mut theirs, copies).await.map_err(wrong)?;
        if unseen.is_empty() {
            return Ok(());
        }
        let Some(account) = self.task.copying_account()? else { return Err(self.unknown_account(&unseen).into()) };
        let mut ours = Regions::default();
        self.owned(&mut ours, manifest, &unseen, account).await?;
        let snapshots = names(&unseen);
        let note = Note { account: account.to_owned(), snapshots };
        let key = data_key(&manifest.id, &self.context.attempt, NOTE);
        self.to.create(&key, Bytes::from(serde_json::to_vec(&note)?)).await?;
        share::share(&mut ours, &note.snapshots, account).await.map_err(wrong).context("sharing snapshots")?;
        let (some, of) = (note.snapshots.len(), &manifest.id);
        self.context
            .events
            .note(format!("{some} snapshots of `{of}` are shared with account `{account}` to be copied"));
        share::seen(&mut theirs, &unseen).await.map_err(wrong)
    }

    /// The snapshots, as their owner has them. All are this backup's, and none is the other account's own.
    async fn owned(
        &self,
        regions: &mut Regions,
        manifest: &Manifest,
        copies: &[VolumeCopy],
        account: &str,
    ) -> anyhow::Result<Vec<Snapshot>> {
        let owned = share::owned(regions, &manifest.id, &volumes::tag_of(self.from), copies).await;
        let owned = owned.map_err(|error| anyhow::anyhow!("{error}"))?;
        match owned.iter().find(|snapshot| snapshot.account == account) {
            Some(own) => Err(Usage(format!("snapshot `{}` is account `{account}`'s own", own.id)).into()),
            None => Ok(owned),
        }
    }

    fn unknown_account(&self, unseen: &[VolumeCopy]) -> Usage {
        let ids: Vec<&str> = unseen.iter().take(3).map(|copy| copy.snapshot.id.as_str()).collect();
        Usage(format!(
            "whoever enters {} can't use the snapshots `{}`, and would have to copy them\n\
             hint: where that is another account, say which: `--share-with-account ACCOUNT` shares them with it while they are copied",
            self.task.to,
            ids.join("`, `")
        ))
    }

    /// Takes back what was shared to be copied, by this attempt or by one before it. `false`: some of it is left, which a
    /// note says that stays.
    pub(super) async fn end_sharing(&self, manifest: &Manifest, result: &mut CopyResult) -> bool {
        if self.task.region.is_none() {
            return true;
        }
        let ended = match tokio::time::timeout(CLEANING, self.take_back(manifest)).await {
            Ok(Ok(left)) => left,
            Ok(Err(error)) => vec![format!("{error:#}")],
            Err(_) => vec![format!("it took more than {} s", CLEANING.as_secs())],
        };
        for why in &ended {
            let text = format!(
                "snapshots may still be shared with the account that copied them: {why}; copying again ends it"
            );
            tracing::warn!("{text}");
            result.notes.push(text);
        }
        ended.is_empty()
    }

    async fn take_back(&self, manifest: &Manifest) -> anyhow::Result<Vec<String>> {
        let mut left = Vec::new();
        let prefix = format!("data/{}/", manifest.id);
        let is_note = |key: &str| {
            let attempt = key.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(NOTE)?.strip_suffix('/'));
            attempt.is_some_and(|attempt| Attempt::parse(attempt).is_ok())
        };
        for object in self.to.list(&prefix).await?.into_iter().filter(|object| is_note(&object.key)) {
            let note: Note = serde_json::from_slice(&self.to.get(&object.key, NOTE_LIMIT).await?)?;
            // a note is not trusted: only what is this backup's
            let own: BTreeSet<Named> = names(&volumes::copies(self.from, manifest).await?).into_iter().collect();
            let snapshots: Vec<Named> = note.snapshots.into_iter().filter(|one| own.contains(one)).collect();
            let failed = share::end(&mut Regions::default(), &snapshots, &note.account).await;
            if failed.is_empty() {
                self.to.delete(&object.key).await?;
            }
            left.extend(
                failed.into_iter().map(|(one, error)| format!("`{}` with `{}`: {error}", one.id, note.account)),
            );
        }
        Ok(left)
    }
}
