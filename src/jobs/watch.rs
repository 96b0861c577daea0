//! Waits for a run, and shows what can be seen of it meanwhile.
//!
//! By asking again and again, not by watches: it needs no right to watch, and a dropped connection changes nothing. The
//! first seconds are asked closely, because a small backup takes about as long as its pod takes to start. The wait ends
//! with the Job's Complete or Failed, or a moment earlier with the worker's last word: the Job controller takes a second or
//! two to notice that a pod has ended.

use super::api::{Deed, optional};
use super::diagnose::{Cause, Diagnosis, diagnose};
use super::error::Error;
use super::status::Status;
use super::text::line;
use super::{STATUS_KEY, selector};
use crate::id::BackupId;
use crate::report::{ExitCode, Phase};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{Api, ListParams};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What to wait for, and for how long.
#[derive(Clone, Debug)]
pub struct Wait {
    /// What ends the wait.
    pub until: Until,
    /// How long to wait in all; `None`: as long as the Job takes, which has a deadline of its own.
    pub deadline: Option<Duration>,
    /// For how long something that won't heal by itself is looked at before the wait is given up.
    pub give_up: Duration,
    /// For how long the API server may be out of reach.
    pub patience: Duration,
    /// How often to look.
    pub pace: Pace,
}

impl Default for Wait {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { until: Until::Ended, deadline: None, give_up: seconds(10), patience: seconds(60), pace: Pace::default() }
    }
}

/// What ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The end of the run.
    Ended,
    /// A result that waits to be fetched, or the end of the run.
    Result,
}

/// How often to look, by the age of the wait.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// In the first 5 seconds.
    pub young: Duration,
    /// In the first minute.
    pub grown: Duration,
    /// After that.
    pub old: Duration,
    /// How often to look at events, and at pods once the worker reports.
    pub aside: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let millis = Duration::from_millis;
        Self { young: millis(120), grown: millis(400), old: millis(1000), aside: millis(1000) }
    }
}

/// Where a Job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It has no pod yet.
    Waiting,
    /// It has a pod.
    Active,
    /// Its pod succeeded.
    Complete,
    /// It won't try again.
    Failed {
        /// The reason in one word.
        reason: String,
        /// The Job's own words.
        message: String,
    },
    /// It was there and is gone.
    Gone,
}

/// The pod of the newest attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its uid: the attempt.
    pub uid: String,
    /// Its phase as Kubernetes states it.
    pub phase: String,
    /// Its node, once there is one.
    pub node: Option<String>,
}

/// What can be seen of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The Job.
    pub job: JobState,
    /// The newest pod.
    pub pod: Option<PodView>,
    /// What the worker reports.
    pub status: Option<Status>,
    /// Why what is in the status' place is no status.
    pub unreadable: Option<String>,
    /// Why it doesn't get on.
    pub diagnosis: Option<Diagnosis>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The run ended.
    Finished,
    /// The result waits to be fetched.
    ResultReady,
    /// The deadline of the wait came first; the run goes on.
    StillRunning,
    /// The pod can't start, and won't by itself. The Job is still there.
    CannotStart,
}

/// The end of a wait, with the last view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub how: How,
    /// What was seen last.
    pub view: View,
}

impl Ended {
    /// The exit code for who waited.
    pub fn exit_code(&self) -> ExitCode {
        match (self.how, &self.view.status) {
            (How::StillRunning, _) => ExitCode::StillRunning,
            (How::ResultReady, _) => ExitCode::Complete,
            (How::Finished, Some(status)) if status.is_final() => status.exit_code.unwrap_or(ExitCode::Failed),
            (How::Finished | How::CannotStart, _) => ExitCode::Failed,
        }
    }

    /// Why it failed, in words with a way out; `None` where nothing failed.
    pub fn failure(&self) -> Option<String> {
        let last_words = self.view.status.as_ref().filter(|status| status.is_final());
        match (self.exit_code(), last_words, &self.view.job) {
            (ExitCode::Complete | ExitCode::Partial | ExitCode::StillRunning, ..) => None,
            (_, Some(Status { message: Some(message), .. }), _) => Some(message.clone()),
            (.., JobState::Complete) => Some(
                "the worker ended well and left no status\nhint: `kubectl backup list --refresh` shows what is in the bucket"
                    .to_owned(),
            ),
            _ => self.view.diagnosis.as_ref().map(|diagnosis| match diagnosis.cause {
                Cause::Verdict => format!("the worker failed: {}\nhint: {}", diagnosis.message, diagnosis.hint),
                _ => diagnosis.to_string(),
            }),
        }
    }
}

