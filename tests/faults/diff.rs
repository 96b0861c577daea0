//! Comparisons of a backup with the cluster and with another backup: what they find, and that they read only what can
//! differ.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::existing::{changed, edit};
use crate::restore::backed_up;
use crate::run::{ID, Scope, Worker, ending, exit_code, result_of};
use crate::world::World;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::diff::{DiffResult, DiffTask};
use kubectl_backup::operations::{Query, Verb};
use kubectl_backup::report::ExitCode;
use serde_json::json;

const OTHER: &str = "shop-20261121-100000-k3fb";

fn task(other: Option<&str>, objects: &[&str], namespaces: &[&str]) -> DiffTask {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    DiffTask {
        query: Query { backup: BackupQuery::parse(ID).unwrap(), from_cluster: None },
        other: other.map(|id| BackupQuery::parse(id).unwrap()),
        objects: owned(objects),
        namespaces: owned(namespaces),
    }
}

async fn compared(task: DiffTask, api: &Api, bucket: &Bucket) -> DiffResult {
    let done = Worker::default().run("diff-20261120-120000-aaaa", Verb::Diff(task), api, bucket).await;
    assert_eq!(ending(&done), "Complete");
    result_of(&done)
}

/// What differs: `-` only in the backup, `+` only in the other, `~` in both.
fn told(result: &DiffResult) -> Vec<String> {
    let sign = |left: bool, right: bool| match (left, right) {
        (true, false) => '-',
        (false, true) => '+',
        _ => '~',
    };
    let differences = result.differences.iter();
    differences
        .map(|one| {
            let namespace = one.namespace.as_deref().unwrap_or("");
            format!("{} {} {namespace}/{}", sign(one.left.is_some(), one.right.is_some()), one.kind, one.name)
        })
        .collect()
}

fn reads(api: &Api) -> Vec<String> {
    let is_object =
        |name: &String| name.starts_with("GET") && !name.contains(" names") && name.contains("/namespaces/");
    let names = api.seen().into_iter().map(|(name, _)| name);
    names.filter(is_object).filter(|name| !name.ends_with("/kube-system")).collect()
}

#[tokio::test(start_paused = true)]
async fn the_cluster_as_it_was_does_not_differ_and_no_object_is_read() {
    let (_folder, bucket) = backed_up().await;
    let api = Api::new(World::full());
    assert_eq!(told(&compared(task(None, &[], &[]), &api, &bucket).await), [""; 0]);
    assert_eq!(reads(&api), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_changed_made_and_deleted_is_found() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    api.state().world.put("configmaps", Some("shop"), "new", "", "\"data\":{}");
    api.state().world.put("configmaps", Some("elsewhere"), "new", "", "\"data\":{}");
    api.state().world.put(
        "secrets",
        Some("shop"),
        "hidden",
        r#","labels":{"kubectl-backup/exclude":"true"}"#,
        "\"data\":{}",
    );
    api.state().world.put("storageclasses", None, "new", "", "\"provisioner\":\"x\"");
    // a status that moves, or a new version of nothing, is no difference
    edit(&api, "deployments", "blog/web", |object| object["status"] = json!({"readyReplicas": 3}));
    let all = compared(task(None, &[], &[]), &api, &bucket).await;
    let expected = [
        "- configmaps blog/settings-1",
        "+ configmaps shop/new",
        "~ configmaps shop/settings-0",
        "~ deployments.apps shop/web",
        "~ namespaces /shop-dev",
        "~ secrets blog/db",
        "+ storageclasses.storage.k8s.io /new",
    ];
    assert_eq!(told(&all), expected);
    let text = serde_json::to_string(&all.differences).unwrap();
    assert!(!text.contains("cGxhbnRlZA") && text.contains("***"), "{text}");
    assert_eq!(reads(&api).len(), 6, "{:?}", reads(&api));

    let of_blog = compared(task(None, &[], &["blog"]), &api, &bucket).await;
    assert_eq!(told(&of_blog), ["- configmaps blog/settings-1", "~ secrets blog/db"]);
    let one = compared(task(None, &["cm/settings-0", "cm/settings-1"], &["shop"]), &api, &bucket).await;
    assert_eq!(told(&one), ["~ configmaps shop/settings-0"]);
    let missing = Verb::Diff(task(None, &["cm/new"], &[]));
    let done = Worker::default().run("diff-20261120-120000-aaaa", missing, &api, &bucket).await;
    assert_eq!(exit_code(&done), ExitCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn two_backups_are_compared_without_the_cluster() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    api.state().world.put("configmaps", Some("shop"), "new", "", "\"data\":{}");
    assert_eq!(ending(&Worker::default().back_up_as(OTHER, &api, &bucket, Scope::Cluster).await), "Complete");
    let target = Api::new(World::empty());
    let both = compared(task(Some(OTHER), &[], &[]), &target, &bucket).await;
    let expected = [
        "- configmaps blog/settings-1",
        "+ configmaps shop/new",
        "~ configmaps shop/settings-0",
        "~ deployments.apps shop/web",
        "~ namespaces /shop-dev",
        "~ secrets blog/db",
    ];
    assert_eq!(told(&both), expected);
    assert_eq!(both.right.as_deref(), Some(OTHER));
    let same = compared(task(Some(ID), &[], &[]), &target, &bucket).await;
    assert_eq!(told(&same), [""; 0]);
    let missing = Verb::Diff(task(Some(OTHER), &["cm/new"], &["shop"]));
    let done = Worker::default().run("x-20261120-120000-aaaa", missing, &target, &bucket).await;
    assert_eq!(exit_code(&done), ExitCode::NotFound, "it must be in the first");
}

#[tokio::test(start_paused = true)]
async fn any_request_of_a_comparison_may_fail_once() {
    let (_folder, bucket) = backed_up().await;
    let api = changed();
    let whole = told(&compared(task(None, &[], &[]), &api, &bucket).await);
    for (name, number) in api.seen() {
        for fault in [Fault::Status(500), Fault::Reset, Fault::BreaksOff(50), Fault::Page] {
            let api = changed();
            api.fault(&name, Some(number), fault);
            let found = compared(task(None, &[], &[]), &api, &bucket).await;
            assert_eq!(told(&found), whole, "{name} #{number}: {fault:?}");
        }
    }
}
