//! One object's write. Each of them can be done again at any point: what is there is looked at before it is changed, and
//! a write whose answer got lost is recognised by what it did.

use super::{Applied, Apply, Gathered, PlanItem, Saved, lock};
use crate::cluster::Error as ClusterError;
use crate::cluster::object::{Created, Dependents, State};
use crate::pipeline::{Error, adapt};
use crate::resource::{Kind, ObjectName};
use crate::rules::compare;
use crate::rules::verdict::{Verdict, takes_dependents};
use bytes::Bytes;
use serde_json::Value;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How often a change is tried: while others write the same object, or answers get lost.
const TRIES: u32 = 6;
/// How long an object may take to go once it is deleted, besides the grace period that it asks for.
const GONE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a namespace may take that somebody deleted just before the restore.
const NAMESPACE_TIMEOUT: Duration = Duration::from_secs(180);
/// Pauses between two looks whether something is gone.
const LOOKS: Duration = Duration::from_millis(250);

/// Why an object wasn't written.
#[derive(Debug)]
pub(super) enum Failure {
    /// The API server refuses it, or gives no answer.
    Cluster(ClusterError),
    /// It is not as it was when the plan was made, or doesn't go.
    Object(String),
    /// Nothing else will succeed either.
    Fatal(Error),
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster(error) if is_immutable(error) => {
                write!(f, "{error}; `--existing=recreate` deletes the object and creates it anew")
            }
            Self::Cluster(error) => error.fmt(f),
            Self::Object(text) => f.write_str(text),
            Self::Fatal(error) => error.fmt(f),
        }
    }
}

fn is_immutable(error: &ClusterError) -> bool {
    error.status().is_some_and(|status| status.code == 422 && status.message.contains("immutable"))
}

/// What became of an object.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) applied: Applied,
    /// Its uid now.
    pub(super) uid: Option<String>,
    /// Fields of it that the API server doesn't know and has dropped.
    pub(super) unknown: Vec<String>,
}

impl Written {
    /// What became of an object, all of which the API server knows.
    fn whole(applied: Applied, uid: Option<String>) -> Self {
        Self { applied, uid, unknown: Vec::new() }
    }
}

/// An object of the plan and where it goes.
pub(super) struct Deed {
    pub(super) number: usize,
    /// In the version in which it is written.
    pub(super) kind: Kind,
    pub(super) name: ObjectName,
    saved: Value,
}

/// An object of the target.
struct Live {
    object: Value,
    state: State,
}

impl Live {
    fn is_going(&self) -> bool {
        self.object.pointer("/metadata/deletionTimestamp").is_some()
    }

    fn finalizers(&self) -> String {
        let finalizers = ["/metadata/finalizers", "/spec/finalizers"].map(|at| self.object.pointer(at));
        let finalizers = finalizers.into_iter().flatten().filter_map(Value::as_array).flatten();
        finalizers.filter_map(Value::as_str).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
}

impl Apply<'_> {
    /// Writes an object as the plan says.
    pub(super) async fn write(&self, gathered: &Mutex<Gathered>, saved: &Saved) -> Result<Written, Failure> {
        let deed = self.deed(saved)?;
        match self.plan.item(saved.number) {
            Some(PlanItem { verdict: Verdict::Update, .. }) => self.update(gathered, &deed).await,
            Some(PlanItem { verdict: Verdict::Recreate, .. }) => self.recreate(gathered, deed).await,
            _ => self.create(gathered, deed).await,
        }
    }

    fn deed(&self, saved: &Saved) -> Result<Deed, Failure> {
        let kind = self.kind(saved.number);
        let object = adapt::parse(self.backup, saved.number, &saved.json);
        let object = object.map_err(|error| Failure::Object(error.to_string()))?;
        Ok(Deed { number: saved.number, kind, name: self.target(saved.number), saved: object })
    }

    /// Writes the status of what an earlier attempt made, which may have been killed in between.
    pub(super) async fn complete_status(
        &self,
        gathered: &Mutex<Gathered>,
        saved: &Saved,
        uid: &str,
    ) -> Result<(), Failure> {
        let mut deed = self.deed(saved)?;
        let mut object = std::mem::take(&mut deed.saved);
        let applied = self.plan.adaptation.apply(&deed.kind, &mut object);
        applied.map_err(|error| Failure::Object(error.to_string()))?;
        self.write_status(gathered, &deed, &object, uid).await;
        Ok(())
    }