/// Waits for a run, and tells each new view. May be dropped at any time; the Job goes on.
pub async fn watch(
    client: &kube::Client,
    namespace: &str,
    id: &BackupId,
    wait: &Wait,
    mut on_view: impl FnMut(&View),
) -> Result<Ended, Error> {
    let start = Instant::now();
    let mut watcher = Watcher::new(client, namespace, id, wait.pace);
    let (mut shown, mut lost, mut stuck): (Option<View>, Option<Instant>, Option<(Cause, Instant)>) =
        (None, None, None);
    loop {
        match watcher.look().await {
            Ok(()) => lost = None,
            Err(error) if error.is_transient() && lost.get_or_insert(Instant::now()).elapsed() < wait.patience => {
                tracing::debug!("{error}; asking again");
            }
            Err(error) => return Err(error),
        }
        let view = &watcher.view;
        if shown.as_ref() != Some(view) {
            on_view(view);
            shown = Some(view.clone());
        }
        stuck = match &view.diagnosis {
            Some(Diagnosis { cause, definite: true, .. }) => {
                stuck.filter(|(before, _)| before == cause).or(Some((*cause, Instant::now())))
            }
            _ => None,
        };
        let given_up = stuck.is_some_and(|(_, since)| since.elapsed() >= wait.give_up);
        let left = wait.deadline.map(|deadline| deadline.saturating_sub(start.elapsed()));
        if let Some(how) = watcher.verdict(wait.until, given_up, left)? {
            return Ok(Ended { how, view: watcher.view });
        }
        let pause = match start.elapsed().as_secs() {
            0..5 => wait.pace.young,
            5..60 => wait.pace.grown,
            _ => wait.pace.old,
        };
        sleep(left.map_or(pause, |left| pause.min(left))).await;
    }
}

struct Watcher<'a> {
    jobs: Api<Job>,
    maps: Api<ConfigMap>,
    pods: Api<Pod>,
    events: Api<Event>,
    namespace: &'a str,
    id: &'a BackupId,
    pace: Pace,
    start: Instant,
    pods_seen: Option<Instant>,
    events_seen: Option<Instant>,
    last_pods: Vec<Pod>,
    last_events: Vec<Event>,
    /// Rights without which less can be seen; each is told once.
    missing: BTreeSet<String>,
    view: View,
}

impl<'a> Watcher<'a> {
    fn new(client: &kube::Client, namespace: &'a str, id: &'a BackupId, pace: Pace) -> Self {
        Self {
            jobs: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            events: Api::namespaced(client.clone(), namespace),
            namespace,
            id,
            pace,
            start: Instant::now(),
            pods_seen: None,
            events_seen: None,
            last_pods: Vec::new(),
            last_events: Vec::new(),
            missing: BTreeSet::new(),
            view: View { job: JobState::Waiting, pod: None, status: None, unreadable: None, diagnosis: None },
        }
    }

