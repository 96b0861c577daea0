//! A restore into namespaces that aren't there, against plain POSTs of the same bodies; and the same restore again, when
//! everything is there.

use crate::backup::best;
use crate::client::{self, Post};
use crate::figures::{Book, Figure, Target};
use crate::worker::{self, Run};
use crate::{load, objects};
use anyhow::Context as _;
use bytes::Bytes;
use kubectl_backup::archive::manifest::Manifest;
use kubectl_backup::config::Location;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::operations::restore::{DryRun, RestoreResult, RestoreTask};
use kubectl_backup::operations::{Query, Verb};
use kubectl_backup::pipeline::adapt::Adaptation;
use kubectl_backup::pipeline::fetch;
use kubectl_backup::rules::adapt::AdaptOptions;
use kubectl_backup::rules::mapping::NamespaceMapping;
use kubectl_backup::rules::selection::Selection;
use kubectl_backup::rules::verdict::Existing;
use kubectl_backup::rules::waves::{Wave, wave_of};
use kubectl_backup::store::Store;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// POSTs at once; the best of the first round goes on.
const AT_ONCE: [usize; 3] = [16, 32, 64];

/// Objects in the order of their waves.
type Bodies = BTreeMap<Wave, Vec<Post>>;

/// Each namespace to one of its own in this trial.
pub(crate) fn mapping(namespaces: usize, trial: &str) -> Vec<String> {
    (0..namespaces).map(|number| format!("{0}={trial}-{0}", objects::namespace(number))).collect()
}

/// Everything in a backup, what exists left alone.
pub(crate) fn task(backup: &str, mapping: &[String], dry_run: DryRun) -> RestoreTask {
    RestoreTask {
        query: Query { backup: BackupQuery::Prefix(backup.to_owned()), from_cluster: None },
        objects: Vec::new(),
        namespaces: Vec::new(),
        selection: Selection::default(),
        map_namespace: mapping.to_vec(),
        adapt: AdaptOptions::default(),
        existing: Existing::Skip,
        safety_location: None,
        dry_run,
        approved: None,
        volumes: Default::default(),
    }
}

struct Bench {
    location: Location,
    store: std::sync::Arc<dyn Store>,
    backup: Manifest,
    namespaces: usize,
}

/// Measures.
pub(crate) async fn run(location: &str, namespaces: usize, rounds: usize, figures: &Book) -> anyhow::Result<()> {
    let (location, store) = worker::open(location).await?;
    let names = (0..namespaces).map(objects::namespace).collect();
    let task = Verb::Backup(BackupTask { selection: Selection::of_namespaces(names), ..BackupTask::default() });
    let backup = worker::carry_out(task, location.clone(), &client::cluster().await?, &*store).await?.manifest()?;
    let bench = Bench { location, store, backup, namespaces };

    let mut ceilings: BTreeMap<usize, Vec<f64>> = AT_ONCE.map(|at_once| (at_once, Vec::new())).into();
    let (mut restores, mut again, mut count) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        for (at_once, rates) in &mut ceilings {
            rates.push(bench.ceiling(&format!("p{round}-{at_once}"), *at_once).await?);
        }
        let mapping = bench.mapping(&format!("r{round}"));
        let first = bench.restore(&mapping).await?;
        load::settled().await?;
        let second = bench.restore(&mapping).await?;
        count = created(&first)?;
        restores.push(first.seconds);
        again.push(second.seconds);
        println!(
            "round {}: POSTs {}; restore {count} objects in {:.2} s ({:.2} CPU s), {:.0}/s; again {:.2} s",
            round + 1,
            told(&ceilings),
            first.seconds,
            first.cpu,
            count as f64 / first.seconds,
            second.seconds
        );
        if round == 0 {
            first.moments.iter().for_each(|(what, when)| println!("  {when:7.3} s {what}"));
            let fastest = ceilings.iter().max_by(|a, b| highest(a.1).total_cmp(&highest(b.1))).map(|(key, _)| *key);
            ceilings.retain(|at_once, _| Some(*at_once) == fastest);
        }
    }
    worker::remove(&*bench.store, &bench.backup.id).await?;
    let (at_once, rates) = ceilings.iter().next().context("no ceiling")?;
    let rate = count as f64 / best(&restores);
    figures.add(&Figure {
        what: format!("restore of {count} objects against plain POSTs"),
        objects: count,
        measured: rate / highest(rates),
        unit: " × the rate".to_owned(),
        target: Some(Target::AtLeast(0.7)),
        detail: format!("{rate:.0}/s against {:.0}/s ({at_once} at once), bests of {rounds}", highest(rates)),
    })?;
    figures.add(&Figure {
        what: "the same restore again, everything there".to_owned(),
        objects: count,
        measured: best(&again) / best(&restores),
        unit: " × its time".to_owned(),
        target: Some(Target::AtMost(0.2)),
        detail: format!("{:.2} s against {:.2} s", best(&again), best(&restores)),
    })
}

