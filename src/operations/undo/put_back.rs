//! The half of an undo that is a restore: of the safety backup, onto what the restore changed.

use super::super::restore::outcome::Told;
use super::super::{Context, Usage, read};
use super::{RestoreResult, Written, means};
use crate::archive::record::Record;
use crate::cluster::discover::Discovery;
use crate::pipeline::Error;
use crate::pipeline::adapt::Adaptation;
use crate::pipeline::apply::{Apply, Restored};
use crate::pipeline::fetch::{self, Backup};
use crate::pipeline::plan::{self, Plan, PlanRequest};
use crate::pipeline::undo::Undo;
use crate::rules::kinds::{ObjectArg, Served};
use crate::rules::restorable::Protected;
use crate::rules::selection::Namespaces;
use crate::rules::verdict::Existing;
use crate::store::Store;
use anyhow::Context as _;
use std::collections::{BTreeSet, HashSet};

/// What is put back.
pub(super) struct PutBack {
    pub(super) backup: Backup,
    pub(super) plan: Plan,
}

/// What the safety backup is good for.
pub(super) struct Back {
    /// Every object in it, as kind and name: what of the restore's work is a change and not a creation.
    pub(super) saved: HashSet<String>,
    /// The arguments that mean objects in it.
    pub(super) named: HashSet<String>,
    /// What of it is put back.
    pub(super) chosen: Option<PutBack>,
}

/// Plans what is put back.
pub(super) async fn plan(
    undo: &Undo<'_>,
    record: &Record,
    named: &[ObjectArg],
    written: &Written,
    discovery: &Discovery,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Back> {
    let Some(safety) = &written.safety else {
        return Ok(Back { saved: HashSet::new(), named: HashSet::new(), chosen: None });
    };
    let backup = fetch::open(store, safety).await.context("the safety backup")?;
    if backup.manifest.safety_of.as_ref() != Some(&record.id) || backup.manifest.cluster.uid != record.cluster {
        let why = format!("it is not the safety backup of `{}`", record.id);
        return Err(Error::from(crate::archive::Error::damaged(format!("`{safety}`"), why)).into());
    }
    let index = &backup.index;
    let kinds = read::kinds_of(&backup);
    let numbers = 0..index.entries().len();
    let key = |number: usize| {
        let entry = &index.entries()[number];
        format!("{} {}", index.frame(entry).kind, index.object_name(entry))
    };
    let saved = numbers.clone().map(key).collect();
    let is = |arg: &ObjectArg, number: usize| {
        let entry = &index.entries()[number];
        let kind: Option<&Served> = kinds.iter().find(|served| served.kind == index.frame(entry).kind);
        kind.is_some_and(|served| means(arg, served, index.name(entry)))
    };
    let is_named = |number: &usize| named.iter().any(|arg| is(arg, *number));
    let asked: BTreeSet<usize> = numbers.clone().filter(is_named).collect();
    let chosen: BTreeSet<usize> = if named.is_empty() { numbers.collect() } else { asked.clone() };
    let meant =
        named.iter().filter(|arg| asked.iter().any(|number| is(arg, *number))).map(ObjectArg::to_string).collect();
    if chosen.is_empty() {
        return Ok(Back { saved, named: meant, chosen: None });
    }
    let namespaces: BTreeSet<&str> =
        chosen.iter().filter_map(|number| index.namespace(&index.entries()[*number])).collect();
    let namespaces: Vec<&str> = namespaces.into_iter().collect();
    let namespaces = if namespaces.is_empty() { Ok(Namespaces::all()) } else { Namespaces::parse(&namespaces) };
    let namespaces = namespaces.map_err(|error| Usage(error.to_string()))?;
    let request = PlanRequest {
        backup: &backup,
        chosen: Some(chosen.clone()),
        named: chosen.clone(),
        adaptation: Adaptation::plain()?,
        other_cluster: false,
        discovery,
        existing: Existing::PutBack,
        seal: record.id.as_str().as_bytes(),
        finds_ours: false,
        owners_here: true,
        protected: Protected { install_namespace: Some(&context.install_namespace), asked: &namespaces },
    };
    let mut plan = plan::make(undo.cluster, store, request, undo.events).await?;
    plan.items.retain(|item| chosen.contains(&(item.entry as usize)));
    undo.spare(&backup, &mut plan, &written.uids, &asked).await?;
    Ok(Back { saved, named: meant, chosen: Some(PutBack { backup, plan }) })
}

impl PutBack {
    /// The plan in words.
    pub(super) fn planned(&self) -> RestoreResult {
        Told::new(&self.backup, &self.plan, Restored::default(), true).whole()
    }

    /// Puts it back.
    pub(super) async fn carry_out(self, undo: &Undo<'_>, store: &dyn Store) -> anyhow::Result<RestoreResult> {
        let Self { backup, mut plan } = self;
        let owners = std::mem::take(&mut plan.owners);
        let apply = Apply {
            cluster: undo.cluster,
            store,
            backup: &backup,
            plan: &plan,
            journal: None,
            events: undo.events,
            cancel: undo.cancel,
        };
        let nothing = std::future::ready(Ok(()));
        let restored = apply.run(owners, &Restored::default(), nothing).await.context("putting back")?;
        Ok(Told::new(&backup, &plan, restored, false).whole())
    }
}
