//! One list with all that is tried before it becomes a problem in the report: read on after a compaction, and namespace
//! by namespace where the API server can't give the whole or doesn't want to, so that one broken object (a Secret that can't be decrypted,
//! a resource whose conversion webhook is dead) costs one namespace.

use super::frames::Frames;
use super::list::{self, Choice, Item, ListTask, Listed};
use super::{Saving, Wanted};
use crate::cluster;
use crate::pipeline::Error;
use crate::report::Problem;

/// How often a page is asked for when the list of all namespaces has failed already as often as makes sense.
const TRIES_EACH: u32 = 3;

/// Decides on an item of a list.
pub(super) type Choose<'c> = dyn Fn(&Item<'_>, &str) -> Choice + Sync + 'c;

impl Saving<'_> {
    /// Makes one list. That it fails is a problem in the report, unless nothing more can be had from the run.
    pub(super) async fn list(&self, task: &ListTask, frames: &Frames, choose: &Choose<'_>) -> Result<(), Error> {
        let mut listed = Listed::default();
        let result = self.pinned(task, frames, &mut listed, choose).await;
        let (last, unordered) = (listed.last.clone(), listed.unordered);
        self.gathered().others.note(task, &listed, result.is_ok());
        self.note(task, listed);
        match result {
            Ok(()) => (),
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
    async fn pinned(
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

    /// Lists what is missing of a kind whose list broke off at `last`, namespace by namespace.
    async fn by_namespace(
        &self,
        task: &ListTask,
        broken: &Error,
        last: &str,
        frames: &Frames,
        choose: &Choose<'_>,
    ) -> Result<(), Error> {
        self.events.note(format!("{broken}; it is listed namespace by namespace"));
        let namespaces = match self.namespaces().await {
            Ok(namespaces) => namespaces,
            Err(error) if self.ends_run(&error) => return Err(error),
            Err(_) => {
                self.problem(task, broken);
                return Ok(());
            }
        };
        // `last` is the place of an item, or empty; what comes before it was looked at
        let begun = last.split_once('/').map(|(namespace, _)| namespace);
        let (mut lists, mut refused) = (0, Vec::new());
        for namespace in namespaces {
            if begun.is_some_and(|begun| namespace != begun && format!("{namespace}/") < format!("{begun}/")) {
                continue;
            }
            let own = ListTask { tries: TRIES_EACH, namespace: Some(namespace.clone()), ..task.clone() };
            let mut listed = Listed::default();
            if begun == Some(namespace.as_str()) {
                last.clone_into(&mut listed.last);
            }
            let result = self.pinned(&own, frames, &mut listed, choose).await;
            self.gathered().others.note(&own, &listed, result.is_ok());
            self.note(&own, listed);
            match result {
                Err(error) if self.ends_run(&error) => return Err(error),
                Err(error) if is_forbidden(&error) => refused.push((own, error)),
                Err(error) => self.problem(&own, &error),
                Ok(()) => (),
            }
            lists += 1;
        }
        match refused.as_slice() {
            // a kind that may be listed nowhere is one problem, however many namespaces there are
            all if all.len() == lists && is_forbidden(broken) => self.problem(task, broken),
            some => some.iter().for_each(|(own, error)| self.problem(own, error)),
        }
        Ok(())
    }

    /// The namespaces whose objects are saved, at the backup's revision.
    async fn namespaces(&self) -> Result<Vec<String>, Error> {
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
        let names = listed?.into_iter().map(|listed| listed.name.name);
        Ok(names.filter(|name| !self.request.chosen.leaves_out(name)).collect())
    }

    /// Whether lists of single namespaces may give what a list of all doesn't: where something in it can't be read, and
    /// where the caller may see some namespaces only. Who backs up everything may be expected to see everything.
    fn is_worth_splitting(&self, error: &Error) -> bool {
        is_broken(error) || (is_forbidden(error) && matches!(self.request.wanted, Wanted::Namespaces(_)))
    }

    /// Whether nothing more can be had from the run after this.
    fn ends_run(&self, error: &Error) -> bool {
        match error {
            Error::Cluster(_) => error.is_expired() && self.request.restart_when_compacted,
            Error::Cut { .. } | Error::NotFound(_) => false,
            _ => true,
        }
    }

    fn problem(&self, task: &ListTask, error: &Error) {
        let subject = match (&task.namespace, &task.name) {
            (Some(namespace), _) => format!("{} in namespace {namespace}", task.kind),
            (None, Some(name)) => format!("{} {name}", task.kind),
            (None, None) => task.kind.key(),
        };
        self.tell(Problem { subject, message: error.to_string() });
    }

    /// Adds up what a list gave.
    fn note(&self, task: &ListTask, listed: Listed) {
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

fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Cluster(error) if error.code() == Some(403))
}

/// Whether a list failed in a way that a smaller one may not: something in it can't be read.
fn is_broken(error: &Error) -> bool {
    match error {
        Error::Cut { .. } => true,
        Error::Cluster(error) => match error {
            cluster::Error::Api { status, .. } => status.code >= 500,
            cluster::Error::Transport { .. } | cluster::Error::Timeout { .. } | cluster::Error::Answer { .. } => true,
            cluster::Error::Connect { .. } => false,
        },
        _ => false,
    }
}
