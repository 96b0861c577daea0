//! `--dry-run=server`: the API server tries every write of a plan out, with `dryRun=All`, and what it says becomes the
//! verdict. What it can't know is unverified: objects whose namespace or kind is there only once the plan is being carried
//! out. What it lets through one by one and would refuse in sum, a quota, is added up here.

use super::apply::unknown;
use super::fetch::Backup;
use super::plan::{Plan, PlanItem};
use super::walk::{self, Load, Saved};
use super::{Error, adapt};
use crate::cluster::discover::Discovery;
use crate::cluster::object::State;
use crate::cluster::{Cluster, Error as ClusterError};
use crate::report::{Counts, Events, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules;
use crate::rules::compare::{self, Change};
use crate::rules::quota::{self, Needs};
use crate::rules::verdict::{Skip, Verdict};
use crate::store::Store;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a dry run works with.
pub struct Check<'a> {
    /// The target.
    pub cluster: &'a Cluster,
    /// What it serves.
    pub discovery: &'a Discovery,
    /// Where the backup is.
    pub store: &'a dyn Store,
    /// The backup.
    pub backup: &'a Backup,
    /// Where to tell what happens.
    pub events: &'a Events,
}

/// Why a write would not be made.
enum Refusal {
    /// The API server's word.
    Cluster(ClusterError),
    /// A person's rule can't be applied to the object.
    Rule(rules::Error),
}

impl From<ClusterError> for Refusal {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

impl From<rules::Error> for Refusal {
    fn from(error: rules::Error) -> Self {
        Self::Rule(error)
    }
}

impl Refusal {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Cluster(error) => judged(error),
            Self::Rule(error) => Verdict::Refused(error.to_string().into()),
        }
    }
}

/// What the API server said of one write.
struct Tried {
    number: usize,
    verdict: Verdict,
    /// What an update would change, as the API server has it.
    changes: Option<Vec<Change>>,
    /// What a create needs of quotas, and where.
    needs: Option<(String, Needs)>,
    /// Fields that the API server doesn't know and would drop.
    unknown: Vec<String>,
}

