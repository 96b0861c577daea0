//! Looking at what a backup would hold: the same lists and the same decisions, and nothing written.

use super::frames::Frames;
use super::pin::Pin;
use super::{KindReport, SaveRequest, Saving};
use crate::cluster::Cluster;
use crate::pipeline::{Error, until_cancelled};
use crate::report::{Counts, Events, Omission, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use tokio_util::sync::CancellationToken;

/// What a backup would come to.
#[derive(Debug)]
pub struct Seen {
    /// Every kind that would hold objects.
    pub kinds: Vec<KindReport>,
    /// Objects that are taken only because others need them: names by kind.
    pub needed: BTreeMap<String, BTreeSet<String>>,
    /// What could not be saved.
    pub problems: Vec<Problem>,
    /// What rules leave out.
    pub omissions: Vec<Omission>,
    /// The sums.
    pub counts: Counts,
}

/// Makes the lists of a backup and drops what they give.
///
/// # Errors
/// As [`super::objects`], the bucket's excepted.
pub async fn look(
    cluster: &Cluster,
    request: &SaveRequest<'_>,
    pin: Pin,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Seen, Error> {
    let saving = Saving::new(cluster, request, pin, None, events);
    let (frames, mut dropped) = Frames::new();
    let saves = &saving;
    let lists = async move { saves.lists(&frames).await };
    let drops = async {
        while dropped.recv().await.is_some() {}
        Ok(())
    };
    let looked = until_cancelled(cancel, async { tokio::try_join!(lists, drops).map(drop) }).await;
    looked.inspect_err(|error| saving.withdraw(error))?;
    let gathered = saving.gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Seen {
        kinds: gathered.kinds(),
        omissions: gathered.omissions(request.chosen),
        needed: gathered.needed,
        problems: gathered.problems,
        counts: gathered.counts,
    })
}
