//! The commands that pods' annotations ask for, around a backup: pre hooks, the work, post hooks. Post hooks run however
//! the work ended (failed, cancelled, or never begun because of a pre hook): what was frozen is thawed.
//!
//! A hook that fails is a problem of the backup, not its end: the objects are saved all the same, and the outcome is
//! `Partial`. After a cancel, post hooks have [`GRACE`] in all, within the time that the worker's pod is given.

mod choose;

use super::Context;
use crate::cluster::Cluster;
use crate::cluster::exec::{self, Exec, ExecExit, Tail};
use crate::jobs::install::DEFAULT_NAMESPACE;
use crate::pipeline;
use crate::pipeline::save::Wanted;
use crate::report::{Event, Events, Omission, Phase, Problem};
use crate::resource::Kind;
use crate::rules::hooks::{self, Hook, OnError, When};
use crate::rules::selection::Chosen;
use futures::future::{FutureExt, Shared};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long post hooks may take in all once the run is cancelled. The worker cleans up for 40 s at most.
const GRACE: Duration = Duration::from_secs(25);
/// Pods in which commands run at once, and requests in flight while they are looked for.
const AT_ONCE: usize = 8;
/// How often a command is tried that could not be started for a reason that may pass.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookOutcome {
    /// The command exited with 0.
    Succeeded,
    /// It exited with something else, or could not be started.
    Failed,
    /// It took longer than it may.
    TimedOut,
    /// It was running when the run was cancelled.
    Stopped,
    /// It was not begun.
    NotRun,
}

/// What became of a hook; a line of `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookReport {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container in it.
    pub container: String,
    /// Before or after.
    pub when: When,
    /// The program; its arguments may hold a password and are left out.
    pub command: String,
    /// How it ended.
    pub outcome: HookOutcome,
    /// Seconds that it took.
    pub seconds: f64,
    /// Why it did not succeed, with the last lines that the command wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A hook that a backup would run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedHook {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container in it.
    pub container: String,
    /// Before or after.
    pub when: When,
    /// The program; its arguments may hold a password and are left out.
    pub command: String,
    /// The annotation that asks for it.
    pub annotation: String,
}

/// What hooks add to a backup's report.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// Every hook that was chosen.
    pub(super) reports: Vec<HookReport>,
    /// What went wrong and matters.
    pub(super) problems: Vec<Problem>,
    /// What rules left out.
    pub(super) omissions: Vec<Omission>,
}

/// A pod with something to run in it.
#[derive(Debug)]
struct Pod {
    namespace: String,
    name: String,
    pre: Option<Hook>,
    post: Option<Hook>,
    /// Whether its pre hook was begun, or it has none: else there is nothing for its post hook to undo.
    begun: AtomicBool,
}

impl Pod {
    fn hook(&self, when: When) -> Option<&Hook> {
        match when {
            When::Pre => self.pre.as_ref(),
            When::Post => self.post.as_ref(),
        }
    }
}

impl std::fmt::Display for Pod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The hooks around one piece of work.
pub(super) struct Around<'a> {
    enabled: bool,
    wanted: &'a Wanted,
    chosen: &'a Chosen,
    /// `None` where no pods are saved; then none is asked to prepare.
    pods: Option<&'a Kind>,
    cluster: &'a Cluster,
    context: &'a Context,
    events: &'a Events,
    grace: Duration,
}

impl<'a> Around<'a> {
    /// The hooks around a backup of what is chosen in these namespaces, where `kinds` are the kinds that are saved.
    pub(super) fn new(
        enabled: bool,
        wanted: &'a Wanted,
        chosen: &'a Chosen,
        kinds: &'a [Kind],
        cluster: &'a Cluster,
        context: &'a Context,
        events: &'a Events,
    ) -> Self {
        let pods = kinds.iter().find(|kind| kind.is("pods"));
        Self { enabled, wanted, chosen, pods, cluster, context, events, grace: GRACE }
    }