impl Check<'_> {
    /// Tries the plan out, and puts the API server's answers into it. Returns what is wrong with it as a whole.
    ///
    /// # Errors
    /// When the backup can't be read any more, or the quotas can't be asked for.
    pub async fn all(&self, plan: &mut Plan) -> Result<Vec<Problem>, Error> {
        let writes = plan.items.iter().filter(|item| item.verdict.writes());
        let (homeless, homely): (Vec<&PlanItem>, Vec<&PlanItem>) =
            writes.partition(|item| plan.homeless(self.backup, item).is_some());
        let homeless: Vec<_> =
            homeless.into_iter().filter_map(|item| Some((item.entry, plan.homeless(self.backup, item)?))).collect();
        let numbers: BTreeSet<usize> = homely.into_iter().map(|item| item.entry as usize).collect();
        let mut counts = Counts { objects_total: numbers.len() as u64, ..Counts::default() };
        let mut tried = Vec::new();
        let mut needs = BTreeMap::<String, Needs>::new();
        let mut lost = Vec::new();
        let one = |saved: Saved| async { self.one(plan, saved).await };
        walk::each(self.store, self.backup, &numbers, Load::WithLive, one, |mut one: Tried| {
            if let Some((namespace, needed)) = one.needs.take() {
                needs.entry(namespace).or_default().extend(needed);
            }
            if !one.unknown.is_empty() {
                lost.push((one.number, std::mem::take(&mut one.unknown)));
            }
            if one.verdict != Verdict::Create {
                tried.push(one);
            }
            counts.objects += 1;
            self.events.progress(counts);
        })
        .await?;
        homeless.into_iter().for_each(|(number, why)| plan.decide(number as usize, Verdict::Unverified(why.into())));
        self.tell(plan, tried);
        for (number, fields) in lost {
            let entry = &self.backup.index.entries()[number];
            let kind = &self.backup.index.frame(entry).kind;
            let name = plan.adaptation.target(kind, &self.backup.index.object_name(entry));
            plan.notes.push(format!("`{kind}` `{name}` would be written without {}", unknown(&fields)));
        }
        self.quotas(plan, &needs).await
    }

    fn tell(&self, plan: &mut Plan, tried: Vec<Tried>) {
        for Tried { number, verdict, changes, .. } in tried {
            plan.decide(number, verdict);
            if let (Some(changes), Some(changed)) = (changes, plan.changed.get_mut(&number)) {
                let kind = &self.backup.index.frame(&self.backup.index.entries()[number]).kind;
                changed.changes = compare::masked(kind, changes);
            }
        }
    }

    async fn one(&self, plan: &Plan, saved: Saved) -> Tried {
        let number = saved.number;
        let entry = &self.backup.index.entries()[number];
        let kind = &plan.adaptation.written_as(&self.backup.index.frame(entry).kind);
        let name = plan.adaptation.target(kind, &self.backup.index.object_name(entry));
        let mut tried = Tried { number, verdict: Verdict::Create, changes: None, needs: None, unknown: Vec::new() };
        let object = match adapt::parse(self.backup, number, &saved.json) {
            Ok(object) => object,
            Err(error) => return Tried { verdict: Verdict::Refused(error.to_string().into()), ..tried },
        };
        let verdict = plan.item(number).map_or(&Verdict::Create, |item| &item.verdict);
        let answer = match verdict {
            Verdict::Update => self.update(plan, kind, &name, object, &mut tried).await,
            Verdict::Recreate => self.recreate(plan, kind, &name, object, &mut tried).await,
            _ => self.create(plan, kind, &name, object, &mut tried).await,
        };
        tried.verdict = answer.unwrap_or_else(|refusal| refusal.verdict());
        tried
    }

    async fn create(
        &self,
        plan: &Plan,
        kind: &Kind,
        name: &ObjectName,
        object: Value,
        tried: &mut Tried,
    ) -> Result<Verdict, Refusal> {
        let body = body(plan, kind, object)?;
        tried.needs = name.namespace.as_ref().map(|namespace| (namespace.clone(), Needs::of(kind, &body)));
        match self.cluster.rehearse_create(kind, name, Bytes::from(body.to_string())).await {
            Err(error) if is_there(&error) => Ok(Verdict::Skip(Skip::Exists)),
            answer => {
                tried.unknown = answer?.unknown_fields;
                Ok(Verdict::Create)
            }
        }
    }

    async fn update(
        &self,
        plan: &Plan,
        kind: &Kind,
        name: &ObjectName,
        object: Value,
        tried: &mut Tried,
    ) -> Result<Verdict, Refusal> {
        let Some(json) = self.cluster.get(kind, name).await? else {
            return Ok(Verdict::Unverified("it went while the plan was tried out".into()));
        };
        let live = adapt::live(kind, name, &json)?;
        let wanted = plan.against(kind, object, &live, &plan.owners)?.wanted;
        let answer = self.cluster.rehearse_update(kind, name, Bytes::from(wanted.to_string())).await?;
        // what would be there in the end, with the API server's own defaults and what webhooks make of it
        tried.unknown = answer.unknown_fields;
        let changes = compare::changes(&live, &adapt::live(kind, name, &answer.object)?);
        let verdict = if changes.is_empty() { Verdict::Unchanged } else { Verdict::Update };
        tried.changes = Some(changes);
        Ok(verdict)
    }

    /// The delete is tried out; the create as far as the API server goes, which looks at everything else before it finds
    /// that the old one is still there.
    async fn recreate(
        &self,
        plan: &Plan,
        kind: &Kind,
        name: &ObjectName,
        object: Value,
        tried: &mut Tried,
    ) -> Result<Verdict, Refusal> {
        if let Some(json) = self.cluster.get(kind, name).await? {
            let live = adapt::live(kind, name, &json)?;
            self.cluster.rehearse_delete(kind, name, &State::of(&live)).await?;
        }
        let body = Bytes::from(body(plan, kind, object)?.to_string());
        match self.cluster.rehearse_create(kind, name, body).await {
            Err(error) if !is_there(&error) => return Err(error.into()),
            Err(_) => (),
            Ok(rehearsed) => tried.unknown = rehearsed.unknown_fields,
        }
        Ok(Verdict::Recreate)
    }

    /// Adds up what namespaces with quotas are asked for.
    async fn quotas(&self, plan: &mut Plan, needs: &BTreeMap<String, Needs>) -> Result<Vec<Problem>, Error> {
        let Some(kind) = self.discovery.get("resourcequotas").map(|served| &served.kind) else { return Ok(Vec::new()) };
        let mut problems = Vec::new();
        for (namespace, needs) in needs {
            for listed in self.cluster.list_names(kind, Some(namespace)).await? {
                let Some(json) = self.cluster.get(kind, &listed.name).await? else { continue };
                let quota = adapt::live(kind, &listed.name, &json)?;
                for short in quota::short(&quota, needs) {
                    let concerned = |kind: &Kind| quota::concerns(&short.resource, kind);
                    let why = format!("quota `{}` has no room for all of them: {}", listed.name.name, short.text);
                    self.doubt(plan, namespace, concerned, &why);
                    problems.push(Problem { subject: format!("{kind} {}", listed.name), message: short.text });
                }
            }
        }
        Ok(problems)
    }

    /// Takes back that objects of a namespace would be created.
    fn doubt(&self, plan: &mut Plan, namespace: &str, concerned: impl Fn(&Kind) -> bool, why: &str) {
        let Plan { items, adaptation, .. } = plan;
        for item in items.iter_mut().filter(|item| item.verdict == Verdict::Create) {
            let entry = &self.backup.index.entries()[item.entry as usize];
            let target = self.backup.index.namespace(entry).map(|namespace| adaptation.mapping().target(namespace));
            if target == Some(namespace) && concerned(&self.backup.index.frame(entry).kind) {
                item.verdict = Verdict::Unverified(why.into());
            }
        }
    }
}

