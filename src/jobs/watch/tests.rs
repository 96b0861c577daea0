use super::super::fake::{Fake, failure};
use super::*;
use crate::id::Attempt;
use crate::report::Outcome;
use jiff::Timestamp;
use serde_json::{Value, json};

const JOB: &str = "/apis/batch/v1/namespaces/kb/jobs/shop-1";
const MAP: &str = "/api/v1/namespaces/kb/configmaps/shop-1";
const PODS: &str = "/api/v1/namespaces/kb/pods";
const POD: &str = "/api/v1/namespaces/kb/pods/shop-1-x7k2p";
const EVENTS: &str = "/api/v1/namespaces/kb/events";

fn fast(until: Until) -> Wait {
    let moment = Duration::from_millis(1);
    let pace = Pace { young: moment, grown: moment, old: moment, aside: Duration::ZERO };
    Wait { until, pace, give_up: Duration::from_millis(30), ..Wait::default() }
}

fn id() -> BackupId {
    BackupId::parse("shop-1").unwrap()
}

fn job(status: Value) -> Value {
    json!({ "metadata": { "name": "shop-1", "uid": "j" }, "status": status })
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!({ "conditions": [{ "type": kind, "status": "True", "reason": reason, "message": message }] })
}

fn pod(status: Value) -> Value {
    json!({ "metadata": { "name": "shop-1-x7k2p", "uid": "p", "creationTimestamp": "2026-11-20T10:00:00Z",
        "labels": { "batch.kubernetes.io/job-name": "shop-1" } }, "spec": { "nodeName": "n", "containers": [] },
        "status": status })
}

fn waiting(reason: &str, message: &str) -> Value {
    pod(json!({ "phase": "Pending", "containerStatuses": [{ "name": "worker", "image": "i", "imageID": "",
        "ready": false, "restartCount": 0, "state": { "waiting": { "reason": reason, "message": message } } }] }))
}

fn status(phase: Phase) -> Status {
    let mut status = Status::new(id(), "backup", "0.1.0", Attempt::parse("p").unwrap(), Timestamp::UNIX_EPOCH);
    status.phase = phase;
    status
}

fn map(status: &Status) -> Value {
    json!({ "metadata": { "name": "shop-1", "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job",
        "name": "shop-1", "uid": "j" }] }, "data": { "status": status.to_json() } })
}

fn ended(outcome: Outcome, code: ExitCode, message: Option<&str>) -> Status {
    let mut status = status(Phase::Saving);
    status.end(outcome, code, message, Timestamp::UNIX_EPOCH);
    status
}

async fn wait(fake: &Fake, wait: &Wait) -> (Result<Ended, Error>, Vec<View>) {
    let mut views = Vec::new();
    let ended = watch(&fake.client(), "kb", &id(), wait, |view| views.push(view.clone())).await;
    (ended, views)
}

#[tokio::test]
async fn a_run_is_seen_from_start_to_end() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({})));
    fake.at("GET", JOB, 2, |objects| {
        objects.insert(JOB.into(), job(json!({ "active": 1 })));
        objects.insert(POD.into(), pod(json!({ "phase": "Pending" })));
    });
    fake.at("GET", JOB, 4, |objects| {
        objects.insert(POD.into(), pod(json!({ "phase": "Running" })));
        objects.insert(MAP.into(), map(&status(Phase::Saving)));
    });
    // the Job is Complete before the status is read: the last word is fetched all the same
    fake.at("GET", JOB, 6, |objects| drop(objects.insert(JOB.into(), job(condition("Complete", "", "")))));
    fake.at("GET", MAP, 7, |objects| {
        objects.insert(MAP.into(), map(&ended(Outcome::Partial, ExitCode::Partial, Some("2 problems"))));
    });
    let (result, views) = wait(&fake, &fast(Until::Ended)).await;
    let end = result.unwrap();
    assert_eq!((end.how, end.exit_code(), end.failure()), (How::Finished, ExitCode::Partial, None));
    assert_eq!(end.view.job, JobState::Complete);
    let phases: Vec<_> = views.iter().map(|view| view.status.as_ref().map(|status| status.phase)).collect();
    assert_eq!(phases.first(), Some(&None));
    assert!(phases.contains(&Some(Phase::Saving)) && phases.last() == Some(&Some(Phase::Ended)), "{phases:?}");
    let seen = views.iter().filter_map(|view| view.pod.as_ref()).map(|pod| pod.phase.clone());
    assert_eq!(seen.collect::<std::collections::BTreeSet<_>>().len(), 2);
    assert!(views.windows(2).all(|pair| pair[0] != pair[1]), "only changes are told");
}

