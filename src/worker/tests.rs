use super::*;
use crate::archive::manifest::{FILE_NAMES, data_key, manifest_key};
use crate::config::{Location, Place};
use crate::id::Digest;
use crate::operations::backup::BackupTask;
use crate::operations::{Query, Usage};
use crate::rules::selection::Selection;
use bytes::Bytes;
use serde_json::json;

fn location() -> Location {
    let place = Place::Folder("/tmp/x".into());
    Location { name: None, place, role_arn: None, credentials_secret: None, read_only: false }
}

fn task(verb: Verb) -> Task {
    Task { id: BackupId::parse("shop-1").unwrap(), location: location(), verb }
}

fn backup() -> Verb {
    Verb::Backup(BackupTask { selection: Selection::of_namespaces(vec!["shop".into()]), ..BackupTask::default() })
}

#[test]
fn a_level_is_this_programs_alone() {
    assert_eq!(logged(Some("trace")), format!("{LOGGED},kubectl_backup=TRACE"));
    for other in [None, Some(""), Some("hyper=trace"), Some("trace,h2=trace")] {
        assert_eq!(logged(other), LOGGED);
    }
}

fn letter(without: &str, task: &str) -> anyhow::Result<Letter> {
    Letter::open(|name| {
        let text = match name {
            _ if name == without => return None,
            "KUBECTL_BACKUP_TASK" => task,
            "KUBECTL_BACKUP_NAMESPACE" => "kb",
            "KUBECTL_BACKUP_JOB" => "shop-1",
            "KUBECTL_BACKUP_JOB_UID" => "job-7",
            "KUBECTL_BACKUP_POD_UID" => "4f1c-pod",
            _ => return None,
        };
        Some(text.to_owned())
    })
}

#[test]
fn the_letter_is_opened_or_what_is_missing_is_named() {
    let text = serde_json::to_string(&task(backup())).unwrap();
    let opened = letter("", &text).unwrap();
    assert_eq!((opened.task, opened.owner.namespace.as_str()), (task(backup()), "kb"));
    assert_eq!((opened.owner.job_uid.as_str(), opened.attempt.as_str()), ("job-7", "4f1c-pod"));
    for name in ["KUBECTL_BACKUP_TASK", "KUBECTL_BACKUP_JOB_UID", "KUBECTL_BACKUP_POD_UID"] {
        let error = letter(name, &text).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    let later = letter("", r#"{"id":"a","location":{},"verb":{"clone":{}}}"#).unwrap_err();
    assert_eq!(operations::exit_code(&later), ExitCode::Usage);
    assert!(later.to_string().contains("hint: plugin and image must be of one version"), "{later}");
}

#[test]
fn an_error_is_one_line_with_its_hints_behind() {
    let inner = anyhow::anyhow!("no bucket\nhint: make one").context("storing: no bucket").context("committing");
    assert_eq!(told(&inner), "committing: storing: no bucket\nhint: make one");
    let twice = anyhow::anyhow!("a\nhint: x").context("b\nhint: x\nhint: y");
    assert_eq!(told(&twice), "b: a\nhint: x\nhint: y");
}

#[test]
fn the_pod_fails_only_when_the_run_did() {
    let done = |outcome: Outcome| Ok(Done { outcome, exit_code: outcome.into(), message: "m".into(), result: None });
    let partial = Verdict::of(&done(Outcome::Partial));
    assert_eq!((partial.code, partial.code_of_pod()), (ExitCode::Partial, ExitCode::Complete));
    assert_eq!(Verdict::of(&done(Outcome::Complete)).code_of_pod(), ExitCode::Complete);

    let wrong = Verdict::of(&Err(Usage("no".into()).into()));
    assert_eq!((wrong.outcome, wrong.code_of_pod()), (Outcome::Failed, ExitCode::Usage));
    let cancelled = Verdict::of(&Err(crate::pipeline::Error::Cancelled.into()));
    assert_eq!((cancelled.outcome, cancelled.code_of_pod()), (Outcome::Cancelled, ExitCode::Interrupted));
}

#[test]
fn only_backups_hand_nothing_over() {
    let query = Query { backup: crate::id::BackupQuery::Latest, from_cluster: None };
    assert!(!hands_over(&backup()));
    assert!(hands_over(&Verb::List) && hands_over(&Verb::Describe(query)));
}

fn manifest(id: &str, time: &str) -> Manifest {
    let id = BackupId::parse(id).unwrap();
    let attempt = Attempt::parse("a").unwrap();
    let file = |name: &str| json!({"key": data_key(&id, &attempt, name), "size": 1, "sha256": Digest::of(b"")});
    let [objects, index, report, log] = FILE_NAMES.map(file);
    serde_json::from_value(json!({
        "format": "kubectl-backup/1", "id": id, "attempt": "a", "cluster": {"uid": "u", "version": "v"},
        "scope": "cluster", "startedAt": time, "endedAt": time, "outcome": "Complete",
        "consistency": {"skewSeconds": 0.0}, "counts": {"objects": 0, "bytes": 0, "problems": 0, "omissions": 0},
        "files": {"objects": objects, "index": index, "report": report, "log": log}, "tool": "t"
    }))
    .unwrap()
}

#[tokio::test]
async fn manifests_that_are_known_are_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = store::open(&Location { place: Place::Folder(folder.path().into()), ..location() }).await.unwrap();
    let (old, new, mid) = (
        manifest("old-1", "2026-11-18T10:00:00Z"),
        manifest("new-1", "2026-11-20T10:00:00Z"),
        manifest("mid-1", "2026-11-19T10:00:00Z"),
    );
    for one in [&old, &new] {
        store.create(&manifest_key(&one.id), one.to_bytes().unwrap().into()).await.unwrap();
    }
    // the one that is known can't be read any more, and so wasn't
    store.create(&manifest_key(&mid.id), Bytes::from_static(b"{")).await.unwrap();
    let gone = manifest("gone-1", "2026-11-21T10:00:00Z");
    let list = newest_first(store.as_ref(), vec![gone, mid.clone()]).await.unwrap();
    assert_eq!(list, [new.clone(), mid, old.clone()]);
    assert_eq!(newest_first(store.as_ref(), Vec::new()).await.unwrap(), [new, old], "the damaged one is left out");
}

#[tokio::test]
async fn a_panic_is_an_error_and_says_nothing_of_what_was_looked_at() {
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let text = "{clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}], contexts: [{name: a, context: \
                {cluster: a, user: ''}}], current-context: a}";
    std::fs::write(kubeconfig.path(), text).unwrap();
    let options = connect::ConnectOptions { kubeconfig: Some(kubeconfig.path().into()), ..Default::default() };
    let cluster = connect::from_kubeconfig(&options).await.unwrap().cluster;
    let folder = tempfile::tempdir().unwrap();
    let location = Location { place: Place::Folder(folder.path().into()), ..location() };
    let task = Task { location, ..task(backup()) };
    let context = Context {
        now: Arc::new(Timestamp::now),
        events: Events::new(|_| panic!("secret value")),
        cancel: CancellationToken::new(),
        attempt: Attempt::parse("a").unwrap(),
        install_namespace: "kb".into(),
    };
    let error = carried_out(&task, &cluster, &context).await.map(|_| ()).unwrap_err();
    let text = told(&error);
    assert!(!text.contains("secret value"), "{text}");
    assert_eq!(operations::exit_code(&error), ExitCode::Failed);
}