impl Bench {
    fn mapping(&self, trial: &str) -> Vec<String> {
        mapping(self.namespaces, trial)
    }

    async fn restore(&self, mapping: &[String]) -> anyhow::Result<Run> {
        let task = self.task(mapping, DryRun::None);
        worker::carry_out(task, self.location.clone(), &client::cluster().await?, &*self.store).await
    }

    fn task(&self, mapping: &[String], dry_run: DryRun) -> Verb {
        Verb::Restore(Box::new(task(self.backup.id.as_str(), mapping, dry_run)))
    }

    /// Plain POSTs of what a restore would create. Returns objects per second.
    async fn ceiling(&self, trial: &str, at_once: usize) -> anyhow::Result<f64> {
        let bodies = self.bodies(&self.mapping(trial)).await?;
        let client = client::fresh().await?;
        let started = Instant::now();
        let mut made = 0;
        // namespaces must be there before what is in them; all others go as they come
        let (before, after): (Vec<_>, Vec<_>) = bodies.into_iter().partition(|(wave, _)| *wave <= Wave::Namespaces);
        for some in [before, after] {
            made += client::post_all(&client, some.into_iter().flat_map(|(_, posts)| posts), at_once).await?;
        }
        let rate = made as f64 / started.elapsed().as_secs_f64();
        load::settled().await?;
        Ok(rate)
    }

    /// What a restore with this mapping would send.
    async fn bodies(&self, mapping: &[String]) -> anyhow::Result<Bodies> {
        let planned = self.task(mapping, DryRun::Client);
        let planned =
            worker::carry_out(planned, self.location.clone(), &client::cluster().await?, &*self.store).await?;
        let planned = result(&planned)?;
        let creates: HashSet<(&str, Option<&str>, &str)> = planned
            .items
            .iter()
            .filter(|item| item.verdict == "create")
            .map(|item| (item.kind.as_str(), item.namespace.as_deref(), item.name.as_str()))
            .collect();
        let adaptation = Adaptation::new(&AdaptOptions::default(), NamespaceMapping::parse(mapping)?)?;
        let backup = fetch::open(&*self.store, &self.backup.id).await?;
        let mut bodies = Bodies::new();
        let mut tars = BTreeMap::new();
        fetch::frames(&*self.store, &backup, &(0..backup.index.frames().len()).collect(), |frame, tar| {
            tars.insert(frame, tar);
            std::future::ready(Ok(()))
        })
        .await?;
        for entry in backup.index.entries() {
            let kind = &backup.index.frame(entry).kind;
            let target = adaptation.target(kind, &backup.index.object_name(entry));
            if !creates.contains(&(kind.key().as_str(), target.namespace.as_deref(), target.name.as_str())) {
                continue;
            }
            let mut object = serde_json::from_slice(backup.index.object(entry, &tars[&entry.frame()])?)?;
            adaptation.apply(kind, &mut object)?;
            let path = kind.list_path(target.namespace.as_deref());
            let body = Bytes::from(serde_json::to_vec(&object)?);
            bodies.entry(wave_of(kind)).or_default().push(Post { path, body });
        }
        Ok(bodies)
    }
}

pub(crate) fn result(run: &Run) -> anyhow::Result<RestoreResult> {
    Ok(serde_json::from_slice(&run.done.result.as_ref().context("no result")?.open()?)?)
}

pub(crate) fn created(run: &Run) -> anyhow::Result<u64> {
    Ok(result(run)?.items.iter().filter(|item| item.verdict == "created").count() as u64)
}

fn highest(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}

fn told(ceilings: &BTreeMap<usize, Vec<f64>>) -> String {
    let each =
        ceilings.iter().map(|(at_once, rates)| format!("{:.0}/s ({at_once} at once)", rates.last().unwrap_or(&0.0)));
    each.collect::<Vec<_>>().join(", ")
}
