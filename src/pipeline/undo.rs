//! What undoing a restore takes besides putting back what was saved: finding out what of it is still as the restore left
//! it, removing what the restore made, by uid, and taking back what it did [`besides`].

pub mod besides;

use super::fetch::Backup;
use super::plan::Plan;
use super::{Error, adapt};
use crate::cluster::object::{Dependents, State, is_written_by};
use crate::cluster::{Cluster, Error as ClusterError};
use crate::report::Events;
use crate::resource::{Kind, ObjectName};
use crate::rules::marks::MANAGED;
use crate::rules::since::written_since;
use crate::rules::verdict::{Skip, Verdict, is_spared};
use crate::rules::waves::{Wave, wave_of};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tokio_util::sync::CancellationToken;

/// Objects looked at or deleted at once.
const AT_ONCE: usize = 16;
/// How often a delete is tried, while others write the same object or answers get lost.
const TRIES: u32 = 6;

/// An object that a restore made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its kind, as it is served now.
    pub kind: Kind,
    /// Where it is.
    pub name: ObjectName,
    /// The uid that it was given.
    pub uid: String,
    /// Whether it is asked for by kind and name: then it is removed whatever it is, and whoever wrote it since.
    pub named: bool,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is deleted.
    Delete,
    /// It is gone, or goes.
    Gone,
    /// It stays by rule, or is somebody else's by now; says why.
    Kept(String),
    /// It stays though its removal was asked for; says why.
    Refused(String),
}

/// Why an object that a restore was to change is left alone.
enum Foreign {
    /// It is somebody else's by now; says whose.
    Refused(String),
    /// The restore never came to it.
    Untouched,
}

const UNTOUCHED: &str = "the restore had not come to it; somebody else changed it";

/// What undoing works with.
pub struct Undo<'a> {
    /// The target.
    pub cluster: &'a Cluster,
    /// The name under which the API server notes what the restore wrote.
    pub manager: String,
    /// When the restore had written its last object; `None` where it never ended: then only what bears its name counts as
    /// written by it.
    pub ended: Option<Timestamp>,
    /// Where to tell what happens.
    pub events: &'a Events,
    /// Ends it between two writes.
    pub cancel: &'a CancellationToken,
}

