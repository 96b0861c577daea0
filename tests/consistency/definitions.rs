//! CRDs that discovery and the revision disagree about.

use crate::api::{Api, Kind, NAMESPACE, definition, eventually};
use crate::engine::{Backup, Backups, Before, Seen, looking_glass};
use crate::plane::ControlPlane;
use futures::future::BoxFuture;
use http::Method;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::report::Outcome;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Acts once, after discovery and before the first question for a revision.
fn before_the_revision(act: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Before {
    let done = Arc::new(AtomicBool::new(false));
    Arc::new(move |uri| {
        let first = uri == "/api/v1/namespaces?limit=1" && !done.swap(true, Ordering::SeqCst);
        if first { act() } else { Box::pin(std::future::ready(())) }
    })
}

async fn backed_up(plane: &ControlPlane, id: &str, before: Before) -> Backup {
    let glass = looking_glass(plane.client().await, 100, Seen::default(), before);
    let task = BackupTask { namespaces: Some(vec![NAMESPACE.to_owned()]), ..BackupTask::default() };
    Backups::new().make(id, glass, task).await
}

/// What the report says of a subject.
fn said(backup: &Backup, subject: &str) -> Vec<String> {
    let problems = backup.report.problems.iter().filter(|problem| problem.subject == subject);
    problems.map(|problem| problem.message.clone()).collect()
}

async fn comes(api: Api) {
    api.define("parcels", "Parcel").await;
    assert!(api.wait_condition("parcels", "Established").await);
    let path = format!("/apis/shop.example/v1/namespaces/{NAMESPACE}/parcels");
    let parcel = serde_json::json!({"apiVersion": "shop.example/v1", "kind": "Parcel", "metadata": {"name": "late"}});
    eventually("a parcel", || async { api.call(Method::POST, &path, Some(&parcel)).await.ok() }).await;
}

async fn goes(api: Api) {
    api.delete_path(&definition("parcels")).await;
    api.wait_discovered("parcels.shop.example", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_compared_with_discovery() {
    let plane = ControlPlane::start("definitions", &[]);
    let api = plane.api().await;
    api.namespace().await;
    api.orders().await;
    api.create(Kind::Order, "first").await;

    // nothing to say
    let backup = Backups::new().run(&plane, 0, &["ns", NAMESPACE]);
    assert_eq!((backup.manifest.outcome, backup.report.problems.len()), (Outcome::Complete, 0));
    assert!(backup.of("orders.shop.example").contains_key("first"));

    // defined between discovery and the revision: listed as well
    let maker = api.clone();
    let backup = backed_up(&plane, "comes", before_the_revision(move || Box::pin(comes(maker.clone())))).await;
    assert_eq!((backup.manifest.outcome, backup.report.problems.len()), (Outcome::Complete, 0));
    assert!(backup.of("parcels.shop.example").contains_key("late"), "what was made of it by then is saved");

    // in discovery, not there at the revision: nothing of it is left to be saved
    api.wait_discovered("parcels.shop.example", true).await;
    let maker = api.clone();
    let backup = backed_up(&plane, "goes", before_the_revision(move || Box::pin(goes(maker.clone())))).await;
    assert_eq!((backup.manifest.outcome, backup.report.problems.len()), (Outcome::Complete, 0));
    assert!(backup.of("orders.shop.example").contains_key("first"), "the rest is saved");

    // there, and never served: another definition has its kind's name already, and nobody can have made objects of it
    api.define("jobs", "Order").await;
    assert!(!api.wait_condition("jobs", "NamesAccepted").await, "two definitions share the kind's name");
    let backup = Backups::new().run(&plane, 0, &["ns", NAMESPACE]);
    assert_eq!(said(&backup, "jobs.shop.example"), [""; 0]);
}
