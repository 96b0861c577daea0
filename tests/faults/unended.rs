//! Restores that were killed and never run again: on record as such, and undone by what bears their name.

use crate::api::Api;
use crate::bucket::Bucket;
use crate::existing::{changed, edit, forget_restores, with, writes};
use crate::restore::{RESTORE, backed_up};
use crate::run::{Worker, ending, exit_code, result_of};
use crate::undo::{UNDO, killed_as, killed_at, plain, undo, undone, undone_whole};
use crate::world::World;
use jiff::{SignedDuration, Timestamp};
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::undo::{RestoresResult, Standing, UndoTask};
use kubectl_backup::pipeline::sweep;
use kubectl_backup::report::ExitCode;
use kubectl_backup::rules::verdict::Existing;
use serde_json::json;

async fn listed(api: &Api, bucket: &Bucket) -> Vec<(String, Option<Standing>)> {
    let done = Worker::default().run(UNDO, Verb::ListRestores, api, bucket).await;
    result_of::<RestoresResult>(&done)
        .restores
        .into_iter()
        .map(|one| (one.record.id.to_string(), one.standing))
        .collect()
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
            let standing = (!has_ended).then_some(Standing::Interrupted);
            assert_eq!(listed(&api, &bucket).await, [(RESTORE.to_owned(), standing)], "{about}");
            let later = Timestamp::now().checked_add(SignedDuration::from_hours(48)).unwrap();
            sweep::garbage(&bucket, later).await.unwrap();
            let told = undone_whole(&api, &bucket, &before, &about).await.notes;
            assert_eq!(told.iter().any(|note| note.contains("was interrupted")), !has_ended, "{about}: {told:?}");
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

#[tokio::test(start_paused = true)]
async fn a_restore_that_is_at_work_is_listed_so_and_not_undone() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    killed_at(2, &with(Existing::Update), &api, &bucket).await;
    api.state().job_at_work = true;
    assert_eq!(listed(&api, &bucket).await, [(RESTORE.to_owned(), Some(Standing::Running))]);
    let written = writes(&api).len();
    for dry_run in [true, false] {
        let task = UndoTask { dry_run, restore: Some(RESTORE.into()), ..UndoTask::default() };
        let text = ending(&undo(&Worker::default(), task, &api, &bucket).await);
        let hint = format!("`kubectl delete job {RESTORE} -n kubectl-backup` stops it");
        assert!(text.contains("is still at work") && text.contains(&hint), "{text}");
    }
    assert_eq!(writes(&api).len(), written);
    api.state().job_at_work = false;
    undone_whole(&api, &bucket, &plain(&changed()), "its Job is gone").await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_nobody_can_see_is_undone_only_by_its_name() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    killed_as(Worker::named("local-1"), 2, &with(Existing::Update), &api, &bucket).await;
    assert_eq!(listed(&api, &bucket).await, [(RESTORE.to_owned(), Some(Standing::NotEnded))]);
    let written = writes(&api).len();
    let refused = undo(&Worker::default(), UndoTask::default(), &api, &bucket).await;
    let text = ending(&refused);
    assert!(exit_code(&refused) == ExitCode::Usage && text.contains("`--local`"), "{text}");
    assert!(text.contains(&format!("then name it: `kubectl backup undo {RESTORE}`")), "{text}");
    assert_eq!(writes(&api).len(), written);
    let named = UndoTask { restore: Some(RESTORE.into()), ..UndoTask::default() };
    let done = undo(&Worker::default(), named, &api, &bucket).await;
    assert_eq!(ending(&done), "Complete");
    assert!(undone(&done).notes.iter().any(|note| note.contains("Make sure that it has stopped")), "{done:?}");
    assert!(plain(&api) == plain(&changed()));
}
