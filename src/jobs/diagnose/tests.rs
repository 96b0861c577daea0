use super::*;
use serde_json::{Value, json};

fn job(status: Value) -> Job {
    serde_json::from_value(json!({ "metadata": { "name": "shop-1", "uid": "j" }, "status": status })).unwrap()
}

fn pod(status: Value) -> Pod {
    pod_made("2026-11-20T10:00:00Z", status)
}

fn pod_made(created: &str, status: Value) -> Pod {
    let meta = json!({ "name": "shop-1-x7k2p", "uid": "p", "creationTimestamp": created });
    serde_json::from_value(json!({ "metadata": meta, "status": status })).unwrap()
}

fn container(phase: &str, state: Value) -> Value {
    json!({ "phase": phase, "containerStatuses": [{
        "name": "worker", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state }] })
}

fn waiting(reason: &str, message: &str) -> Value {
    container("Pending", json!({ "waiting": { "reason": reason, "message": message } }))
}

fn terminated(reason: &str, code: i32, message: &str) -> Value {
    container("Failed", json!({ "terminated": { "reason": reason, "exitCode": code, "message": message } }))
}

fn event(uid: &str, reason: &str, time: &str, message: &str) -> Event {
    let object = json!({ "metadata": {}, "involvedObject": { "uid": uid }, "reason": reason, "message": message,
        "type": "Warning", "lastTimestamp": time });
    serde_json::from_value(object).unwrap()
}

fn failed(reason: &str, message: &str) -> Job {
    job(json!({ "failed": 1, "conditions": [
        { "type": "FailureTarget", "status": "True", "reason": reason, "message": message },
        { "type": "Failed", "status": "True", "reason": reason, "message": message }] }))
}

#[test]
fn pods_that_wait_say_why() {
    let unschedulable = json!({ "phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available" }] });
    let gated = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
        "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates" }] });
    let gone = "rpc error: code = NotFound desc = failed to pull and unpack image \"r/kb:9\": r/kb:9: not found";
    let timeout = "rpc error: code = Unknown desc = failed to do request: dial tcp 10.0.0.1:443: i/o timeout";
    let root = "container has runAsNonRoot and image will run as root (pod: \"shop-1-x7k2p_kb(p)\", container: worker)";
    for (status, cause, message, definite) in [
        (waiting("ErrImagePull", gone), Cause::ImagePull, gone, true),
        (waiting("ErrImagePull", timeout), Cause::ImagePull, timeout, false),
        (
            waiting("ImagePullBackOff", "Back-off pulling image \"r/kb:9\": ErrImagePull: r/kb:9: not found"),
            Cause::ImagePull,
            "Back-off pulling image \"r/kb:9\": ErrImagePull: r/kb:9: not found",
            true,
        ),
        (
            waiting("ErrImageNeverPull", "Container image \"kb:1\" is not present with pull policy of Never"),
            Cause::ImageNotPresent,
            "Container image \"kb:1\" is not present with pull policy of Never",
            true,
        ),
        (
            waiting("InvalidImageName", "Failed to apply default image tag \"KB\": invalid reference format"),
            Cause::ImageName,
            "Failed to apply default image tag \"KB\": invalid reference format",
            true,
        ),
        (
            waiting("CreateContainerConfigError", "secret \"keys\" not found"),
            Cause::ContainerConfig,
            "secret \"keys\" not found",
            true,
        ),
        (waiting("CreateContainerConfigError", root), Cause::ContainerConfig, root, true),
        (
            waiting("RunContainerError", "context deadline exceeded"),
            Cause::ContainerStart,
            "context deadline exceeded",
            false,
        ),
        (
            unschedulable,
            Cause::Unschedulable,
            "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available",
            false,
        ),
        (gated, Cause::Suspended, "Scheduling is blocked due to non-empty scheduling gates", false),
    ] {
        let found = diagnose(&job(json!({ "active": 1 })), &[pod(status)], &[]).unwrap();
        assert_eq!((found.cause, found.message.as_str(), found.definite), (cause, message, definite));
        assert_eq!(found.object, "pod shop-1-x7k2p");
    }
}

#[test]
fn while_the_kubelet_backs_off_the_last_try_tells() {
    let events = [
        event("p", "Failed", "2026-11-20T10:00:01Z", "Failed to pull image \"r/kb:9\": old"),
        event("p", "Failed", "2026-11-20T10:00:09Z", "Failed to pull image \"r/kb:9\": manifest unknown"),
        event("p", "Failed", "2026-11-20T10:00:10Z", "Error: ErrImagePull"),
        event("other", "Failed", "2026-11-20T10:00:11Z", "Failed to pull image \"z\": z"),
    ];
    let status = waiting("ImagePullBackOff", "Back-off pulling image \"r/kb:9\"");
    let found = diagnose(&job(json!({})), &[pod(status)], &events).unwrap();
    assert_eq!((found.message.as_str(), found.definite), ("Failed to pull image \"r/kb:9\": manifest unknown", true));
}

