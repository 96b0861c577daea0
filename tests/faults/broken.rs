//! Objects that the API server can't give: a Secret that can't be decrypted, a kind whose conversion webhook is dead.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::run::{Backup, Scope, Worker, ending, folder, read_archive, read_back};
use crate::world::{World, kind};
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::rules::claims::VolumeData;
use kubectl_backup::rules::selection::Selection;
use serde_json::Value;
use std::time::Duration;

const ORDERS: &str = "orders.shop.example";

async fn partial(api: &Api, scope: Scope) -> Backup {
    let folder = folder();
    let bucket = Bucket::new(folder.path()).await;
    let result = Worker::default().back_up(api, &bucket, scope).await;
    assert_eq!(ending(&result), "Partial");
    read_back(api, &bucket, scope, "broken").await
}

fn subjects(backup: &Backup) -> Vec<&str> {
    backup.report.problems.iter().map(|problem| problem.subject.as_str()).collect()
}

fn count(backup: &Backup, beginning: &str) -> usize {
    backup.objects.keys().filter(|path| path.starts_with(beginning)).count()
}

#[tokio::test(start_paused = true)]
async fn one_secret_that_cannot_be_decrypted_costs_one_namespace() {
    for (place, saved) in [("blog/db", ["shop", "shop-dev"]), ("shop/web", ["blog", "shop-dev"])] {
        let api = Api::busy();
        api.state().broken.push((kind("secrets"), place.to_owned()));
        let backup = partial(&api, Scope::Cluster).await;
        let namespace = place.split('/').next().unwrap();
        assert_eq!(subjects(&backup), [format!("secrets in namespace {namespace}")]);
        let said = &backup.report.problems[0].message;
        assert!(said.contains("InternalError") && said.contains(namespace), "{said}");
        for namespace in saved {
            assert_eq!(count(&backup, &format!("resources/secrets/namespaces/{namespace}/")), 2, "{namespace}");
        }
        assert_eq!(count(&backup, "resources/orders.shop.example/"), 15, "the other kinds are whole");
    }
}

#[tokio::test(start_paused = true)]
async fn what_stands_before_the_broken_object_is_saved_once() {
    let api = Api::busy();
    api.state().broken.push((kind("orders"), "shop/order-3".to_owned()));
    let backup = partial(&api, Scope::Cluster).await;
    assert_eq!(subjects(&backup), ["orders.shop.example in namespace shop"]);
    assert_eq!(count(&backup, "resources/orders.shop.example/namespaces/blog/"), 5);
    assert_eq!(count(&backup, "resources/orders.shop.example/namespaces/shop-dev/"), 5);
    // pages hold three objects: the page before the broken one is saved
    assert_eq!(count(&backup, "resources/orders.shop.example/namespaces/shop/"), 3);
    let lists = api.seen();
    let again =
        |namespace: &str| lists.iter().any(|(name, _)| name.contains(&format!("/namespaces/{namespace}/orders")));
    assert!(again("shop") && !again("blog"), "what was read whole is not read again");
}

#[tokio::test(start_paused = true)]
async fn a_dead_conversion_webhook_is_told_for_every_namespace_that_holds_its_kind() {
    let api = Api::busy();
    api.state().broken.push((kind("orders"), String::new()));
    let mut found = partial(&api, Scope::Cluster).await;
    found.report.problems.sort_by(|a, b| a.subject.cmp(&b.subject));
    let expected = ["blog", "shop", "shop-dev"].map(|n| format!("orders.shop.example in namespace {n}"));
    assert_eq!(subjects(&found), expected);
    assert_eq!(count(&found, "resources/orders.shop.example/"), 0);
    assert_eq!(count(&found, "resources/secrets/"), 6);
}