#[tokio::test]
async fn the_workers_last_word_is_enough() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({ "active": 1 })));
    fake.put(MAP, map(&ended(Outcome::Complete, ExitCode::Complete, None)));
    let end = wait(&fake, &fast(Until::Ended)).await.0.unwrap();
    assert_eq!((end.how, end.exit_code()), (How::Finished, ExitCode::Complete));
    // but not that of an attempt that was interrupted: another follows
    fake.put(MAP, map(&ended(Outcome::Cancelled, ExitCode::Interrupted, None)));
    let patience = Wait { deadline: Some(Duration::from_millis(10)), ..fast(Until::Ended) };
    let end = wait(&fake, &patience).await.0.unwrap();
    assert_eq!((end.how, end.exit_code()), (How::StillRunning, ExitCode::StillRunning));
}

#[tokio::test]
async fn a_failed_job_ends_the_wait_with_the_workers_words_or_the_pods() {
    let fake = Fake::default();
    fake.put(JOB, job(condition("Failed", "PodFailurePolicy", "exit code 6")));
    fake.put(MAP, map(&ended(Outcome::Failed, ExitCode::Forbidden, Some("no access to `s3://b`\nhint: ask"))));
    let end = wait(&fake, &fast(Until::Ended)).await.0.unwrap();
    assert_eq!(
        (end.exit_code(), end.failure().unwrap().as_str()),
        (ExitCode::Forbidden, "no access to `s3://b`\nhint: ask")
    );

    let fake = Fake::default();
    fake.put(JOB, job(condition("Failed", "BackoffLimitExceeded", "limit")));
    fake.put(MAP, map(&status(Phase::Saving)));
    fake.put(
        POD,
        pod(json!({ "phase": "Failed", "containerStatuses": [{ "name": "worker", "image": "i", "imageID": "",
            "ready": false, "restartCount": 0, "state": { "terminated": { "reason": "OOMKilled", "exitCode": 137 } } }] })),
    );
    let end = wait(&fake, &fast(Until::Ended)).await.0.unwrap();
    assert_eq!((end.how, end.exit_code()), (How::Finished, ExitCode::Failed));
    assert!(end.failure().unwrap().starts_with("the worker ran out of memory (`pod shop-1-x7k2p`): "));
}

#[tokio::test]
async fn a_job_that_is_complete_without_a_last_word_is_no_success() {
    let fake = Fake::default();
    fake.put(JOB, job(condition("Complete", "", "")));
    let end = wait(&fake, &fast(Until::Ended)).await.0.unwrap();
    assert_eq!(end.exit_code(), ExitCode::Failed);
    assert!(end.failure().unwrap().starts_with("the worker ended well and left no status"));
}

#[tokio::test]
async fn what_cannot_start_is_told_at_once_and_given_up_when_definite() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({ "active": 1 })));
    fake.put(POD, waiting("ErrImageNeverPull", "not present"));
    let (result, views) = wait(&fake, &fast(Until::Ended)).await;
    let end = result.unwrap();
    assert_eq!((end.how, end.exit_code()), (How::CannotStart, ExitCode::Failed));
    assert_eq!(views[0].diagnosis.as_ref().unwrap().cause, Cause::ImageNotPresent);
    assert!(end.failure().unwrap().contains("not present\nhint: "));
    assert!(fake.get(JOB).is_some(), "the caller decides about the job");

    // what may heal is told, and waited for
    fake.put(POD, waiting("ErrImagePull", "i/o timeout"));
    let patience = Wait { deadline: Some(Duration::from_millis(60)), ..fast(Until::Ended) };
    let (result, views) = wait(&fake, &patience).await;
    assert_eq!(result.unwrap().how, How::StillRunning);
    assert_eq!(views[0].diagnosis.as_ref().unwrap().cause, Cause::ImagePull);
}

#[tokio::test]
async fn what_heals_in_time_goes_on() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({ "active": 1 })));
    fake.put(POD, waiting("CreateContainerConfigError", "secret \"keys\" not found"));
    fake.at("GET", JOB, 3, |objects| {
        objects.insert(POD.into(), pod(json!({ "phase": "Running" })));
        objects.insert(MAP.into(), map(&status(Phase::Saving)));
    });
    fake.at("GET", JOB, 5, |objects| {
        objects.insert(MAP.into(), map(&ended(Outcome::Complete, ExitCode::Complete, None)));
    });
    let slow = Wait { give_up: Duration::from_secs(3600), ..fast(Until::Ended) };
    let (result, views) = wait(&fake, &slow).await;
    assert_eq!(result.unwrap().exit_code(), ExitCode::Complete);
    assert!(views[0].diagnosis.is_some() && views.last().unwrap().diagnosis.is_none());
}

#[tokio::test]
async fn pods_that_never_come_are_explained_by_events() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({})));
    let message = "Error creating: pods \"shop-1-\" is forbidden: error looking up service account kb/kubectl-backup-reader: serviceaccount \"kubectl-backup-reader\" not found";
    fake.put(
        &format!("{EVENTS}/e"),
        json!({ "metadata": { "name": "e", "namespace": "kb" }, "involvedObject": { "uid": "j" },
            "reason": "FailedCreate", "message": message, "lastTimestamp": "2026-11-20T10:00:01Z" }),
    );
    let end = wait(&fake, &fast(Until::Ended)).await.0.unwrap();
    assert_eq!((end.how, end.view.diagnosis.unwrap().cause), (How::CannotStart, Cause::ServiceAccount));
    assert!(fake.calls("GET", EVENTS)[0].query.contains("fieldSelector=involvedObject.uid%3Dj"));
}

