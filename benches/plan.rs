//! Planning a restore against plain metadata-only lists of the same objects: where nothing is there yet, where everything
//! is, and where everything there has to be compared.

use crate::backup::best;
use crate::client::{self, What};
use crate::figures::{Book, Figure, Target};
use crate::worker::{self, Run};
use crate::{objects, restore};
use anyhow::Context as _;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::operations::restore::{DryRun, RestoreTask};
use kubectl_backup::rules::adapt::AdaptOptions;
use kubectl_backup::rules::selection::Selection;
use kubectl_backup::rules::verdict::Existing;
use std::time::Instant;

/// Page sizes and concurrencies of plain lists.
const PAGES: [u32; 3] = [500, 1000, 2000];
const AT_ONCE: [usize; 2] = [4, 8];

/// One way to plan, and how long it took each time.
struct Plan {
    what: &'static str,
    target: Option<Target>,
    /// The verdict that nearly all objects have then.
    verdict: &'static str,
    task: RestoreTask,
    seconds: Vec<f64>,
    cpu: f64,
}

/// Measures.
pub(crate) async fn run(location: &str, namespaces: usize, rounds: usize, figures: &Book) -> anyhow::Result<()> {
    let (location, store) = worker::open(location).await?;
    let names = (0..namespaces).map(objects::namespace).collect();
    let task = Verb::Backup(BackupTask { selection: Selection::of_namespaces(names), ..BackupTask::default() });
    let backup = worker::carry_out(task, location.clone(), &client::cluster().await?, &*store).await?.manifest()?;
    let objects = backup.counts.objects;
    let kinds = client::kinds().await?;
    let mut floors: Vec<(u32, usize, Vec<f64>)> =
        PAGES.iter().flat_map(|limit| AT_ONCE.map(|at_once| (*limit, at_once, Vec::new()))).collect();
    let mut plans = plans(&backup.id.to_string(), namespaces);
    for round in 0..rounds {
        for (limit, at_once, seconds) in &mut floors {
            let (client, started) = (client::fresh().await?, Instant::now());
            client::list_all(&client, What::Metadata, &kinds, *limit, *at_once).await?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        for plan in &mut plans {
            let verb = Verb::Restore(Box::new(plan.task.clone()));
            let run = worker::carry_out(verb, location.clone(), &client::cluster().await?, &*store).await?;
            plan.note(&run, round == 0)?;
        }
    }
    worker::remove(&*store, &backup.id).await?;
    let fastest = floors.iter().min_by(|a, b| best(&a.2).total_cmp(&best(&b.2)));
    let (limit, at_once, seconds) = fastest.context("no floor")?;
    for plan in &plans {
        figures.add(&Figure {
            what: format!("planning {objects} objects, {}, against metadata lists", plan.what),
            objects,
            measured: best(&plan.seconds) / best(seconds),
            unit: " ×".to_owned(),
            target: plan.target,
            detail: format!(
                "{:.2} s ({:.2} CPU s) against {:.2} s ({at_once} × {limit})",
                best(&plan.seconds),
                plan.cpu,
                best(seconds)
            ),
        })?;
    }
    Ok(())
}

fn plans(backup: &str, namespaces: usize) -> [Plan; 3] {
    let task = |mapping: &[String]| restore::task(backup, mapping, DryRun::Client);
    let elsewhere = restore::mapping(namespaces, "nowhere");
    // what a person asks for may change any object, so all of them are compared
    let asked = AdaptOptions { suspend_cronjobs: true, ..AdaptOptions::default() };
    let compared = RestoreTask { existing: Existing::Update, adapt: asked, ..task(&[]) };
    let plan = |what, target, verdict, task| Plan { what, target, verdict, task, seconds: Vec::new(), cpu: 0.0 };
    [
        plan("nothing there yet", Some(Target::AtMost(2.0)), "create", task(&elsewhere)),
        plan("everything there", Some(Target::AtMost(2.0)), "skip", task(&[])),
        plan("everything there and compared", None, "unchanged", compared),
    ]
}

impl Plan {
    fn note(&mut self, run: &Run, first: bool) -> anyhow::Result<()> {
        self.seconds.push(run.seconds);
        self.cpu = run.cpu;
        if first {
            let items = restore::result(run)?.items;
            let so = items.iter().filter(|item| item.verdict == self.verdict).count();
            println!("{}: {so} of {} {}; {:.2} s", self.what, items.len(), self.verdict, run.seconds);
            run.moments.iter().for_each(|(what, when)| println!("  {when:7.3} s {what}"));
        }
        Ok(())
    }
}