    fn deed(&self, verb: &'static str, resource: &'static str) -> Deed<'a> {
        let name = if verb == "list" { "" } else { self.id.as_str() };
        Deed { verb, resource, namespace: Some(self.namespace), name }
    }

    fn due(&self, seen: Option<Instant>) -> bool {
        seen.is_none_or(|seen| seen.elapsed() >= self.pace.aside)
    }

    /// Looks once at everything that may have changed.
    async fn look(&mut self) -> Result<(), Error> {
        let name = self.id.as_str();
        let pods_due = self.view.status.is_none() || self.due(self.pods_seen);
        let (job, map, pods) = tokio::join!(
            self.deed("get", "jobs.batch").once(self.jobs.get(name)),
            self.deed("get", "configmaps").once(self.maps.get(name)),
            async { if pods_due { Some(self.list_pods().await) } else { None } },
        );
        let Some(job) = optional(job)? else {
            self.view.job = JobState::Gone;
            return self.read_status(None, optional(map)?);
        };
        let state = state(&job);
        // a Job that ended while we asked for its status: the last word came before that
        let map = if ended(&state) { self.deed("get", "configmaps").once(self.maps.get(name)).await } else { map };
        self.view.job = state;
        let map = self.readable(map)?;
        self.read_status(job.metadata.uid.as_deref(), map)?;
        if let Some(pods) = pods {
            self.last_pods = self.readable(pods)?.unwrap_or_default();
            self.pods_seen = Some(Instant::now());
        }
        self.find_pod().await?;
        if self.events_due() {
            let events = self.list_events(&job).await;
            self.last_events = self.readable(events)?.unwrap_or_default();
            self.events_seen = Some(Instant::now());
        }
        self.view.diagnosis = diagnose(&job, &self.last_pods, &self.last_events);
        Ok(())
    }

    /// An answer that the wait can do without: absent, or not ours to see.
    fn readable<T>(&mut self, answer: Result<T, Error>) -> Result<Option<T>, Error> {
        match optional(answer) {
            Err(Error::Forbidden { rule, .. }) => {
                if self.missing.insert(rule.to_string()) {
                    tracing::warn!("less of the run can be seen without {rule}");
                }
                Ok(None)
            }
            Err(error @ Error::Refused { .. }) => {
                tracing::debug!("{error}");
                Ok(None)
            }
            answer => answer,
        }
    }

    async fn list_pods(&self) -> Result<Vec<Pod>, Error> {
        let params = ListParams::default().labels(&selector(self.id));
        let list = self.deed("list", "pods").once(self.pods.list(&params)).await?;
        Ok(list.items)
    }

    /// The events about the Job and its newest pod.
    async fn list_events(&self, job: &Job) -> Result<Vec<Event>, Error> {
        let pod = self.view.pod.as_ref().map(|pod| pod.uid.clone());
        let mut found = Vec::new();
        for uid in job.metadata.uid.iter().cloned().chain(pod) {
            let params = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
            let list = self.deed("list", "events").once(self.events.list(&params)).await?;
            found.extend(list.items);
        }
        Ok(found)
    }

    /// Events matter while the worker is silent: a moment after the start, and once when the Job failed.
    fn events_due(&self) -> bool {
        let failed = matches!(self.view.job, JobState::Failed { .. }) && !self.has_last_word();
        let silent = self.view.status.is_none()
            && self.start.elapsed() >= self.pace.aside / 2
            && self.view.pod.as_ref().is_none_or(|pod| pod.phase == "Pending");
        failed || (silent && self.due(self.events_seen))
    }

    fn has_last_word(&self) -> bool {
        self.view.status.as_ref().is_some_and(Status::is_final)
    }

    fn read_status(&mut self, job: Option<&str>, map: Option<ConfigMap>) -> Result<(), Error> {
        let Some(map) = map else { return Ok(()) };
        let mut owners = map.metadata.owner_references.iter().flatten();
        if job.is_some_and(|job| !owners.any(|owner| owner.uid == job)) {
            self.view.unreadable = Some(format!("configmap `{}` doesn't belong to this job", self.id));
            return Ok(());
        }
        let text = map.data.as_ref().and_then(|data| data.get(STATUS_KEY)).map_or("", String::as_str);
        match Status::parse(text, self.id) {
            Ok(status) => (self.view.status, self.view.unreadable) = (Some(status), None),
            Err(error) => self.view.unreadable = Some(error.to_string()),
        }
        Ok(())
    }

    /// The newest pod; where a result waits, the pod that has it.
    async fn find_pod(&mut self) -> Result<(), Error> {
        let holder = self.view.status.as_ref().filter(|status| status.phase == Phase::ResultReady);
        let holder = holder.map(|status| status.attempt.as_str().to_owned());
        let known = |pods: &[Pod], uid: &str| pods.iter().any(|pod| pod.metadata.uid.as_deref() == Some(uid));
        if holder.as_deref().is_some_and(|uid| !known(&self.last_pods, uid)) {
            self.last_pods = self.list_pods().await?;
        }
        let newest = |pod: &&Pod| {
            let is_holder = holder.is_some() && pod.metadata.uid == holder;
            (is_holder, pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
        };
        self.view.pod = self.last_pods.iter().max_by_key(newest).map(pod_view);
        Ok(())
    }

    fn verdict(&self, until: Until, given_up: bool, left: Option<Duration>) -> Result<Option<How>, Error> {
        let waits = self.view.status.as_ref().is_some_and(|status| status.phase == Phase::ResultReady);
        Ok(match &self.view.job {
            _ if self.has_last_word() => Some(How::Finished),
            JobState::Complete | JobState::Failed { .. } => Some(How::Finished),
            JobState::Gone => return Err(Error::Gone { id: self.id.to_string() }),
            _ if until == Until::Result && waits && self.view.pod.is_some() => Some(How::ResultReady),
            _ if given_up => Some(How::CannotStart),
            _ if left.is_some_and(|left| left.is_zero()) => Some(How::StillRunning),
            _ => None,
        })
    }
}

fn ended(state: &JobState) -> bool {
    matches!(state, JobState::Complete | JobState::Failed { .. })
}

fn state(job: &Job) -> JobState {
    let status = job.status.as_ref();
    let conditions = || status.iter().flat_map(|status| status.conditions.iter().flatten());
    let holds = |kind: &str| conditions().find(|c| c.type_ == kind && c.status == "True");
    let words = |text: &Option<String>| line(text.as_deref().unwrap_or_default(), 1000);
    match (holds("Complete"), holds("Failed")) {
        (Some(_), _) => JobState::Complete,
        (_, Some(failed)) => JobState::Failed { reason: words(&failed.reason), message: words(&failed.message) },
        _ if status.and_then(|status| status.active).unwrap_or_default() > 0 => JobState::Active,
        _ => JobState::Waiting,
    }
}

fn pod_view(pod: &Pod) -> PodView {
    PodView {
        name: line(pod.metadata.name.as_deref().unwrap_or_default(), 253),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        phase: line(pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending"), 63),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(|node| line(node, 253)),
    }
}

#[cfg(test)]
mod tests;