    async fn create(&self, gathered: &Mutex<Gathered>, mut deed: Deed) -> Result<Written, Failure> {
        let saved = std::mem::take(&mut deed.saved);
        let (kind, name) = (&deed.kind, &deed.name);
        let object = self.adapted(gathered, &deed, saved)?;
        let body = text(&object)?;
        self.give_back(&deed).await?;
        let mut created = self.cluster.create(kind, name, body.clone()).await?;
        if created == Created::Exists && kind.is("namespaces") && self.is_gone_at_last(kind, name).await? {
            created = self.cluster.create(kind, name, body).await?;
        }
        match &created {
            Created::Made(meta) => self.write_status(gathered, &deed, &object, &meta.uid).await,
            Created::Exists if kind.is("serviceaccounts") => self.complete(gathered, &deed, &object).await?,
            Created::Exists => (),
        }
        Ok(match created {
            Created::Made(meta) => {
                Written { applied: Applied::Created, uid: Some(meta.uid), unknown: meta.unknown_fields }
            }
            Created::Exists => Written::whole(Applied::Exists, None),
        })
    }

    /// What is created.
    fn adapted(&self, gathered: &Mutex<Gathered>, deed: &Deed, mut object: Value) -> Result<Value, Failure> {
        let applied = self.plan.adaptation.apply(&deed.kind, &mut object);
        applied.map_err(|error| Failure::Object(error.to_string()))?;
        let mut gathered = lock(gathered);
        for stripped in gathered.owners.rewrite(&deed.kind, &mut object) {
            let (kind, name) = (&deed.kind, &deed.name);
            let note = format!("`{kind}` `{name}`: the owner `{}` was taken out: {}", stripped.owner, stripped.reason);
            gathered.restored.notes.push(note);
        }
        Ok(object)
    }

    /// Waits for a namespace that is being deleted. `false`: it isn't.
    async fn is_gone_at_last(&self, kind: &Kind, name: &ObjectName) -> Result<bool, Failure> {
        let Some(live) = self.live(kind, name).await? else { return Ok(true) };
        if !live.is_going() {
            return Ok(false);
        }
        self.events.note(format!("waiting until namespace `{name}` is deleted"));
        match self.gone(kind, name, &live.state.uid, NAMESPACE_TIMEOUT).await? {
            None => Ok(true),
            Some(live) => {
                let conditions = live.object.pointer("/status/conditions").and_then(Value::as_array);
                let why = conditions.into_iter().flatten().filter(|condition| condition["status"] == "True");
                let why = why.filter_map(|condition| condition["message"].as_str()).next_back();
                Err(Failure::Fatal(Error::StillThere {
                    namespace: name.name.clone(),
                    seconds: NAMESPACE_TIMEOUT.as_secs(),
                    why: why.map_or_else(|| format!("finalizers {}", live.finalizers()), str::to_owned),
                }))
            }
        }
    }

    async fn live(&self, kind: &Kind, name: &ObjectName) -> Result<Option<Live>, Failure> {
        let Some(json) = self.cluster.get(kind, name).await? else { return Ok(None) };
        let object = adapt::live(kind, name, &json)?;
        Ok(Some(Live { state: State::of(&object), object }))
    }

    /// What an update writes, when it changes what the plan says; `None`: nothing is left to change.
    fn planned(&self, gathered: &Mutex<Gathered>, deed: &Deed, live: &Live) -> Result<Option<Value>, Failure> {
        let compared = self.plan.against(&deed.kind, deed.saved.clone(), &live.object, &lock(gathered).owners);
        let compared = compared.map_err(|error| Failure::Object(error.to_string()))?;
        if compared.changes.is_empty() {
            return Ok(None);
        }
        let planned = self.plan.changed.get(&deed.number).map(|changed| changed.digest);
        if planned == Some(compare::digest(&compared.changes)) {
            return Ok(Some(compared.wanted));
        }
        Err(Failure::Object("somebody has changed it since the plan was made; it was left alone".to_owned()))
    }