impl Undo<'_> {
    /// Decides what becomes of what a restore made. Writes nothing.
    ///
    /// # Errors
    /// The API server's, or the connection's failure after all tries.
    pub async fn judge(&self, made: &[Made]) -> Result<Vec<Removal>, Error> {
        let looked = stream::iter(0..made.len()).map(|at| async move { self.look(&made[at]).await }).buffered(AT_ONCE);
        let looked: Vec<(Removal, Option<Value>)> = looked.try_collect().await?;
        // what is spared must not go with an owner that isn't
        let mut owners = HashSet::<String>::new();
        for (one, (removal, live)) in made.iter().zip(&looked) {
            if *removal != Removal::Delete && is_spared(&one.kind) {
                let references = live.as_ref().and_then(|live| live.pointer("/metadata/ownerReferences"));
                let references = references.and_then(Value::as_array).into_iter().flatten();
                owners.extend(references.filter_map(|owner| owner["uid"].as_str().map(str::to_owned)));
            }
        }
        let judged = looked.into_iter().zip(made).map(|((removal, _), one)| match removal {
            Removal::Delete if owners.contains(&one.uid) => {
                Removal::Kept("it owns an object that is kept and would be deleted with it".to_owned())
            }
            other => other,
        });
        Ok(judged.collect())
    }

    async fn look(&self, made: &Made) -> Result<(Removal, Option<Value>), ClusterError> {
        let Some(json) = self.cluster.get(&made.kind, &made.name).await? else { return Ok((Removal::Gone, None)) };
        let live: Value = adapt::live(&made.kind, &made.name, &json)?;
        let removal = if live["metadata"]["uid"] != made.uid.as_str() {
            Removal::Kept("it isn't the one that the restore made, which is gone".to_owned())
        } else if live.pointer("/metadata/deletionTimestamp").is_some() {
            Removal::Gone
        } else if made.named {
            Removal::Delete
        } else if is_spared(&made.kind) {
            Removal::Kept("what is in it would go along: it is removed only when it is named".to_owned())
        } else if let Some(who) = self.written_since(&live).filter(|_| !is_helper(&made.kind, &live)) {
            Removal::Refused(since(&who))
        } else {
            Removal::Delete
        };
        Ok((removal, Some(live)))
    }

    /// Deletes these of what a restore made, what depends on others first. Gives what went wrong with some.
    ///
    /// # Errors
    /// On a signal; what was deleted by then is gone, and a second run goes on from there.
    pub async fn remove(&self, made: &[Made], chosen: &BTreeSet<usize>) -> Result<BTreeMap<usize, String>, Error> {
        let mut waves = BTreeMap::<Wave, Vec<usize>>::new();
        chosen.iter().for_each(|at| waves.entry(wave_of(&made[*at].kind)).or_default().push(*at));
        let mut failed = BTreeMap::new();
        for (wave, all) in waves.into_iter().rev() {
            self.events.note(format!("removing {wave}: {} objects", all.len()));
            let mut deletes =
                stream::iter(all).map(|at| async move { (at, self.delete(&made[at]).await) }).buffer_unordered(AT_ONCE);
            loop {
                let next = tokio::select! {
                    next = deletes.next() => next,
                    () = self.cancel.cancelled() => return Err(Error::Cancelled),
                };
                match next {
                    Some((at, Err(why))) => _ = failed.insert(at, why),
                    Some((_, Ok(()))) => (),
                    None => break,
                }
            }
        }
        Ok(failed)
    }

    /// Deletes one, as it was looked at a moment before.
    ///
    /// # Errors
    /// Why it stays, in words.
    pub async fn delete(&self, made: &Made) -> Result<(), String> {
        let mut tried = 0;
        loop {
            tried += 1;
            let live = match self.look(made).await.map_err(|error| error.to_string())? {
                (Removal::Delete, Some(live)) => live,
                (Removal::Kept(why) | Removal::Refused(why), _) => return Err(why),
                _ => return Ok(()),
            };
            let state = State { uid: made.uid.clone(), ..State::of(&live) };
            match self.cluster.delete(&made.kind, &made.name, &state, Dependents::Deleted).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if tried < TRIES && (error.is_transient() || error.code() == Some(409)) => {
                    self.cluster.rest(tried, &error).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Leaves alone what the plan would put back and somebody wrote since the restore. `uids` are those that the restore gave,
    /// `named` the entries that are put back all the same.
    ///
    /// # Errors
    /// The API server's, or the connection's failure after all tries.
    pub async fn spare(
        &self,
        backup: &Backup,
        plan: &mut Plan,
        uids: &HashMap<String, String>,
        named: &BTreeSet<usize>,
    ) -> Result<(), Error> {
        let is_change = |verdict: &Verdict| matches!(verdict, Verdict::Update | Verdict::Recreate);
        let changes = plan.items.iter().filter(|item| is_change(&item.verdict)).map(|item| item.entry as usize);
        let changes: Vec<usize> = changes.filter(|number| !named.contains(number)).collect();
        let mut looked = stream::iter(changes)
            .map(|number| async move { (number, self.foreign(backup, number, uids).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((number, found)) = looked.next().await {
            match found? {
                Some(Foreign::Refused(why)) => plan.decide(number, Verdict::Refused(why.into())),
                Some(Foreign::Untouched) => plan.decide(number, Verdict::Skip(Skip::NeverRestored(UNTOUCHED))),
                None => (),
            }
        }
        Ok(())
    }

    /// Why an object isn't the restore's any more.
    async fn foreign(
        &self,
        backup: &Backup,
        number: usize,
        uids: &HashMap<String, String>,
    ) -> Result<Option<Foreign>, ClusterError> {
        let entry = &backup.index.entries()[number];
        let (kind, name) = (&backup.index.frame(entry).kind, backup.index.object_name(entry));
        let Some(json) = self.cluster.get(kind, &name).await? else { return Ok(None) };
        let live = adapt::live(kind, &name, &json)?;
        let uid = live["metadata"]["uid"].as_str().unwrap_or_default();
        let was = entry.uid().is_some_and(|was| was.to_string() == uid);
        let ours = match self.ended {
            Some(_) => uids.get(&format!("{kind} {name}")).is_some_and(|now| now == uid),
            None => is_written_by(&live, &self.manager),
        };
        if !was && !ours {
            return Ok(Some(Foreign::Refused("it was deleted and made anew since the restore".to_owned())));
        }
        if !ours && self.ended.is_none() {
            return Ok(Some(Foreign::Untouched));
        }
        Ok(self.written_since(&live).map(|who| Foreign::Refused(since(&who))))
    }

    /// Who wrote an object after the restore did.
    fn written_since(&self, live: &Value) -> Option<String> {
        // what was written after the restore's own write counts, whenever the restore would have ended
        written_since(live, &self.manager, self.ended.unwrap_or(Timestamp::MAX))
    }

    /// Finds what a restore that never ended has made of what it was about to make: what bears its name.
    ///
    /// # Errors
    /// The API server's, or the connection's failure after all tries.
    pub async fn find_made(&self, creates: Vec<(Kind, ObjectName)>) -> Result<Vec<Made>, Error> {
        let looked = stream::iter(creates).map(|(kind, name)| async move {
            let Some(json) = self.cluster.get(&kind, &name).await? else { return Ok::<_, Error>(None) };
            let live = adapt::live(&kind, &name, &json)?;
            let uid = State::of(&live).uid;
            Ok(is_written_by(&live, &self.manager).then_some(Made { kind, name, uid, named: false }))
        });
        let found: Vec<Option<Made>> = looked.buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Whether it is what an import of a snapshot works with, which is ours and the snapshot controller writes. Snapshots of other
/// people are not restored.
fn is_helper(kind: &Kind, live: &Value) -> bool {
    kind.group == "snapshot.storage.k8s.io" && live["metadata"]["labels"][MANAGED] == "true"
}

fn since(who: &str) -> String {
    format!("`{}` has written it since the restore; where it is named it is undone all the same", who.escape_debug())
}
