//! One list with all that is tried before it becomes a problem in the report: read on after a compaction, or in another
//! version where the kind's own stops being served, and namespace by namespace ([`super::split`]) where the API server can't
//! give the whole or doesn't want to.

use super::frames::Frames;
use super::list::{self, Choice, Item, ListTask, Listed};
use super::{Saving, Wanted};
use crate::cluster;
use crate::pipeline::Error;
use crate::report::Problem;
use crate::resource::Kind;

/// Decides on an item of a list.
pub(super) type Choose<'c> = dyn Fn(&Item<'_>, &str) -> Choice + Sync + 'c;

/// What becomes of a list's items.
#[derive(Clone, Copy)]
pub(super) struct Taker<'t> {
    pub(super) choose: &'t Choose<'t>,
    pub(super) frames: &'t Frames,
}

/// Where a list broke off, or is to go on.
#[derive(Default)]
pub(super) struct Place {
    /// As [`Listed::last`].
    pub(super) last: String,
    /// As [`Listed::unordered`].
    pub(super) unordered: bool,
}

impl Saving<'_> {
    /// Makes one list. That it fails is a problem in the report, unless nothing more can be had from the run.
    pub(super) async fn list(&self, task: &ListTask, frames: &Frames, choose: &Choose<'_>) -> Result<(), Error> {
        let (taker, mut place) = (Taker { choose, frames }, Place::default());
        let turn = self.turn().await;
        let result = self.served(task, taker, &mut place).await;
        drop(turn);
        match result {
            Ok(()) => (),
            Err(error) if place.last.is_empty() && self.is_gone(task, &error) => self.note_gone(&task.kind),
            Err(error) if self.ends_run(&error) => return Err(error),
            Err(error) if task.may_be_split() && self.is_worth_splitting(&error) && !place.unordered => {
                self.by_namespace(task, taker, &error, &place.last).await?;
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

    /// Makes a list from a place on. Where the version of the kind isn't served any more, which somebody may change at any
    /// time, it goes on at that place in a version that is.
    pub(super) async fn served(&self, task: &ListTask, taker: Taker<'_>, place: &mut Place) -> Result<(), Error> {
        let gone = match self.noted(task, taker, place).await {
            Err(error) if is_not_found(&error) && !place.unordered => error,
            other => return other,
        };
        let Some(kind) = self.other_version(&task.kind).await else { return Err(gone) };
        self.events.note(format!("{gone}; it is listed as `{}`", kind.api_version()));
        self.noted(&ListTask { kind, ..task.clone() }, taker, place).await
    }

    /// A kind in a version that is served now, other than this one. What can't be found out is left to the list's own error.
    async fn other_version(&self, kind: &Kind) -> Option<Kind> {
        let discovery = self.cluster.discover().await.ok()?;
        let version = discovery.versions(&kind.key()).iter().find(|version| **version != kind.version)?;
        Some(Kind { version: version.clone(), ..kind.clone() })
    }

    /// Makes a list from a place on, and notes what it gave.
    async fn noted(&self, task: &ListTask, taker: Taker<'_>, place: &mut Place) -> Result<(), Error> {
        let is_whole = place.last.is_empty();
        let mut listed = Listed { last: std::mem::take(&mut place.last), ..Listed::default() };
        let result = self.pinned(task, taker, &mut listed).await;
        *place = Place { last: listed.last.clone(), unordered: listed.unordered };
        self.gathered().others.note(task, &listed, is_whole && result.is_ok());
        self.note(task, listed);
        result
    }

    /// Makes a list at the backup's revision. Where that is compacted on the way and the run doesn't start again, the
    /// rest is listed as it is.
    async fn pinned(&self, task: &ListTask, taker: Taker<'_>, listed: &mut Listed) -> Result<(), Error> {
        let revision = self.gathered().pin.of(&task.kind).map(str::to_owned);
        let Taker { choose, frames } = taker;
        let result = list::list(self.cluster, task, revision.as_deref(), frames, listed, choose).await;
        match (result, revision) {
            (Err(error), Some(_)) if error.is_expired() && self.request.restart_when_compacted => Err(error),
            (Err(error), revision) if error.is_expired() && !listed.unordered => {
                if revision.is_some() {
                    let why = "the revision was compacted while it was listed";
                    self.gathered().pin.release(&task.kind, why, String::new());
                }
                list::list(self.cluster, task, None, frames, listed, choose).await
            }
            (Ok(()), Some(revision)) if listed.revision != revision => {
                let why = "its API does not list at the revision asked for";
                self.gathered().pin.release(&task.kind, why, listed.revision.clone());
                Ok(())
            }
            (Err(error), _) if is_forbidden(&error) && task.name.is_some() => {
                self.read(task, error, taker, listed).await
            }
            (result, _) => result,
        }
    }

    /// Reads an object by its name that may not be listed. That gives its newest state: only lists can be had of a revision.
    async fn read(&self, task: &ListTask, refused: Error, taker: Taker<'_>, listed: &mut Listed) -> Result<(), Error> {
        match list::one(self.cluster, task, taker.frames, listed, taker.choose).await {
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
        let names = listed?.into_iter().map(|listed| listed.name.name);
        Ok(names.filter(|name| !self.request.chosen.leaves_out(name)).collect())
    }

    /// Whether lists of single namespaces may give what a list of all doesn't: where something in it can't be read, and
    /// where the caller may see some namespaces only. Who backs up everything may be expected to see everything.
    fn is_worth_splitting(&self, error: &Error) -> bool {
        is_broken(error) || (is_forbidden(error) && matches!(self.request.wanted, Wanted::Namespaces(_)))
    }

    /// Whether a kind was deleted since discovery: nothing serves it, and nothing defined it at the revision.
    fn is_gone(&self, task: &ListTask, error: &Error) -> bool {
        is_not_found(error) && self.gathered().doubtful.contains(&task.kind.key())
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
            Error::NotFound(_) => false,
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

pub(super) fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Cluster(error) if error.code() == Some(403))
}

/// Whether a list isn't served: one that holds nothing is.
fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Cluster(error) if error.is_not_found())
}

/// Whether a list failed in a way that a smaller one may not: something in it can't be read. Who has no time (503) for two
/// minutes, as the server of an aggregated API that has just died, has none for a part either.
fn is_broken(error: &Error) -> bool {
    match error {
        Error::Cluster(error) => match error {
            cluster::Error::Api { status, .. } => status.code >= 500 && status.code != 503,
            cluster::Error::Transport { .. } | cluster::Error::Timeout { .. } | cluster::Error::Answer { .. } => true,
            cluster::Error::Connect { .. } => false,
        },
        _ => false,
    }
}
