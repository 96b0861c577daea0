//! What a restore changes of others' while the API server fails: it holds in the end, once.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::existing::edit;
use crate::run::{Scope, Worker, ending, folder, restore_task};
use crate::undo::{UNDO, undo, undone};
use crate::world::{World, kind};
use kubectl_backup::operations::restore::RestoreTask;
use kubectl_backup::operations::undo::UndoTask;
use kubectl_backup::rules::adapt::AdaptOptions;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const RESTORE: &str = "shop-20261120-120000-bbbb";
const PATCH: &str = "PATCH /api/v1/namespaces/shop/serviceaccounts/default";

/// The pull secrets of the account.
fn pulled(api: &Api) -> Value {
    let text = api.state().world.get(kind("serviceaccounts"), "shop/default").expect("an account").to_owned();
    serde_json::from_str::<Value>(&text).unwrap()["imagePullSecrets"].clone()
}

#[tokio::test(start_paused = true)]
async fn an_account_that_appears_meanwhile_gets_what_it_lacks_whatever_happens_to_the_answer() {
    let folder = folder();
    let mut world = World::full();
    world.put("serviceaccounts", Some("shop"), "default", "", r#""imagePullSecrets":[{"name":"registry"}]"#);
    let bucket = Bucket::new(folder.path()).await;
    assert_eq!(ending(&Worker::default().back_up(&Api::new(world), &bucket, Scope::Cluster).await), "Complete");
    for fault in
        [None, Some(Fault::ResetAfter), Some(Fault::Reset), Some(Fault::Status(500)), Some(Fault::RetryAfter(429))]
    {
        let bucket = Bucket::new(folder.path()).await;
        for left in
            ["restores", &format!("data/{RESTORE}"), &format!("data/{UNDO}")].map(|left| bucket.root().join(left))
        {
            _ = std::fs::remove_dir_all(left);
        }
        let target = Api::new(World::empty());
        target.state().appearing = true;
        if let Some(fault) = fault {
            target.fault(PATCH, Some(0), fault);
        }
        let result = Worker::default().restore(RESTORE, &target, &bucket).await;
        assert_eq!(ending(&result), "Complete", "{fault:?}");
        assert_eq!(pulled(&target), json!([{"name": "its-own"}, {"name": "registry"}]), "{fault:?}");
        let notes = result
            .unwrap()
            .result
            .map(|packed| String::from_utf8_lossy(&packed.open().unwrap()).into_owned())
            .unwrap_or_default();
        assert!(notes.contains("what it lacked was added"), "{fault:?}: {notes}");
        // and goes again, once, whatever else the account was given since
        edit(&target, "serviceaccounts", "shop/default", |account| {
            account["imagePullSecrets"].as_array_mut().unwrap().push(json!({"name": "since"}));
        });
        if let Some(fault) = fault {
            let before = target.seen().iter().filter(|(name, _)| name == PATCH).count();
            target.fault(PATCH, Some(before), fault);
        }
        for attempt in ["first", "again"] {
            let done = undo(&Worker::named(attempt), UndoTask::default(), &target, &bucket).await;
            assert_eq!(ending(&done), "Complete", "{fault:?}");
            assert_eq!(pulled(&target), json!([{"name": "its-own"}, {"name": "since"}]), "{fault:?}");
            let item = undone(&done).items.into_iter().find(|item| item.name == "default").unwrap();
            assert!(item.reason.contains("`registry`") || item.reason.contains("nothing of it is left"), "{item:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_a_killed_attempt_did_not_come_to_is_written_by_the_next() {
    let (folder, order) = (folder(), "shop/ready");
    let mut world = World::full();
    world.put("orders", Some("shop"), "ready", "", r#""spec":{},"status":{"phase":"Ready"}"#);
    let bucket = Bucket::new(folder.path()).await;
    assert_eq!(ending(&Worker::default().back_up(&Api::new(world.clone()), &bucket, Scope::Cluster).await), "Complete");
    let bucket = Bucket::new(folder.path()).await;
    world.delete("orders", order);
    let api = Api::new(world);
    api.state().statuses = true;
    let patch = "PATCH /apis/shop.example/v1/namespaces/shop/orders/ready/status";
    api.fault(patch, Some(0), Fault::Silent);
    let killed = CancellationToken::new();
    let token = killed.clone();
    api.at_each(move |name, _| {
        if name == patch {
            token.cancel();
        }
    });
    let task = RestoreTask { adapt: AdaptOptions { with_status: true, ..AdaptOptions::default() }, ..restore_task() };
    let first = Worker::named("killed");
    tokio::select! {
        biased;
        () = killed.cancelled() => (),
        done = first.restore_as(RESTORE, task.clone(), &api, &bucket) => panic!("{}", ending(&done)),
    }
    let status = || {
        let state = api.state();
        serde_json::from_str::<Value>(state.world.get(kind("orders"), order).unwrap()).unwrap()["status"].clone()
    };
    assert_eq!(status(), Value::Null);
    let done = Worker::named("second").restore_as(RESTORE, task, &api, &bucket).await;
    assert_eq!((ending(&done).as_str(), status()), ("Complete", json!({"phase": "Ready"})));
}
