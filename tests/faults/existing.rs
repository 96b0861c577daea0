//! Restores onto objects that are there, while the API server fails and others write: they converge, and change nothing but
//! what their plan says.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::restore::{RESTORE, backed_up, contents};
use crate::run::{Worker, ending, exit_code, restore_task, result_of};
use crate::world::{World, kind};
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::restore::{DryRun, RestoreResult, RestoreTask};
use kubectl_backup::operations::{Done, Query, Verb};
use kubectl_backup::report::ExitCode;
use kubectl_backup::rules::verdict::Existing;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn with(existing: Existing) -> RestoreTask {
    RestoreTask { existing, ..restore_task() }
}

/// Changes an object as somebody else does.
pub(crate) fn edit(api: &Api, resource: &str, place: &str, change: impl FnOnce(&mut Value)) {
    let (mut state, number) = (api.state(), kind(resource));
    let mut object: Value = serde_json::from_str(state.world.get(number, place).unwrap()).unwrap();
    change(&mut object);
    object["metadata"]["resourceVersion"] = json!(state.world.next(number).to_string());
    let meta = object["metadata"].to_string();
    state.world.insert(number, place, Some((object.to_string(), meta)));
}

const EDITED: [(&str, &str); 4] = [
    ("configmaps", "shop/settings-0"),
    ("secrets", "blog/db"),
    ("deployments", "shop/web"),
    ("namespaces", "shop-dev"),
];

/// The cluster that was backed up, four objects of which were changed since, and one deleted.
pub(crate) fn changed() -> Api {
    let api = Api::new(World::full());
    edit(&api, "configmaps", "shop/settings-0", |object| object["data"]["n"] = json!("changed"));
    edit(&api, "secrets", "blog/db", |object| object["data"]["more"] = json!("cGxhbnRlZA=="));
    edit(&api, "deployments", "shop/web", |object| object["spec"]["replicas"] = json!(7));
    edit(&api, "namespaces", "shop-dev", |object| object["metadata"]["labels"] = json!({"x": "y"}));
    api.state().world.delete("configmaps", "blog/settings-1");
    api
}

/// What a cluster holds, whoever wrote it.
fn saved(api: &Api) -> BTreeMap<(usize, String), Value> {
    let mut found = contents(api);
    found.values_mut().for_each(|object| drop(object["metadata"].as_object_mut().unwrap().remove("managedFields")));
    found
}

pub(crate) const AGAIN: &str = "shop-20261120-130000-bbbb";

/// What the records of earlier restores are in the way of.
pub(crate) fn forget_restores(bucket: &Bucket) {
    for id in [RESTORE, AGAIN, crate::undo::UNDO] {
        let folders = [bucket.root().join("restores"), bucket.root().join("data").join(id)];
        folders.iter().filter(|folder| folder.exists()).for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
        let safety = bucket.root().join(format!("backups/safety-{id}.json"));
        if safety.exists() {
            std::fs::remove_file(safety).unwrap();
            std::fs::remove_dir_all(bucket.root().join(format!("data/safety-{id}"))).unwrap();
        }
    }
}

/// Methods and paths of the writes so far.
pub(crate) fn writes(api: &Api) -> Vec<String> {
    let is_write = |name: &String| ["POST ", "PUT ", "DELETE "].iter().any(|method| name.starts_with(method));
    api.seen().into_iter().map(|(name, _)| name).filter(is_write).collect()
}

pub(crate) fn result(done: &anyhow::Result<Done>) -> RestoreResult {
    result_of(done)
}

pub(crate) fn verdicts(done: &anyhow::Result<Done>) -> BTreeMap<String, usize> {
    result(done).items.into_iter().fold(BTreeMap::new(), |mut counts, item| {
        *counts.entry(item.verdict).or_default() += 1;
        counts
    })
}

pub(crate) async fn restore(id: &str, task: RestoreTask, api: &Api, bucket: &Bucket) -> anyhow::Result<Done> {
    Worker::default().restore_as(id, task, api, bucket).await
}

