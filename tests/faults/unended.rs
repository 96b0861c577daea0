//! Restores that were killed and never run again: on record as such, and undone by what bears their name.

use crate::api::Api;
use crate::bucket::Bucket;
use crate::existing::{changed, edit, forget_restores, with, writes};
use crate::restore::{RESTORE, backed_up};
use crate::run::{Worker, ending};
use crate::undo::{UNDO, killed_at, plain, undo, undone};
use crate::world::World;
use jiff::{SignedDuration, Timestamp};
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::undo::{RestoresResult, UndoTask};
use kubectl_backup::pipeline::sweep;
use kubectl_backup::rules::verdict::Existing;
use serde_json::json;

async fn listed(api: &Api, bucket: &Bucket) -> Vec<(String, bool)> {
    let done = Worker::default().run(UNDO, Verb::ListRestores, api, bucket).await.unwrap();
    let list: RestoresResult = serde_json::from_slice(&done.result.unwrap()).unwrap();
    list.restores.into_iter().map(|record| (record.id.to_string(), record.end.is_some())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_was_killed_and_never_run_again_is_undone() {
    let (_folder, bucket) = backed_up().await;
    let before = plain(&changed());
    for existing in [Existing::Update, Existing::Recreate] {
        for write in 0..8 {
            let about = format!("{existing:?}, killed at write {write}");
            forget_restores(&bucket);
            let api = changed();
            killed_at(write, &with(existing), &api, &bucket).await;
            // the last kills come after the end of it
            let has_ended = bucket.root().join(format!("restores/{RESTORE}.json")).exists();
            assert_eq!(listed(&api, &bucket).await, [(RESTORE.to_owned(), has_ended)], "{about}");
            let later = Timestamp::now().checked_add(SignedDuration::from_hours(48)).unwrap();
            sweep::garbage(&bucket, later).await.unwrap();
            let done = undo(&Worker::default(), UndoTask::default(), &api, &bucket).await;
            assert_eq!(ending(&done), "Complete", "{about}");
            let told = undone(&done).notes.iter().any(|note| note.contains("has not ended"));
            assert_eq!(told, !has_ended, "{about}");
            assert!(plain(&api) == before, "{about}");
            let written = writes(&api).len();
            let again = undo(&Worker::named("again"), UndoTask::default(), &api, &bucket).await;
            assert_eq!((ending(&again).as_str(), writes(&api).len()), ("Complete", written), "{about}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_made_or_changed_where_a_killed_restore_was_to_write_is_left_alone() {
    let (_folder, bucket) = backed_up().await;
    // all that is namespaced is to be made; the first few are
    let empty = World::empty().all().count();
    let api = Api::new(World::empty());
    killed_at(12, &with(Existing::Skip), &api, &bucket).await;
    api.state().world.put("configmaps", Some("shop"), "settings-4", "", r#""data":{"whose":"mine"}"#);
    let place = (crate::world::kind("configmaps"), "shop/settings-4".to_owned());
    let done = undo(&Worker::default(), UndoTask::default(), &api, &bucket).await;
    assert_eq!(ending(&done), "Complete");
    let left = plain(&api);
    assert_eq!(left[&place]["data"], json!({"whose": "mine"}));
    let spared = ["namespaces", "persistentvolumes", "persistentvolumeclaims", "customresourcedefinitions"]
        .map(crate::world::kind);
    let others = left.keys().filter(|(kind, _)| !spared.contains(kind)).count();
    assert_eq!(others, 1, "besides it only what is spared: {:?}", left.keys());
    assert!(left.len() > empty);

    // what it was to change, and somebody else did: a secret, two waves after the namespace
    forget_restores(&bucket);
    let api = changed();
    killed_at(0, &with(Existing::Update), &api, &bucket).await;
    edit(&api, "configmaps", "shop/settings-0", |object| object["data"]["n"] = json!("mine"));
    let done = undo(&Worker::default(), UndoTask::default(), &api, &bucket).await;
    assert_eq!(ending(&done), "Complete");
    let item = undone(&done).items.into_iter().find(|item| item.name == "settings-0").unwrap();
    assert!(item.verdict == "skip" && item.reason.contains("had not come to it"), "{item:?}");
    assert_eq!(plain(&api)[&(crate::world::kind("configmaps"), "shop/settings-0".to_owned())]["data"]["n"], "mine");
}
