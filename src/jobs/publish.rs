//! The worker's side of the status: keeps the ConfigMap of its run up to date without holding the run up.

use super::api::{Deed, optional};
use super::error::Error;
use super::status::Status;
use super::{APP, MANAGER, STATUS_KEY, VERB_LABEL};
use crate::id::BackupId;
use crate::rules::marks;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How often the first write is tried.
const FIRST_TRIES: u32 = 4;

/// The run that a status is about, as the worker finds it in its environment.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The namespace that we are installed in.
    pub namespace: String,
    /// The run: the Job's name, and the ConfigMap's.
    pub job: BackupId,
    /// The Job's uid; the ConfigMap belongs to it and goes with it.
    pub job_uid: String,
}

/// How often a status is written.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two writes in one phase; a new phase is written at once.
    pub interval: Duration,
    /// For how long the last status is tried.
    pub last_words: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { interval: Duration::from_millis(500), last_words: Duration::from_secs(30) }
    }
}

/// Writes what the worker reports. Reporting is a hand-over that never waits; the newest status wins.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Status>,
    writer: JoinHandle<Board>,
    pace: Pace,
}

impl Publisher {
    /// Makes the ConfigMap, or takes over the one that an earlier attempt of this Job left, with a first status. Fails
    /// when it can't be written, or belongs to somebody else.
    pub async fn start(client: kube::Client, owner: Owner, status: Status, pace: Pace) -> Result<Self, Error> {
        let mut board = Board { api: Api::namespaced(client, &owner.namespace), owner, uid: None };
        board.write(&status, FIRST_TRIES).await?;
        let (sender, receiver) = watch::channel(status);
        Ok(Self { sender, writer: tokio::spawn(keep_writing(board, receiver, pace)), pace })
    }

    /// Hands a status over.
    pub fn update(&self, status: Status) {
        self.sender.send_replace(status);
    }