#[tokio::test(start_paused = true)]
async fn an_update_replaces_what_differs_and_nothing_else() {
    let (_folder, bucket) = backed_up().await;
    let (api, before) = (changed(), saved(&Api::new(World::full())));
    let done = restore(RESTORE, with(Existing::Update), &api, &bucket).await;
    assert_eq!(ending(&done), "Complete");
    assert!(saved(&api) == before);
    let counts = verdicts(&done);
    assert_eq!((counts["updated"], counts["created"]), (4, 1), "{counts:?}");
    assert_eq!(writes(&api).len(), 5, "{:?}", writes(&api));
    let again = restore(AGAIN, with(Existing::Update), &api, &bucket).await;
    assert_eq!((ending(&again).as_str(), writes(&api).len()), ("Complete", 5));
    assert!(verdicts(&again).keys().all(|verdict| ["unchanged", "skip"].contains(&verdict.as_str())), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_since_is_not_even_read() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    let plan = RestoreTask { dry_run: DryRun::Client, ..with(Existing::Update) };
    let planned = restore(RESTORE, plan, &api, &bucket).await;
    let reads: Vec<String> = api
        .seen()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.contains("/settings-") || name.contains("/orders/"))
        .collect();
    assert_eq!(reads, ["GET /api/v1/namespaces/shop/configmaps/settings-0"]);
    assert_eq!(verdicts(&planned)["update"], 4);
    let secret = result(&planned).items.into_iter().find(|item| item.name == "db" && item.verdict == "update").unwrap();
    assert_eq!(secret.changes.len(), 1);
    assert_eq!((secret.changes[0].path.as_str(), &secret.changes[0].from), ("data.more", &Some(json!("********"))));
    assert_eq!(writes(&api), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn recreate_deletes_and_makes_anew_but_never_namespaces() {
    let (_folder, bucket) = backed_up().await;
    let (api, before) = (changed(), saved(&Api::new(World::full())));
    let done = restore(RESTORE, with(Existing::Recreate), &api, &bucket).await;
    assert_eq!(ending(&done), "Complete");
    let counts = verdicts(&done);
    assert_eq!((counts["recreated"], counts["updated"], counts["created"]), (3, 1, 1), "{counts:?}");
    let deletes: Vec<String> = writes(&api).into_iter().filter(|name| name.starts_with("DELETE")).collect();
    assert_eq!(deletes.len(), 3, "{deletes:?}");
    assert!(!deletes.iter().any(|name| name.ends_with("/namespaces/shop-dev")), "{deletes:?}");
    let state = api.state();
    let after: Vec<(usize, String)> = state.world.all().map(|(kind, place, _)| (kind, place.to_owned())).collect();
    assert_eq!(after, before.into_keys().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn with_fail_nothing_is_written_where_anything_differs() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    let done = restore(RESTORE, with(Existing::Fail), &api, &bucket).await;
    assert_eq!(exit_code(&done), ExitCode::Failed);
    let text = format!("{:#}", done.unwrap_err());
    assert!(text.contains("4 objects exist and differ") && text.contains("hint:"), "{text}");
    assert_eq!(writes(&api), [""; 0]);
    forget_restores(&bucket);
    let same = Api::new(World::full());
    same.state().world.delete("configmaps", "blog/settings-1");
    assert_eq!(ending(&restore(RESTORE, with(Existing::Fail), &same, &bucket).await), "Complete");
    assert_eq!(writes(&same), ["POST /api/v1/namespaces/blog/configmaps"]);
}

#[tokio::test(start_paused = true)]
async fn any_request_of_an_update_or_recreate_may_fail_once() {
    let (_folder, bucket) = backed_up().await;
    let before = saved(&Api::new(World::full()));
    let faults = [
        Fault::Status(409),
        Fault::Status(429),
        Fault::Status(500),
        Fault::RetryAfter(503),
        Fault::Reset,
        Fault::ResetAfter,
        Fault::SilentAfter,
        Fault::BreaksOff(50),
        Fault::Page,
    ];
    for existing in [Existing::Update, Existing::Recreate] {
        forget_restores(&bucket);
        let api = changed();
        assert_eq!(ending(&restore(RESTORE, with(existing), &api, &bucket).await), "Complete");
        let seen: BTreeSet<(String, usize)> = api.seen().into_iter().filter(|(name, _)| touches(name)).collect();
        for (name, number) in seen {
            for fault in faults {
                // a create that finds its object there is no conflict, and a read has none
                if fault == Fault::Status(409) && !name.starts_with("PUT") && !name.starts_with("DELETE") {
                    continue;
                }
                let about = format!("{existing:?} {name} #{number}: {fault:?}");
                forget_restores(&bucket);
                let api = changed();
                api.fault(&name, Some(number), fault);
                let done = restore(RESTORE, with(existing), &api, &bucket).await;
                assert_eq!(ending(&done), "Complete", "{about}");
                if existing == Existing::Update {
                    assert!(saved(&api) == before, "{about}");
                }
                let again = restore(AGAIN, with(Existing::Fail), &api, &bucket).await;
                assert_eq!(ending(&again), "Complete", "{about}: all is as it was saved");
            }
        }
    }
}

/// Whether a request is about one of the objects that differ.
fn touches(name: &str) -> bool {
    EDITED.iter().any(|(resource, place)| {
        let end = match place.split_once('/') {
            Some((namespace, name)) => format!("/namespaces/{namespace}/{resource}/{name}"),
            None => format!("/{resource}/{place}"),
        };
        name.ends_with(&end)
    })
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_is_interrupted_at_any_change_goes_on_as_approved() {
    let (_folder, bucket) = backed_up().await;
    for existing in [Existing::Update, Existing::Recreate] {
        let plan = RestoreTask { dry_run: DryRun::Client, ..with(existing) };
        let approved = Some(result(&restore(RESTORE, plan, &changed(), &bucket).await).plan_digest);
        let task = RestoreTask { approved, ..with(existing) };
        forget_restores(&bucket);
        let api = changed();
        assert_eq!(ending(&restore(RESTORE, task.clone(), &api, &bucket).await), "Complete");
        let all: Vec<(String, usize)> = api.seen().into_iter().filter(|(name, _)| !name.starts_with("GET")).collect();
        for (name, number) in all {
            let about = format!("{existing:?} {name} #{number}");
            forget_restores(&bucket);
            let (api, worker) = (changed(), Worker::default());
            let (cancel, at) = (worker.cancel.clone(), (name, number));
            api.at_each(move |name, number| {
                if (name, number) == (at.0.as_str(), at.1) {
                    cancel.cancel();
                }
            });
            let first = worker.restore_as(RESTORE, task.clone(), &api, &bucket).await;
            assert!(first.is_err() || ending(&first) == "Complete", "{about}: {}", ending(&first));
            let second = Worker::named("second").restore_as(RESTORE, task.clone(), &api, &bucket).await;
            assert_eq!(ending(&second), "Complete", "{about}");
            let again = restore(AGAIN, with(Existing::Fail), &api, &bucket).await;
            assert_eq!(ending(&again), "Complete", "{about}: all is as it was saved");
        }
    }
}

const LOGS: &str = "logs-20261120-150000-llll";

#[tokio::test(start_paused = true)]
async fn a_plan_is_refused_when_the_target_moved_on() {
    let (_folder, bucket) = backed_up().await;
    let plan = RestoreTask { dry_run: DryRun::Client, ..with(Existing::Update) };
    let api = changed();
    let approved = Some(result(&restore(RESTORE, plan, &api, &bucket).await).plan_digest);
    let task = RestoreTask { approved, ..with(Existing::Update) };
    // a status that moves is nothing
    edit(&api, "deployments", "shop/web", |object| object["status"] = json!({"readyReplicas": 3}));
    let moved: [&dyn Fn(&Api); 4] = [
        &|api| edit(api, "deployments", "shop/web", |object| object["spec"]["replicas"] = json!(8)),
        &|api| edit(api, "configmaps", "blog/settings-3", |object| object["data"] = json!({})),
        &|api| api.state().world.delete("configmaps", "blog/settings-2"),
        &|api| api.state().world.put("configmaps", Some("blog"), "settings-1", "", "\"data\":{}"),
    ];
    for (number, change) in moved.into_iter().enumerate() {
        forget_restores(&bucket);
        let moved = Api::new(api.state().world.clone());
        change(&moved);
        let done = restore(RESTORE, task.clone(), &moved, &bucket).await;
        let text = done.as_ref().map_or_else(|error| format!("{error:#}"), |done| done.message.clone());
        assert!(done.is_err() && text.contains("the plan has changed"), "{number}: {text}");
        assert_eq!(writes(&moved), [""; 0], "{number}");
        // what it was about can be read when its Job is gone
        let query = Query { backup: BackupQuery::parse(RESTORE).unwrap(), from_cluster: None };
        let log = Worker::named("reader").run(LOGS, Verb::Logs(query), &moved, &bucket).await.unwrap();
        let log = String::from_utf8(log.result.unwrap().open().unwrap()).unwrap();
        assert!(log.lines().last().is_some_and(|line| line.contains("failed: the plan has changed")), "{log}");
    }
    // neither is another backup, or another policy, the plan that was approved
    let other = RestoreTask { existing: Existing::Recreate, ..task.clone() };
    assert!(restore(RESTORE, other, &api, &bucket).await.is_err());
    forget_restores(&bucket);
    assert_eq!(ending(&restore(RESTORE, task, &api, &bucket).await), "Complete");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_go_is_told_with_what_holds_it() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    edit(&api, "configmaps", "shop/settings-0", |object| {
        object["metadata"]["finalizers"] = json!(["example.com/hold"])
    });
    let done = restore(RESTORE, with(Existing::Recreate), &api, &bucket).await;
    assert_eq!(ending(&done), "Partial");
    let problems = result(&done).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("`example.com/hold`") && problems[0].message.contains("60 s"), "{problems:?}");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_being_deleted_is_waited_for() {
    let (_folder, bucket) = backed_up().await;
    let going = || {
        let api = Api::new(World::full());
        edit(&api, "namespaces", "blog", |object| {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-20T10:00:00Z")
        });
        for name in ["settings-0", "settings-1", "settings-2", "settings-3", "settings-4", "gone-soon"] {
            api.state().world.delete("configmaps", &format!("blog/{name}"));
        }
        api
    };
    let api = going();
    let done = restore(RESTORE, with(Existing::Skip), &api, &bucket).await;
    let text = format!("{:#}", done.unwrap_err());
    assert!(
        text.contains("namespace `blog` was deleted and is still there after 180 s") && text.contains("hint:"),
        "{text}"
    );
    assert!(!writes(&api).iter().any(|name| name.contains("/blog/")), "{:?}", writes(&api));
}

#[tokio::test(start_paused = true)]
async fn a_server_side_dry_run_writes_nothing_and_tells_what_it_heard() {
    let (_folder, bucket) = backed_up().await;
    let tried = |existing| RestoreTask { dry_run: DryRun::Server, ..with(existing) };
    let (api, before) = (changed(), changed());
    api.fault("PUT /api/v1/namespaces/shop/configmaps/settings-0", None, Fault::Status(422));
    let done = restore(RESTORE, tried(Existing::Update), &api, &bucket).await;
    assert_eq!(ending(&done), "Partial");
    let counts = verdicts(&done);
    assert_eq!((counts["refused"], counts["update"], counts["create"]), (1, 3, 1), "{counts:?}");
    assert_eq!(contents(&api), contents(&before));
    let plan = RestoreTask { dry_run: DryRun::Client, ..with(Existing::Update) };
    let planned = restore(RESTORE, plan, &api, &bucket).await;
    assert_eq!(result(&done).plan_digest, result(&planned).plan_digest, "one plan, however it is looked at");

    let empty = Api::new(World::empty());
    let done = restore(RESTORE, tried(Existing::Skip), &empty, &bucket).await;
    let counts = verdicts(&done);
    assert_eq!(counts.get("create"), Some(&11), "only what needs no namespace or kind that isn't there: {counts:?}");
    assert!(counts["unverified"] > 30, "{counts:?}");
    assert_eq!(empty.state().world.all().count(), World::empty().all().count());
    assert!(!bucket.root().join("restores").exists(), "a dry run leaves no record");
}
