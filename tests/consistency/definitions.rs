//! CRDs that discovery and the revision disagree about.

use crate::api::{Api, Kind, NAMESPACE, definition};
use crate::engine::{Backup, Backups, Before, Seen, looking_glass};
use crate::plane::ControlPlane;
use futures::future::BoxFuture;
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

    // there at the revision, not in discovery
    let maker = api.clone();
    let backup = backed_up(&plane, "comes", before_the_revision(move || Box::pin(comes(maker.clone())))).await;
    assert_eq!(backup.manifest.outcome, Outcome::Partial);
    let told = said(&backup, "parcels.shop.example");
    assert!(told.len() == 1 && told[0].contains("discovery doesn't list the kind"), "{:?}", backup.report.problems);
    assert_eq!(backup.report.problems.len(), 1, "{:?}", backup.report.problems);

    // in discovery, not there at the revision
    api.wait_discovered("parcels.shop.example", true).await;
    let maker = api.clone();
    let backup = backed_up(&plane, "goes", before_the_revision(move || Box::pin(goes(maker.clone())))).await;
    assert_eq!(backup.manifest.outcome, Outcome::Partial);
    let told = said(&backup, "parcels.shop.example");
    assert!(told.iter().any(|text| text.contains("deleted meanwhile")), "{:?}", backup.report.problems);
    assert!(backup.of("orders.shop.example").contains_key("first"), "the rest is saved");

    // there, and never served: another definition has its kind's name already
    api.define("jobs", "Order").await;
    assert!(!api.wait_condition("jobs", "NamesAccepted").await, "two definitions share the kind's name");
    let backup = Backups::new().run(&plane, 3, &["ns", NAMESPACE]);
    let told = said(&backup, "jobs.shop.example");
    assert!(told.len() == 1 && told[0].contains("its conditions tell why"), "{:?}", backup.report.problems);
}
