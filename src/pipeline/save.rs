//! Saving: lists of all kinds at one revision, cut while they stream in, framed, compressed on all cores, uploaded.
//!
//! The stages run side by side and are joined by bounded channels, so that a slow bucket slows the lists down and
//! memory stays within a sum that the size of the cluster is no part of:
//!
//! | what | MiB |
//! | --- | --- |
//! | [`LISTS`] lists: the largest object (1.5), what is read ahead (0.2), a frame that waits for a place (0.1) | 4 × 1.8 |
//! | [`frames::PLACES`] frames being filled, waiting, being compressed | 4 × 2.1 |
//! | [`ENCODERS`] encoders: a frame's compressed form and zstd's tables | 2 × 3.4 |
//! | compressed frame on its way into the upload | 1 × 2.1 |
//! | parts of the two uploads, each being filled or sent | 2 × 5 |
//! | program, connections, TLS | 22 |
//! | **sum** | **57** |
//!
//! A part takes its memory as it is filled. The buffers of frames go from one frame to the next (`archive::encoders`). What
//! other large things leave goes back to the system (`jobs::submit::WORKER_ENV`), so that it leaves no holes. All that
//! waits and the cutting of lists have one thread, since a list comes in pieces of some KB (`runtime`); encoders have theirs.

mod closure;
pub mod commit;
mod crds;
mod frames;
mod kind;
mod list;
mod look;
pub mod named;
mod others;
mod page_size;
pub mod pin;
mod select;
mod split;

pub use look::{Seen, look};

use super::upload::FileUpload;
use super::{Error, until_cancelled, until_settled};
use crate::archive::frame::end_of_archive;
use crate::archive::index::IndexWriter;
use crate::archive::manifest::{File, data_key};
use crate::cluster::Cluster;
use crate::id::{Attempt, BackupId};
use crate::report::{Counts, Event, Events, Omission, Problem};
use crate::resource::Kind;
use crate::rules::claims::{self, VolumeData};
use crate::rules::needs::Needs;
use crate::rules::selection::Chosen;
use crate::rules::volumes::Claim;
use crate::store::Store;
use frames::{Frames, Placed};
use futures::{StreamExt, stream};
use list::{Item, ListTask, Listed};
use others::Others;
use pin::Pin;
use select::Picked;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Lists in flight. Four saturate an API server on two cores; more cost it memory and us nothing gained.
pub const LISTS: usize = 4;
/// Frames compressed at once.
pub const ENCODERS: usize = 2;

/// Which objects to save.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Everything.
    Cluster,
    /// These namespaces, and the cluster-scoped objects that they need.
    Namespaces(BTreeSet<String>),
}

/// What to save.
#[derive(Debug)]
pub struct SaveRequest<'a> {
    /// The backup's name.
    pub id: &'a BackupId,
    /// This worker's try at it.
    pub attempt: &'a Attempt,
    /// Which objects.
    pub wanted: &'a Wanted,
    /// What of them, where that is not all.
    pub chosen: &'a Chosen,
    /// Lists in flight: 1 to [`LISTS`], as more would break the sum above.
    pub lists: usize,
    /// The kinds that may be saved: those that no rule or flag leaves out.
    pub kinds: &'a [Kind],
    /// Every kind that discovery found, to be compared with the CRDs there are.
    pub served: &'a [Kind],
    /// What is to become of the data behind claims.
    pub volumes: VolumeData,
    /// The namespace of our own Jobs, whose runs are not saved.
    pub install_namespace: &'a str,
    /// Whether a revision that is compacted on the way is an error (the caller starts again) or the rest is listed as
    /// it is.
    pub restart_when_compacted: bool,
}

/// What one kind came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KindReport {
    /// The kind's key.
    pub kind: String,
    /// The version it was saved in, with its group.
    pub api_version: String,
    /// Objects saved.
    pub objects: u64,
    /// Bytes of JSON.
    pub bytes: u64,
    /// The revision that its list stated.
    pub revision: String,
}

/// What was saved.
#[derive(Debug)]
pub struct Saved {
    /// `objects.tar.zst`.
    pub objects: File,
    /// `index.jsonl.zst`.
    pub index: File,
    /// Every kind that holds objects.
    pub kinds: Vec<KindReport>,
    /// What could not be saved.
    pub problems: Vec<Problem>,
    /// What rules left out.
    pub omissions: Vec<Omission>,
    /// The sums.
    pub counts: Counts,
    /// The revision, with the kinds that had to be released from it on the way.
    pub pin: Pin,
}

/// Where claims that have a volume go as they are found, until all of them are.
type Claims = mpsc::UnboundedSender<Claim>;

