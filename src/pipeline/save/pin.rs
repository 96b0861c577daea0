//! Chooses the one revision of a backup, and finds out which kinds share its counter.
//!
//! Resource versions are comparable only within one store. So every kind is asked for its own newest revision between
//! two readings of a reference kind's: a kind whose answer falls between them counts with the same etcd; one whose
//! answer doesn't (an aggregated API, a kind with an etcd of its own) is listed as it is and named in the manifest, and so is
//! one that doesn't answer: what counts for itself may fall between two of the others' revisions by chance.

use crate::archive::manifest::Unpinned;
use crate::cluster::{Cluster, Error};
use crate::resource::Kind;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is asked of the instant of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Demand {
    /// One revision for every kind that has it.
    #[default]
    Exact,
    /// Every list as it comes.
    Relaxed,
}

/// The revision of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// The revision; `None` where nothing can be pinned.
    pub revision: Option<String>,
    /// The kinds that can't be read at it, by key, with the reason.
    pub unpinned: BTreeMap<String, Unpinned>,
    /// How many objects kinds have in all namespaces, by key, about and where their API says so to who may list them all.
    pub sizes: BTreeMap<String, u64>,
}

impl Pin {
    /// The revision at which to list a kind.
    pub fn of(&self, kind: &Kind) -> Option<&str> {
        if self.unpinned.contains_key(&kind.key()) { None } else { self.revision.as_deref() }
    }

    /// Notes that a kind is listed as it is.
    pub fn release(&mut self, kind: &Kind, reason: &str, revision: String) {
        let key = kind.key();
        self.unpinned.insert(key.clone(), Unpinned { kind: key, reason: reason.to_owned(), revision });
    }
}

/// Kinds asked at once, where nobody wants fewer.
const AT_ONCE: usize = 8;
/// Kinds that nobody gives an etcd of their own, one of which is the reference where namespaces may not be listed.
const OTHER_REFERENCES: [&str; 3] = ["configmaps", "serviceaccounts", "secrets"];

/// Chooses a revision for these kinds, where one is asked for. `reference` is a kind that is always in the main etcd, such
/// as namespaces; `within`, a namespace in which to ask for the revisions of kinds of which no more may be listed; `at_once`,
/// how many kinds to ask at a time.
///
/// # Errors
/// When the reference kind can't be listed.
pub async fn choose(
    cluster: &Cluster,
    reference: &Kind,
    kinds: &[Kind],
    demand: Demand,
    within: Option<&str>,
    at_once: Option<usize>,
) -> Result<Pin, Error> {
    match demand {
        Demand::Exact => exact(cluster, reference, kinds, within, at_once.unwrap_or(AT_ONCE)).await,
        Demand::Relaxed => Ok(relaxed(kinds)),
    }
}

fn relaxed(kinds: &[Kind]) -> Pin {
    let mut pin = Pin::default();
    kinds.iter().for_each(|kind| pin.release(kind, "`--consistency=relaxed` was asked for", String::new()));
    pin
}

/// What a kind says of itself.
struct Newest {
    revision: String,
    /// How many objects there are in all namespaces, where that can be known.
    objects: Option<u64>,
}

/// What a kind's newest list says; of its objects in one namespace where only these may be listed.
async fn newest(cluster: &Cluster, kind: &Kind, within: Option<&str>) -> Result<Newest, Error> {
    match (cluster.newest(kind, None).await, within) {
        (Err(error), Some(_)) if error.is_forbidden() && kind.namespaced => {
            let of_one = cluster.newest(kind, within).await?;
            Ok(Newest { revision: of_one.resource_version, objects: None })
        }
        (of_all, _) => of_all.map(|list| Newest { objects: list.objects(), revision: list.resource_version }),
    }
}

/// The same of a kind that need not be the reference: where it can't be had since something in the list can't be read (a
/// Secret that can't be decrypted, a conversion webhook that is dead), a list without objects still says the revision.
async fn newest_of_any(cluster: &Cluster, kind: &Kind, within: Option<&str>) -> Result<Newest, Error> {
    match newest(cluster, kind, within).await {
        Err(error) if !is_told_by_list(&error) => {
            let of_nothing = cluster.newest_of_nothing(kind, within).await.map_err(|_| error)?;
            Ok(Newest { revision: of_nothing.resource_version, objects: None })
        }
        other => other,
    }
}

/// Whether the list of a kind whose revision can't be asked for fails like that as well, and is reported: what isn't served
/// any more and what may not be listed.
fn is_told_by_list(error: &Error) -> bool {
    error.is_forbidden() || error.is_not_found()
}

/// The reference's newest revision; where it may not be listed, that of another kind that is always in the main etcd.
async fn first<'a>(
    cluster: &Cluster,
    reference: &'a Kind,
    kinds: &'a [Kind],
    within: Option<&str>,
) -> Result<(&'a Kind, String), Error> {
    let refused = match newest(cluster, reference, within).await {
        Err(error) if error.is_forbidden() => error,
        other => return other.map(|newest| (reference, newest.revision)),
    };
    for kind in kinds.iter().filter(|kind| OTHER_REFERENCES.iter().any(|key| kind.is(key))) {
        if let Ok(newest) = newest(cluster, kind, within).await {
            return Ok((kind, newest.revision));
        }
    }
    Err(refused)
}

async fn exact(
    cluster: &Cluster,
    reference: &Kind,
    kinds: &[Kind],
    within: Option<&str>,
    at_once: usize,
) -> Result<Pin, Error> {
    let (reference, before) = first(cluster, reference, kinds, within).await?;
    let mut answers: Vec<(Kind, Result<Newest, Error>)> = stream::iter(kinds.to_vec())
        .map(|kind| async move {
            let answer = newest_of_any(cluster, &kind, within).await;
            Ok::<_, Error>((kind, answer))
        })
        .buffer_unordered(at_once.max(1))
        .try_collect()
        .await?;
    let after = newest(cluster, reference, within).await?.revision;
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    let mut pin = Pin { revision: Some(after.clone()), ..Pin::default() };
    let bounds = number(&before).zip(number(&after));
    if bounds.is_none() {
        pin.revision = None;
    }
    for (kind, answer) in answers {
        let size = answer.as_ref().ok().and_then(|newest| newest.objects);
        pin.sizes.extend(size.map(|size| (kind.key(), size)));
        match answer {
            Ok(newest) => {
                let is_between = |(low, high)| number(&newest.revision).is_some_and(|n| (low..=high).contains(&n));
                if !bounds.is_some_and(is_between) {
                    pin.release(&kind, "its API has a revision counter of its own", newest.revision);
                }
            }
            Err(error) if bounds.is_some() && is_told_by_list(&error) => (),
            Err(_) => pin.release(&kind, "its API could not be asked for its newest revision", String::new()),
        }
    }
    Ok(pin)
}

/// A revision as a number: what etcd gives. Other stores may use other texts, which are never compared.
fn number(revision: &str) -> Option<u64> {
    revision.parse().ok().filter(|number| *number > 0)
}
