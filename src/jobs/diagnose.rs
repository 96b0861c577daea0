//! Why a run can't start, or ended without a word: decided from its Job, its pods and their events, each with the
//! object's own message. Pure; who waits fetches the objects.

use super::CONTAINER;
use super::text::line;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Event, Pod};
use std::fmt;

const MESSAGE_LIMIT: usize = 1000;

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The image can't be pulled.
    ImagePull,
    /// The image isn't on the node, and the policy forbids pulling it.
    ImageNotPresent,
    /// The image's name is no image name.
    ImageName,
    /// No node has room, or none fits.
    Unschedulable,
    /// A quota is used up.
    Quota,
    /// Admission refuses the pod: Pod Security, a security context constraint, a limit range, a webhook.
    Admission,
    /// The service account isn't there.
    ServiceAccount,
    /// The pod can't be created for another reason.
    PodCreation,
    /// The container's configuration can't be had: a Secret is missing, or the image runs as root.
    ContainerConfig,
    /// The container can't be started.
    ContainerStart,
    /// A volume can't be mounted.
    Mount,
    /// The pod's network can't be set up.
    Sandbox,
    /// The worker used more memory than it may.
    OutOfMemory,
    /// The node got rid of the pod.
    Evicted,
    /// The worker was killed, or ended in a way it doesn't by itself.
    Crashed,
    /// The worker ended with a verdict of its own.
    Verdict,
    /// The Job took longer than it may.
    Deadline,
    /// Somebody suspended the Job, or a queue holds it back.
    Suspended,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ImagePull => "the image can't be pulled",
            Self::ImageNotPresent => "the image isn't on the node and may not be pulled",
            Self::ImageName => "the image's name is not valid",
            Self::Unschedulable => "no node takes the pod",
            Self::Quota => "a quota is used up",
            Self::Admission => "the pod isn't admitted",
            Self::ServiceAccount => "the service account is missing",
            Self::PodCreation => "the pod can't be created",
            Self::ContainerConfig => "the container's configuration is incomplete",
            Self::ContainerStart => "the container can't be started",
            Self::Mount => "a volume can't be mounted",
            Self::Sandbox => "the pod's network can't be set up",
            Self::OutOfMemory => "the worker ran out of memory",
            Self::Evicted => "the worker's pod was evicted",
            Self::Crashed => "the worker was killed or crashed",
            Self::Verdict => "the worker failed",
            Self::Deadline => "the job took longer than it may",
            Self::Suspended => "the job is held back",
        })
    }
}

impl Cause {
    fn hint(self) -> &'static str {
        match self {
            Self::ImagePull => {
                "nodes must reach the registry; `job.image` and `job.imagePullSecrets` in `kubectl-backup-config` name another one"
            }
            Self::ImageNotPresent => "load the image onto the nodes, or set `job.imagePullPolicy: IfNotPresent`",
            Self::ImageName => "correct `job.image` in `kubectl-backup-config`",
            Self::Unschedulable => {
                "see `job.resources`, `job.nodeSelector` and `job.tolerations`; where an autoscaler adds a node, it goes on by itself"
            }
            Self::Quota => "raise the quota of the install namespace, or ask for less in `job.resources`",
            Self::Admission => {
                "admit the pod, or set what is asked for in `job.labels`, `job.annotations` or `job.resources`"
            }
            Self::ServiceAccount => "run `kubectl backup init`",
            Self::PodCreation => "`kubectl describe job` shows the same events as they go on",
            Self::ContainerConfig => {
                "is the Secret that the location names as `credentialsSecret` in the install namespace?"
            }
            Self::ContainerStart => "is the image for this node's architecture, and is it ours?",
            Self::Mount => "what the pod mounts are its own tokens; the node's kubelet knows more",
            Self::Sandbox => "the node's network plugin failed; on EKS a subnet may have run out of addresses",
            Self::OutOfMemory => "raise `limits.memory` in `job.resources` of `kubectl-backup-config`",
            Self::Evicted => "the node was short of something or drained; the job tries again by itself",
            Self::Crashed => "`kubectl backup logs` shows what it said last",
            Self::Verdict => "`kubectl backup logs` shows why",
            Self::Deadline => "raise `job.activeDeadlineSeconds` in `kubectl-backup-config`, to 72000 at most",
            Self::Suspended => "`kubectl describe job` shows who suspended it",
        }
    }
}