    /// Writes the last status, after all others, and tries for as long as [`Pace::last_words`] says.
    pub async fn finish(self, status: Status) -> Result<(), Error> {
        let Self { sender, writer, pace } = self;
        // not aborted but awaited: a request under way could arrive after the last one
        drop(sender);
        let mut board = match writer.await {
            Ok(board) => board,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => return Err(Error::Publish(error.to_string())),
            },
        };
        let (end, mut pause) = (Instant::now() + pace.last_words, Duration::from_millis(100));
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = timeout(left, board.write(&status, 1)).await;
            match answer {
                Ok(Err(error)) if error.is_transient() && Instant::now() + pause < end => {
                    tracing::debug!("{error}; trying again");
                }
                Ok(answer) => return answer,
                Err(_) => {
                    let deed = board.deed("patch").to_string();
                    return Err(Error::TimedOut { deed, timeout: pace.last_words });
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

async fn keep_writing(mut board: Board, mut receiver: watch::Receiver<Status>, pace: Pace) -> Board {
    let mut phase = receiver.borrow().phase;
    let mut next = Instant::now() + pace.interval;
    while receiver.changed().await.is_ok() {
        tokio::select! {
            () = sleep_until(next) => (),
            // a new phase doesn't wait; when nobody can send any more, the last word follows at once
            moved = receiver.wait_for(|status| status.phase != phase) => if moved.is_err() { break },
        }
        let status = receiver.borrow_and_update().clone();
        phase = status.phase;
        if let Err(error) = board.write(&status, 1).await {
            tracing::warn!("the status can't be written: {error}");
        }
        next = Instant::now() + pace.interval;
    }
    board
}

/// The ConfigMap.
#[derive(Debug)]
struct Board {
    api: Api<ConfigMap>,
    owner: Owner,
    /// The uid it had when we saw that it is ours.
    uid: Option<String>,
}

impl Board {
    fn deed(&self, verb: &'static str) -> Deed<'_> {
        let (namespace, name) = (Some(self.owner.namespace.as_str()), self.owner.job.as_str());
        Deed { verb, resource: "configmaps", namespace, name }
    }

    async fn write(&mut self, status: &Status, tries: u32) -> Result<(), Error> {
        let mut pause = Duration::from_millis(50);
        for _ in 1..tries {
            match self.write_once(status).await {
                Err(error) if error.is_transient() => tracing::debug!("{error}; trying again"),
                answer => return answer,
            }
            sleep(pause).await;
            pause *= 4;
        }
        self.write_once(status).await
    }

    async fn write_once(&mut self, status: &Status) -> Result<(), Error> {
        if self.uid.is_some() {
            match self.patch(status).await {
                // gone, or another by that name: look again
                Err(Error::NotFound { .. } | Error::Api { code: 409 | 422, .. }) => self.uid = None,
                answer => return answer,
            }
        }
        // mostly there is none yet, so asking first would be a request too many
        match self.create(status).await {
            Err(Error::Api { reason, .. }) if reason == "AlreadyExists" => (),
            answer => return answer,
        }
        self.uid = self.find().await?;
        if self.uid.is_some() { self.patch(status).await } else { self.create(status).await }
    }

    /// The uid of the ConfigMap if there is one, which must be ours.
    async fn find(&self) -> Result<Option<String>, Error> {
        let name = self.owner.job.as_str();
        let Some(there) = optional(self.deed("get").once(self.api.get(name)).await)? else { return Ok(None) };
        let mut owners = there.metadata.owner_references.iter().flatten();
        if owners.any(|owner| owner.uid == self.owner.job_uid) {
            return Ok(Some(there.metadata.uid.unwrap_or_default()));
        }
        Err(Error::Taken {
            what: format!("configmap `{name}` in namespace `{}`", self.owner.namespace),
            why: "doesn't belong to this run".to_owned(),
            hint: "delete it, or give the run another name".to_owned(),
        })
    }

    async fn create(&mut self, status: &Status) -> Result<(), Error> {
        let object = self.object(status)?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), dry_run: false };
        let made = self.deed("create").once(self.api.create(&params, &object)).await?;
        self.uid = made.metadata.uid;
        Ok(())
    }

    /// Replaces the one key; the uid in the patch makes the API server refuse when it is another ConfigMap by now.
    async fn patch(&self, status: &Status) -> Result<(), Error> {
        let patch = json!({ "metadata": { "uid": self.uid }, "data": { STATUS_KEY: status.to_json() } });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let (patch, name) = (Patch::Merge(patch), self.owner.job.as_str());
        self.deed("patch").once(self.api.patch(name, &params, &patch)).await.map(|_| ())
    }

    fn object(&self, status: &Status) -> Result<ConfigMap, Error> {
        let owner = &self.owner;
        let object: Value = json!({
            "metadata": {
                "name": owner.job,
                "namespace": owner.namespace,
                "labels": { "app.kubernetes.io/name": APP, VERB_LABEL: status.verb, marks::ID: owner.job },
                // no blockOwnerDeletion: it would need a right on the Job's finalizers
                "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": owner.job, "uid": owner.job_uid }],
            },
            "data": { STATUS_KEY: status.to_json() },
        });
        serde_json::from_value(object)
            .map_err(|error| Error::Manifest { name: "status".to_owned(), message: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, failure};
    use super::*;
    use crate::id::Attempt;
    use crate::report::{Counts, ExitCode, Outcome, Phase};
    use jiff::Timestamp;

    const MAPS: &str = "/api/v1/namespaces/kb/configmaps";
    const MAP: &str = "/api/v1/namespaces/kb/configmaps/shop-1";
    /// No write of the same phase but the first and the last.
    const NEVER: Pace = Pace { interval: Duration::from_secs(3600), last_words: Duration::from_secs(20) };

    fn owner() -> Owner {
        Owner { namespace: "kb".into(), job: BackupId::parse("shop-1").unwrap(), job_uid: "job-7".into() }
    }

    fn status(phase: Phase, objects: u64) -> Status {
        let id = BackupId::parse("shop-1").unwrap();
        let mut status = Status::new(id, "backup", "0.1.0", Attempt::parse("pod-1").unwrap(), Timestamp::UNIX_EPOCH);
        (status.phase, status.counts) = (phase, Counts { objects, ..Counts::default() });
        status
    }

    fn ended() -> Status {
        let mut status = status(Phase::Saving, 9);
        status.end(Outcome::Complete, ExitCode::Complete, None, Timestamp::UNIX_EPOCH);
        status
    }

    fn published(fake: &Fake) -> Status {
        let map = fake.get(MAP).unwrap();
        Status::parse(map["data"]["status"].as_str().unwrap(), &owner().job).unwrap()
    }

    #[tokio::test]
    async fn a_run_is_published_from_start_to_end() {
        let fake = Fake::default();
        let publisher = Publisher::start(fake.client(), owner(), status(Phase::Starting, 0), NEVER).await.unwrap();
        let map = fake.get(MAP).unwrap();
        assert_eq!(map["metadata"]["ownerReferences"][0]["uid"], "job-7");
        assert_eq!(map["metadata"]["labels"]["kubectl-backup/verb"], "backup");
        assert_eq!(map["metadata"]["labels"]["kubectl-backup/id"], "shop-1");
        assert_eq!(published(&fake).phase, Phase::Starting);
        publisher.finish(ended()).await.unwrap();
        assert_eq!(published(&fake), ended());
    }

    #[tokio::test]
    async fn progress_within_a_phase_waits_and_a_new_phase_does_not() {
        let fake = Fake::default();
        let publisher = Publisher::start(fake.client(), owner(), status(Phase::Starting, 0), NEVER).await.unwrap();
        for objects in 0..100 {
            publisher.update(status(Phase::Starting, objects));
            tokio::task::yield_now().await;
        }
        assert_eq!(fake.calls("PATCH", MAP).len(), 0);
        publisher.update(status(Phase::Saving, 100));
        while fake.calls("PATCH", MAP).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!((published(&fake).phase, published(&fake).counts.objects), (Phase::Saving, 100));
        publisher.update(status(Phase::Saving, 200));
        publisher.finish(ended()).await.unwrap();
        let patches = fake.calls("PATCH", MAP);
        assert_eq!((patches.len(), published(&fake)), (2, ended()));
    }

    #[tokio::test]
    async fn progress_is_written_once_the_interval_is_over() {
        let fake = Fake::default();
        let pace = Pace { interval: Duration::from_millis(1), ..NEVER };
        let publisher = Publisher::start(fake.client(), owner(), status(Phase::Saving, 0), pace).await.unwrap();
        publisher.update(status(Phase::Saving, 7));
        while fake.calls("PATCH", MAP).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(published(&fake).counts.objects, 7);
    }

    #[tokio::test]
    async fn a_second_attempt_takes_over_what_the_first_left() {
        let fake = Fake::default();
        let first = Publisher::start(fake.client(), owner(), status(Phase::Saving, 500), NEVER).await.unwrap();
        drop(first);
        let second = Publisher::start(fake.client(), owner(), status(Phase::Starting, 0), NEVER).await.unwrap();
        assert_eq!(published(&fake).counts.objects, 0);
        second.finish(ended()).await.unwrap();
        assert_eq!(published(&fake), ended());
    }

    #[tokio::test]
    async fn what_belongs_to_somebody_else_is_left_alone() {
        let fake = Fake::default();
        let theirs = json!({ "metadata": { "name": "shop-1" }, "data": { "status": "mine" } });
        fake.put(MAP, theirs);
        let error = Publisher::start(fake.client(), owner(), status(Phase::Starting, 0), NEVER).await.unwrap_err();
        assert!(matches!(error, Error::Taken { .. }), "{error}");
        assert_eq!(fake.get(MAP).unwrap()["data"]["status"], "mine");
    }

    #[tokio::test]
    async fn a_map_that_was_replaced_meanwhile_is_noticed_and_one_deleted_is_made_anew() {
        let fake = Fake::default();
        let publisher = Publisher::start(fake.client(), owner(), status(Phase::Starting, 0), NEVER).await.unwrap();
        fake.at("PATCH", MAP, 1, |objects| drop(objects.remove(MAP)));
        publisher.finish(ended()).await.unwrap();
        assert_eq!(published(&fake), ended());

        let publisher = Publisher::start(fake.client(), owner(), status(Phase::Starting, 0), NEVER).await.unwrap();
        fake.put(MAP, json!({ "metadata": { "name": "shop-1", "uid": "other" }, "data": { "status": "mine" } }));
        let error = publisher.finish(ended()).await.unwrap_err();
        assert!(matches!(error, Error::Taken { .. }), "{error}");
        assert_eq!(fake.get(MAP).unwrap()["data"]["status"], "mine");
    }

    #[tokio::test]
    async fn the_last_word_is_tried_again_and_gives_up_in_time() {
        let fake = Fake::default();
        let publisher = Publisher::start(fake.client(), owner(), status(Phase::Starting, 0), NEVER).await.unwrap();
        fake.break_off("PATCH", MAP);
        fake.answer("PATCH", MAP, 500, failure(500, "InternalError", "etcd"));
        publisher.finish(ended()).await.unwrap();
        assert_eq!(published(&fake), ended());

        let pace = Pace { last_words: Duration::from_millis(20), ..NEVER };
        let publisher = Publisher::start(fake.client(), owner(), status(Phase::Starting, 0), pace).await.unwrap();
        (0..9).for_each(|_| fake.break_off("PATCH", MAP));
        assert!(publisher.finish(ended()).await.unwrap_err().is_transient());
    }

    #[tokio::test]
    async fn a_create_that_arrived_twice_is_fine() {
        let fake = Fake::default();
        let made = json!({ "metadata": { "name": "shop-1", "uid": "u", "ownerReferences": [{ "uid": "job-7",
            "apiVersion": "batch/v1", "kind": "Job", "name": "shop-1" }] } });
        fake.at("POST", MAPS, 1, |objects| drop(objects.insert(MAP.to_owned(), made)));
        fake.break_off("POST", MAPS);
        Publisher::start(fake.client(), owner(), status(Phase::Saving, 3), NEVER).await.unwrap();
        assert_eq!(published(&fake).counts.objects, 3);
    }
}
