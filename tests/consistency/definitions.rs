//! CRDs that discovery and the revision disagree about.

use crate::aggregated::Aggregated;
use crate::api::{Api, DEFINITIONS, Kind, NAMESPACE};
use crate::engine::{Backup, Backups, Before, Seen, looking_glass};
use crate::plane::ControlPlane;
use futures::future::BoxFuture;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::pipeline::save::pin::Demand;
use kubectl_backup::report::Outcome;
use kubectl_backup::rules::selection::Selection;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PARCELS: &str = "parcels.shop.example";
/// The first question for a revision: discovery is done by then.
const REVISION: &str = "/api/v1/namespaces?limit=1";

/// Acts once, before the first request that begins like this, up to the end of a field or its name.
fn before(request: &'static str, act: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Before {
    let done = Arc::new(AtomicBool::new(false));
    Arc::new(move |uri| {
        let is_it = uri.strip_prefix(request).is_some_and(|rest| rest.is_empty() || rest.starts_with(['&', '=']));
        if is_it && !done.swap(true, Ordering::SeqCst) { act() } else { Box::pin(std::future::ready(())) }
    })
}

async fn backed_up(plane: &ControlPlane, id: &str, consistency: Demand, before: Before) -> Backup {
    let seen = Seen::default();
    let glass = looking_glass(plane.client().await, 2, seen, before);
    let namespaces = Some(vec![NAMESPACE.to_owned()]);
    let task = BackupTask {
        selection: Selection { namespaces, ..Selection::default() },
        consistency,
        ..BackupTask::default()
    };
    Backups::new().make(id, glass, task).await
}

/// A definition, and a first object of it.
async fn comes(api: Api) {
    api.define("shop.example", "parcels", "Parcel").await;
    api.wait_condition(PARCELS, "Established", "True").await;
    let path = format!("/apis/shop.example/v1/namespaces/{NAMESPACE}/parcels");
    let parcel = json!({"apiVersion": "shop.example/v1", "kind": "Parcel", "metadata": {"name": "early"}});
    crate::api::eventually("a parcel to be taken", || async {
        api.call(http::Method::POST, &path, Some(&parcel)).await.ok()
    })
    .await;
}

async fn goes(api: Api) {
    api.delete_path(&format!("{DEFINITIONS}/{PARCELS}")).await;
    api.wait_discovered(PARCELS, false).await;
}

fn complete(backup: &Backup) {
    assert!(backup.report.problems.is_empty(), "{:?}", backup.report.problems);
    assert_eq!(backup.manifest.outcome, Outcome::Complete);
    assert!(backup.of("orders.shop.example").contains_key("first"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_that_come_and_go_around_the_revision() {
    let plane = ControlPlane::start("definitions", &[]);
    let api = plane.api().await;
    api.namespace().await;
    api.orders().await;
    api.create(Kind::Order, "first").await;

    for (consistency, moment) in [
        (Demand::Exact, REVISION),
        // nothing is pinned: the moment is before the definitions are listed
        (Demand::Relaxed, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?limit=1000"),
    ] {
        // there at the revision, not in discovery
        let maker = api.clone();
        let act = before(moment, move || Box::pin(comes(maker.clone())));
        let backup = backed_up(&plane, "comes", consistency, act).await;
        complete(&backup);
        assert!(backup.of(PARCELS).contains_key("early"), "its objects are saved");
        assert!(backup.of("customresourcedefinitions.apiextensions.k8s.io").contains_key(PARCELS), "and so is it");
        let named = backup.unpinned().get(PARCELS).copied();
        let expected = (consistency == Demand::Relaxed).then_some("`--consistency=relaxed` was asked for");
        assert_eq!(named, expected);

        // in discovery, not there at the revision
        api.wait_discovered(PARCELS, true).await;
        let maker = api.clone();
        let act = before(moment, move || Box::pin(goes(maker.clone())));
        let backup = backed_up(&plane, "goes", consistency, act).await;
        complete(&backup);
        assert_eq!(backup.of(PARCELS).len(), 0);
        let noted = format!("`{PARCELS}` was deleted since discovery");
        assert!(backup.notes.iter().any(|note| note.starts_with(&noted)), "{:?}", backup.notes);
    }

    // there, and not in use: another definition has its kind's name already
    api.define("shop.example", "jobs", "Order").await;
    api.wait_condition("jobs.shop.example", "NamesAccepted", "False").await;
    complete(&Backups::new().run(&plane, 0, &["ns", NAMESPACE]));

    // established, but another server has its group version, and discovery shows that one's kinds
    let _server = Aggregated::start(&plane, &api).await;
    api.define("wells.example", "probes", "Probe").await;
    api.wait_condition("probes.wells.example", "Established", "True").await;
    let backup = Backups::new().run(&plane, 3, &["ns", NAMESPACE]);
    let problems: Vec<_> = backup.report.problems.iter().map(|p| (p.subject.as_str(), p.message.as_str())).collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].0, "probes.wells.example");
    assert!(problems[0].1.contains("discovery doesn't list the kind"), "{problems:?}");
}

/// Has orders served in one of their two versions only.
async fn serves(api: Api, version: &'static str) {
    let path = format!("{DEFINITIONS}/orders.shop.example");
    let mut definition = api.get(&path).await;
    let one = |name: &str| {
        let mut one = definition["spec"]["versions"][0].clone();
        (one["name"], one["served"], one["storage"]) = (json!(name), json!(name == version), json!(name == "v1"));
        one
    };
    definition["spec"]["versions"] = json!([one("v1"), one("v2")]);
    api.call(http::Method::PUT, &path, Some(&definition)).await.expect("a definition");
    for name in ["v1", "v2"] {
        let path = format!("/apis/shop.example/{name}/namespaces/{NAMESPACE}/orders");
        crate::api::eventually(&format!("orders to be served in {version} only"), || async {
            let served = api.call(http::Method::GET, &path, None).await.is_ok();
            (served == (name == version)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_stops_being_served_in_the_middle_of_a_backup() {
    let plane = ControlPlane::start("moved", &[]);
    let api = plane.api().await;
    api.namespace().await;
    api.orders().await;
    for name in ["first", "second", "third"] {
        api.create(Kind::Order, name).await;
    }
    let list = "/apis/shop.example/v1/namespaces/shop/orders?limit=2";
    let later = "/apis/shop.example/v1/namespaces/shop/orders?limit=2&continue";
    for (moment, in_v1) in [(list, 0), (later, 2)] {
        serves(api.clone(), "v1").await;
        let maker = api.clone();
        let act = before(moment, move || Box::pin(serves(maker.clone(), "v2")));
        let backup = backed_up(&plane, "moved", Demand::Exact, act).await;
        complete(&backup);
        let versions: Vec<_> = backup.of("orders.shop.example").values().map(|order| &order["apiVersion"]).collect();
        let mut expected = ["shop.example/v1"; 3];
        expected[in_v1..].fill("shop.example/v2");
        assert_eq!(versions, expected);
        assert_eq!((backup.elsewhere(), backup.unpinned()), (Vec::new(), BTreeMap::new()), "and at one revision");
    }
}
