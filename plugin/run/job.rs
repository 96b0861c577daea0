//! A task in a Job: submitted, watched, its result fetched.

use super::{Ended, Manner, Run};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::screen::tell;
use crate::session::{IMAGE, Session, Target};
use crate::text::{safe, span};
use jiff::SignedDuration;
use kubectl_backup::config::JobSettings;
use kubectl_backup::id::BackupId;
use kubectl_backup::jobs::{self, Account, Diagnosis, How, JobSpec, PodView, Until, View, Wait};
use kubectl_backup::operations::Task;
use kubectl_backup::report::{ExitCode, Outcome, Phase};
use kubectl_backup::worker::hands_over;
use std::time::{Duration, Instant};

/// How long fetching a result may take.
const FETCH: Duration = Duration::from_secs(300);
/// Seconds for which a Job stays that has given its answer.
const ANSWERED: i32 = 600;
/// How often fetching is tried.
const FETCHES: u32 = 3;

/// Submits a task and waits as told.
///
/// # Errors
/// What kept it from being done, with the exit code that it means.
pub(super) async fn run(session: &Session, target: &Target, task: &Task, manner: Manner) -> anyhow::Result<Run> {
    let settings = settings(&target.settings, manner);
    let spec = JobSpec {
        verb: task.verb.name(),
        id: &task.id,
        install_namespace: &session.install_namespace,
        account: if task.verb.writes_cluster() { Account::Writer } else { Account::Reader },
        task,
        settings: &settings,
        location: &target.location,
        other: task.verb.other_location(),
        image: IMAGE,
    };
    let following = Following { session, task, began: Instant::now() };
    tokio::select! {
        result = following.submit_and_follow(&spec, manner) => result,
        _ = tokio::signal::ctrl_c() => following.interrupted(manner).await,
    }
}

/// How this Job is made: one that gave its answer to who waited for it needn't stay for long.
fn settings(configured: &JobSettings, manner: Manner) -> JobSettings {
    let mut settings = configured.clone();
    if !manner.lasting {
        let ttl = settings.ttl_seconds_after_finished.unwrap_or(ANSWERED);
        settings.ttl_seconds_after_finished = Some(ttl.min(ANSWERED));
    }
    settings
}

struct Following<'a> {
    session: &'a Session,
    task: &'a Task,
    began: Instant,
}

