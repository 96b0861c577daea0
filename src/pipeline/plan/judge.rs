//! Verdicts being given, object by object, while the frames that hold them are fetched and verified.

use super::existing;
use super::{Absent, DEFINITIONS, EXISTS, Plan, PlanItem, PlanRequest, number_of, seen};
use crate::cluster::discover::Discovery;
use crate::id::Digest;
use crate::pipeline::Error;
use crate::pipeline::fetch::{self, Backup};
use crate::report::{Counts, Events};
use crate::resource::{Kind, ObjectName};
use crate::rules::owners::{Owners, Place};
use crate::rules::restorable::{Facts, Protected};
use crate::rules::survey::{Lookout, Survey};
use crate::rules::verdict::{Case, Existing, Skip, Verdict, decide};
use crate::rules::waves::wave_of;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Fetches and verifies every frame that holds a chosen entry, and gives every object its verdict once its kind was listed.
pub(super) async fn judge(
    request: PlanRequest<'_>,
    store: &dyn Store,
    chosen: &Arc<BTreeSet<usize>>,
    there: &existing::Existing,
    survey: &mut Survey<'_>,
    events: &Events,
) -> Result<Plan, Error> {
    let backup = request.backup;
    let lookout = Lookout::new(request.adaptation.rules().clone(), request.other_cluster);
    let (index, numbers) = (backup.index.clone(), chosen.clone());
    let look = move |frame, tar: Vec<u8>| {
        let numbers = numbers.range(index.of_frame(frame));
        let seen = numbers.map(|&number| Ok((number, seen(&index, number, &tar, &lookout)?)));
        Ok((tar.len() as u64, seen.collect::<Result<Vec<_>, Error>>()?))
    };
    let counts = Counts { objects_total: chosen.len() as u64, ..Counts::default() };
    let judging = Mutex::new((Judge::new(request, chosen, there), survey, counts));
    fetch::looked_through(store, backup, &backup.index.frames_of(chosen), look, |frame, (bytes, seen)| {
        let judging = &judging;
        async move {
            there.listed(frame).await;
            let mut judging = judging.lock().unwrap_or_else(PoisonError::into_inner);
            let (judge, survey, counts) = &mut *judging;
            counts.objects += seen.len() as u64;
            counts.bytes += bytes;
            for (number, (facts, look)) in seen {
                survey.note(number_of(number), look);
                judge.see(number, facts, survey);
            }
            events.progress(*counts);
            Ok(())
        }
    })
    .await?;
    let (judge, survey, _) = judging.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(judge.end(survey))
}

/// Verdicts being given, object by object.
struct Judge<'a> {
    backup: &'a Backup,
    named: BTreeSet<usize>,
    protected: Protected<'a>,
    discovery: &'a Discovery,
    there: &'a existing::Existing,
    /// The kinds that the selection itself defines.
    defined: HashSet<&'a str>,
    keeps_existing: bool,
    /// What is known of the Services of the selection: Endpoints follow them.
    services: HashMap<ObjectName, Facts>,
    /// Endpoints, which are judged when all Services have been seen.
    late: Vec<(usize, Facts)>,
    plan: Plan,
}

impl<'a> Judge<'a> {
    fn new(request: PlanRequest<'a>, chosen: &BTreeSet<usize>, there: &'a existing::Existing) -> Self {
        let PlanRequest { backup, named, adaptation, protected, existing, discovery, .. } = request;
        let plan = Plan {
            items: Vec::with_capacity(chosen.len()),
            digest: Digest::of(b""),
            owners: Owners::default(),
            adaptation,
            changed: HashMap::new(),
            absent: Absent::default(),
            given_back: HashMap::new(),
            volumes: BTreeMap::new(),
            notes: Vec::new(),
            ours: HashMap::new(),
            waits: HashMap::new(),
        };
        Self {
            backup,
            named,
            protected,
            discovery,
            there,
            defined: defined(backup, chosen),
            keeps_existing: existing == Existing::Skip,
            services: HashMap::new(),
            late: Vec::new(),
            plan,
        }
    }