#[test]
fn pods_that_cannot_be_created_say_why() {
    let account = "pods \"shop-1-\" is forbidden: error looking up service account kb/kubectl-backup-reader: serviceaccount \"kubectl-backup-reader\" not found";
    let quota =
        "pods \"shop-1-x\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4";
    let unset = "pods \"shop-1-x\" is forbidden: failed quota: mem: must specify limits.memory for: worker";
    let security =
        "pods \"shop-1-x\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false";
    let webhook = "admission webhook \"validate.kyverno.svc-fail\" denied the request: resource Pod/kb was blocked";
    let range = "pods \"shop-1-x\" is forbidden: maximum memory usage per Container is 256Mi, but limit is 512Mi";
    let broken =
        "Internal error occurred: failed calling webhook \"pod-identity-webhook.amazonaws.com\": connection refused";
    let dead =
        "Internal error occurred: failed calling admission webhook \"x\": connection refused, failed calling webhook";
    for (message, cause, definite) in [
        (account, Cause::ServiceAccount, true),
        (quota, Cause::Quota, true),
        (unset, Cause::Quota, true),
        (security, Cause::Admission, true),
        (webhook, Cause::Admission, true),
        (range, Cause::Admission, true),
        (broken, Cause::PodCreation, false),
        (dead, Cause::Admission, false),
    ] {
        let said = format!("Error creating: {message}");
        let found =
            diagnose(&job(json!({})), &[], &[event("j", "FailedCreate", "2026-11-20T10:00:01Z", &said)]).unwrap();
        assert_eq!((found.cause, found.message.as_str(), found.definite), (cause, message, definite));
        assert_eq!(found.object, "job shop-1");
    }
}

#[test]
fn what_the_node_cannot_do_is_in_its_events() {
    let mount = "MountVolume.SetUp failed for volume \"token\" : failed to fetch token: not found";
    let sandbox = "Failed to create pod sandbox: plugin type=\"aws-cni\": failed to assign an IP address to container";
    for (reason, message, cause) in
        [("FailedMount", mount, Cause::Mount), ("FailedCreatePodSandBox", sandbox, Cause::Sandbox)]
    {
        let status = container("Pending", json!({ "waiting": { "reason": "ContainerCreating" } }));
        let events = [event("p", reason, "2026-11-20T10:00:01Z", message)];
        let found = diagnose(&job(json!({})), &[pod(status)], &events).unwrap();
        assert_eq!((found.cause, found.message.as_str(), found.definite), (cause, message, false));
    }
}

#[test]
fn failed_jobs_say_why() {
    let limit = failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    let policy_text =
        "Container worker for pod kb/shop-1-x7k2p failed with exit code 6 matching FailJob rule at index 1";
    let policy = failed("PodFailurePolicy", policy_text);
    let deadline_text = "Job was active longer than specified deadline";
    let deadline = failed("DeadlineExceeded", deadline_text);
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." });
    let oom = "container `worker` was killed (OOMKilled)";
    for (job, status, cause, message) in [
        (&limit, terminated("OOMKilled", 137, ""), Cause::OutOfMemory, oom),
        (&limit, evicted, Cause::Evicted, "The node was low on resource: memory."),
        (
            &limit,
            terminated("Error", 143, "{\"a\":1}\nlast words"),
            Cause::Crashed,
            "container `worker` ended with exit code 143: last words",
        ),
        (
            &limit,
            terminated("StartError", 128, "exec /kubectl-backup: exec format error"),
            Cause::ContainerStart,
            "exec /kubectl-backup: exec format error",
        ),
        (&policy, terminated("Error", 6, "x"), Cause::Verdict, policy_text),
        (&deadline, container("Failed", json!({ "terminated": { "exitCode": 143 } })), Cause::Deadline, deadline_text),
        (&deadline, waiting("ErrImagePull", "no route"), Cause::ImagePull, "no route"),
    ] {
        let found = diagnose(job, &[pod(status)], &[]).unwrap();
        assert_eq!((found.cause, found.message.as_str(), found.definite), (cause, message, true));
    }
    let found = diagnose(&deadline, &[], &[]).unwrap();
    assert_eq!((found.cause, found.message.as_str()), (Cause::Deadline, deadline_text));
    let found = diagnose(&limit, &[], &[]).unwrap();
    assert_eq!(found.cause, Cause::Crashed);
}

#[test]
fn a_job_that_tries_again_says_what_happened_before() {
    let first = pod_made("2026-11-20T10:00:00Z", terminated("OOMKilled", 137, ""));
    let running = container("Running", json!({ "running": {} }));
    let active = job(json!({ "active": 1, "failed": 1 }));
    let found = diagnose(&active, std::slice::from_ref(&first), &[]).unwrap();
    assert_eq!((found.cause, found.definite), (Cause::OutOfMemory, false));
    let both = [pod_made("2026-11-20T10:00:30Z", running), first];
    assert_eq!(diagnose(&active, &both, &[]), None);
}

#[test]
fn nothing_is_wrong_with_what_goes_its_way() {
    let creating = container("Pending", json!({ "waiting": { "reason": "ContainerCreating" } }));
    let running = container("Running", json!({ "running": { "startedAt": "2026-11-20T10:00:00Z" } }));
    let done = container("Succeeded", json!({ "terminated": { "exitCode": 0, "reason": "Completed" } }));
    for status in [creating, running, done, json!({ "phase": "Pending" })] {
        assert_eq!(diagnose(&job(json!({ "active": 1 })), &[pod(status)], &[]), None);
    }
    assert_eq!(diagnose(&job(json!({})), &[], &[]), None);
    let suspended = json!({ "conditions": [{ "type": "Suspended", "status": "True", "message": "Job suspended" }] });
    let found = diagnose(&job(suspended), &[], &[]).unwrap();
    assert_eq!((found.cause, found.definite), (Cause::Suspended, false));
}

#[test]
fn texts_are_for_people_and_harmless() {
    let status = waiting("ErrImageNeverPull", "image \u{1b}[31mred\nsecond line");
    let found = diagnose(&job(json!({})), &[pod(status)], &[]).unwrap();
    assert_eq!(
        found.to_string(),
        "the image isn't on the node and may not be pulled (`pod shop-1-x7k2p`): image  [31mred second line\n\
         hint: load the image onto the nodes, or set `job.imagePullPolicy: IfNotPresent`"
    );
}
