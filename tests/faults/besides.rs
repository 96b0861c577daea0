//! Volumes that were there before a restore: one that was given back to its claim is released again when that is undone.

use crate::api::Api;
use crate::bucket::Bucket;
use crate::existing::{edit, with};
use crate::restore::{RESTORE, backed_up};
use crate::run::{Worker, ending};
use crate::undo::{killed_at, undo, undone};
use crate::world::{World, kind, uid};
use kubectl_backup::operations::undo::UndoTask;
use kubectl_backup::rules::verdict::Existing;
use serde_json::{Value, json};

const CLAIM: &str = "shop/disk";

/// The cluster that was backed up, but for a claim, whose volume is retained; and the claim's uid.
fn released(policy: &str) -> (Api, String) {
    let api = Api::new(World::full());
    let was = uid(api.state().world.get(kind("persistentvolumeclaims"), CLAIM).unwrap());
    api.state().world.delete("persistentvolumeclaims", CLAIM);
    edit(&api, "persistentvolumes", "volume-1", |volume| {
        volume["spec"]["persistentVolumeReclaimPolicy"] = json!(policy);
        volume["spec"]["claimRef"]["uid"] = json!(was);
        volume["spec"]["claimRef"]["resourceVersion"] = json!("1");
        volume["status"] = json!({"phase": "Released"});
    });
    (api, was)
}

/// The uid of the claim that the volume remembers.
fn remembered(api: &Api) -> Value {
    let text = api.state().world.get(kind("persistentvolumes"), "volume-1").unwrap().to_owned();
    serde_json::from_str::<Value>(&text).unwrap()["spec"]["claimRef"]["uid"].clone()
}

/// Undoes; how that ended, and the name, verdict and reason of claim and volume.
async fn undo_named(
    attempt: &'static str,
    objects: &[&str],
    api: &Api,
    bucket: &Bucket,
) -> (String, Vec<(String, String, String)>) {
    let objects = objects.iter().map(|name| (*name).to_owned()).collect();
    let done = undo(&Worker::named(attempt), UndoTask { objects, ..UndoTask::default() }, api, bucket).await;
    let items = undone(&done).items.into_iter().map(|item| (item.name, item.verdict, item.reason));
    (ending(&done), items.filter(|(name, ..)| ["disk", "volume-1"].contains(&name.as_str())).collect())
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_given_back_is_released_again_with_its_claim() {
    let (_folder, bucket) = backed_up().await;
    let (api, was) = released("Retain");
    let done = Worker::default().restore_as(RESTORE, with(Existing::Skip), &api, &bucket).await;
    assert_eq!(ending(&done), "Complete");
    assert_eq!(remembered(&api), Value::Null);
    // the claim is spared, and so the volume is its own
    let (ended, items) = undo_named("first", &[], &api, &bucket).await;
    assert_eq!(ended, "Complete");
    assert!(items.iter().all(|(_, verdict, _)| verdict == "skip") && items.len() == 2, "{items:?}");
    assert_eq!(remembered(&api), Value::Null);
    for (attempt, verdicts) in [("named", ["deleted", "updated"]), ("again", ["unchanged", "unchanged"])] {
        let (ended, items) = undo_named(attempt, &["persistentvolumeclaim/disk"], &api, &bucket).await;
        let told: Vec<&str> = items.iter().map(|(_, verdict, _)| verdict.as_str()).collect();
        assert_eq!((ended.as_str(), told.as_slice()), ("Complete", verdicts.as_slice()), "{items:?}");
        assert!(api.state().world.get(kind("persistentvolumeclaims"), CLAIM).is_none());
        assert_eq!(remembered(&api), json!(was));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_does_not_go_where_data_would_go_along_that_was_there_before() {
    let (_folder, bucket) = backed_up().await;
    let (api, _) = released("Retain");
    let done = Worker::default().restore_as(RESTORE, with(Existing::Skip), &api, &bucket).await;
    assert_eq!(ending(&done), "Complete");
    edit(&api, "persistentvolumes", "volume-1", |volume| {
        volume["spec"]["persistentVolumeReclaimPolicy"] = json!("Delete");
    });
    let (ended, items) = undo_named("first", &["persistentvolumeclaim/disk"], &api, &bucket).await;
    assert_eq!(ended, "Partial");
    assert!(items[0].1 == "refused" && items[0].2.contains("reclaim policy `Retain` first"), "{items:?}");
    assert!(api.state().world.get(kind("persistentvolumeclaims"), CLAIM).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_claim_a_killed_restore_did_not_come_to_is_released_again() {
    let (_folder, bucket) = backed_up().await;
    let (api, was) = released("Retain");
    // the patch of the volume is its first write
    killed_at(0, &with(Existing::Skip), &api, &bucket).await;
    assert_eq!(remembered(&api), Value::Null);
    assert!(api.state().world.get(kind("persistentvolumeclaims"), CLAIM).is_none());
    let (ended, items) = undo_named("first", &[], &api, &bucket).await;
    assert_eq!((ended.as_str(), items[0].1.as_str()), ("Complete", "updated"), "{items:?}");
    assert_eq!(remembered(&api), json!(was));
}
