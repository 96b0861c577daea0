//! Objects that the API server can't give: a Secret that can't be decrypted, a kind whose conversion webhook is dead.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::run::{Backup, Scope, Worker, ending, folder, read_archive, read_back};
use crate::world::kind;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::rules::claims::VolumeData;
use kubectl_backup::rules::selection::Selection;

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

#[tokio::test(start_paused = true)]
async fn giving_up_on_a_broken_kind_takes_minutes_not_hours() {
    let api = Api::busy();
    api.state().broken.push((kind("orders"), String::new()));
    let begun = tokio::time::Instant::now();
    partial(&api, Scope::Cluster).await;
    let taken = begun.elapsed().as_secs();
    assert!(taken < 120, "{taken} s");
}