#[tokio::test(start_paused = true)]
async fn a_kind_without_namespaces_that_is_broken_is_one_problem() {
    let api = Api::busy();
    api.state().broken.push((kind("persistentvolumes"), "volume-2".to_owned()));
    assert_eq!(subjects(&partial(&api, Scope::Cluster).await), ["persistentvolumes"]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_object_in_another_namespace_costs_nothing() {
    let (api, folder) = (Api::busy(), folder());
    api.state().broken.push((kind("secrets"), "blog/db".to_owned()));
    let bucket = Bucket::new(folder.path()).await;
    let result = Worker::default().back_up(&api, &bucket, Scope::Shop).await;
    assert_eq!(ending(&result), "Complete");
    read_back(&api, &bucket, Scope::Shop, "elsewhere").await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_object_in_a_namespace_that_is_left_out_costs_nothing() {
    let (api, folder) = (Api::busy(), folder());
    api.state().broken.push((kind("secrets"), "blog/db".to_owned()));
    let bucket = Bucket::new(folder.path()).await;
    let selection = Selection { exclude_namespaces: vec!["blog".to_owned()], ..Selection::default() };
    let task = BackupTask { selection, volumes: VolumeData::Skip, ..BackupTask::default() };
    assert_eq!(ending(&Worker::default().back_up_task(task, &api, &bucket).await), "Complete");
    let backup = read_archive(&bucket, "left out").await;
    assert_eq!(count(&backup, "resources/secrets/"), 4, "those of the two other namespaces");
    assert!(!api.seen().iter().any(|(name, _)| name.contains("/namespaces/blog/secrets")), "nor is it asked for");
}

#[tokio::test(start_paused = true)]
async fn where_the_namespaces_cannot_be_listed_either_the_kind_is_named() {
    let api = Api::busy();
    api.state().broken.push((kind("secrets"), "blog/db".to_owned()));
    api.fault("GET /api/v1/namespaces names", None, Fault::Status(500));
    assert_eq!(subjects(&partial(&api, Scope::Cluster).await), ["secrets", "namespaces"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_server_is_down_is_named() {
    let api = Api::busy();
    api.state().stale = true;
    let backup = partial(&api, Scope::Cluster).await;
    assert_eq!(subjects(&backup), ["stale.example/v1"]);
}

/// A cluster with so many namespaces more, in each of which is an order that can't be read, and nobody says so soon.
fn with_a_silent_webhook(namespaces: usize) -> Api {
    let mut world = World::full();
    for number in 0..namespaces {
        let name = format!("team-{number:03}");
        world.put("namespaces", None, &name, "", r#""spec":{}"#);
        world.put("orders", Some(&name), "first", "", r#""spec":{}"#);
        world.put("secrets", Some(&name), "db", "", r#""data":{}"#);
    }
    let api = Api::new(world);
    api.state().broken.push((kind("orders"), String::new()));
    api.state().dawdles = Duration::from_secs(30);
    api
}

#[tokio::test(start_paused = true)]
async fn giving_up_on_a_broken_kind_takes_minutes_not_hours() {
    let api = with_a_silent_webhook(300);
    let begun = tokio::time::Instant::now();
    let backup = partial(&api, Scope::Cluster).await;
    let taken = begun.elapsed().as_secs();
    // etcd keeps a revision for five minutes
    assert!((120..300).contains(&taken), "{taken} s");
    let problems = &backup.report.problems;
    let (left, failed): (Vec<_>, Vec<_>) = problems.iter().partition(|problem| problem.subject.contains(" more "));
    assert_eq!(left.len(), 1, "{problems:?}");
    let number = 303 - failed.len();
    assert_eq!(left[0].subject, format!("orders.shop.example in {number} more namespaces"));
    assert!(left[0].message.contains("`team-0") && left[0].message.contains(" more\nhint: "), "{left:?}");
    assert!(failed.iter().all(|problem| problem.subject.starts_with("orders.shop.example in namespace ")));
    assert_eq!(count(&backup, "resources/secrets/"), 306, "the other kinds are whole");
    assert_eq!(backup.manifest.consistency.unpinned.len(), 1, "and at the revision");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_split_is_listed_no_more_at_once_than_was_asked_for() {
    for parallel in [1, 3] {
        let (api, folder) = (with_a_silent_webhook(20), folder());
        let bucket = Bucket::new(folder.path()).await;
        let task = BackupTask { volumes: VolumeData::Skip, parallel: Some(parallel), ..BackupTask::default() };
        assert_eq!(ending(&Worker::default().back_up_task(task, &api, &bucket).await), "Partial");
        assert_eq!(api.state().most_under_way, parallel);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_died_since_discovery_is_one_problem() {
    for code in [503, 502] {
        let api = with_a_silent_webhook(0);
        api.state().broken.clear();
        api.fault("GET /apis/own.example/v1/gauges revision", None, Fault::Status(code));
        api.fault("GET /apis/own.example/v1/gauges", None, Fault::Status(code));
        for namespace in ["kube-system", "shop", "shop-dev", "blog"] {
            api.fault(&format!("GET /apis/own.example/v1/namespaces/{namespace}/gauges"), None, Fault::Status(code));
        }
        assert_eq!(subjects(&partial(&api, Scope::Cluster).await), ["gauges.own.example"], "{code}");
    }
}

/// The objects of one kind that were saved, with the versions that report and objects state.
fn versions(backup: &Backup) -> (Vec<(&str, u64)>, Vec<String>) {
    let reports = backup.report.kinds.iter().filter(|kind| kind.kind == ORDERS);
    let states = |(path, text): (&String, &String)| {
        let object: Value = serde_json::from_str(text).unwrap();
        path.contains(ORDERS).then(|| object["apiVersion"].as_str().unwrap().to_owned())
    };
    let reported = reports.map(|kind| (kind.api_version.as_str(), kind.objects)).collect();
    (reported, backup.objects.iter().filter_map(states).collect())
}

#[tokio::test(start_paused = true)]
async fn a_version_that_stops_being_served_is_gone_on_from_in_another() {
    let (whole, in_namespace) =
        ("GET /apis/shop.example/v1/orders", "GET /apis/shop.example/v1/namespaces/shop/orders");
    // pages hold three objects
    for (list, scope, in_v1, all) in [
        (whole.to_owned(), Scope::Cluster, 0, 15),
        (format!("{whole} page 2"), Scope::Cluster, 6, 15),
        (in_namespace.to_owned(), Scope::Shop, 0, 5),
    ] {
        let (api, folder) = (Api::busy(), folder());
        api.fault(&list, Some(0), Fault::Moved);
        let bucket = Bucket::new(folder.path()).await;
        assert_eq!(ending(&Worker::default().back_up(&api, &bucket, scope).await), "Complete", "{list}");
        let backup = read_archive(&bucket, &list).await;
        let mut expected = vec![("shop.example/v1", in_v1), ("shop.example/v2", all - in_v1)];
        expected.retain(|(_, objects)| *objects > 0);
        let (reported, stated) = versions(&backup);
        assert_eq!(reported, expected, "{list}");
        for (version, objects) in expected {
            assert_eq!(stated.iter().filter(|stated| *stated == version).count() as u64, objects, "{list}");
        }
        assert!(backup.manifest.consistency.unpinned.iter().all(|kind| kind.kind != ORDERS), "{list}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_stops_being_served_at_all_is_one_problem() {
    let api = Api::busy();
    api.fault("GET /apis/shop.example/v1/orders page 1", None, Fault::Status(404));
    let backup = partial(&api, Scope::Cluster).await;
    assert_eq!((subjects(&backup), count(&backup, "resources/orders.shop.example/")), (vec![ORDERS], 3));
    let discoveries = api.seen().iter().filter(|(name, _)| name == "GET /apis").count();
    assert_eq!(discoveries, 2, "it is looked for once");
}
