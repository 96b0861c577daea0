//! Compares the CustomResourceDefinitions that there are at the backup's revision with what discovery found before it
//! was chosen. A kind that was defined in between is listed as well; one whose definition is gone by then had no objects
//! left at the revision, which only its list can prove (it answers 404): what serves a kind otherwise isn't always known.
//! A definition that is established and that discovery doesn't come to list means objects that nobody can list: a problem
//! in the report, never silence.

use super::Saving;
use crate::cluster::discover::Discovery;
use crate::pipeline::Error;
use crate::report::Problem;
use crate::resource::{Kind, ObjectName};
use crate::rules::builtin;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const UNSERVED: &str = "its CustomResourceDefinition is established at the backup's revision, but discovery doesn't list the kind, so what it holds is not saved\nhint: `kubectl get crd NAME -o yaml` tells why it isn't served";
/// How long discovery may take to list a kind that is established.
const DISCOVERY_LAG: Duration = Duration::from_secs(10);

/// In what the revision differs from discovery.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Kinds that were defined since discovery.
    pub(super) late: Vec<Kind>,
    /// Kinds, by key, that have no definition at the revision, nor anything else that is known to serve them. They are
    /// listed all the same, and are gone where they aren't served any more.
    pub(super) doubtful: BTreeSet<String>,
}

/// Compares. That it can't be done is a problem in the report.
///
/// # Errors
/// When the revision is compacted and the run is to start again.
pub(super) async fn compare(saving: &Saving<'_>) -> Result<Difference, Error> {
    let served = saving.request.served;
    let mut difference = Difference::default();
    let Some(crds) = served.iter().find(|kind| kind.is(CRDS)) else { return Ok(difference) };
    let revision = saving.gathered().pin.of(crds).map(str::to_owned);
    let found = match saving.cluster.list_names_at(crds, revision.as_deref()).await {
        Err(error) if error.is_expired() && saving.request.restart_when_compacted => return Err(error.into()),
        Err(error) if error.is_expired() => saving.cluster.list_names_at(crds, None).await,
        other => other,
    };
    let defined: BTreeSet<String> = match found {
        Ok(found) => found.into_iter().map(|listed| listed.name.name).collect(),
        Err(error) => {
            not_compared(saving, &error);
            return Ok(difference);
        }
    };
    let undefined = undefined(&defined, served);
    if !undefined.is_empty() {
        match saving.cluster.undefined_groups().await {
            Ok(groups) => {
                let doubtful = undefined.into_iter().filter(|kind| !groups.contains(&kind.api_version()));
                difference.doubtful = doubtful.map(Kind::key).collect();
            }
            // then one that isn't served any more is a problem
            Err(error) => tracing::warn!(%error, "what serves kinds without a definition is not known"),
        }
    }
    let asked = |key: &&String| !saving.request.chosen.passes_over(key);
    for key in unserved(&defined, served).into_iter().filter(asked) {
        difference.late.extend(late(saving, crds, key).await?);
    }
    difference.late.iter().for_each(|kind| name_unpinned(saving, kind));
    Ok(difference)
}

/// The kind that a definition makes and that discovery didn't list, once it does.
async fn late(saving: &Saving<'_>, crds: &Kind, key: &str) -> Result<Option<Kind>, Error> {
    let deadline = Instant::now() + DISCOVERY_LAG;
    loop {
        if let Some(served) = saving.cluster.discover().await?.get(key) {
            saving.events.note(format!("`{key}` was defined since discovery, and is saved too"));
            return Ok(Some(served.kind.clone()));
        }
        let definition = saving.cluster.get(crds, &ObjectName::new(None, key)).await?;
        if !definition.is_some_and(|definition| Discovery::is_established(&definition)) {
            return Ok(None); // not in use yet, or gone again: nobody can have made objects of it
        }
        if Instant::now() > deadline {
            saving.tell(Problem { subject: key.to_owned(), message: UNSERVED.to_owned() });
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Where nothing is pinned, every kind is named with the reason: also one that was not known when that was decided.
fn name_unpinned(saving: &Saving<'_>, late: &Kind) {
    let pin = &mut saving.gathered().pin;
    let reason = pin.unpinned.get(CRDS).filter(|_| pin.revision.is_none()).map(|crds| crds.reason.clone());
    if let Some(reason) = reason {
        pin.release(late, &reason, String::new());
    }
}

/// The definitions, by name, which is the key of their kind, that discovery knows nothing of.
fn unserved<'a>(defined: &'a BTreeSet<String>, served: &[Kind]) -> Vec<&'a String> {
    defined.iter().filter(|key| !served.iter().any(|kind| kind.is(key))).collect()
}

/// The kinds that have no definition and need one, unless another server serves them.
fn undefined<'a>(defined: &BTreeSet<String>, served: &'a [Kind]) -> Vec<&'a Kind> {
    served.iter().filter(|kind| !builtin::is_built_in(&kind.group) && !defined.contains(&kind.key())).collect()
}

/// What can't be compared may hide a kind: also from a person who may not list the definitions.
fn not_compared(saving: &Saving<'_>, error: &crate::cluster::Error) {
    let message = format!("discovery could not be compared with them: {error}");
    saving.tell(Problem { subject: CRDS.to_owned(), message });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(key: &str) -> Kind {
        let (resource, group) = key.split_once('.').unwrap_or((key, ""));
        let (group, version, resource) = (group.to_owned(), "v1".to_owned(), resource.to_owned());
        Kind { kind: resource.clone(), group, version, resource, namespaced: true }
    }

    #[test]
    fn definitions_and_discovery_are_compared_both_ways() {
        let served = ["pods", "deployments.apps", "orders.shop.example"].map(kind);
        let defined = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let both = defined(&["orders.shop.example"]);
        assert_eq!((unserved(&both, &served).len(), undefined(&both, &served).len()), (0, 0));
        let other = defined(&["carts.shop.example"]);
        assert_eq!(unserved(&other, &served), ["carts.shop.example"]);
        assert_eq!(undefined(&other, &served), [&served[2]], "built-in kinds need no definition");
    }
}