/// What is created, with the owners that are known.
fn body(plan: &Plan, kind: &Kind, mut object: Value) -> Result<Value, rules::Error> {
    plan.adaptation.apply(kind, &mut object)?;
    plan.owners.rewrite(kind, &mut object);
    Ok(object)
}

fn is_there(error: &ClusterError) -> bool {
    error.status().is_some_and(|status| status.code == 409 && status.reason == "AlreadyExists")
}

/// The verdict that an API server's refusal means.
fn judged(error: &ClusterError) -> Verdict {
    let Some(status) = error.status() else { return Verdict::Unverified(error.to_string().into()) };
    let (says, text) = (|part: &str| status.message.contains(part), Box::<str>::from(status.to_string()));
    let rights = || says(" cannot ") || says("attempting to grant RBAC permissions") || says("not allowed to");
    match status.code {
        401 => Verdict::Forbidden(text),
        403 if status.causes.iter().any(|cause| cause == "NamespaceTerminating") => Verdict::Unverified(text),
        403 if says("error looking up service account") => Verdict::Unverified(text),
        403 if rights() => Verdict::Forbidden(text),
        400 if says("dry run") => Verdict::Unverified(text),
        400 | 403 | 405 | 413 | 415 | 422 => Verdict::Refused(text),
        _ => Verdict::Unverified(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Status;

    #[test]
    fn what_an_answer_means() {
        for (code, message, cause, word) in [
            (403, "secrets is forbidden: User \"x\" cannot create resource \"secrets\" in API group", "", "forbidden"),
            (403, "user \"x\" (groups=[]) is attempting to grant RBAC permissions not currently held", "", "forbidden"),
            (403, "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\"", "", "refused"),
            (403, "secrets \"s\" is forbidden: exceeded quota: q, requested: secrets=1", "", "refused"),
            (403, "pods \"p\" is forbidden: error looking up service account a/b: not found", "", "unverified"),
            (403, "unable to create new content", "NamespaceTerminating", "unverified"),
            (400, "admission webhook \"w\" does not support dry run", "", "unverified"),
            (400, "admission webhook \"w\" denied the request: no", "", "refused"),
            (422, "Deployment.apps \"web\" is invalid: spec.selector: field is immutable", "", "refused"),
            (404, "namespaces \"x\" not found", "", "unverified"),
            (500, "failed calling webhook \"w\"", "", "unverified"),
            (409, "the object has been modified", "", "unverified"),
        ] {
            let status =
                Status { code, message: message.to_owned(), causes: vec![cause.to_owned()], ..Status::default() };
            let error = ClusterError::Api { what: "x".to_owned(), status: Box::new(status) };
            let verdict = judged(&error);
            assert_eq!((verdict.word(), verdict.reason()), (word, Some(message)), "{code} {message}");
        }
        let lost = ClusterError::Transport { what: "x".to_owned(), message: "reset".to_owned() };
        assert_eq!(judged(&lost).word(), "unverified");
    }
}
