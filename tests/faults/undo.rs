//! Safety backups and undoing while workers are killed: what a restore changes is saved once, before it is changed, and comes
//! back; what it made goes; what others wrote since stays.

use crate::api::Api;
use crate::bucket::{self, Bucket};
use crate::existing::{AGAIN, changed, edit, forget_restores, restore, result, verdicts, with, writes};
use crate::restore::{RESTORE, backed_up};
use crate::run::{Worker, ending, exit_code, files, result_of};
use crate::world::World;
use kubectl_backup::config::Location;
use kubectl_backup::id::BackupId;
use kubectl_backup::operations::restore::RestoreTask;
use kubectl_backup::operations::undo::{UndoResult, UndoTask};
use kubectl_backup::operations::{Done, Verb};
use kubectl_backup::pipeline::fetch;
use kubectl_backup::report::ExitCode;
use kubectl_backup::rules::verdict::Existing;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tokio_util::sync::CancellationToken;

pub(crate) const UNDO: &str = "undo-20261120-140000-cccc";

pub(crate) async fn undo(worker: &Worker, task: UndoTask, api: &Api, bucket: &Bucket) -> anyhow::Result<Done> {
    worker.run(UNDO, Verb::Undo(task), api, bucket).await
}

pub(crate) fn undone(done: &anyhow::Result<Done>) -> UndoResult {
    result_of(done)
}

/// Undoes the last restore: then the cluster is as it was, and another undo finds nothing to do.
pub(crate) async fn undone_whole(
    api: &Api,
    bucket: &Bucket,
    before: &BTreeMap<(usize, String), Value>,
    about: &str,
) -> UndoResult {
    let done = undo(&Worker::default(), UndoTask::default(), api, bucket).await;
    assert_eq!(ending(&done), "Complete", "{about}");
    assert!(plain(api) == *before, "{about}");
    assert!(bucket.root().join(format!("restores/{RESTORE}.undone.json")).exists(), "{about}");
    let written = writes(api).len();
    let again = undo(&Worker::named("again"), UndoTask::default(), api, bucket).await;
    assert_eq!((ending(&again).as_str(), writes(api).len()), ("Complete", written), "{about}");
    assert!(undone(&again).notes.iter().any(|note| note.contains("it was undone already")), "{about}");
    undone(&done)
}

/// The objects of the safety backup, and that there is one at all.
async fn safety(bucket: &Bucket) -> BTreeSet<String> {
    let id = BackupId::parse(RESTORE).unwrap().safety();
    let backup = fetch::open(bucket, &id).await.unwrap();
    assert_eq!(backup.manifest.safety_of.as_ref().map(BackupId::as_str), Some(RESTORE));
    let name = |entry| format!("{} {}", backup.index.frame(entry).kind, backup.index.object_name(entry));
    backup.index.entries().iter().map(name).collect()
}

/// What a cluster holds, without what its API server gives anew, and without owners: the fake's garbage collector doesn't
/// take out the references to one whose dependents are to stay.
pub(crate) fn plain(api: &Api) -> BTreeMap<(usize, String), Value> {
    let state = api.state();
    let object = |text: &str| {
        let mut object: Value = serde_json::from_str(text).unwrap();
        for field in ["uid", "resourceVersion", "managedFields", "ownerReferences"] {
            object["metadata"].as_object_mut().unwrap().remove(field);
        }
        object
    };
    state.world.all().map(|(kind, place, text)| ((kind, place.to_owned()), object(text))).collect()
}

/// Runs until the process is killed at the write of that number, or to its end.
pub(crate) async fn killed_at(write: usize, task: &RestoreTask, api: &Api, bucket: &Bucket) {
    killed_as(Worker::named("killed"), write, task, api, bucket).await;
}

/// The same as another worker.
pub(crate) async fn killed_as(worker: Worker, write: usize, task: &RestoreTask, api: &Api, bucket: &Bucket) {
    let killed = CancellationToken::new();
    let (token, counted) = (killed.clone(), std::sync::atomic::AtomicUsize::new(0));
    api.at_each(move |name, _| {
        if !name.starts_with("GET") && counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == write {
            token.cancel();
        }
    });
    tokio::select! {
        biased;
        () = killed.cancelled() => (),
        _ = worker.restore_as(RESTORE, task.clone(), api, bucket) => (),
    }
    api.at_each(|_, _| ());
}