impl Following<'_> {
    async fn submit_and_follow(&self, spec: &JobSpec<'_, Task>, manner: Manner) -> anyhow::Result<Run> {
        let id = &self.task.id;
        let mut progress = Progress::new(self.session.screen, &format!("starting job {id}"));
        jobs::submit(self.session.cluster.client(), spec).await?;
        if !manner.wait {
            progress.end();
            self.tell_ways(&format!("job `{id}` runs in namespace `{}`", self.session.install_namespace));
            return Ok(Run::Left { id: id.clone(), code: ExitCode::Complete });
        }
        self.follow(manner, &mut progress).await
    }

    async fn follow(&self, manner: Manner, progress: &mut Progress) -> anyhow::Result<Run> {
        let until = if hands_over(&self.task.verb) { Until::Result } else { Until::Ended };
        let mut tries = 0;
        loop {
            let deadline = manner.timeout.map(|timeout| timeout.saturating_sub(self.began.elapsed()));
            let wait = Wait { until, deadline, ..Wait::default() };
            let mut said = None;
            let ended = jobs::watch(
                self.session.cluster.client(),
                &self.session.install_namespace,
                &self.task.id,
                &wait,
                |view| {
                    show(view, progress, &mut said);
                },
            )
            .await?;
            match ended.how {
                How::StillRunning => {
                    progress.end();
                    return self.still_running(manner, &ended.view).await;
                }
                How::CannotStart => {
                    progress.end();
                    return Err(self.cannot_start(&ended).await.into());
                }
                How::Finished => return self.finished(ended).map(Run::Ended),
                How::ResultReady => match self.fetch(&ended.view).await {
                    Ok(result) => return Ok(Run::Ended(self.answered(&ended.view, result))),
                    Err(error) if error.is_transient() && tries < FETCHES => {
                        tracing::debug!("{error}; fetching again");
                        tries += 1;
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    async fn fetch(&self, view: &View) -> Result<Vec<u8>, jobs::Error> {
        let pod = view.pod.as_ref().map(|pod| pod.name.as_str()).unwrap_or_default();
        let mut result = Vec::new();
        jobs::result::fetch(self.session.cluster.client(), &self.session.install_namespace, pod, &mut result, FETCH)
            .await?;
        Ok(result)
    }

    /// A run whose result was fetched: its worker has told the outcome beforehand.
    fn answered(&self, view: &View, result: Vec<u8>) -> Ended {
        let mut ended = self.of_view(view);
        ended.result = Some(result);
        ended
    }

    fn finished(&self, ended: jobs::Ended) -> anyhow::Result<Ended> {
        match ended.failure() {
            Some(text) => Err(Failure::new(ended.exit_code(), text).into()),
            None => Ok(Ended { code: ended.exit_code(), ..self.of_view(&ended.view) }),
        }
    }

    fn of_view(&self, view: &View) -> Ended {
        let status = view.status.as_ref();
        let outcome = status.and_then(|status| status.outcome).unwrap_or(Outcome::Complete);
        Ended {
            id: self.task.id.clone(),
            outcome,
            code: status.and_then(|status| status.exit_code).unwrap_or_else(|| outcome.into()),
            counts: status.map(|status| status.counts).unwrap_or_default(),
            problems: status.map(|status| status.problems.clone()).unwrap_or_default(),
            problems_total: status.map_or(0, |status| status.problems_total),
            result: None,
            took: self.began.elapsed(),
        }
    }

    /// The wait is over before the run is.
    async fn still_running(&self, manner: Manner, view: &View) -> anyhow::Result<Run> {
        let (id, waited) = (&self.task.id, SignedDuration::try_from(self.began.elapsed()).unwrap_or_default());
        if manner.lasting {
            self.tell_ways(&format!("job `{id}` still runs after {}", span(waited)));
            return Ok(Run::Left { id: id.clone(), code: ExitCode::StillRunning });
        }
        let left = self.remove().await;
        let why = match &view.diagnosis {
            Some(diagnosis) => diagnosis.to_string(),
            None => "hint: give it more time with `--timeout`".to_owned(),
        };
        let fate = match left {
            Ok(()) => "is removed".to_owned(),
            Err(error) => format!("is left behind: {error}"),
        };
        let text = format!("job `{id}` gave no answer within {}, and {fate}\n{why}", span(waited));
        Err(Failure::new(ExitCode::StillRunning, text).into())
    }

    /// A pod that won't start: nothing of it is left to start later by surprise.
    async fn cannot_start(&self, ended: &jobs::Ended) -> Failure {
        let text = ended.failure().unwrap_or_else(|| "the job's pod can't start".to_owned());
        self.try_to_remove().await;
        Failure::new(ended.exit_code(), text)
    }

    /// Ctrl-C.
    async fn interrupted(&self, manner: Manner) -> anyhow::Result<Run> {
        let id = &self.task.id;
        if manner.lasting {
            self.tell_ways(&format!("stopped watching; job `{id}` goes on"));
        } else {
            self.try_to_remove().await;
        }
        Ok(Run::Left { id: id.clone(), code: ExitCode::Interrupted })
    }

    async fn remove(&self) -> Result<(), jobs::Error> {
        jobs::delete(self.session.cluster.client(), &self.session.install_namespace, &self.task.id).await
    }

    async fn try_to_remove(&self) {
        if let Err(error) = self.remove().await {
            tracing::warn!("job `{}` is left behind: {error}", self.task.id);
        }
    }

    fn tell_ways(&self, what: &str) {
        ways(what, &self.task.id, &self.session.install_namespace).iter().for_each(|line| tell(line));
    }
}

/// How to follow or cancel a run that goes on.
fn ways(what: &str, id: &BackupId, install_namespace: &str) -> [String; 3] {
    let flag = match install_namespace {
        "kubectl-backup" => String::new(),
        other => format!(" --install-namespace {other}"),
    };
    [
        what.to_owned(),
        format!("  follow it:  kubectl backup logs {id} -f{flag}"),
        format!("  cancel it:  kubectl -n {install_namespace} delete job {id}"),
    ]
}

/// Tells what is new in a view.
fn show(view: &View, progress: &mut Progress, said: &mut Option<Diagnosis>) {
    if view.diagnosis != *said {
        // what won't heal becomes the error at the end; said now as well, since the wait goes on for a while
        if let Some(diagnosis) = &view.diagnosis
            && said.as_ref().is_none_or(|before| before.cause != diagnosis.cause)
            && diagnosis.cause != jobs::Cause::Verdict
        {
            progress.warn(diagnosis.to_string().lines().next().unwrap_or_default());
        }
        said.clone_from(&view.diagnosis);
    }
    match &view.status {
        Some(status) if status.phase != Phase::Ended => progress.status(status.phase, status.counts),
        Some(status) if !status.is_final() => progress.waiting("the worker was stopped; waiting for its next attempt"),
        Some(_) => (),
        None => progress.waiting(&starting(view.pod.as_ref())),
    }
}

/// What is waited for before the worker says its first word.
fn starting(pod: Option<&PodView>) -> String {
    match pod {
        None => "waiting for a pod".to_owned(),
        Some(PodView { name, node: Some(node), .. }) => format!("starting pod {} on {}", safe(name), safe(node)),
        Some(PodView { name, .. }) => format!("waiting for a node for pod {}", safe(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_gave_an_answer_go_soon() {
        let ttl = |configured, manner| {
            let configured = JobSettings { ttl_seconds_after_finished: configured, ..JobSettings::default() };
            settings(&configured, manner).ttl_seconds_after_finished
        };
        let work = Manner { wait: true, timeout: None, lasting: true };
        assert_eq!((ttl(None, work), ttl(Some(5), work)), (None, Some(5)));
        let answer = Manner::answer(None);
        assert_eq!((ttl(None, answer), ttl(Some(5), answer), ttl(Some(9999), answer)), (Some(600), Some(5), Some(600)));
    }

    #[test]
    fn before_the_first_word_the_pod_is_told() {
        let pod = |node: Option<&str>| PodView {
            name: "p".into(),
            uid: "u".into(),
            phase: "Pending".into(),
            node: node.map(str::to_owned),
        };
        assert_eq!(starting(None), "waiting for a pod");
        assert_eq!(starting(Some(&pod(None))), "waiting for a node for pod p");
        assert_eq!(starting(Some(&pod(Some("n")))), "starting pod p on n");
    }

    #[test]
    fn a_run_that_goes_on_can_be_followed_and_cancelled() {
        let id = BackupId::parse("shop-1").unwrap();
        assert_eq!(
            ways("it goes on", &id, "kubectl-backup"),
            [
                "it goes on",
                "  follow it:  kubectl backup logs shop-1 -f",
                "  cancel it:  kubectl -n kubectl-backup delete job shop-1",
            ]
        );
        assert!(ways("x", &id, "other")[1].ends_with("-f --install-namespace other"));
    }
}
