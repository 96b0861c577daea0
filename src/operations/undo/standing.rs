//! How a restore without an end stands: at work, interrupted, or nobody can tell.

use super::Context;
use crate::archive::record::Record;
use crate::cluster::Cluster;
use crate::jobs;
use crate::operations::Usage;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Its Job is at work, or one of its pods still is.
    Running,
    /// Its Job has failed, or is gone.
    Interrupted,
    /// It has not ended, and nobody here can see whether it is at work.
    NotEnded,
}

/// How it stands, and why nobody can tell.
async fn look(record: &Record, cluster: &Cluster, uid: &str) -> (Standing, String) {
    if record.cluster != uid {
        return (Standing::NotEnded, "it went into another cluster".to_owned());
    }
    let Some(namespace) = &record.job_namespace else {
        return (
            Standing::NotEnded,
            "it ran with `--local`, in a process of which the cluster knows nothing".to_owned(),
        );
    };
    match jobs::is_at_work(cluster.client(), namespace, &record.id).await {
        Ok(true) => (Standing::Running, String::new()),
        Ok(false) => (Standing::Interrupted, String::new()),
        Err(error) => (Standing::NotEnded, format!("its Job can't be looked at: {}", crate::report::one_line(error))),
    }
}

/// How a restore stands; `None`: it has ended.
pub(super) async fn of(record: &Record, cluster: &Cluster, uid: &str) -> Option<Standing> {
    match record.end {
        Some(_) => None,
        None => Some(look(record, cluster, uid).await.0),
    }
}

/// Refuses to undo a restore that is at work, and one that may be and was not named. What the person should know of
/// another one that has not ended.
pub(super) async fn check(
    record: &Record,
    is_named: bool,
    cluster: &Cluster,
    context: &Context,
) -> anyhow::Result<Option<String>> {
    if record.end.is_some() {
        return Ok(None);
    }
    let id = &record.id;
    let (standing, why) = look(record, cluster, &record.cluster).await;
    let began = format!("began {}", ago(record.started_at, (context.now)()));
    match standing {
        Standing::Running => {
            let namespace = record.job_namespace.as_deref().unwrap_or_default();
            anyhow::bail!(
                "restore `{id}` {began} and is still at work; nothing was changed\n\
                 hint: `kubectl backup logs {id} -f` follows it; `kubectl delete job {id} -n {namespace}` stops it, and then \
                 `kubectl backup undo {id}` undoes what it came to"
            )
        }
        Standing::Interrupted => Ok(Some(format!(
            "the restore {began} and was interrupted: undone is what bears its name in `managedFields`"
        ))),
        Standing::NotEnded if is_named => Ok(Some(format!(
            "the restore {began} and has not ended, and nobody here can see whether it is still at work: {why}. Make sure \
             that it has stopped; undone is what bears its name in `managedFields` by now"
        ))),
        Standing::NotEnded => Err(Usage(format!(
            "restore `{id}`, the last one into this cluster, {began} and has not ended, and nobody here can see whether it is \
             still at work: {why}; nothing was changed\nhint: make sure that it has stopped, then name it: `kubectl backup undo {id}`"
        ))
        .into()),
    }
}

/// `12m ago`.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    let age = now.duration_since(then);
    let seconds = if age < SignedDuration::from_hours(1) { age.as_secs() } else { age.as_secs() / 60 * 60 };
    let age = SignedDuration::from_secs(seconds);
    format!("{age:#} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_as_fine_as_one_needs_it() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-20T12:00:30Z");
        assert_eq!(ago(at("2026-11-20T11:59:50.5Z"), now), "39s ago");
        assert_eq!(ago(at("2026-11-20T11:48:00Z"), now), "12m 30s ago");
        assert_eq!(ago(at("2026-11-19T10:00:10Z"), now), "26h ago");
    }
}
