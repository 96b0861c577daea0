//! Lists of many namespaces at once that the API server refuses, selections that find less than was asked for, and how
//! much is asked of the API server at a time.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::run::{Backup, Worker, assert_nothing_left, ending, folder, read_archive};
use crate::world::World;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::report::Outcome;
use kubectl_backup::rules::claims::VolumeData;
use kubectl_backup::rules::kinds::ObjectArg;
use kubectl_backup::rules::selection::Selection;
use kubectl_backup::rules::selector::Selector;

/// More namespaces than are listed one by one, each with a Secret and a ConfigMap.
fn many() -> Api {
    let mut world = World::full();
    for number in 0..20 {
        let name = format!("team-{number:02}");
        world.put("namespaces", None, &name, "", r#""spec":{}"#);
        world.put("secrets", Some(&name), "db", "", r#""data":{}"#);
        world.put("configmaps", Some(&name), "settings", "", r#""data":{}"#);
    }
    Api::new(world)
}

async fn teams(api: &Api, objects: &[&str]) -> (anyhow::Result<kubectl_backup::operations::Done>, Option<Backup>) {
    let folder = folder();
    let bucket = Bucket::new(folder.path()).await;
    let objects = objects.iter().map(|text| ObjectArg::parse(text).unwrap()).collect();
    let selection = Selection { objects, ..Selection::of_namespaces(vec!["team-*".to_owned()]) };
    let task = BackupTask { selection, volumes: VolumeData::Skip, ..BackupTask::default() };
    let result = Worker::default().back_up_task(task, api, &bucket).await;
    if result.is_err() {
        assert_nothing_left(bucket.root(), "a failed backup");
        return (result, None);
    }
    let backup = read_archive(&bucket, "teams").await;
    (result, Some(backup))
}

fn count(backup: &Backup, beginning: &str) -> usize {
    backup.objects.keys().filter(|path| path.starts_with(beginning)).count()
}

fn lists_of(api: &Api, end: &str) -> usize {
    api.seen().iter().filter(|(name, _)| name.starts_with("GET") && name.ends_with(end)).count()
}

#[tokio::test(start_paused = true)]
async fn a_list_of_all_that_is_refused_is_made_namespace_by_namespace() {
    let api = many();
    api.fault("GET /api/v1/secrets", None, Fault::Status(403));
    let (result, backup) = teams(&api, &[]).await;
    assert_eq!(ending(&result), "Complete");
    let backup = backup.unwrap();
    assert_eq!((count(&backup, "resources/secrets/"), count(&backup, "resources/configmaps/")), (20, 20));
    assert_eq!(lists_of(&api, "/secrets"), 21, "one of all, and one of each namespace that was asked for");
    assert_eq!(lists_of(&api, "/configmaps"), 1, "what isn't refused is listed at once");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_refused_everywhere_is_one_problem_and_elsewhere_one_for_each() {
    let api = many();
    api.fault("GET /api/v1/secrets", None, Fault::Status(403));
    api.fault("GET /api/v1/namespaces/team-07/secrets", None, Fault::Status(403));
    let (_, backup) = teams(&api, &[]).await;
    let problems = |backup: &Backup| -> Vec<String> {
        backup.report.problems.iter().map(|problem| problem.subject.clone()).collect()
    };
    let backup = backup.unwrap();
    assert_eq!(problems(&backup), ["secrets in namespace team-07"]);
    assert_eq!((backup.manifest.outcome, count(&backup, "resources/secrets/")), (Outcome::Partial, 19));

    let api = many();
    api.fault("GET /api/v1/secrets", None, Fault::Status(403));
    for number in 0..20 {
        api.fault(&format!("GET /api/v1/namespaces/team-{number:02}/secrets"), None, Fault::Status(403));
    }
    let (_, backup) = teams(&api, &[]).await;
    assert_eq!(problems(&backup.unwrap()), ["secrets"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_named_and_not_there_is_an_error_unless_a_list_failed() {
    let (result, _) = teams(&many(), &["secret/db", "configmap/nothing"]).await;
    assert!(ending(&result).starts_with("NotFound: there is no `configmaps/nothing`"), "{}", ending(&result));

    let api = many();
    api.fault("GET /api/v1/configmaps metadata.name=settings", None, Fault::Status(500));
    for number in 0..20 {
        let name = format!("GET /api/v1/namespaces/team-{number:02}/configmaps metadata.name=settings");
        api.fault(&name, None, Fault::Status(500));
    }
    let (result, backup) = teams(&api, &["secret/db", "configmap/settings"]).await;
    assert_eq!(ending(&result), "Partial");
    let backup = backup.unwrap();
    assert_eq!(count(&backup, "resources/secrets/"), 20, "what is there is saved");
    let told = |subject: &str| backup.report.problems.iter().any(|problem| problem.subject == subject);
    assert!(told("configmaps settings") && told("configmaps in namespace team-00"), "{:?}", backup.report.problems);
}

/// The fake, as some aggregated APIs, looks at no label selector.
#[tokio::test(start_paused = true)]
async fn an_api_that_ignores_labels_is_not_believed() {
    let mut world = World::full();
    world.put("configmaps", Some("shop"), "web", r#","labels":{"app":"web"}"#, r#""data":{}"#);
    let (api, folder) = (Api::new(world), folder());
    let bucket = Bucket::new(folder.path()).await;
    let selectors = vec![Selector::parse("app in (web)").unwrap()];
    let selection = Selection { selectors, ..Selection::of_namespaces(vec!["shop".to_owned()]) };
    let task = BackupTask { selection, ..BackupTask::default() };
    assert_eq!(ending(&Worker::default().back_up_task(task, &api, &bucket).await), "Complete");
    let backup = read_archive(&bucket, "labels").await;
    let held: Vec<&String> = backup.objects.keys().collect();
    assert_eq!(held, ["resources/configmaps/namespaces/shop/web.json", "resources/namespaces/cluster/shop.json"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_alone_can_be_asked_for() {
    let (result, backup) = teams(&many(), &["namespace/team-03"]).await;
    assert_eq!(ending(&result), "Complete");
    assert_eq!(backup.unwrap().objects.len(), 20, "the namespaces that are asked for, and nothing else");
    let (result, _) = teams(&many(), &["namespace/shop"]).await;
    assert!(ending(&result).starts_with("NotFound: there is no `namespaces/shop`"), "{}", ending(&result));
}

/// How often the lists change from one kind to another.
async fn changes(parallel: usize) -> usize {
    let (api, folder) = (Api::new(World::full()), folder());
    let bucket = Bucket::new(folder.path()).await;
    let task = BackupTask { volumes: VolumeData::Skip, parallel: Some(parallel), ..BackupTask::default() };
    assert_eq!(ending(&Worker::default().back_up_task(task, &api, &bucket).await), "Complete");
    let mut paths: Vec<String> = api.seen().into_iter().map(|(name, _)| name).collect();
    paths.retain(|name| !name.ends_with(" revision") && !name.ends_with(" names"));
    let mut paths: Vec<&str> = paths.iter().map(|name| name.split(" page ").next().unwrap()).collect();
    paths.dedup();
    let all = paths.len();
    paths.sort_unstable();
    paths.dedup();
    all - paths.len()
}

#[tokio::test(start_paused = true)]
async fn one_list_at_a_time_where_that_is_asked_for() {
    assert_eq!(changes(1).await, 0, "each kind is listed to its end");
    assert!(changes(4).await > 0, "several are listed at once");
}

#[tokio::test(start_paused = true)]
async fn a_busy_api_server_is_left_alone_for_as_long_as_it_asks() {
    let api = many();
    api.fault("GET /api/v1/secrets", Some(0), Fault::RetryAfter(429));
    let begun = tokio::time::Instant::now();
    let (result, _) = teams(&api, &[]).await;
    assert_eq!(ending(&result), "Complete");
    let waited = begun.elapsed().as_secs_f32();
    assert!((3.0..4.0).contains(&waited), "{waited} s instead of 3");
}
