//! A backup of the cluster, S3 upload included, against plain lists of the same kinds.

use crate::client::What;
use crate::figures::{Book, Figure, Target};
use crate::worker::{self, Run};
use crate::{client, process};
use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use kubectl_backup::archive::manifest::Manifest;
use kubectl_backup::config::Location;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::resource::Kind;
use kubectl_backup::store::{Error, Listed, PendingUpload, Store, Upload};
use std::ops::Range;
use std::time::Instant;

/// Page sizes and concurrencies of plain lists.
const PAGES: [u32; 3] = [500, 1000, 2000];
const AT_ONCE: [usize; 3] = [4, 8, 16];
/// Rounds with all ways of listing. The best of them goes through the rounds with the backups, alone: the best of five of
/// one is compared with the best of five of the other, where single rounds scatter by 40 %.
const TRIALS: usize = 2;

/// One way of listing, and how long it took each time.
#[derive(Clone)]
struct Floor {
    limit: u32,
    at_once: usize,
    seconds: Vec<f64>,
    cpu: f64,
}

/// Measures.
pub(crate) async fn run(location: &str, rounds: usize, figures: &Book) -> anyhow::Result<()> {
    let (location, store) = worker::open(location).await?;
    let kinds = client::kinds().await?;
    client::list_all(&client::fresh().await?, What::Objects, &kinds, 1000, 4).await?; // the first one fills the server's caches
    backup(&location, &*store).await?;
    let mut floors: Vec<Floor> = PAGES
        .iter()
        .flat_map(|limit| AT_ONCE.map(|at_once| Floor { limit: *limit, at_once, seconds: Vec::new(), cpu: 0.0 }))
        .collect();
    for _ in 0..TRIALS {
        for floor in &mut floors {
            floor.list(&kinds).await?;
        }
    }
    floors.sort_by(|a, b| best(&a.seconds).total_cmp(&best(&b.seconds)));
    for floor in &floors {
        println!("plain lists in pages of {}, {} at once: {:.3} s", floor.limit, floor.at_once, best(&floor.seconds));
    }
    let mut floor = floors.into_iter().next().context("no floor")?;
    floor.seconds.clear();

    let (mut with_s3, mut without) = (Vec::new(), Vec::new());
    let mut last: Option<(Run, Manifest)> = None;
    for round in 0..rounds {
        floor.list(&kinds).await?;
        let one = backup(&location, &*store).await?;
        with_s3.push(one.0.seconds);
        without.push(backup(&location, &Nowhere).await?.0.seconds);
        println!(
            "round {}: plain {}; backup {:.3} s ({:.2} CPU s), {:.3} s without S3",
            round + 1,
            floor.last(),
            one.0.seconds,
            one.0.cpu,
            best(&without[round..])
        );
        if with_s3[..round].iter().all(|seconds| one.0.seconds < *seconds) {
            last = Some(one);
        }
    }
    let (run, manifest) = last.context("no round")?;
    tell(&floor, &run, &manifest, best(&without));
    figures.add(&Figure {
        what: format!("backup of {} objects against plain lists", manifest.counts.objects),
        objects: manifest.counts.objects,
        measured: best(&with_s3) / best(&floor.seconds),
        unit: " ×".to_owned(),
        target: Some(Target::AtMost(1.1)),
        detail: format!(
            "{:.2} s against {:.2} s ({} × {}), medians {:.2} and {:.2}; {:.0} objects/s, {:.0} MB of JSON as {:.1} MB",
            best(&with_s3),
            best(&floor.seconds),
            floor.at_once,
            floor.limit,
            median(&with_s3),
            median(&floor.seconds),
            manifest.counts.objects as f64 / best(&with_s3),
            mb(manifest.counts.bytes),
            mb(manifest.files.objects.size)
        ),
    })
}

impl Floor {
    async fn list(&mut self, kinds: &[Kind]) -> anyhow::Result<()> {
        let client = client::fresh().await?;
        let (cpu, started) = (process::cpu_seconds()?, Instant::now());
        client::list_all(&client, What::Objects, kinds, self.limit, self.at_once).await?;
        self.seconds.push(started.elapsed().as_secs_f64());
        self.cpu = process::cpu_seconds()? - cpu;
        Ok(())
    }

    fn last(&self) -> String {
        let seconds = self.seconds.last().copied().unwrap_or_default();
        format!("{seconds:.3} s ({:.2} CPU s)", self.cpu)
    }
}

async fn backup(location: &Location, store: &dyn Store) -> anyhow::Result<(Run, Manifest)> {
    let cluster = client::cluster().await?;
    let verb = Verb::Backup(BackupTask::default());
    let run = worker::carry_out(verb, location.clone(), &cluster, store).await?;
    let manifest = run.manifest()?;
    worker::remove(store, &manifest.id).await?;
    Ok((run, manifest))
}

/// Where the best backup's time went.
fn tell(floor: &Floor, run: &Run, manifest: &Manifest, without: f64) {
    let (saving, pinned, committing) = (run.moment("Saving"), run.moment("reading at"), run.moment("Committing"));
    println!("the best backup: {:.3} s", run.seconds);
    println!("  discovery            {saving:.3} s");
    println!("  choosing a revision  {:.3} s", pinned - saving);
    println!("  saving               {:.3} s (plain lists: {:.3} s)", committing - pinned, best(&floor.seconds));
    println!("  committing           {:.3} s", run.seconds - committing);
    println!("  S3 in all of this    {:.3} s (against the best without)", run.seconds - without);
    let files = &manifest.files;
    let (objects, index) = (mb(files.objects.size), mb(files.index.size));
    println!("  archive              {objects:.2} MB and {index:.2} MB of index");
}

pub(crate) fn best(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(f64::INFINITY, f64::min)
}

pub(crate) fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

pub(crate) fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// A store that keeps nothing: what a backup would take if S3 took no time.
struct Nowhere;

#[async_trait]
impl Store for Nowhere {
    fn describe(&self) -> String {
        "nowhere".to_owned()
    }

    async fn create(&self, _: &str, _: Bytes) -> Result<(), Error> {
        Ok(())
    }

    async fn get(&self, key: &str, _: u64) -> Result<Bytes, Error> {
        Err(Error::NotFound { place: key.to_owned() })
    }

    async fn get_range(&self, key: &str, _: Range<u64>) -> Result<Bytes, Error> {
        Err(Error::NotFound { place: key.to_owned() })
    }

    async fn size(&self, key: &str) -> Result<u64, Error> {
        Err(Error::NotFound { place: key.to_owned() })
    }

    async fn list(&self, _: &str) -> Result<Vec<Listed>, Error> {
        Ok(Vec::new())
    }

    async fn delete(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn upload(&self, _: &str) -> Result<Box<dyn Upload>, Error> {
        Ok(Box::new(Gone(0)))
    }

    async fn pending_uploads(&self, _: &str) -> Result<Vec<PendingUpload>, Error> {
        Ok(Vec::new())
    }

    async fn abort_upload(&self, _: &PendingUpload) -> Result<(), Error> {
        Ok(())
    }
}

struct Gone(u64);

#[async_trait]
impl Upload for Gone {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.0 += bytes.len() as u64;
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<u64, Error> {
        Ok(self.0)
    }

    async fn abort(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}