    fn see(&mut self, number: usize, facts: Facts, survey: &Survey<'_>) {
        let entry = &self.backup.index.entries()[number];
        let kind = &self.backup.index.frame(entry).kind;
        if kind.is("endpoints") {
            self.late.push((number, facts));
            return;
        }
        self.judge(number, &facts, survey);
        if kind.is("services") {
            self.services.insert(self.backup.index.object_name(entry), facts);
        }
    }

    fn judge(&mut self, number: usize, facts: &Facts, survey: &Survey<'_>) {
        let entry = &self.backup.index.entries()[number];
        let kind = &self.backup.index.frame(entry).kind;
        let source = self.backup.index.object_name(entry);
        let adaptation = &self.plan.adaptation;
        let served = self.discovery.serves(kind) || adaptation.converts(kind);
        // what is served in other versions only, and not for want of the backup's own definition, won't be in this one
        let comes = self.discovery.versions(&kind.key()).is_empty() && self.defined.contains(kind.key().as_str());
        let case = Case {
            kind,
            name: &source,
            facts,
            service: kind.is("endpoints").then(|| self.services.get(&source)).flatten(),
            named: self.named.contains(&number),
            served: served || comes,
            exists: self.there.get(self.backup, number).is_some(),
        };
        let left_behind = adaptation.rules().left_behind(source.namespace.as_deref(), facts);
        let verdict = match decide(&case, &self.protected) {
            Verdict::Create if let Some(reason) = left_behind => Verdict::Skip(Skip::NeverRestored(reason)),
            Verdict::Create if let Some(reason) = survey.refused(number_of(number)) => Verdict::Refused(reason.into()),
            verdict => verdict,
        };
        if verdict == Verdict::Create {
            self.plan.notes.extend(notes(kind, &source, facts));
            let target = self.plan.adaptation.target(kind, &source);
            if !served {
                self.plan.absent.kinds.insert(kind.key());
            }
            if let Some(namespace) = target.namespace.filter(|namespace| !self.there.has_namespace(namespace)) {
                self.plan.absent.namespaces.insert(namespace);
            }
            if kind.is("namespaces") && self.there.is_going(&target.name) {
                let text = format!("namespace `{}` is being deleted: the restore waits until it is gone", target.name);
                self.plan.notes.push(text);
            }
        }
        let waits = verdict == Verdict::Create || verdict == EXISTS && !self.keeps_existing;
        if waits && !facts.owners().is_empty() {
            self.plan.waits.insert(number, facts.owners().into());
        }
        self.plan.items.push(PlanItem {
            entry: number_of(number),
            verdict,
            place: Place { wave: wave_of(kind), pass: 0 },
        });
    }

    fn end(mut self, survey: &Survey<'_>) -> Plan {
        for (number, facts) in std::mem::take(&mut self.late) {
            self.judge(number, &facts, survey);
        }
        self.plan.items.sort_unstable_by_key(|item| item.entry);
        self.plan
    }
}

fn notes(kind: &Kind, name: &ObjectName, facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.has_finalizers() {
        notes.push(format!("`{kind}` `{name}` has finalizers: it can't be deleted unless their controllers run"));
    }
    if facts.was_being_deleted() {
        notes.push(format!("`{kind}` `{name}` was being deleted when it was backed up"));
    }
    notes
}

/// The kinds that the selection itself defines.
fn defined<'a>(backup: &'a Backup, chosen: &BTreeSet<usize>) -> HashSet<&'a str> {
    let entries = backup.index.entries();
    let definition = |number: &usize| {
        let entry = &entries[*number];
        backup.index.frame(entry).kind.is(DEFINITIONS).then(|| backup.index.name(entry))
    };
    chosen.iter().filter_map(definition).collect()
}
