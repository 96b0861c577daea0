//! Kinds that don't count with the others: stored in another etcd, or not in etcd at all.

use crate::aggregated::{self, Aggregated};
use crate::api::Kind;
use crate::engine::Backups;
use crate::plane::ControlPlane;
use std::collections::BTreeMap;

const OWN_COUNTER: &str = "its API has a revision counter of its own";
const NEVER_EXACT: &str = "its API does not list at the revision asked for";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_with_an_etcd_of_its_own_is_named_and_all_there() {
    let plane = ControlPlane::start("own-etcd", &["--own-etcd=/configmaps"]);
    let api = plane.api().await;
    api.namespace().await;
    for number in 0..30 {
        api.create(Kind::ConfigMap, &format!("c-{number}")).await;
        api.create(Kind::Secret, &format!("s-{number}")).await;
    }
    let (main, own) = (plane.etcd().revision().await, plane.own_etcd().revision().await);
    assert!((30..main).contains(&own), "the counters are at {main} and {own}");

    let backup = Backups::new().run(&plane, 0, &["cluster"]);
    assert_eq!(backup.unpinned(), BTreeMap::from([("configmaps", OWN_COUNTER)]));
    assert_eq!(backup.elsewhere(), ["configmaps"], "everything else is at one revision");
    assert!(backup.revision() >= main);
    let unpinned = &backup.manifest.consistency.unpinned[0];
    let stated: u64 = unpinned.revision.parse().expect("the revision of its own list");
    assert!((own..main).contains(&stated), "{stated}");
    assert!(backup.manifest.consistency.skew_seconds > 0.0);
    let of_test = |kind: Kind, letter: char| {
        backup.of(kind.key()).into_keys().filter(|name| name.starts_with(&format!("{letter}-"))).count()
    };
    assert_eq!((of_test(Kind::ConfigMap, 'c'), of_test(Kind::Secret, 's')), (30, 30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregated_api_is_listed_as_it_is_and_named() {
    let plane = ControlPlane::start("aggregated", &[]);
    let api = plane.api().await;
    let _server = Aggregated::start(&plane, &api).await;
    let backup = Backups::new().run(&plane, 0, &["cluster"]);
    let expected = BTreeMap::from([("gauges.wells.example", OWN_COUNTER), ("mirrors.wells.example", NEVER_EXACT)]);
    assert_eq!(backup.unpinned(), expected);
    assert_eq!(backup.elsewhere(), ["gauges.wells.example", "mirrors.wells.example"]);
    for kind in expected.keys() {
        assert_eq!(backup.of(kind).len(), aggregated::OBJECTS, "{kind}");
    }
    let revisions: BTreeMap<&str, &str> =
        backup.manifest.consistency.unpinned.iter().map(|one| (&*one.kind, &*one.revision)).collect();
    assert_eq!(revisions["gauges.wells.example"], aggregated::OWN);
    let mirrored: u64 = revisions["mirrors.wells.example"].parse().expect("a revision");
    assert!(mirrored > backup.revision());
    assert!(backup.report.problems.is_empty(), "an aggregated API needs no CRD: {:?}", backup.report.problems);

    // relaxed, as people ask for it
    let backup = Backups::new().run(&plane, 0, &["ns", "default", "--consistency=relaxed"]);
    assert!(backup.manifest.consistency.revision.is_none());
    let unpinned = backup.unpinned();
    assert!(unpinned.len() > 20 && unpinned.contains_key("configmaps"), "{unpinned:?}");
    assert!(unpinned.values().all(|reason| *reason == "`--consistency=relaxed` was asked for"), "{unpinned:?}");
}