/// What the lists gather while they run.
struct Gathered {
    kinds: BTreeMap<Kind, Listed>,
    problems: Vec<Problem>,
    needs: Needs,
    /// Claims whose data is left out as it was asked for.
    skipped_claims: u64,
    /// For who saves their data; gone once all are found.
    claims: Option<Claims>,
    counts: Counts,
    pin: Pin,
    picked: Picked,
    others: Others,
    /// Kinds, by key, that may be gone since discovery.
    doubtful: BTreeSet<String>,
    /// Those of them that are.
    gone: BTreeSet<String>,
    /// Objects saved only because others need them: names by kind.
    needed: BTreeMap<String, BTreeSet<String>>,
}

/// Saves objects and index. On any error both uploads are aborted: nothing of them remains. `claims` gets every claim
/// that is saved and has a volume, early: they are listed before all else.
///
/// # Errors
/// When the API server or the bucket fails as a whole; a kind that fails alone is a problem in the result.
pub async fn objects(
    cluster: &Cluster,
    store: &dyn Store,
    request: &SaveRequest<'_>,
    pin: Pin,
    claims: Claims,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Saved, Error> {
    let mut files = Files::begin(store, request.id, request.attempt).await?;
    let saving = Saving::new(cluster, request, pin, Some(claims), events);
    let result = until_cancelled(cancel, saving.run(&mut files)).await;
    match result {
        Ok(()) => until_settled(cancel, saving.finish(files)).await,
        Err(error) => {
            saving.withdraw(&error);
            files.abort().await;
            Err(error)
        }
    }
}

struct Saving<'a> {
    cluster: &'a Cluster,
    request: &'a SaveRequest<'a>,
    events: &'a Events,
    gathered: Mutex<Gathered>,
    /// One for each list that may be made at once, also where a kind is split into many.
    turns: Semaphore,
}

impl<'a> Saving<'a> {
    fn new(
        cluster: &'a Cluster,
        request: &'a SaveRequest<'a>,
        pin: Pin,
        claims: Option<Claims>,
        events: &'a Events,
    ) -> Self {
        let gathered = Gathered {
            kinds: BTreeMap::new(),
            problems: Vec::new(),
            needs: Needs::default(),
            skipped_claims: 0,
            claims,
            counts: Counts::default(),
            pin,
            picked: Picked::default(),
            others: Others::default(),
            doubtful: BTreeSet::new(),
            gone: BTreeSet::new(),
            needed: BTreeMap::new(),
        };
        let turns = Semaphore::new(request.lists.clamp(1, LISTS));
        Self { cluster, request, events, gathered: Mutex::new(gathered), turns }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All stages side by side, until the last frame is handed to the store.
    async fn run(&self, files: &mut Files) -> Result<(), Error> {
        let (frames, to_compress) = Frames::new();
        let lists = async move { self.lists(&frames).await };
        tokio::try_join!(lists, self.upload(to_compress, files)).map(drop)
    }

    async fn lists(&self, frames: &Frames) -> Result<(), Error> {
        let difference = crds::compare(self).await?;
        self.gathered().doubtful = difference.doubtful;
        let kinds: Vec<Kind> = self.request.kinds.iter().cloned().chain(difference.late).collect();
        let tasks = select::own_lists(&kinds, self.request, &self.gathered().pin.sizes);
        self.list_all(tasks, frames).await?;
        self.check_found()?;
        others::count(self).await;
        if self.finds_needs() { closure::cluster_scoped(self, frames).await } else { Ok(()) }
    }

    /// Makes lists, several at a time: those of claims first, then the longest, so that no core is idle in the end since
    /// one long list is left.
    async fn list_all(&self, mut tasks: Vec<ListTask>, frames: &Frames) -> Result<(), Error> {
        let is_claims = |task: &ListTask| task.kind.is("persistentvolumeclaims");
        let mut claims_left = tasks.iter().filter(|task| is_claims(task)).count();
        {
            let mut gathered = self.gathered();
            gathered.counts.kinds += tasks.len() as u64;
            let size = |task: &ListTask| gathered.pin.sizes.get(&task.kind.key()).copied();
            tasks.sort_by_cached_key(|task| Reverse((is_claims(task), size(task))));
        }
        let mut lists = stream::iter(tasks)
            .map(|task| async move {
                let choose = |item: &Item<'_>, text: &str| self.choose(&task.kind, item, text);
                self.list(&task, frames, &choose).await.map(|()| is_claims(&task))
            })
            .buffer_unordered(self.request.lists.clamp(1, LISTS));
        loop {
            if claims_left == 0 {
                self.gathered().claims = None;
            }
            let Some(result) = lists.next().await else { return Ok(()) };
            claims_left -= usize::from(result?);
        }
    }

    fn tell(&self, problem: Problem) {
        self.events.send(Event::Problem(problem.clone()));
        self.gathered().problems.push(problem);
    }

    /// Takes back what was told where all starts again after this error: the next pass tells what it meets.
    fn withdraw(&self, error: &Error) {
        if error.is_expired() && self.request.restart_when_compacted {
            self.events.withdraw(std::mem::take(&mut self.gathered().problems));
        }
    }

    /// Compresses frames on threads of their own, and gives them their places in whatever order they get done.
    async fn upload(&self, mut filled: mpsc::Receiver<Placed>, files: &mut Files) -> Result<(), Error> {
        let mut frames = stream::poll_fn(move |context| filled.poll_recv(context))
            .map(|Placed { frame, place }| {
                tokio::task::spawn_blocking(move || {
                    let frame = frame.compress();
                    drop(place);
                    frame
                })
            })
            .buffer_unordered(ENCODERS);
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|error| Error::Thread(error.to_string()))??;
            let lines = files.writer.frame(&frame)?;
            files.objects.write(frame.bytes).await?;
            files.index.write(lines).await?;
            let counts = {
                let mut gathered = self.gathered();
                gathered.counts.bytes_stored = files.objects.size() + files.index.size();
                gathered.counts
            };
            self.events.progress(counts);
        }
        Ok(())
    }

    /// Ends both files and sums up.
    async fn finish(self, files: Files) -> Result<Saved, Error> {
        let (objects, index) = files.finish().await?;
        let gathered = self.gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
        let counts = Counts { bytes_stored: objects.size + index.size, ..gathered.counts };
        Ok(Saved {
            kinds: gathered.kinds(),
            omissions: gathered.omissions(self.request.chosen),
            objects,
            index,
            problems: gathered.problems,
            counts,
            pin: gathered.pin,
        })
    }
}

