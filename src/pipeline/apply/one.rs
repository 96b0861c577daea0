//! What the write of some kinds needs before or after it.

use super::write::{Deed, Failure};
use super::{Apply, Gathered, lock};
use crate::archive::besides::Besides;
use crate::cluster::object::State;
use crate::report::{Event, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules::{accounts, claims};
use serde_json::{Value, json};
use std::sync::Mutex;

/// How often a change of something that others change too is tried.
const TRIES: u32 = 5;

impl Apply<'_> {
    /// Lets a claim's released volume take it again.
    pub(super) async fn give_back(&self, deed: &Deed) -> Result<(), Failure> {
        let was = self.backup.index.entries()[deed.number].uid();
        let (Some((kind, volume)), Some(was)) = (self.plan.given_back.get(&deed.number), was) else { return Ok(()) };
        let was = was.to_string();
        let change = |live: &Value| {
            let (patch, was) = claims::given_back(live, &deed.name, &was)?;
            let (volume, uid) = (volume.name.clone(), State::of(live).uid);
            Some((patch, Besides::GivenBack { volume, uid, claim: deed.name.clone(), was }))
        };
        self.change(kind, volume, change).await.map(drop)
    }

    /// Writes the status of what was just made, where it was asked for and is a resource of its own. A failure is a problem,
    /// and not that of the create: tried again, it would find the object there and leave it alone.
    pub(super) async fn write_status(&self, gathered: &Mutex<Gathered>, deed: &Deed, object: &Value, uid: &str) {
        let status = object.get("status").filter(|_| self.plan.adaptation.rules().writes_status(&deed.kind));
        let Some(status) = status else { return };
        let patch = json!({"metadata": {"uid": uid}, "status": status});
        if let Err(error) = self.cluster.merge(&deed.kind, &deed.name, Some("status"), &patch).await {
            let message = format!("it was made, but without its status: {error}");
            let restored = &mut lock(gathered).restored;
            if !restored.missing.note(&deed.kind, &deed.name, &message) {
                let problem = Problem { subject: format!("{} {}", deed.kind, deed.name), message };
                self.events.send(Event::Problem(problem.clone()));
                restored.problems.push(problem);
            }
        }
    }

    /// Adds to a service account that appeared in the meantime what it lacks.
    pub(super) async fn complete(&self, gathered: &Mutex<Gathered>, deed: &Deed, saved: &Value) -> Result<(), Failure> {
        let change = |live: &Value| {
            let (patch, added) = accounts::lacking(live, saved)?;
            Some((patch, Besides::Added { account: deed.name.clone(), uid: State::of(live).uid, added }))
        };
        if self.change(&deed.kind, &deed.name, change).await? {
            let note = format!(
                "the service account `{}` was there already, as every namespace is given its own: what it lacked was added",
                deed.name
            );
            lock(gathered).restored.notes.push(note);
        }
        Ok(())
    }

    /// Changes an object that is there, by a patch that names the resource version it was made for, until there is nothing
    /// left to change; whether there was anything. A version that is outdated may be so by our own patch whose answer got
    /// lost. What is done is noted first, so that an undo can take it back.
    async fn change(
        &self,
        kind: &Kind,
        name: &ObjectName,
        deed: impl Fn(&Value) -> Option<(Value, Besides)>,
    ) -> Result<bool, Failure> {
        let mut tried = 0;
        loop {
            let Some(live) = self.cluster.get(kind, name).await? else { return Ok(tried > 0) };
            let deed = deed(&serde_json::from_slice(&live).unwrap_or_default());
            let Some((patch, besides)) = deed else { return Ok(tried > 0) };
            if let Some(journal) = self.journal {
                journal.note(&besides).await.map_err(Failure::Fatal)?;
            }
            tried += 1;
            match self.cluster.merge(kind, name, None, &patch).await {
                Err(error) if error.code() == Some(409) && tried < TRIES => (),
                other => return Ok(other.map(|()| true)?),
            }
        }
    }
}