    /// Replaces an object, of which nothing changed meanwhile but what counts for nothing, such as its status.
    async fn update(&self, gathered: &Mutex<Gathered>, deed: &Deed) -> Result<Written, Failure> {
        let (mut tried, mut sent) = (0, false);
        loop {
            tried += 1;
            let Some(live) = self.live(&deed.kind, &deed.name).await? else {
                return Err(Failure::Object("it is gone since the plan was made".to_owned()));
            };
            let uid = Some(live.state.uid.clone());
            let Some(wanted) = self.planned(gathered, deed, &live)? else {
                return Ok(Written::whole(if sent { Applied::Updated } else { Applied::Unchanged }, uid));
            };
            let body = text(&wanted)?;
            match self.cluster.update(&deed.kind, &deed.name, body).await {
                // the API server's own defaults can make what was sent the same as what is there
                Ok(meta) if meta.resource_version == live.state.resource_version && !sent => {
                    return Ok(Written { unknown: meta.unknown_fields, ..Written::whole(Applied::Unchanged, uid) });
                }
                Ok(meta) => {
                    return Ok(Written { unknown: meta.unknown_fields, ..Written::whole(Applied::Updated, uid) });
                }
                Err(error) if tried < TRIES && may_repeat(&error) => {
                    sent |= !matches!(error.code(), Some(409 | 429));
                    self.cluster.rest(tried, &error).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes an object and makes it anew.
    async fn recreate(&self, gathered: &Mutex<Gathered>, deed: Deed) -> Result<Written, Failure> {
        let mut tried = 0;
        while let Some(live) = self.live(&deed.kind, &deed.name).await? {
            tried += 1;
            if !live.is_going() {
                if self.planned(gathered, &deed, &live)?.is_none() {
                    return Ok(Written::whole(Applied::Unchanged, Some(live.state.uid)));
                }
                let dependents = self.dependents(gathered, &deed);
                match self.cluster.delete(&deed.kind, &deed.name, &live.state, dependents).await {
                    Ok(()) => (),
                    Err(error) if error.is_not_found() => (),
                    Err(error) if tried < TRIES && may_repeat(&error) => {
                        self.cluster.rest(tried, &error).await;
                        continue; // and look at it again
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            self.wait_until_gone(&deed, &live).await?;
            break;
        }
        let written = self.create(gathered, deed).await?;
        match written.applied {
            Applied::Created => Ok(Written { applied: Applied::Recreated, ..written }),
            _ => Err(Failure::Object("it was deleted, and something else made it anew at once".to_owned())),
        }
    }

    /// What controllers make anew goes with its owner, unless that owns something else that the backup holds, a claim even.
    fn dependents(&self, gathered: &Mutex<Gathered>, deed: &Deed) -> Dependents {
        let was = self.backup.index.entries()[deed.number].uid();
        let is_awaited = was.is_some_and(|was| lock(gathered).owners.is_awaited(was));
        if takes_dependents(&deed.kind) && !is_awaited { Dependents::Deleted } else { Dependents::Orphaned }
    }

    async fn wait_until_gone(&self, deed: &Deed, live: &Live) -> Result<(), Failure> {
        let spec = live.object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
        let timeout = GONE_TIMEOUT + Duration::from_secs(spec.unwrap_or(0).min(600));
        let Some(left) = self.gone(&deed.kind, &deed.name, &live.state.uid, timeout).await? else { return Ok(()) };
        let held = left.finalizers();
        let why = if held.is_empty() { String::new() } else { format!(", held by the finalizers {held}") };
        let seconds = timeout.as_secs();
        let text = format!(
            "it was deleted to be created anew, and is still there after {seconds} s{why}; restore again when it is gone"
        );
        Err(Failure::Object(text))
    }

    /// Waits until an object is gone; gives what is left when it takes too long.
    async fn gone(
        &self,
        kind: &Kind,
        name: &ObjectName,
        uid: &str,
        timeout: Duration,
    ) -> Result<Option<Live>, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.live(kind, name).await? {
                Some(live) if live.state.uid == uid && Instant::now() >= deadline => return Ok(Some(live)),
                Some(live) if live.state.uid == uid => tokio::time::sleep(LOOKS).await,
                _ => return Ok(None),
            }
        }
    }
}

fn text(object: &Value) -> Result<Bytes, Failure> {
    serde_json::to_vec(object).map(Bytes::from).map_err(|error| Failure::Object(error.to_string()))
}

/// Whether a change is worth another look: somebody else wrote meanwhile, or it isn't known whether ours arrived.
fn may_repeat(error: &ClusterError) -> bool {
    error.is_transient() || error.code() == Some(409) || error.is_nonsense()
}
