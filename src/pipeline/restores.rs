//! Which restores were carried out: one LIST, and their records. Finds the one that is to be undone.

use super::Error;
use crate::archive::record::{RECORD_LIMIT, RESTORES, Record, id_of_record, record_key};
use crate::id::BackupId;
use crate::report::Problem;
use crate::store::{self, Store};
use futures::{StreamExt, stream};

/// Records read at once.
const AT_ONCE: usize = 16;
/// Ids named in an error.
const NAMED: usize = 5;

/// All restores on record, oldest first, and the records that can't be read.
///
/// # Errors
/// The bucket's.
pub async fn read(store: &dyn Store) -> Result<(Vec<Record>, Vec<Problem>), Error> {
    let ids = ids(store, "").await?;
    let mut records = stream::iter(ids).map(|id| async move { (record(store, &id).await, id) }).buffered(AT_ONCE);
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    while let Some((result, id)) = records.next().await {
        match result {
            Ok(record) => found.push(record),
            Err(error @ Error::Archive(_)) => {
                problems.push(Problem { subject: id.to_string(), message: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    found.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
    Ok((found, problems))
}

/// The restore of this name, or whose name begins so; without a name the last one of this cluster.
///
/// # Errors
/// [`Error::NotFound`] with what there is instead.
pub async fn find(store: &dyn Store, name: Option<&str>, cluster: &str) -> Result<Record, Error> {
    let hint = "hint: `kubectl backup list --restores` shows what is there";
    let place = store.describe();
    let Some(name) = name else {
        // newest first, until one is ours
        for id in ids(store, "").await?.into_iter().rev() {
            let record = record(store, &id).await?;
            if record.cluster == cluster {
                return Ok(record);
            }
        }
        return Err(Error::NotFound(format!("no restore into this cluster is on record in {place}\n{hint}")));
    };
    let mut ids = ids(store, name).await?;
    if let Some(exact) = ids.iter().position(|id| id.as_str() == name) {
        ids = vec![ids.swap_remove(exact)];
    }
    let [id] = ids.as_slice() else {
        let names: Vec<String> = ids.iter().take(NAMED).map(|id| format!("`{id}`")).collect();
        let text = match ids.len() {
            0 => format!("no restore `{name}` is on record in {place}\n{hint}"),
            _ => format!("`{name}` means more than one restore: {}", names.join(", ")),
        };
        return Err(Error::NotFound(text));
    };
    let record = record(store, id).await?;
    if record.cluster != cluster {
        let text = format!("`{id}` was restored into another cluster, `{}`\n{hint}", record.cluster);
        return Err(Error::NotFound(text));
    }
    Ok(record)
}

/// Ids of restores that begin so, in the order in which their records were written.
async fn ids(store: &dyn Store, beginning: &str) -> Result<Vec<BackupId>, Error> {
    let mut listed = store.list(&format!("{RESTORES}{beginning}")).await?;
    listed.sort_by_key(|object| object.modified);
    Ok(listed.iter().filter_map(|object| id_of_record(&object.key)).collect())
}

async fn record(store: &dyn Store, id: &BackupId) -> Result<Record, Error> {
    match store.get(&record_key(id), RECORD_LIMIT).await {
        Ok(bytes) => Ok(Record::read(id, &bytes)?),
        Err(store::Error::NotFound { .. }) => {
            Err(Error::NotFound(format!("no restore `{id}` is on record in {}", store.describe())))
        }
        Err(error) => Err(error.into()),
    }
}
