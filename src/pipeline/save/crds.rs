//! Compares the CustomResourceDefinitions that there are at the backup's revision with what discovery found before it
//! was chosen. A definition without a kind in discovery means objects that nobody lists; a kind without its definition
//! one that was deleted meanwhile. Either is a problem in the report, never silence.

use super::Saving;
use crate::pipeline::Error;
use crate::report::{Event, Problem};
use crate::resource::Kind;
use crate::rules::builtin;
use std::collections::BTreeSet;

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const UNSERVED: &str = "its CustomResourceDefinition is there at the backup's revision, but discovery doesn't list the kind, so what it holds is not saved\nhint: it may have been made a moment ago, then run the backup again; else its conditions tell why it isn't served";
const UNDEFINED: &str = "discovery lists the kind, but its CustomResourceDefinition is not there at the backup's revision: it was deleted meanwhile\nhint: run the backup again";

/// Compares, and notes every difference as a problem. Who may not list the definitions is not compared.
///
/// # Errors
/// When the revision is compacted and the run is to start again.
pub(super) async fn compare(saving: &Saving<'_>) -> Result<(), Error> {
    let served = saving.request.served;
    let Some(crds) = served.iter().find(|kind| kind.is(CRDS)) else { return Ok(()) };
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
            return Ok(());
        }
    };
    let mut undefined = undefined(&defined, served);
    if !undefined.is_empty() {
        match saving.cluster.aggregated().await {
            Ok(aggregated) => undefined.retain(|kind| !aggregated.contains(&kind.api_version())),
            Err(error) => {
                not_compared(saving, &error);
                undefined.clear();
            }
        }
    }
    let unserved = unserved(&defined, served).into_iter().map(|key| (key.clone(), UNSERVED));
    let undefined = undefined.into_iter().map(|kind| (kind.key(), UNDEFINED));
    for (subject, message) in unserved.chain(undefined) {
        problem(saving, Problem { subject, message: message.to_owned() });
    }
    Ok(())
}

/// The definitions, by name, which is the key of their kind, that discovery knows nothing of.
fn unserved<'a>(defined: &'a BTreeSet<String>, served: &[Kind]) -> Vec<&'a String> {
    defined.iter().filter(|key| !served.iter().any(|kind| kind.is(key))).collect()
}

/// The kinds that have no definition and need one, unless another server serves them.
fn undefined<'a>(defined: &BTreeSet<String>, served: &'a [Kind]) -> Vec<&'a Kind> {
    served.iter().filter(|kind| !builtin::is_built_in(&kind.group) && !defined.contains(&kind.key())).collect()
}

/// That nobody may look is no difference; that nobody can is a problem.
fn not_compared(saving: &Saving<'_>, error: &crate::cluster::Error) {
    if error.is_forbidden() {
        saving.events.note(format!("discovery is not compared with the CustomResourceDefinitions: {error}"));
    } else {
        let message = format!("discovery could not be compared with them: {error}");
        problem(saving, Problem { subject: CRDS.to_owned(), message });
    }
}

fn problem(saving: &Saving<'_>, problem: Problem) {
    saving.events.send(Event::Problem(problem.clone()));
    saving.gathered().problems.push(problem);
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
