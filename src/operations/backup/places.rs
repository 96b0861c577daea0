//! The namespaces that a backup is of: what the selection means before the hooks run, and again at the backup's revision.
//! Hooks may take minutes, in which namespaces come, go, and are given labels; what is saved is what is meant at the
//! revision.

use crate::cluster::{self, Cluster};
use crate::operations::Usage;
use crate::pipeline::Error;
use crate::pipeline::save::Wanted;
use crate::report::{Events, Omission, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules::selection::{Chosen, Meant, Namespaces, Place};
use crate::rules::similar;
use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;

/// Namespaces read at once.
const AT_ONCE: usize = 8;

/// What a selection means of namespaces at one moment.
#[derive(Clone, Debug)]
pub(in crate::operations) struct Places {
    pub(in crate::operations) wanted: Wanted,
    /// What of them, without the namespaces that labels leave out.
    pub(in crate::operations) chosen: Chosen,
    /// The namespaces that are saved; `None` where nobody may list them.
    names: Option<BTreeSet<String>>,
    /// Those of them that nobody named and that are being deleted.
    ending: Vec<String>,
    /// Those that are left out, by flag or label.
    pub(super) left_out: Vec<String>,
    /// What flag and labels leave out.
    omissions: Vec<Omission>,
    pub(super) problems: Vec<Problem>,
}

impl Places {
    /// What the selection means now. A name or glob that means nothing is an error: a backup of nothing would look good.
    pub(super) async fn now(chosen: Chosen, cluster: &Cluster, kind: &Kind, events: &Events) -> anyhow::Result<Self> {
        let selection = chosen.selection();
        let is_all = selection.namespaces.is_none() && selection.exclude_namespaces.is_empty();
        let there = match there(cluster, kind, &chosen, None).await {
            // the list at the revision is what counts
            Err(error) if is_all => {
                events.note(format!("which namespaces labels leave out is not known yet: {error}"));
                return Ok(Self::unknown(chosen));
            }
            other => other.context("listing namespaces")?,
        };
        let meant = chosen.among(&there);
        if let Some(unmatched) = meant.unmatched.first() {
            // who may not list them is told the same, without what is spelled nearly so
            let all = cluster.list_names(kind, None).await.unwrap_or_default();
            let all: Vec<&str> = all.iter().map(|listed| listed.name.name.as_str()).collect();
            return Err(Error::NotFound(no_such_namespace(unmatched, &all)).into());
        }
        if selection.namespaces.is_some() && meant.wanted.is_empty() {
            return Err(match meant.by_label.first_key_value() {
                None => Usage(all_excluded(&selection.exclude_namespaces)).into(),
                Some((name, rule)) => Error::NotFound(all_labelled(name, rule, meant.by_label.len())).into(),
            });
        }
        Ok(Self::of(&chosen, meant))
    }

    /// What the same selection means at a revision; `None`: now, once more.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing of it is left; 410 where the revision is no longer kept.
    pub(super) async fn at(&self, cluster: &Cluster, kind: &Kind, revision: Option<&str>) -> Result<Self, Error> {
        let there = match there(cluster, kind, &self.chosen, revision).await {
            Err(error) if error.is_expired() => return Err(error.into()),
            Err(error) => {
                let message = format!("those at the backup's revision are not known, only those before it: {error}");
                let mut known = self.clone();
                known.problems.push(Problem { subject: "namespaces".to_owned(), message });
                return Ok(known);
            }
            Ok(there) => there,
        };
        let meant = self.chosen.among(&there);
        if matches!(self.wanted, Wanted::Namespaces(_)) && meant.wanted.is_empty() {
            return Err(Error::NotFound(self.nothing_left()));
        }
        Ok(Self::of(&self.chosen, meant))
    }

    fn of(chosen: &Chosen, meant: Meant) -> Self {
        let gone = |text: &String| Problem {
            subject: format!("namespaces {text}"),
            message: "it was there when the backup began and is gone at its revision: nothing of it is saved"
                .to_owned(),
        };
        // who names one expects all of it; of all that there are, one that ends is what it is
        let (named, ending): (Vec<String>, Vec<String>) =
            meant.ending.into_iter().partition(|name| chosen.names_namespace(name));
        let incomplete = |name: &String| Problem {
            subject: format!("namespaces {name}"),
            message: format!(
                "it is being deleted, so what is saved of it may be only a part; hint: `kubectl get namespace {name} -o yaml` tells what it waits for"
            ),
        };
        let problems = meant.unmatched.iter().map(gone).chain(named.iter().map(incomplete)).collect();
        let by_flag = (!meant.by_flag.is_empty()).then(|| Omission {
            subject: "namespaces".to_owned(),
            rule: format!("--exclude-namespace {}", chosen.selection().exclude_namespaces.join(",")),
            objects: Some(meant.by_flag.len() as u64),
        });
        let by_label = meant.by_label.iter().map(|(name, rule)| Omission {
            subject: format!("namespaces {name}"),
            rule: format!("{rule}, with all that is in it"),
            objects: None,
        });
        let wanted = match chosen.patterns() {
            None => Wanted::Cluster,
            Some(_) => Wanted::Namespaces(meant.wanted.clone()),
        };
        Self {
            wanted,
            ending,
            omissions: by_flag.into_iter().chain(by_label).collect(),
            problems,
            left_out: meant.by_flag.iter().chain(meant.by_label.keys()).cloned().collect(),
            chosen: chosen.without(meant.by_label.into_keys()),
            names: Some(meant.wanted),
        }
    }

    /// All of the cluster, where its namespaces can't be listed.
    fn unknown(chosen: Chosen) -> Self {
        let (ending, left_out, omissions, problems) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { wanted: Wanted::Cluster, chosen, names: None, ending, left_out, omissions, problems }
    }

    fn nothing_left(&self) -> String {
        let names: Vec<&str> = self.names.iter().flatten().map(String::as_str).collect();
        let what = match names.as_slice() {
            [only] => format!("namespace `{only}`, which was"),
            more => format!("the {} namespaces that were", more.len()),
        };
        format!(
            "nothing is left of {what} there when the backup began: deleted since, or excluded by a label\nhint: `kubectl get namespaces --show-labels` lists what there is"
        )
    }

    /// What flag and labels leave out.
    pub(super) fn omissions(&self) -> impl Iterator<Item = Omission> {
        self.omissions.iter().cloned()
    }

    /// What is to be said of those at the revision, which these became, as lines for the log. `hooks`: whether any are run.
    pub(super) fn notes(&self, later: &Self, hooks: bool) -> Vec<String> {
        let ending = later.ending.iter();
        let mut notes: Vec<String> =
            ending.map(|name| format!("namespace `{name}` is being deleted; what is left of it is saved")).collect();
        let (Some(before), Some(after)) = (&self.names, &later.names) else { return notes };
        let without_hooks = if hooks { ", and no hook was run in it" } else { "" };
        let come = after.difference(before).map(|name| {
            format!("namespace `{name}` is meant at the revision, and was not when the backup began: it is saved{without_hooks}")
        });
        let gone = before
            .difference(after)
            .map(|name| format!("namespace `{name}` was meant when the backup began, and is not at the revision"));
        notes.extend(come.chain(gone));
        notes
    }
}

/// The namespaces that are there among which the selection chooses: all, or those that are named where only names are
/// given, each read by itself so that nobody needs the right to list all.
async fn there(
    cluster: &Cluster,
    kind: &Kind,
    chosen: &Chosen,
    revision: Option<&str>,
) -> Result<Vec<Place>, cluster::Error> {
    if let Some(patterns) = chosen.patterns().filter(|patterns| patterns.is_literal()) {
        return named(cluster, kind, patterns, revision).await;
    }
    let pick = |raw: &str| Some(Place::read(raw));
    let found = match revision {
        Some(revision) => cluster.pick_at(kind, None, revision, pick).await?,
        None => cluster.pick(kind, None, pick).await?,
    };
    found.into_iter().map(|place| place.map_err(|error| unread(&error))).collect()
}

async fn named(
    cluster: &Cluster,
    kind: &Kind,
    patterns: &Namespaces,
    revision: Option<&str>,
) -> Result<Vec<Place>, cluster::Error> {
    let names: BTreeSet<String> = patterns.literal_names().map(str::to_owned).collect();
    let found = stream::iter(names).map(|name| async move { one(cluster, kind, &name, revision).await });
    found.buffered(AT_ONCE).try_filter_map(async |place| Ok(place)).try_collect().await
}

/// One namespace; for who may read and not list it, as it is now.
async fn one(
    cluster: &Cluster,
    kind: &Kind,
    name: &str,
    revision: Option<&str>,
) -> Result<Option<Place>, cluster::Error> {
    if let Some(revision) = revision {
        match cluster.pick_at(kind, Some(name), revision, |raw| Some(Place::read(raw))).await {
            Err(error) if error.is_forbidden() => (),
            found => return found?.pop().transpose().map_err(|error| unread(&error)),
        }
    }
    let found = cluster.get(kind, &ObjectName::new(None, name)).await?;
    let read = |bytes: &bytes::Bytes| Place::read(&String::from_utf8_lossy(bytes));
    found.as_ref().map(read).transpose().map_err(|error| unread(&error))
}

fn unread(error: &serde_json::Error) -> cluster::Error {
    cluster::Error::Answer { what: "reading a namespace".to_owned(), message: error.to_string() }
}

fn no_such_namespace(pattern: &str, existing: &[&str]) -> String {
    let similar = similar(pattern, existing.iter().copied());
    let hint = match similar.first() {
        Some(name) => format!("did you mean `{name}`?"),
        None => "`kubectl get namespaces` lists what there is".to_owned(),
    };
    format!("there is no namespace `{pattern}`\nhint: {hint}")
}

fn all_excluded(flags: &[String]) -> String {
    format!("`--exclude-namespace {}` leaves no namespace\nhint: name fewer", flags.join(","))
}

fn all_labelled(name: &str, rule: &str, labelled: usize) -> String {
    let which = match labelled - 1 {
        0 => format!("`{name}` is left out by its {rule}"),
        more => format!("`{name}` and {more} more are left out by their labels, such as {rule}"),
    };
    format!("no namespace is left: {which}\nhint: who names a namespace in full means it, whatever its labels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::selection::Selection;

    fn places(there: &[(&str, bool)]) -> Places {
        let place = |(name, is_ending): &(&str, bool)| {
            let (name, is_ending) = ((*name).to_owned(), *is_ending);
            Place { name, excluded: None, is_ending }
        };
        let chosen = Chosen::resolve(&Selection::of_namespaces(vec!["*".to_owned()]), &[]).unwrap();
        Places::of(&chosen, chosen.among(&there.iter().map(place).collect::<Vec<_>>()))
    }

    #[test]
    fn what_changed_while_hooks_ran_is_noted() {
        let before = places(&[("blog", false), ("shop", false)]);
        assert_eq!(before.notes(&before, true), [""; 0]);
        let after = places(&[("shop", true), ("spring", false)]);
        let lines = |hooks| {
            let come = "namespace `spring` is meant at the revision, and was not when the backup began: it is saved";
            let gone = "namespace `blog` was meant when the backup began, and is not at the revision";
            let ending = "namespace `shop` is being deleted; what is left of it is saved";
            [ending.to_owned(), format!("{come}{hooks}"), gone.to_owned()]
        };
        assert_eq!(before.notes(&after, true), lines(", and no hook was run in it"));
        assert_eq!(before.notes(&after, false), lines(""));
        let unknown = Places::unknown(before.chosen.clone());
        assert_eq!(unknown.notes(&after, true), lines("")[..1]);
    }
}
