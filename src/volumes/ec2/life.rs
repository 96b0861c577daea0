//! What EC2 is asked about snapshots that are there: their state, what holds them, and that they go.

use super::{Ec2, PAGE, PATIENCE, VALUES, filter, tagged};
use crate::volumes::Error;
use crate::volumes::life::Named;
use aws_sdk_ec2::types::{
    CreateVolumePermission, CreateVolumePermissionModifications, ResourceType, SnapshotAttributeName,
};
use std::collections::BTreeMap;
use std::time::Duration;

impl Ec2 {
    /// Begins a copy of a snapshot into this region. It has no client token: where the answer is lost, or there are too many
    /// copies at once, the caller looks and comes again.
    pub(in crate::volumes) async fn copy_snapshot(
        &self,
        of: &Named,
        kms_key: Option<&str>,
        description: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<String, Error> {
        let attempt = || async {
            let call = self.client.copy_snapshot().source_region(&of.region).source_snapshot_id(&of.id);
            let call = call.description(description).tag_specifications(tagged(ResourceType::Snapshot, tags));
            // a key means encryption; without one a copy of an encrypted snapshot is encrypted with the account's default key
            let call = call.set_kms_key_id(kms_key.map(str::to_owned)).set_encrypted(kms_key.map(|_| true));
            call.send().await
        };
        let made = self.call("CopySnapshot", Duration::ZERO, false, attempt).await?;
        Ok(made.snapshot_id().unwrap_or_default().to_owned())
    }

    /// Lets another account make volumes and copies of a snapshot, or ends that. Doing it twice is fine, and so is ending it where
    /// the snapshot is gone.
    pub(in crate::volumes) async fn set_shared(&self, id: &str, with: &str, shared: bool) -> Result<(), Error> {
        let whom = CreateVolumePermission::builder().user_id(with).build();
        let change = CreateVolumePermissionModifications::builder();
        let change = if shared { change.add(whom) } else { change.remove(whom) }.build();
        let attempt = || {
            let call = self.client.modify_snapshot_attribute().snapshot_id(id);
            let call = call.attribute(SnapshotAttributeName::CreateVolumePermission);
            call.create_volume_permission(change.clone()).send()
        };
        match self.call("ModifySnapshotAttribute", PATIENCE, true, attempt).await {
            Err(error) if !shared && error.code() == Some("InvalidSnapshot.NotFound") => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Which of these snapshots are locked, and how, in words.
    pub(in crate::volumes) async fn locks(&self, ids: &[String]) -> Result<BTreeMap<String, String>, Error> {
        let mut found = BTreeMap::new();
        for ids in ids.chunks(VALUES) {
            let attempt = || {
                let call = self.client.describe_locked_snapshots().max_results(PAGE);
                call.filters(filter("snapshot-id", ids.iter().cloned())).send()
            };
            let answer = self.call("DescribeLockedSnapshots", PATIENCE, true, attempt).await?;
            for lock in answer.snapshots() {
                let mode = lock.lock_state().map(|state| state.as_str().to_owned()).unwrap_or_default();
                if mode == "expired" {
                    continue;
                }
                let until =
                    lock.lock_expires_on().map(|time| format!(" until {}", super::time(Some((time.secs(), 0)))));
                let text = format!("it is locked ({mode}{})", until.unwrap_or_default());
                found.insert(lock.snapshot_id().unwrap_or_default().to_owned(), text);
            }
        }
        Ok(found)
    }

    /// Which of these snapshots are behind an image of the account, and behind which.
    pub(in crate::volumes) async fn images(&self, ids: &[String]) -> Result<BTreeMap<String, String>, Error> {
        let mut found = BTreeMap::new();
        for ids in ids.chunks(VALUES) {
            let attempt = || {
                let wanted = filter("block-device-mapping.snapshot-id", ids.iter().cloned());
                self.client.describe_images().owners("self").filters(wanted).max_results(PAGE).send()
            };
            let answer = self.call("DescribeImages", PATIENCE, true, attempt).await?;
            for image in answer.images() {
                let behind = image.block_device_mappings().iter().filter_map(|device| device.ebs()?.snapshot_id());
                for snapshot in behind {
                    let text = format!("image `{}` uses it", image.image_id().unwrap_or_default());
                    found.insert(snapshot.to_owned(), text);
                }
            }
        }
        Ok(found)
    }

    /// Asks whether a snapshot could be removed, and removes nothing.
    pub(in crate::volumes) async fn may_delete_snapshot(&self, id: &str) -> Result<(), Error> {
        let attempt = || self.client.delete_snapshot().snapshot_id(id).dry_run(true).send();
        match self.call("DeleteSnapshot", PATIENCE, true, attempt).await {
            Err(error) if matches!(error.code(), Some("DryRunOperation" | "InvalidSnapshot.NotFound")) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}