    /// Runs pre hooks, the work, post hooks. A panic of the work goes on after the post hooks.
    pub(super) async fn run<T>(self, work: impl Future<Output = anyhow::Result<T>>) -> (anyhow::Result<T>, Ran) {
        let cancel = &self.context.cancel;
        let grace_over = async {
            cancel.cancelled().await;
            tokio::time::sleep(self.grace).await;
        };
        let grace_over = grace_over.boxed().shared();
        let mut ran = Ran::default();
        let pods = tokio::select! {
            pods = self.chosen(&mut ran) => pods,
            () = cancel.cancelled() => Vec::new(),
        };
        self.phase(When::Pre, &pods, cancel.cancelled(), &mut ran).await;
        let result = if cancel.is_cancelled() {
            Ok(Err(pipeline::Error::Cancelled.into()))
        } else {
            while_counting(AssertUnwindSafe(work).catch_unwind(), grace_over.clone()).await
        };
        self.phase(When::Post, &pods, grace_over, &mut ran).await;
        match result {
            Ok(result) => (result, ran),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// The hooks that would run, and none is.
    pub(super) async fn named(self) -> (Vec<NamedHook>, Ran) {
        let mut ran = Ran::default();
        let pods = self.chosen(&mut ran).await;
        let named = pods.iter().flat_map(|pod| {
            let hooks = [When::Pre, When::Post].into_iter().filter_map(|when| pod.hook(when));
            hooks.map(|hook| NamedHook {
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                container: hook.container.clone(),
                when: hook.when,
                command: program(hook),
                annotation: hook.annotation.to_owned(),
            })
        });
        (named.collect(), ran)
    }

    fn problem(&self, ran: &mut Ran, subject: impl Into<String>, message: impl Into<String>) {
        let problem = Problem { subject: subject.into(), message: message.into() };
        self.events.send(Event::Problem(problem.clone()));
        ran.problems.push(problem);
    }

    /// What gives the rights that are missing.
    fn way_out(&self) -> String {
        match self.context.install_namespace.as_str() {
            DEFAULT_NAMESPACE => "`kubectl backup init --hooks`".to_owned(),
            other => format!("`kubectl backup init --hooks --install-namespace {other}`"),
        }
    }

    /// Runs the hooks of one side, several pods at a time, until all ended or they are to be stopped.
    async fn phase(&self, when: When, pods: &[Pod], stop: impl Future<Output = ()>, ran: &mut Ran) {
        let hooks: Vec<(&Pod, &Hook)> = pods.iter().filter_map(|pod| Some((pod, pod.hook(when)?))).collect();
        if hooks.is_empty() {
            return;
        }
        self.events.phase(if when == When::Pre { Phase::PreHooks } else { Phase::PostHooks });
        let (begun, mut ended): (Vec<AtomicBool>, Vec<Option<HookReport>>) =
            hooks.iter().map(|_| (AtomicBool::new(false), None)).unzip();
        let began = Instant::now();
        {
            // boxed, as the compiler can't tell that a closure over borrowed pairs is general enough
            let mut runs = Vec::with_capacity(hooks.len());
            for (at, (&(pod, hook), begun)) in hooks.iter().zip(&begun).enumerate() {
                runs.push(self.begin(pod, hook, begun).map(move |report| (at, report)).boxed());
            }
            let runs = stream::iter(runs).buffer_unordered(AT_ONCE);
            let (mut runs, mut stop) = (std::pin::pin!(runs), std::pin::pin!(stop));
            loop {
                tokio::select! {
                    biased;
                    next = runs.next() => match next {
                        Some((at, report)) => ended[at] = Some(report),
                        None => break,
                    },
                    // what is dropped here closes its connection
                    () = &mut stop => break,
                }
            }
        }
        for (((pod, hook), begun), report) in hooks.into_iter().zip(begun).zip(ended) {
            let report = report.unwrap_or_else(|| interrupted(pod, hook, begun.into_inner(), began.elapsed()));
            self.judge(pod, hook, report, ran);
        }
    }

    async fn begin(&self, pod: &Pod, hook: &Hook, begun: &AtomicBool) -> HookReport {
        if hook.when == When::Post && !pod.begun.load(Ordering::Relaxed) {
            let why = "its pre hook was not begun".to_owned();
            return report(pod, hook, HookOutcome::NotRun, Duration::ZERO, Some(why));
        }
        begun.store(true, Ordering::Relaxed);
        pod.begun.store(true, Ordering::Relaxed);
        self.executed(pod, hook).await
    }

    /// Takes a hook's end into the report; what failed and may not is a problem.
    fn judge(&self, pod: &Pod, hook: &Hook, report: HookReport, ran: &mut Ran) {
        let subject = format!("{} hook of pod {pod}", hook.when);
        match (&report.message, hook.on_error) {
            (None, _) => (),
            (Some(message), OnError::Fail) => self.problem(ran, subject, message.clone()),
            (Some(message), OnError::Continue) => {
                self.events.note(format!("{subject}: {message}; its on-error says to continue"));
            }
        }
        ran.reports.push(report);
    }

    async fn executed(&self, pod: &Pod, hook: &Hook) -> HookReport {
        let program = program(hook);
        let place = format!("`{program}` in container `{}`", hook.container);
        self.events.note(format!("{} hook of pod {pod}: running {place}", hook.when));
        let began = Instant::now();
        let mut stdout = Tail::default();
        let result = self.tried(pod, hook, began + hook.timeout, &mut stdout).await;
        let took = began.elapsed();
        let (outcome, message) = match result {
            Ok(ExecExit { code: 0, .. }) => (HookOutcome::Succeeded, None),
            Ok(ExecExit { code, stderr_tail }) => {
                let said = wrote(&stderr_tail, &stdout);
                (HookOutcome::Failed, Some(format!("{place} exited with {code}: {said}")))
            }
            Err(exec::Error::TimedOut { stderr_tail, .. }) => {
                let time = jiff::SignedDuration::try_from(hook.timeout).unwrap_or_default();
                let said = wrote(&stderr_tail, &stdout);
                let message = format!(
                    "{place} didn't end within {time:#}; the connection is closed, and what runs in the container may go on: {said}"
                );
                (HookOutcome::TimedOut, Some(message))
            }
            Err(error) => (HookOutcome::Failed, Some(self.said(&error))),
        };
        if message.is_none() {
            self.events.note(format!("{} hook of pod {pod}: done in {:.1} s", hook.when, took.as_secs_f64()));
        }
        report(pod, hook, outcome, took, message)
    }

    /// An error in one sentence.
    fn said(&self, error: &exec::Error) -> String {
        let text = error.to_string();
        let said = hooks::last_lines(text.lines().next().unwrap_or_default());
        match error {
            exec::Error::Forbidden { .. } => format!("{said}; {} grants it", self.way_out()),
            _ => said,
        }
    }

    /// Runs a command; where it could not be started for a reason that may pass, again.
    async fn tried(
        &self,
        pod: &Pod,
        hook: &Hook,
        deadline: Instant,
        stdout: &mut Tail,
    ) -> Result<ExecExit, exec::Error> {
        let command: Vec<&str> = hook.command.iter().map(String::as_str).collect();
        let (namespace, name, container) = (pod.namespace.as_str(), pod.name.as_str(), hook.container.as_str());
        let mut tried = 0;
        loop {
            tried += 1;
            let timeout = deadline.saturating_duration_since(Instant::now());
            let exec = Exec { namespace, pod: name, container, command: &command, timeout };
            match exec::converse(self.cluster.client(), &exec, None, stdout).await {
                Err(error @ (exec::Error::Connect { .. } | exec::Error::NotStarted { .. }))
                    if error.is_transient() && tried < TRIES && Instant::now() + PAUSE < deadline =>
                {
                    tracing::debug!(%error, tried, "trying the hook again");
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

/// Waits for the work, and lets a time that is shared begin to count meanwhile.
async fn while_counting<T, F>(work: impl Future<Output = T>, time: Shared<F>) -> T
where
    F: Future<Output = ()>,
{
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        result = &mut work => result,
        () = time => work.await,
    }
}

/// The last lines that a command wrote to stderr, or to stdout where there are none: what goes to stdout is often data.
fn wrote(stderr: &str, stdout: &Tail) -> String {
    let lines = [stderr, &stdout.text()].map(hooks::last_lines);
    lines.into_iter().find(|lines| !lines.is_empty()).unwrap_or_else(|| "it wrote nothing".to_owned())
}

fn program(hook: &Hook) -> String {
    hooks::last_lines(hook.command.first().map_or("", String::as_str))
}

fn report(pod: &Pod, hook: &Hook, outcome: HookOutcome, took: Duration, message: Option<String>) -> HookReport {
    HookReport {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        container: hook.container.clone(),
        when: hook.when,
        command: program(hook),
        outcome,
        seconds: took.as_secs_f64(),
        message,
    }
}

/// A hook that had no end of its own.
fn interrupted(pod: &Pod, hook: &Hook, begun: bool, took: Duration) -> HookReport {
    if begun {
        let message = "it was running when the run was cancelled; what runs in the container may go on".to_owned();
        report(pod, hook, HookOutcome::Stopped, took, Some(message))
    } else {
        let message = "it was not begun, as the run was cancelled".to_owned();
        report(pod, hook, HookOutcome::NotRun, Duration::ZERO, Some(message))
    }
}

#[cfg(test)]
mod tests;
