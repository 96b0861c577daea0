//! Which kinds the API server serves. Reads aggregated discovery itself, since kube's `Discovery` hides a group whose
//! server is down: a backup must know what it can't see.

use super::call::Call;
use super::{Cluster, Error};
use crate::resource::Kind;
use futures::try_join;
use kube::core::discovery::v2::{ACCEPT_AGGREGATED_DISCOVERY_V2, APIGroupDiscoveryList, APIResourceDiscovery};
use std::collections::BTreeMap;

/// A kind as discovery describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The kind, in the version that the group prefers among those that serve it.
    pub kind: Kind,
    /// All versions that serve it, the preferred one first.
    pub versions: Vec<String>,
    /// Short names, such as `deploy`.
    pub short_names: Vec<String>,
    /// The singular, such as `deployment`.
    pub singular: String,
    /// What can be done with it: `get`, `list`, `create`, ….
    pub verbs: Vec<String>,
    /// Whether it has a `status` subresource.
    pub has_status: bool,
}

impl Served {
    /// Whether the API server lets it be listed.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// What the API server serves, and what it could not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// The kinds, ordered by key.
    pub kinds: Vec<Served>,
    /// Group versions whose server gave no fresh answer; what they serve is unknown.
    pub stale: Vec<String>,
}

impl Discovery {
    /// The kind with this key, in its preferred version.
    pub fn get(&self, key: &str) -> Option<&Served> {
        self.kinds.iter().find(|served| served.kind.is(key))
    }
}

impl Cluster {
    /// Asks which kinds are served: two requests.
    ///
    /// # Errors
    /// When one of them can't be answered, or the API server is older than 1.30 and has no aggregated discovery.
    pub async fn discover(&self) -> Result<Discovery, Error> {
        let ask = |path: &'static str| async move {
            let call =
                Call { accept: ACCEPT_AGGREGATED_DISCOVERY_V2, ..Call::get("asking what the API server serves", path) };
            self.json::<APIGroupDiscoveryList>(&call).await
        };
        let (core, groups) = try_join!(ask("/api"), ask("/apis"))?;
        if core.items.is_empty() || groups.items.is_empty() {
            return Err(Error::Answer {
                what: "asking what the API server serves".to_owned(),
                message: "it has no aggregated discovery; Kubernetes 1.30 or later is needed".to_owned(),
            });
        }
        Ok(read(core, groups))
    }
}

fn read(core: APIGroupDiscoveryList, groups: APIGroupDiscoveryList) -> Discovery {
    let mut kinds = BTreeMap::<String, Served>::new();
    let mut stale = Vec::new();
    for group in core.items.into_iter().chain(groups.items) {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        for in_version in group.versions {
            let version = in_version.version.unwrap_or_default();
            if in_version.freshness.as_deref() == Some("Stale") {
                stale.push(if name.is_empty() { version.clone() } else { format!("{name}/{version}") });
            }
            for resource in in_version.resources {
                let Some(served) = served(&name, &version, resource) else { continue };
                kinds
                    .entry(served.kind.key())
                    .and_modify(|known| known.versions.push(version.clone()))
                    .or_insert(served);
            }
        }
    }
    Discovery { kinds: kinds.into_values().collect(), stale }
}

/// A resource that has a name and a kind; subresources without a parent of their own have none.
fn served(group: &str, version: &str, resource: APIResourceDiscovery) -> Option<Served> {
    let kind = Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: resource.response_kind?.kind?,
        resource: resource.resource?,
        namespaced: resource.scope.as_deref() == Some("Namespaced"),
    };
    if resource.verbs.is_empty() || kind.resource.contains('/') {
        return None;
    }
    Some(Served {
        versions: vec![version.to_owned()],
        short_names: resource.short_names,
        singular: resource.singular_resource.unwrap_or_default(),
        has_status: resource.subresources.iter().any(|sub| sub.subresource.as_deref() == Some("status")),
        verbs: resource.verbs,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(name: &str, kind: &str) -> serde_json::Value {
        json!({"resource": name, "responseKind": {"group": "", "version": "", "kind": kind}, "scope": "Namespaced", "verbs": ["get", "list"],
               "subresources": [{"subresource": "status"}]})
    }

    #[test]
    fn kinds_of_any_version_are_found_and_stale_groups_named() {
        let core = json!({"items": [{"metadata": {}, "versions": [{"version": "v1", "resources": [resource("pods", "Pod")]}]}]});
        let groups = json!({"items": [
            {"metadata": {"name": "shop.example"}, "versions": [
                {"version": "v2", "freshness": "Current", "resources": [resource("orders", "Order")]},
                {"version": "v1", "freshness": "Current", "resources": [resource("orders", "Order"), resource("carts", "Cart")]}]},
            {"metadata": {"name": "metrics.k8s.io"}, "versions": [{"version": "v1beta1", "freshness": "Stale", "resources": []}]}]});
        let found = read(serde_json::from_value(core).unwrap(), serde_json::from_value(groups).unwrap());
        let list: Vec<String> =
            found.kinds.iter().map(|s| format!("{} {} {:?}", s.kind, s.kind.api_version(), s.versions)).collect();
        assert_eq!(
            list,
            [
                "carts.shop.example shop.example/v1 [\"v1\"]",
                "orders.shop.example shop.example/v2 [\"v2\", \"v1\"]",
                "pods v1 [\"v1\"]"
            ]
        );
        assert_eq!(found.stale, ["metrics.k8s.io/v1beta1"]);
        assert!(found.get("orders.shop.example").is_some_and(|s| s.can("list") && s.has_status && !s.can("create")));
    }
}
