//! Taking back what a restore did besides: what it added to a service account, and a volume that it gave back to its claim.

use super::{TRIES, Undo};
use crate::cluster::Error as ClusterError;
use crate::cluster::object::State;
use crate::pipeline::adapt;
use crate::resource::{Kind, ObjectName};
use crate::rules::accounts::{self, Added};
use crate::rules::claims::{self, Remembered};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks whether something is gone.
const LOOKS: Duration = Duration::from_millis(500);

/// An object that was there and that a restore changed besides.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Its kind, as it is served now.
    pub kind: Kind,
    /// Where it is.
    pub name: ObjectName,
    /// Its uid.
    pub uid: String,
    /// What was done to it.
    pub deed: Deed,
}

/// What a restore did to such an object.
#[derive(Clone, Debug)]
pub enum Deed {
    /// It added to a service account.
    Added(Added),
    /// It gave a released volume back to its claim.
    GivenBack {
        /// The kind of claims.
        kind: Kind,
        /// The claim.
        claim: ObjectName,
        /// What the volume remembered of it.
        was: Remembered,
    },
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeBack {
    /// It is taken back.
    Change,
    /// Nothing of it is left; says why.
    Nothing(&'static str),
    /// It stays; says why.
    Kept(String),
}

impl Beside {
    /// What taking it back does, in words.
    pub fn words(&self) -> String {
        match &self.deed {
            Deed::Added(added) => format!("takes out what the restore added: {}", accounts::words(added)),
            Deed::GivenBack { claim, .. } => format!("is released again, by the claim `{claim}` that there was before"),
        }
    }

    fn patch(&self, live: &Value) -> Option<Value> {
        match &self.deed {
            Deed::Added(added) => accounts::taken_out(live, added),
            Deed::GivenBack { claim, was, .. } => claims::taken_back(live, claim, was),
        }
    }
}

impl Undo<'_> {
    /// Decides what becomes of it. `goes` says whether this undo removes a claim. Writes nothing.
    ///
    /// # Errors
    /// The API server's, or the connection's failure after all tries.
    pub async fn judge_beside(
        &self,
        one: &Beside,
        goes: impl Fn(&ObjectName) -> bool,
    ) -> Result<TakeBack, ClusterError> {
        let Some(live) = self.still(one).await? else { return Ok(TakeBack::Nothing("it is gone already")) };
        if one.patch(&live).is_none() {
            return Ok(TakeBack::Nothing("nothing of it is left"));
        }
        if let Deed::GivenBack { kind, claim, .. } = &one.deed
            && !goes(claim)
            && self.cluster.get(kind, claim).await?.is_some()
        {
            let why = "was given back to it, and is released again when the claim is named and goes";
            return Ok(TakeBack::Kept(format!("the claim `{claim}` is there: the volume {why}")));
        }
        Ok(TakeBack::Change)
    }

    /// Whether the data of a volume that was there before the restore would go with its claim.
    ///
    /// # Errors
    /// The API server's, or the connection's failure after all tries.
    pub async fn goes_with_claim(&self, one: &Beside) -> Result<bool, ClusterError> {
        let live = self.still(one).await?;
        let policy = live.as_ref().and_then(|live| live.pointer("/spec/persistentVolumeReclaimPolicy"));
        Ok(matches!(one.deed, Deed::GivenBack { .. }) && policy.is_some_and(|policy| policy != "Retain"))
    }

    /// Takes it back: by a patch for the very state that was looked at, again while others write the same object.
    ///
    /// # Errors
    /// Why it stays, in words.
    pub async fn take_back(&self, one: &Beside, claim_goes: Duration) -> Result<(), String> {
        if let Deed::GivenBack { kind, claim, .. } = &one.deed {
            self.gone(kind, claim, None, claim_goes).await?;
        }
        let mut tried = 0;
        loop {
            tried += 1;
            let Some(live) = self.still(one).await.map_err(|error| error.to_string())? else { return Ok(()) };
            let Some(patch) = one.patch(&live) else { return Ok(()) };
            match self.cluster.merge(&one.kind, &one.name, None, &patch).await {
                Err(error) if error.code() == Some(409) && tried < TRIES => (),
                other => return other.map_err(|error| error.to_string()),
            }
        }
    }

    /// The object, while it is the one that the restore changed and isn't on its way out.
    async fn still(&self, one: &Beside) -> Result<Option<Value>, ClusterError> {
        let Some(json) = self.cluster.get(&one.kind, &one.name).await? else { return Ok(None) };
        let live = adapt::live(&one.kind, &one.name, &json)?;
        let same = State::of(&live).uid == one.uid && live.pointer("/metadata/deletionTimestamp").is_none();
        Ok(same.then_some(live))
    }

    /// Waits until an object is gone, the one of this uid where one is given.
    ///
    /// # Errors
    /// After the deadline, what holds it; or the API server's answer.
    pub async fn gone(
        &self,
        kind: &Kind,
        name: &ObjectName,
        uid: Option<&str>,
        timeout: Duration,
    ) -> Result<(), String> {
        let (deadline, mut told) = (Instant::now() + timeout, false);
        loop {
            let Some(json) = self.cluster.get(kind, name).await.map_err(|error| error.to_string())? else {
                return Ok(());
            };
            let live: Value = adapt::live(kind, name, &json).map_err(|error| error.to_string())?;
            if uid.is_some_and(|uid| State::of(&live).uid != uid) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(still_there(kind, name, &live, timeout));
            }
            if !std::mem::replace(&mut told, true) {
                self.events.note(format!("waiting until `{kind}` `{name}` is gone"));
            }
            sleep(LOOKS).await;
        }
    }
}

/// What holds an object.
fn still_there(kind: &Kind, name: &ObjectName, live: &Value, timeout: Duration) -> String {
    let finalizers = live.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
    let held = finalizers.filter_map(Value::as_str).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let pods = held.contains("pvc-protection");
    let held = match held.as_str() {
        "" => String::new(),
        held if pods => format!(", held by {held}: pods use it"),
        held => format!(", held by {held}"),
    };
    format!("`{kind}` `{name}` is still there after {} s{held}; undo again when it is gone", timeout.as_secs())
}
