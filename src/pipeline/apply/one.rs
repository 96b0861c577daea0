//! What the write of some kinds needs before or after it.

use super::write::Deed;
use super::{Apply, Gathered, lock};
use crate::cluster::Error as ClusterError;
use crate::report::{Event, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules::{accounts, claims};
use serde_json::{Value, json};
use std::sync::Mutex;

/// How often a change of something that others change too is tried.
const TRIES: u32 = 5;

impl Apply<'_> {
    /// Lets a claim's released volume take it again.
    pub(super) async fn give_back(&self, gathered: &Mutex<Gathered>, deed: &Deed) -> Result<(), ClusterError> {
        let was = self.backup.index.entries()[deed.number].uid();
        let (Some((kind, volume)), Some(was)) = (self.plan.given_back.get(&deed.number), was) else { return Ok(()) };
        let was = was.to_string();
        if self.change(kind, volume, |live| claims::given_back(live, &deed.name, &was)).await? {
            let text = format!("volume `{volume}` stays with claim `{}`, to which it was given back", deed.name);
            lock(gathered).restored.stays.push(text);
        }
        Ok(())
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
    pub(super) async fn complete(
        &self,
        gathered: &Mutex<Gathered>,
        deed: &Deed,
        saved: &Value,
    ) -> Result<(), ClusterError> {
        if self.change(&deed.kind, &deed.name, |live| accounts::lacking(live, saved)).await? {
            let note = format!(
                "the service account `{}` was there already, as every namespace is given its own: what it lacked was added",
                deed.name
            );
            let stays = format!("service account `{}` keeps what was added to it", deed.name);
            let restored = &mut lock(gathered).restored;
            restored.notes.push(note);
            restored.stays.push(stays);
        }
        Ok(())
    }

    /// Changes an object that is there, by a patch that names the resource version it was made for, until there is nothing
    /// left to change; whether there was anything. A version that is outdated may be so by our own patch whose answer got
    /// lost.
    async fn change(
        &self,
        kind: &Kind,
        name: &ObjectName,
        patch: impl Fn(&Value) -> Option<Value>,
    ) -> Result<bool, ClusterError> {
        let mut tried = 0;
        loop {
            let Some(live) = self.cluster.get(kind, name).await? else { return Ok(tried > 0) };
            let Some(patch) = patch(&serde_json::from_slice(&live).unwrap_or_default()) else { return Ok(tried > 0) };
            tried += 1;
            match self.cluster.merge(kind, name, None, &patch).await {
                Err(error) if error.code() == Some(409) && tried < TRIES => (),
                other => return other.map(|()| true),
            }
        }
    }
}
