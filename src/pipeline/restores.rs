//! Which restores were carried out, or begun: one LIST, and their records. Finds the one that is to be undone.

use super::Error;
use crate::archive;
use crate::archive::lines::each_line;
use crate::archive::record::{
    CREATES, Create, RECORD_LIMIT, RESTORES, Record, begun_key, id_of_begun, id_of_record, id_of_undone, record_key,
};
use crate::id::{BackupId, Digest};
use crate::report::Problem;
use crate::resource::{check_namespace, check_object_name};
use crate::store::{self, Store};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashSet};

/// Records read at once.
const AT_ONCE: usize = 16;
/// Bytes of a `creates.jsonl.zst` that are read.
const CREATES_LIMIT: u64 = 64 * 1024 * 1024;
/// Ids named in an error.
const NAMED: usize = 5;

/// A restore.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its record.
    pub record: Record,
    /// When it was undone, all of it but what is spared, where it was.
    pub undone_at: Option<Timestamp>,
}

/// All restores on record, oldest first, and the records that can't be read.
///
/// # Errors
/// The bucket's.
pub async fn read(store: &dyn Store) -> Result<(Vec<Found>, Vec<Problem>), Error> {
    let noted = noted(store, "").await?;
    let mut records =
        stream::iter(noted).map(|noted| async move { (record(store, &noted).await, noted) }).buffered(AT_ONCE);
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    while let Some((result, noted)) = records.next().await {
        match result {
            Ok(record) => found.push(Found { record, undone_at: noted.undone_at }),
            Err(error @ Error::Archive(_)) => {
                problems.push(Problem { subject: noted.id.to_string(), message: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    found.sort_by(|Found { record: a, .. }, Found { record: b, .. }| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
    Ok((found, problems))
}

/// The restore of this name, or whose name begins so; without a name the last one of this cluster.
///
/// # Errors
/// [`Error::NotFound`] with what there is instead.
pub async fn find(store: &dyn Store, name: Option<&str>, cluster: &str) -> Result<Found, Error> {
    let hint = "hint: `kubectl backup list --restores` shows what is there";
    let place = store.describe();
    let Some(name) = name else {
        // newest first, until one is ours
        for noted in noted(store, "").await?.into_iter().rev() {
            let record = record(store, &noted).await?;
            if record.cluster == cluster {
                return Ok(Found { record, undone_at: noted.undone_at });
            }
        }
        return Err(Error::NotFound(format!("no restore into this cluster is on record in {place}\n{hint}")));
    };
    let mut found = noted(store, name).await?;
    if let Some(exact) = found.iter().position(|noted| noted.id.as_str() == name) {
        found = vec![found.swap_remove(exact)];
    }
    let [noted] = found.as_slice() else {
        let names: Vec<String> = found.iter().take(NAMED).map(|noted| format!("`{}`", noted.id)).collect();
        let text = match found.len() {
            0 => format!("no restore `{name}` is on record in {place}\n{hint}"),
            _ => format!("`{name}` means more than one restore: {}", names.join(", ")),
        };
        return Err(Error::NotFound(text));
    };
    let record = record(store, noted).await?;
    if record.cluster != cluster {
        let text = format!("`{}` was restored into another cluster, `{}`\n{hint}", noted.id, record.cluster);
        return Err(Error::NotFound(text));
    }
    Ok(Found { record, undone_at: noted.undone_at })
}

/// A restore that is on record.
struct Noted {
    id: BackupId,
    /// When the last was written of it.
    modified: Timestamp,
    ended: bool,
    undone_at: Option<Timestamp>,
}

/// Restores whose ids begin so, in the order in which they were written down last.
async fn noted(store: &dyn Store, beginning: &str) -> Result<Vec<Noted>, Error> {
    let (mut found, mut undone) = (BTreeMap::<BackupId, Noted>::new(), BTreeMap::new());
    for object in store.list(&format!("{RESTORES}{beginning}")).await? {
        if let Some(id) = id_of_undone(&object.key) {
            undone.insert(id, object.modified);
            continue;
        }
        let (ended, begun) = (id_of_record(&object.key), id_of_begun(&object.key));
        let is_end = ended.is_some();
        let Some(id) = ended.or(begun) else { continue };
        let noted =
            found.entry(id.clone()).or_insert(Noted { id, modified: object.modified, ended: false, undone_at: None });
        (noted.modified, noted.ended) = (noted.modified.max(object.modified), noted.ended || is_end);
    }
    let with_undone = |noted: Noted| Noted { undone_at: undone.get(&noted.id).copied(), ..noted };
    let mut all: Vec<Noted> = found.into_values().map(with_undone).collect();
    all.sort_by_key(|noted| noted.modified);
    Ok(all)
}

async fn record(store: &dyn Store, noted: &Noted) -> Result<Record, Error> {
    let Noted { id, ended, .. } = noted;
    let key = if *ended { record_key(id) } else { begun_key(id) };
    match store.get(&key, RECORD_LIMIT).await {
        Ok(bytes) if *ended => Ok(Record::read(id, &bytes)?),
        Ok(bytes) => Ok(Record::read_begun(id, &bytes)?),
        Err(store::Error::NotFound { .. }) => {
            Err(Error::NotFound(format!("no restore `{id}` is on record in {}", store.describe())))
        }
        Err(error) => Err(error.into()),
    }
}

/// What the attempts of a restore were about to create; each object once.
///
/// # Errors
/// The bucket's; [`Error::Archive`] where a file is damaged, or names what can't be a name.
pub async fn creates(store: &dyn Store, id: &BackupId) -> Result<Vec<Create>, Error> {
    let mut found = Vec::<Create>::new();
    let mut known = HashSet::<Digest>::new();
    for object in store.list(&format!("data/{id}/")).await? {
        if !object.key.ends_with(&format!("/{CREATES}")) {
            continue;
        }
        let damaged = |why: String| archive::Error::damaged(format!("`{}`", object.key), why);
        let bytes = store.get(&object.key, CREATES_LIMIT).await?;
        each_line(&object.key, &bytes, |line| {
            let create: Create =
                serde_json::from_slice(line).map_err(|error| damaged(format!("column {}", error.column())))?;
            // names go into URLs
            let namespace = create.ns.as_deref().map_or(Ok(()), check_namespace);
            if let Err(error) = namespace.and_then(|()| check_object_name(&create.name)) {
                return Err(damaged(format!("`{}` can't be a name: {error}", create.name.escape_debug())));
            }
            if known.insert(Digest::of(line)) {
                found.push(create);
            }
            Ok(())
        })?;
    }
    Ok(found)
}