#[tokio::test]
async fn a_result_that_waits_ends_the_wait_with_its_pod() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({ "active": 1 })));
    fake.put(POD, pod(json!({ "phase": "Running" })));
    let mut other = pod(json!({ "phase": "Running" }));
    other["metadata"]["uid"] = json!("later");
    other["metadata"]["creationTimestamp"] = json!("2026-11-20T10:09:00Z");
    fake.put(&format!("{PODS}/shop-1-later"), other);
    fake.put(MAP, map(&status(Phase::ResultReady)));
    let end = wait(&fake, &fast(Until::Result)).await.0.unwrap();
    assert_eq!((end.how, end.view.pod.unwrap().name.as_str()), (How::ResultReady, "shop-1-x7k2p"));
    assert!(fake.calls("GET", PODS)[0].query.contains("labelSelector=batch.kubernetes.io%2Fjob-name%3Dshop-1"));
}

#[tokio::test]
async fn a_job_that_is_gone_is_an_error_unless_it_had_ended() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({ "active": 1 })));
    fake.put(MAP, map(&status(Phase::Saving)));
    fake.at("GET", JOB, 3, |objects| {
        objects.remove(JOB);
        objects.remove(MAP);
    });
    let error = wait(&fake, &fast(Until::Ended)).await.0.unwrap_err();
    assert_eq!(error.to_string(), "job `shop-1` is gone: it was deleted or cancelled while it was waited for");
    assert_eq!(error.exit_code(), ExitCode::NotFound);

    fake.put(MAP, map(&ended(Outcome::Complete, ExitCode::Complete, None)));
    assert_eq!(wait(&fake, &fast(Until::Ended)).await.0.unwrap().exit_code(), ExitCode::Complete);
}

#[tokio::test]
async fn a_status_that_somebody_else_wrote_is_not_believed() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({ "active": 1 })));
    let mut forged = map(&ended(Outcome::Complete, ExitCode::Complete, None));
    forged["metadata"]["ownerReferences"][0]["uid"] = json!("other");
    fake.put(MAP, forged);
    let patience = Wait { deadline: Some(Duration::from_millis(10)), ..fast(Until::Ended) };
    let end = wait(&fake, &patience).await.0.unwrap();
    assert_eq!((end.how, end.view.status), (How::StillRunning, None));
    assert!(end.view.unreadable.unwrap().contains("doesn't belong"));
    let mut broken = map(&status(Phase::Saving));
    broken["data"]["status"] = json!("{");
    fake.put(MAP, broken);
    assert!(wait(&fake, &patience).await.0.unwrap().view.unreadable.unwrap().contains("can't be read"));
}

#[tokio::test]
async fn an_api_server_that_is_away_for_a_moment_is_waited_for() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({ "active": 1 })));
    fake.put(MAP, map(&ended(Outcome::Complete, ExitCode::Complete, None)));
    (0..3).for_each(|_| fake.break_off("GET", JOB));
    fake.answer("GET", JOB, 503, failure(503, "ServiceUnavailable", "restarting"));
    assert_eq!(wait(&fake, &fast(Until::Ended)).await.0.unwrap().exit_code(), ExitCode::Complete);

    (0..1000).for_each(|_| fake.break_off("GET", JOB));
    let hasty = Wait { patience: Duration::from_millis(5), ..fast(Until::Ended) };
    assert!(wait(&fake, &hasty).await.0.unwrap_err().is_transient());
}

#[tokio::test]
async fn who_may_not_see_pods_or_events_can_still_wait() {
    let fake = Fake::default();
    fake.put(JOB, job(json!({ "active": 1 })));
    let text = r#"pods is forbidden: User "ann" cannot list resource "pods" in API group """#;
    (0..50).for_each(|_| fake.answer("GET", PODS, 403, failure(403, "Forbidden", text)));
    (0..50).for_each(|_| fake.answer("GET", EVENTS, 403, failure(403, "Forbidden", text)));
    fake.at("GET", JOB, 3, |objects| {
        objects.insert(MAP.into(), map(&ended(Outcome::Complete, ExitCode::Complete, None)));
    });
    assert_eq!(wait(&fake, &fast(Until::Ended)).await.0.unwrap().exit_code(), ExitCode::Complete);

    let text = r#"jobs.batch is forbidden: User "ann" cannot get resource "jobs" in API group "batch""#;
    fake.answer("GET", JOB, 403, failure(403, "Forbidden", text));
    assert_eq!(wait(&fake, &fast(Until::Ended)).await.0.unwrap_err().exit_code(), ExitCode::Forbidden);
}
