//! One list with all that is tried before it becomes a problem in the report: read on after a compaction, and namespace
//! by namespace ([`super::split`]) where the API server can't give the whole or doesn't want to.

use super::frames::Frames;
use super::list::{self, Choice, Item, ListTask, Listed};
use super::{Saving, Wanted};
use crate::cluster;
use crate::pipeline::Error;
use crate::report::Problem;
use crate::resource::Kind;

/// Decides on an item of a list.
pub(super) type Choose<'c> = dyn Fn(&Item<'_>, &str) -> Choice + Sync + 'c;

impl Saving<'_> {
    /// Makes one list. That it fails is a problem in the report, unless nothing more can be had from the run.
    pub(super) async fn list(&self, task: &ListTask, frames: &Frames, choose: &Choose<'_>) -> Result<(), Error> {
        let mut listed = Listed::default();
        let turn = self.turn().await;
        let result = self.pinned(task, frames, &mut listed, choose).await;
        drop(turn);
        let (last, unordered) = (listed.last.clone(), listed.unordered);
        let is_gone = result.as_ref().is_err_and(|error| self.is_gone(task, error)) && listed.revision.is_empty();
        self.gathered().others.note(task, &listed, result.is_ok());
        self.note(task, listed);
        match result {
            Ok(()) => (),
            Err(_) if is_gone => self.note_gone(&task.kind),
            Err(error) if self.ends_run(&error) => return Err(error),
            Err(error) if task.may_be_split() && self.is_worth_splitting(&error) && !unordered => {
                self.by_namespace(task, &error, &last, frames, choose).await?;
            }
            Err(error) => self.problem(task, &error),
        }
        let counts = {
            let mut gathered = self.gathered();
            gathered.counts.kinds_done += 1;
            gathered.counts
        };
        self.events.progress(counts);
        Ok(())
    }

    /// Makes a list at the backup's revision. Where that is compacted on the way and the run doesn't start again, the
    /// rest is listed as it is.
    pub(super) async fn pinned(
        &self,
        task: &ListTask,
        frames: &Frames,
        listed: &mut Listed,
        choose: &Choose<'_>,
    ) -> Result<(), Error> {
        let revision = self.gathered().pin.of(&task.kind).map(str::to_owned);
        let each = |item: &Item<'_>, text: &str| choose(item, text);
        let result = list::list(self.cluster, task, revision.as_deref(), frames, listed, each).await;
        match (result, revision) {
            (Err(error), Some(_)) if error.is_expired() && self.request.restart_when_compacted => Err(error),
            (Err(error), revision) if error.is_expired() && !listed.unordered => {
                if revision.is_some() {
                    let why = "the revision was compacted while it was listed";
                    self.gathered().pin.release(&task.kind, why, String::new());
                }
                list::list(self.cluster, task, None, frames, listed, each).await
            }
            (Ok(()), Some(revision)) if listed.revision != revision => {
                let why = "its API does not list at the revision asked for";
                self.gathered().pin.release(&task.kind, why, listed.revision.clone());
                Ok(())
            }
            (Err(error), _) if is_forbidden(&error) && task.name.is_some() => {
                self.read(task, error, frames, listed, choose).await
            }
            (result, _) => result,
        }
    }

    /// Reads an object by its name that may not be listed. That gives its newest state: only lists can be had of a revision.
    async fn read(
        &self,
        task: &ListTask,
        refused: Error,
        frames: &Frames,
        listed: &mut Listed,
        choose: &Choose<'_>,
    ) -> Result<(), Error> {
        let each = |item: &Item<'_>, text: &str| choose(item, text);
        match list::one(self.cluster, task, frames, listed, each).await {
            Err(error) if is_forbidden(&error) => return Err(refused),
            other => other?,
        }
        let why = "it may be read but not listed, and only lists give the state at a revision";
        let mut gathered = self.gathered();
        if gathered.pin.of(&task.kind).is_some() {
            gathered.pin.release(&task.kind, why, String::new());
        }
        Ok(())
    }

    /// The namespaces whose objects are saved, at the backup's revision.
    pub(super) async fn namespaces(&self) -> Result<Vec<String>, Error> {
        if let Wanted::Namespaces(names) = self.request.wanted {
            return Ok(names.iter().cloned().collect());
        }
        let Some(kind) = self.request.served.iter().find(|kind| kind.is("namespaces")) else {
            return Err(Error::NotFound("namespaces can't be listed".to_owned()));
        };
        let revision = self.gathered().pin.of(kind).map(str::to_owned);
        let listed = match self.cluster.list_names_at(kind, revision.as_deref()).await {
            Err(error) if error.is_expired() && !self.request.restart_when_compacted => {
                self.cluster.list_names_at(kind, None).await
            }
            other => other,
        };
        Ok(listed?.into_iter().map(|listed| listed.name.name).collect())
    }

    /// Whether lists of single namespaces may give what a list of all doesn't: where something in it can't be read, and
    /// where the caller may see some namespaces only. Who backs up everything may be expected to see everything.
    fn is_worth_splitting(&self, error: &Error) -> bool {
        is_broken(error) || (is_forbidden(error) && matches!(self.request.wanted, Wanted::Namespaces(_)))
    }

    /// Whether a kind was deleted since discovery: nothing serves it, and nothing defined it at the revision.
    fn is_gone(&self, task: &ListTask, error: &Error) -> bool {
        let is_unserved = matches!(error, Error::Cluster(error) if error.is_not_found());
        is_unserved && self.gathered().doubtful.contains(&task.kind.key())
    }

    /// Says so, once.
    fn note_gone(&self, kind: &Kind) {
        let key = kind.key();
        self.gathered().pin.unpinned.remove(&key);
        if self.gathered().gone.insert(key.clone()) {
            self.events.note(format!("`{key}` was deleted since discovery: nothing of it is left at the revision"));
        }
    }

    /// Whether nothing more can be had from the run after this.
    pub(super) fn ends_run(&self, error: &Error) -> bool {
        match error {
            Error::Cluster(_) => error.is_expired() && self.request.restart_when_compacted,
            Error::Cut { .. } | Error::NotFound(_) => false,
            _ => true,
        }
    }

    pub(super) fn problem(&self, task: &ListTask, error: &Error) {
        let subject = match (&task.namespace, &task.name) {
            (Some(namespace), _) => format!("{} in namespace {namespace}", task.kind),
            (None, Some(name)) => format!("{} {name}", task.kind),
            (None, None) => task.kind.key(),
        };
        self.tell(Problem { subject, message: error.to_string() });
    }

    /// Adds up what a list gave.
    pub(super) fn note(&self, task: &ListTask, listed: Listed) {
        let mut gathered = self.gathered();
        if let Some(unpinned) = gathered.pin.unpinned.get_mut(&task.kind.key()) {
            unpinned.revision.clone_from(&listed.revision);
        }
        gathered.counts.objects += listed.objects;
        gathered.counts.bytes += listed.bytes;
        let sum = gathered.kinds.entry(task.kind.clone()).or_default();
        sum.objects += listed.objects;
        sum.bytes += listed.bytes;
        if !listed.revision.is_empty() {
            sum.revision = listed.revision;
        }
        for (rule, objects) in listed.omitted {
            *sum.omitted.entry(rule).or_default() += objects;
        }
    }
}

impl ListTask {
    /// Whether it is a list of several namespaces.
    fn may_be_split(&self) -> bool {
        self.kind.namespaced && self.namespace.is_none()
    }
}

pub(super) fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Cluster(error) if error.code() == Some(403))
}

/// Whether a list failed in a way that a smaller one may not: something in it can't be read. Who has no time (503) for two
/// minutes, as the server of an aggregated API that has just died, has none for a part either.
fn is_broken(error: &Error) -> bool {
    match error {
        Error::Cut { .. } => true,
        Error::Cluster(error) => match error {
            cluster::Error::Api { status, .. } => status.code >= 500 && status.code != 503,
            cluster::Error::Transport { .. } | cluster::Error::Timeout { .. } | cluster::Error::Answer { .. } => true,
            cluster::Error::Connect { .. } => false,
        },
        _ => false,
    }
}
