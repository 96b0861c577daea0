//! Which objects of a backup a restore is about: by name, namespace, kind and label.

use super::super::{Usage, read};
use super::RestoreTask;
use crate::pipeline::Error;
use crate::pipeline::fetch::{self, Backup};
use crate::resource::Kind;
use crate::rules::Labels;
use crate::rules::selection::{Chosen, Namespaces, Selection};
use crate::store::Store;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The entries that were asked for; `None`: all.
///
/// # Errors
/// [`Error::NotFound`] where that is nothing; the bucket's, since labels stand in the objects.
pub(super) async fn entries(
    store: &dyn Store,
    backup: &Backup,
    task: &RestoreTask,
    asked: &Namespaces,
) -> anyhow::Result<Option<BTreeSet<usize>>> {
    let within = in_place(backup, task, asked)?;
    if task.selection == Selection::default() {
        return Ok(within);
    }
    let chosen = Chosen::resolve(&task.selection, &read::kinds_of(backup));
    let chosen = chosen.map_err(|error| Usage(error.to_string()))?;
    let within = within.unwrap_or_else(|| (0..backup.index.entries().len()).collect());
    let found = match task.selection.selectors.is_empty() {
        true => within.into_iter().filter(|number| takes(&chosen, backup, *number, &Labels::default())).collect(),
        false => labelled(store, backup, &chosen, &within).await?,
    };
    if found.is_empty() {
        let flags = task.selection.flags().unwrap_or_default();
        let text = format!(
            "backup `{id}` holds nothing that `{flags}` selects\nhint: `kubectl backup show {id}` lists what it holds",
            id = backup.manifest.id
        );
        return Err(Error::NotFound(text).into());
    }
    Ok(Some(found))
}

fn takes(chosen: &Chosen, backup: &Backup, number: usize, labels: &Labels<'_>) -> bool {
    let entry = &backup.index.entries()[number];
    let kind: &Kind = &backup.index.frame(entry).kind;
    chosen.excluded(kind).is_none()
        && chosen.takes(kind, backup.index.namespace(entry), backup.index.name(entry), labels)
}

/// Those whose labels match too, as the objects themselves say. Only frames of kinds that may be meant are read.
async fn labelled(
    store: &dyn Store,
    backup: &Backup,
    chosen: &Chosen,
    within: &BTreeSet<usize>,
) -> anyhow::Result<BTreeSet<usize>> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: Meta<'a>,
    }
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow, default)]
        labels: Labels<'a>,
    }
    let (entries, mut frames) = (backup.index.entries(), backup.index.frames_of(within));
    frames.retain(|frame| chosen.lists(&backup.index.frames()[*frame].kind));
    let mut found = BTreeSet::new();
    fetch::frames(store, backup, &frames, |frame, tar| {
        let mut read = || {
            for &number in within.range(backup.index.of_frame(frame)) {
                let json = backup.index.object(&entries[number], &tar)?;
                let object: Object<'_> = serde_json::from_slice(json).map_err(|error| {
                    crate::archive::Error::damaged(
                        "an object",
                        format!("it is no object at line {} column {}", error.line(), error.column()),
                    )
                })?;
                if takes(chosen, backup, number, &object.metadata.labels) {
                    found.insert(number);
                }
            }
            Ok(())
        };
        std::future::ready(read())
    })
    .await?;
    Ok(found)
}

/// Those of the names and namespaces that were asked for.
fn in_place(backup: &Backup, task: &RestoreTask, asked: &Namespaces) -> anyhow::Result<Option<BTreeSet<usize>>> {
    if task.objects.is_empty() && task.namespaces.is_empty() {
        return Ok(None);
    }
    let in_namespace =
        |namespace: Option<&str>| task.namespaces.is_empty() || namespace.is_some_and(|n| asked.matches(n));
    if !task.objects.is_empty() {
        // a namespace that was named restricts namespaced objects only; `clusterrole/x` names its object by itself
        let named = |namespace: Option<&str>| namespace.is_none() || in_namespace(namespace);
        return Ok(Some(read::chosen(backup, &task.objects, &named)?));
    }
    let entries = backup.index.entries();
    let chosen: BTreeSet<usize> =
        (0..entries.len()).filter(|number| in_namespace(backup.index.namespace(&entries[*number]))).collect();
    if chosen.is_empty() {
        let text =
            format!("backup `{}` holds nothing in namespace `{}`", backup.manifest.id, task.namespaces.join("`, `"));
        return Err(Error::NotFound(text).into());
    }
    Ok(Some(chosen))
}