#[tokio::test(start_paused = true)]
async fn what_a_restore_changes_is_saved_first_and_undone() {
    let (_folder, bucket) = backed_up().await;
    for existing in [Existing::Update, Existing::Recreate] {
        forget_restores(&bucket);
        let (api, before) = (changed(), plain(&changed()));
        let done = restore(RESTORE, with(existing), &api, &bucket).await;
        assert_eq!(ending(&done), "Complete");
        let all = ["configmaps shop/settings-0", "deployments.apps shop/web", "namespaces shop-dev", "secrets blog/db"];
        assert_eq!(safety(&bucket).await, all.map(str::to_owned).into());
        let written = result(&done).items.into_iter().filter(|item| item.uid.is_some());
        assert_eq!(written.filter(|item| item.verdict != "unchanged" && item.verdict != "skip").count(), 5);

        let plan = undo(&Worker::default(), UndoTask { dry_run: true, ..UndoTask::default() }, &api, &bucket).await;
        assert_eq!(ending(&plan), "Complete");
        let planned = undone(&plan).plan_digest;
        let done = undone_whole(&api, &bucket, &before, &format!("{existing:?}")).await;
        assert_eq!(done.plan_digest, planned, "what was shown is what was done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_is_killed_at_any_write_has_one_safety_backup_and_is_undone_as_a_whole() {
    let (_folder, bucket) = backed_up().await;
    let before = plain(&changed());
    for existing in [Existing::Update, Existing::Recreate] {
        for write in 0..8 {
            let about = format!("{existing:?}, killed at write {write}");
            forget_restores(&bucket);
            let api = changed();
            killed_at(write, &with(existing), &api, &bucket).await;
            let second = Worker::named("second").restore_as(RESTORE, with(existing), &api, &bucket).await;
            assert_eq!(ending(&second), "Complete", "{about}");
            assert_eq!(safety(&bucket).await.len(), 4, "{about}");
            let safeties = files(&bucket.root().join(format!("data/safety-{RESTORE}")));
            assert_eq!(safeties.iter().filter(|file| file.ends_with("index.jsonl.zst")).count(), 1, "{about}");
            undone_whole(&api, &bucket, &before, &about).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_made_before_a_kill_is_undone_too() {
    let (_folder, bucket) = backed_up().await;
    let empty = World::empty().all().count();
    for write in [3, 9, 17, 30] {
        forget_restores(&bucket);
        let api = Api::new(World::empty());
        killed_at(write, &with(Existing::Skip), &api, &bucket).await;
        assert!(api.state().world.all().count() > empty, "{write}");
        let done = Worker::named("second").restore_as(RESTORE, with(Existing::Skip), &api, &bucket).await;
        assert_eq!(ending(&done), "Complete", "{write}");
        let whole = api.state().world.all().count() - empty;
        assert_eq!(verdicts(&done)["created"], whole, "{write}");
        assert!(!bucket.root().join(format!("backups/safety-{RESTORE}.json")).exists(), "nothing was changed");
        let done = undo(&Worker::default(), UndoTask::default(), &api, &bucket).await;
        assert_eq!(ending(&done), "Complete", "{write}");
        let left: BTreeSet<&str> = undone(&done)
            .items
            .iter()
            .filter(|item| item.verdict == "skip")
            .map(|item| match &*item.kind {
                "namespaces" => "namespaces",
                "persistentvolumes" => "volumes",
                "persistentvolumeclaims" => "claims",
                _ => "definitions",
            })
            .collect();
        assert_eq!(left, ["claims", "definitions", "namespaces", "volumes"].into(), "{write}");
        assert_eq!(
            api.state().world.all().count() - empty,
            3 + 2 + 1 + 1,
            "namespaces, volumes, a claim, a definition"
        );
        // and these when they are named
        let named = UndoTask {
            objects: vec!["namespace/blog".into(), "persistentvolumeclaim/disk".into()],
            ..UndoTask::default()
        };
        let done = undo(&Worker::named("named"), named, &api, &bucket).await;
        assert_eq!(ending(&done), "Complete", "{write}");
        assert_eq!(api.state().world.all().count() - empty, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_changed_when_nothing_can_be_saved() {
    let (folder, bucket) = backed_up().await;
    let whole = changed();
    assert_eq!(ending(&restore(RESTORE, with(Existing::Update), &whole, &bucket).await), "Complete");
    let calls = bucket.seen().into_iter().filter(|(name, _)| name.contains("safety-"));
    let calls: Vec<(String, usize)> =
        calls.filter(|(name, _)| !name.starts_with("list") && !name.starts_with("get")).collect();
    assert!(calls.len() > 4, "{calls:?}");
    for (name, number) in calls {
        forget_restores(&bucket);
        let shaky = Bucket::new(folder.path()).await;
        shaky.fault(&name, number, bucket::Fault::Refused);
        let api = changed();
        let done = restore(RESTORE, with(Existing::Update), &api, &shaky).await;
        assert!(done.is_err() || name.starts_with("abort"), "{name}: {}", ending(&done));
        assert_eq!(writes(&api), [""; 0], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn from_a_read_only_location_something_is_changed_only_with_a_place_to_save_it() {
    let (_folder, bucket) = backed_up().await;
    let elsewhere = crate::run::folder();
    let api = changed();
    let location = |path: &std::path::Path, read_only| {
        let location = Location::parse_url(&format!("file://{}", path.display())).unwrap();
        Location { read_only, ..location }
    };
    let source = location(bucket.root(), true);
    let run = async |id: &str, verb: Verb| Worker::default().run_at(id, verb, source.clone(), &api, &bucket).await;
    let done = run(RESTORE, Verb::Restore(Box::new(with(Existing::Update)))).await;
    assert_eq!(exit_code(&done), ExitCode::Usage, "{}", ending(&done));
    assert!(ending(&done).contains("--safety-location"), "{}", ending(&done));
    assert_eq!(writes(&api), [""; 0]);
    let safety_location = Some(location(elsewhere.path(), false));
    let task = RestoreTask { safety_location, ..with(Existing::Update) };
    assert_eq!(ending(&run(RESTORE, Verb::Restore(Box::new(task))).await), "Complete");
    assert!(!bucket.root().join("restores").exists());
    let there = Bucket::new(elsewhere.path()).await;
    assert_eq!(safety(&there).await.len(), 4);
    undone_whole(&api, &there, &plain(&changed()), "from elsewhere").await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_wrote_since_is_left_alone_unless_it_is_named() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    assert_eq!(ending(&restore(RESTORE, with(Existing::Update), &api, &bucket).await), "Complete");
    let later = json!([{"manager": "kubectl-edit", "time": "2099-01-01T00:00:00Z"}]);
    for (kind, place) in [("configmaps", "shop/settings-0"), ("configmaps", "blog/settings-1")] {
        edit(&api, kind, place, |object| {
            object["data"]["mine"] = json!("x");
            object["metadata"]["managedFields"] = later.clone();
        });
    }
    let task = || UndoTask::default();
    let done = undo(&Worker::default(), task(), &api, &bucket).await;
    assert_eq!(ending(&done), "Partial");
    let told: Vec<String> =
        undone(&done).problems.into_iter().map(|problem| problem.subject + &problem.message).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|text| text.contains("`kubectl-edit`")), "{told:?}");
    assert!(api.state().world.get(crate::world::kind("configmaps"), "blog/settings-1").is_some());
    let named = ["configmap/settings-0", "configmap/settings-1"].map(str::to_owned).to_vec();
    let done = undo(&Worker::named("named"), UndoTask { objects: named, ..task() }, &api, &bucket).await;
    assert_eq!(ending(&done), "Complete");
    assert!(plain(&api) == plain(&changed()));
    let nothing =
        undo(&Worker::default(), UndoTask { objects: vec!["configmap/nothing".into()], ..task() }, &api, &bucket).await;
    assert_eq!(exit_code(&nothing), ExitCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_undo_is_what_was_approved_or_nothing() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    assert_eq!(ending(&restore(RESTORE, with(Existing::Update), &api, &bucket).await), "Complete");
    let plan = undo(&Worker::default(), UndoTask { dry_run: true, ..UndoTask::default() }, &api, &bucket).await;
    let task = UndoTask { approved: Some(undone(&plan).plan_digest), ..UndoTask::default() };
    edit(&api, "configmaps", "shop/settings-0", |object| object["data"]["n"] = json!("moved on"));
    let (written, after) = (writes(&api).len(), plain(&api));
    let done = undo(&Worker::default(), task.clone(), &api, &bucket).await;
    assert!(ending(&done).contains("the plan has changed"), "{}", ending(&done));
    assert!(writes(&api).len() == written && plain(&api) == after);
    // one that was killed goes on as approved
    edit(&api, "configmaps", "shop/settings-0", |object| object["data"]["n"] = json!("0"));
    let (killed, worker) = (CancellationToken::new(), Worker::named("killed"));
    let token = killed.clone();
    api.at_each(move |name, _| {
        if name.starts_with("PUT") {
            token.cancel();
        }
    });
    tokio::select! {
        biased;
        () = killed.cancelled() => (),
        _ = undo(&worker, task.clone(), &api, &bucket) => (),
    }
    api.at_each(|_, _| ());
    let done = undo(&Worker::named("second"), task, &api, &bucket).await;
    assert_eq!(ending(&done), "Complete");
    assert!(plain(&api) == plain(&changed()));
    let missing = UndoTask { restore: Some(AGAIN.into()), ..UndoTask::default() };
    assert_eq!(exit_code(&undo(&Worker::default(), missing, &api, &bucket).await), ExitCode::NotFound);
}
