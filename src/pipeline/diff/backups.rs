//! A backup against another one, frame by frame of the first.

use super::{DiffRequest, Differences, place};
use crate::pipeline::Error;
use crate::pipeline::adapt::{self, Adaptation};
use crate::pipeline::fetch::{self, Backup};
use crate::resource::{Kind, ObjectName};
use crate::rules::restorable::Facts;
use crate::store::Store;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Compares a backup with another one. `right` says which entries of the other are asked for.
///
/// # Errors
/// The bucket's; [`Error::Archive`] where one of them is damaged.
pub async fn between(store: &dyn Store, left: &DiffRequest<'_>, right: &DiffRequest<'_>) -> Result<Differences, Error> {
    let adaptation = Adaptation::plain().map_err(|error| Error::Thread(error.to_string()))?;
    let Matched { pairs, only_right } = matched(left, right);
    let numbers = pairs.keys().copied().collect();
    let found = Mutex::new(Differences::default());
    fetch::frames(store, left.backup, &left.backup.index.frames_of(&numbers), |frame, tar| {
        let (numbers, pairs, found, adaptation) = (&numbers, &pairs, &found, &adaptation);
        async move {
            let numbers = numbers.range(left.backup.index.of_frame(frame));
            let twins: BTreeSet<usize> = numbers.clone().filter_map(|number| pairs[number]).collect();
            let mut others = objects(store, right.backup, &twins).await?;
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            for &number in numbers {
                let json = left.backup.index.object(&left.backup.index.entries()[number], &tar)?;
                let twin = pairs[&number].and_then(|twin| others.remove(&twin));
                let (kind, name) = named(left.backup, number);
                if !is_left_out(left, kind, &name, json) {
                    let object = adapt::parse(left.backup, number, json)?;
                    found.compare(adaptation, kind, &name, Some(object), twin);
                }
            }
            Ok(())
        }
    })
    .await?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    fetch::frames(store, right.backup, &right.backup.index.frames_of(&only_right), |frame, tar| {
        let mut read = || {
            for &number in only_right.range(right.backup.index.of_frame(frame)) {
                let json = right.backup.index.object(&right.backup.index.entries()[number], &tar)?;
                let (kind, name) = named(right.backup, number);
                if !is_left_out(right, kind, &name, json) {
                    found.compare(&adaptation, kind, &name, None, Some(adapt::parse(right.backup, number, json)?));
                }
            }
            Ok(())
        };
        std::future::ready(read())
    })
    .await?;
    Ok(found.sorted())
}

/// What of two backups can differ.
struct Matched {
    /// Entries of the left with their twins on the right, if they have one.
    pairs: BTreeMap<usize, Option<usize>>,
    /// Entries of the right without a twin.
    only_right: BTreeSet<usize>,
}

fn matched(left: &DiffRequest<'_>, right: &DiffRequest<'_>) -> Matched {
    let mut only_right = right.numbers();
    let mut others: Vec<usize> = only_right.iter().copied().collect();
    others.sort_by_cached_key(|number| place(right.backup, *number));
    let mut pairs = BTreeMap::new();
    for number in left.numbers() {
        let wanted = place(left.backup, number);
        let twin = others.binary_search_by(|other| place(right.backup, *other).cmp(&wanted)).ok().map(|at| others[at]);
        if let Some(twin) = twin {
            only_right.remove(&twin);
            let (one, other) = (&left.backup.index.entries()[number], &right.backup.index.entries()[twin]);
            if one.uid().is_some_and(|uid| other.is_state(uid, one.resource_version())) {
                continue;
            }
        }
        pairs.insert(number, twin);
    }
    Matched { pairs, only_right }
}

fn named(backup: &Backup, number: usize) -> (&Kind, ObjectName) {
    let entry = &backup.index.entries()[number];
    (&backup.index.frame(entry).kind, backup.index.object_name(entry))
}

fn is_left_out(request: &DiffRequest<'_>, kind: &Kind, name: &ObjectName, json: &[u8]) -> bool {
    let facts = std::str::from_utf8(json).ok().and_then(|text| Facts::of(kind, text).ok());
    facts.is_some_and(|facts| request.is_left_out(kind, name, &facts))
}

/// Reads some objects of a backup.
async fn objects(
    store: &dyn Store,
    backup: &Backup,
    numbers: &BTreeSet<usize>,
) -> Result<BTreeMap<usize, Value>, Error> {
    let mut found = BTreeMap::new();
    fetch::frames(store, backup, &backup.index.frames_of(numbers), |frame, tar| {
        let mut read = || {
            for &number in numbers.range(backup.index.of_frame(frame)) {
                let json = backup.index.object(&backup.index.entries()[number], &tar)?;
                found.insert(number, adapt::parse(backup, number, json)?);
            }
            Ok(())
        };
        std::future::ready(read())
    })
    .await?;
    Ok(found)
}