/// Why a run doesn't get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What stands in the way.
    pub cause: Cause,
    /// The object that says so: `pod shop-1-x7k2p`.
    pub object: String,
    /// The object's own message, on one line.
    pub message: String,
    /// The way out.
    pub hint: String,
    /// Whether it won't heal by itself.
    pub definite: bool,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (`{}`): {}\nhint: {}", self.cause, self.object, self.message, self.hint)
    }
}

impl Diagnosis {
    fn new(cause: Cause, object: String, message: &str, definite: bool) -> Self {
        let message = match line(message, MESSAGE_LIMIT) {
            empty if empty.is_empty() => "no reason given".to_owned(),
            message => message,
        };
        Self { cause, object, message, hint: cause.hint().to_owned(), definite }
    }
}

/// Why a run doesn't get on, or why it ended; `None` while nothing is wrong. `pods` are the Job's, `events` may be of
/// anything.
pub fn diagnose(job: &Job, pods: &[Pod], events: &[Event]) -> Option<Diagnosis> {
    let newest = pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let conditions = || job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let holds = |kind: &str| conditions().find(|c| c.type_ == kind && c.status == "True");
    if let Some(failed) = holds("Failed").or_else(|| holds("FailureTarget")) {
        return Some(of_failed(job, failed, newest, events));
    }
    let trouble = match newest {
        Some(pod) => of_pod(pod, events),
        None => of_creation(job, events),
    };
    trouble.or_else(|| {
        let suspended = holds("Suspended")?;
        let message = suspended.message.as_deref().unwrap_or_default();
        Some(Diagnosis::new(Cause::Suspended, name("job", &job.metadata), message, false))
    })
}

fn name(kind: &str, meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> String {
    line(&format!("{kind} {}", meta.name.as_deref().unwrap_or_default()), 300)
}

/// The Job says why it failed; what its last pod says is closer to the cause, except where the worker itself decided.
fn of_failed(job: &Job, failed: &JobCondition, newest: Option<&Pod>, events: &[Event]) -> Diagnosis {
    let message = failed.message.as_deref().unwrap_or_default();
    let of_job = |cause| Diagnosis::new(cause, name("job", &job.metadata), message, true);
    let of_pod = newest.and_then(|pod| of_pod(pod, events)).map(|pod| Diagnosis { definite: true, ..pod });
    match failed.reason.as_deref().unwrap_or_default() {
        "PodFailurePolicy" => of_job(Cause::Verdict),
        "DeadlineExceeded" => match of_pod {
            Some(pod) if pod.cause != Cause::Crashed => pod,
            _ => of_job(Cause::Deadline),
        },
        _ => of_pod.or_else(|| of_creation(job, events)).unwrap_or_else(|| of_job(Cause::Crashed)),
    }
}

fn of_pod(pod: &Pod, events: &[Event]) -> Option<Diagnosis> {
    let status = pod.status.as_ref()?;
    let found =
        |cause, message: &str, definite| Some(Diagnosis::new(cause, name("pod", &pod.metadata), message, definite));
    if status.reason.as_deref() == Some("Evicted") {
        return found(Cause::Evicted, status.message.as_deref().unwrap_or_default(), false);
    }
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for container in containers {
        let state = container.state.as_ref();
        if let Some((cause, message, definite)) =
            state.and_then(|s| s.waiting.as_ref()).and_then(|w| of_waiting(w, pod, events))
        {
            return found(cause, &message, definite);
        }
        if let Some((cause, message)) =
            state.and_then(|s| s.terminated.as_ref()).and_then(|t| of_terminated(t, container))
        {
            return found(cause, &message, false);
        }
    }
    if status.phase.as_deref() != Some("Pending") {
        return None;
    }
    let unscheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        let held = condition.reason.as_deref() == Some("SchedulingGated");
        let cause = if held { Cause::Suspended } else { Cause::Unschedulable };
        return found(cause, condition.message.as_deref().unwrap_or_default(), false);
    }
    let newest = newest_event(pod.metadata.uid.as_deref(), events, |reason, _| {
        matches!(reason, "FailedMount" | "FailedAttachVolume" | "FailedCreatePodSandBox" | "NetworkNotReady")
    })?;
    let mount = matches!(newest.reason.as_deref(), Some("FailedMount" | "FailedAttachVolume"));
    let cause = if mount { Cause::Mount } else { Cause::Sandbox };
    found(cause, newest.message.as_deref().unwrap_or_default(), false)
}