impl Gathered {
    /// Every kind that holds objects.
    fn kinds(&self) -> Vec<KindReport> {
        let held = self.kinds.iter().filter(|(_, listed)| listed.objects > 0);
        let report = |(kind, listed): (&Kind, &Listed)| KindReport {
            kind: kind.key(),
            api_version: kind.api_version(),
            objects: listed.objects,
            bytes: listed.bytes,
            revision: listed.revision.clone(),
        };
        held.map(report).collect()
    }

    /// What rules and flags left out.
    fn omissions(&self, chosen: &Chosen) -> Vec<Omission> {
        let omissions = self.kinds.iter().flat_map(|(kind, listed)| {
            let omission = |(rule, objects): (&&str, &u64)| Omission {
                subject: kind.key(),
                rule: (*rule).to_owned(),
                objects: Some(*objects),
            };
            listed.omitted.iter().map(omission).collect::<Vec<_>>()
        });
        let claims = Omission {
            subject: "persistentvolumeclaims".to_owned(),
            rule: claims::SKIPPED.to_owned(),
            objects: Some(self.skipped_claims),
        };
        let claims = (self.skipped_claims > 0).then_some(claims);
        omissions.chain(self.others.omissions(chosen)).chain(claims).collect()
    }
}

/// The two files that grow while the lists run.
struct Files {
    objects: FileUpload,
    index: FileUpload,
    writer: IndexWriter,
}

impl Files {
    async fn begin(store: &dyn Store, id: &BackupId, attempt: &Attempt) -> Result<Self, Error> {
        let key = |name| data_key(id, attempt, name);
        let objects = FileUpload::begin(store, key("objects.tar.zst")).await?;
        let begun = match FileUpload::begin(store, key("index.jsonl.zst")).await {
            Ok(index) => IndexWriter::new().map(|writer| (index, writer)).map_err(Error::from),
            Err(error) => Err(error),
        };
        match begun {
            Ok((index, writer)) => Ok(Self { objects, index, writer }),
            Err(error) => {
                objects.abort().await;
                Err(error)
            }
        }
    }

    async fn finish(self) -> Result<(File, File), Error> {
        let Self { mut objects, mut index, writer } = self;
        let ended = async {
            let end = end_of_archive()?;
            let rest = writer.finish(&end)?;
            objects.write(end).await?;
            index.write(rest).await
        };
        if let Err(error) = ended.await {
            tokio::join!(objects.abort(), index.abort());
            return Err(error);
        }
        let (objects, index) = tokio::join!(objects.finish(), index.finish());
        Ok((objects?, index?))
    }

    async fn abort(self) {
        tokio::join!(self.objects.abort(), self.index.abort());
    }
}