/// The reasons are the kubelet's (`pkg/kubelet/images/types.go`, `pkg/kubelet/container/sync_result.go`).
fn of_waiting(waiting: &ContainerStateWaiting, pod: &Pod, events: &[Event]) -> Option<(Cause, String, bool)> {
    let message = waiting.message.clone().unwrap_or_default();
    let cause = match waiting.reason.as_deref().unwrap_or_default() {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "RegistryUnavailable"
        | "SignatureValidationFailed"
        | "ImageInspectError" => {
            let message = pull_message(message, pod, events);
            let definite = never_pulls(&message);
            return Some((Cause::ImagePull, message, definite));
        }
        "ErrImageNeverPull" => Cause::ImageNotPresent,
        "InvalidImageName" => Cause::ImageName,
        "CreateContainerConfigError" => Cause::ContainerConfig,
        "CreateContainerError" | "RunContainerError" | "PreCreateHookError" | "PreStartHookError" => {
            return Some((Cause::ContainerStart, message, false));
        }
        _ => return None,
    };
    Some((cause, message, true))
}

/// While the kubelet backs off, older ones say only that they do; the reason is in the event of the last try.
fn pull_message(message: String, pod: &Pod, events: &[Event]) -> String {
    if !message.starts_with("Back-off pulling image") || message.contains(": ") {
        return message;
    }
    let last = newest_event(pod.metadata.uid.as_deref(), events, |reason, text| {
        reason == "Failed" && text.starts_with("Failed to pull image")
    });
    last.and_then(|event| event.message.clone()).unwrap_or(message)
}

/// Whether the registry said that there is no such image; everything else (no route, no login yet) may still change.
fn never_pulls(message: &str) -> bool {
    let message = message.to_lowercase();
    ["not found", "manifest unknown", "repository does not exist", "no match for platform"]
        .iter()
        .any(|sign| message.contains(sign))
}

fn of_terminated(end: &ContainerStateTerminated, container: &ContainerStatus) -> Option<(Cause, String)> {
    if end.exit_code == 0 || container.name != CONTAINER {
        return None;
    }
    let said = end.message.clone().unwrap_or_default();
    let last = said.lines().last().unwrap_or_default();
    Some(match end.reason.as_deref() {
        Some("OOMKilled") => (Cause::OutOfMemory, format!("container `{CONTAINER}` was killed (OOMKilled)")),
        Some("StartError" | "ContainerCannotRun") => (Cause::ContainerStart, said),
        _ if matches!(end.exit_code, 1 | 2 | 5 | 6 | 7) => {
            (Cause::Verdict, format!("container `{CONTAINER}` ended with exit code {}: {last}", end.exit_code))
        }
        _ => (Cause::Crashed, format!("container `{CONTAINER}` ended with exit code {}: {last}", end.exit_code)),
    })
}

/// The Job controller couldn't create a pod: its event holds the API server's answer.
fn of_creation(job: &Job, events: &[Event]) -> Option<Diagnosis> {
    let event = newest_event(job.metadata.uid.as_deref(), events, |reason, _| reason == "FailedCreate")?;
    let message = event.message.as_deref().unwrap_or_default();
    let message = message.strip_prefix("Error creating: ").unwrap_or(message);
    let has = |part: &str| message.contains(part);
    let cause = if has("error looking up service account") || (has("serviceaccount") && has("not found")) {
        Cause::ServiceAccount
    } else if has("exceeded quota") || has("failed quota") {
        Cause::Quota
    } else if has("denied the request") || has("admission webhook") || has("forbidden") {
        Cause::Admission
    } else {
        Cause::PodCreation
    };
    // a webhook that can't be called isn't a verdict
    let definite = cause != Cause::PodCreation && !has("failed calling webhook");
    Some(Diagnosis::new(cause, name("job", &job.metadata), message, definite))
}

/// The newest event about an object whose reason and message are wanted.
fn newest_event<'a>(uid: Option<&str>, events: &'a [Event], wanted: impl Fn(&str, &str) -> bool) -> Option<&'a Event> {
    let about = |event: &&Event| {
        let (reason, message) = (event.reason.as_deref().unwrap_or_default(), event.message.as_deref());
        uid.is_some() && event.involved_object.uid.as_deref() == uid && wanted(reason, message.unwrap_or_default())
    };
    let time = |event: &&Event| {
        let seen = [event.last_timestamp.as_ref().map(|time| time.0), event.event_time.as_ref().map(|time| time.0)];
        seen.into_iter().flatten().max()
    };
    events.iter().filter(about).max_by_key(time)
}

#[cfg(test)]
mod tests;
