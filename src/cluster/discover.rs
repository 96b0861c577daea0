//! Which kinds the API server serves. Reads aggregated discovery itself, since kube's `Discovery` hides a group whose
//! server is down: a backup must know what it can't see.

use super::call::Call;
use super::{Cluster, Error};
use crate::resource::Kind;
use crate::rules::kinds::Served;
use futures::try_join;
use kube::core::discovery::v2::{ACCEPT_AGGREGATED_DISCOVERY_V2, APIGroupDiscoveryList, APIResourceDiscovery};
use serde::Deserialize;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// What the API server serves, and what it could not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// The kinds, ordered by key.
    pub kinds: Vec<Served>,
    /// Group versions whose server gave no fresh answer; what they serve is unknown.
    pub stale: Vec<String>,
    /// Every version of every kind, by key.
    versions: BTreeMap<String, Vec<String>>,
    /// The kinds whose status can't be written on its own, by key.
    plain_status: BTreeSet<String>,
}

impl Discovery {
    /// Whether objects of this kind are taken in this very version.
    pub fn serves(&self, kind: &Kind) -> bool {
        self.versions.get(&kind.key()).is_some_and(|versions| versions.contains(&kind.version))
    }

    /// The versions in which objects of a kind are taken, the preferred one first; none where it isn't served.
    pub fn versions(&self, key: &str) -> &[String] {
        self.versions.get(key).map_or(&[], Vec::as_slice)
    }

    /// The kinds, by key, whose status is a field like any other: they have no status subresource. `defined` are such
    /// kinds that are yet to be served.
    pub fn plain_status(&self, defined: &BTreeSet<String>) -> BTreeSet<String> {
        let coming = defined.iter().filter(|key| !self.versions.contains_key(*key));
        self.plain_status.iter().chain(coming).cloned().collect()
    }

    /// Whether a CustomResourceDefinition, as the API server sent it, is established: its kind can have objects.
    pub fn is_established(definition: &[u8]) -> bool {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Definition {
            status: Status,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Status {
            conditions: Vec<Condition>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Condition {
            r#type: String,
            status: String,
        }
        let definition: Definition = serde_json::from_slice(definition).unwrap_or_default();
        definition.status.conditions.iter().any(|c| c.r#type == "Established" && c.status == "True")
    }

    /// The kind with this key, in its preferred version among those that can be listed, if there are any.
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

    /// Group versions that need no CustomResourceDefinition: those that other servers serve, whose APIServices name a
    /// Service, and those that the API server found in itself, whose APIServices it made when it started.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn undefined_groups(&self) -> Result<BTreeSet<String>, Error> {
        let uri = "/apis/apiregistration.k8s.io/v1/apiservices";
        let list: ApiServices = self.json(&Call::get("listing `apiservices.apiregistration.k8s.io`", uri)).await?;
        let undefined = list.items.into_iter().filter(ApiService::needs_no_definition).map(|item| item.spec);
        Ok(undefined.map(|spec| format!("{}/{}", spec.group, spec.version)).collect())
    }
}

/// The label of APIServices that the API server makes itself (`kube-aggregator/pkg/controllers/autoregister`).
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Its value for groups that are compiled in; those of CustomResourceDefinitions have `true`.
const ON_START: &str = "onstart";

#[derive(Deserialize)]
struct ApiServices {
    items: Vec<ApiService>,
}

#[derive(Deserialize)]
struct ApiService {
    #[serde(default)]
    metadata: ApiServiceMeta,
    spec: ApiServiceSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ApiServiceMeta {
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ApiServiceSpec {
    #[serde(default)]
    group: String,
    version: String,
    service: Option<serde::de::IgnoredAny>,
}

impl ApiService {
    fn needs_no_definition(&self) -> bool {
        self.spec.service.is_some() || self.metadata.labels.get(AUTOMANAGED).is_some_and(|when| when == ON_START)
    }
}

fn read(core: APIGroupDiscoveryList, groups: APIGroupDiscoveryList) -> Discovery {
    let mut kinds = BTreeMap::<String, Served>::new();
    let mut versions = BTreeMap::<String, Vec<String>>::new();
    let (mut stale, mut plain_status) = (Vec::new(), BTreeSet::new());
    for group in core.items.into_iter().chain(groups.items) {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        for in_version in group.versions {
            let version = in_version.version.unwrap_or_default();
            if in_version.freshness.as_deref() == Some("Stale") {
                stale.push(if name.is_empty() { version.clone() } else { format!("{name}/{version}") });
            }
            for resource in in_version.resources {
                let has_status = resource.subresources.iter().any(|part| part.subresource.as_deref() == Some("status"));
                let Some(served) = served(&name, &version, resource) else { continue };
                if !has_status {
                    plain_status.insert(served.kind.key());
                }
                versions.entry(served.kind.key()).or_default().push(version.clone());
                // versions come in the group's order of preference; one that can't be listed must not hide an older one
                match kinds.entry(served.kind.key()) {
                    Entry::Vacant(free) => _ = free.insert(served),
                    Entry::Occupied(mut held) if served.can("list") && !held.get().can("list") => {
                        held.insert(served);
                    }
                    Entry::Occupied(_) => (),
                }
            }
        }
    }
    Discovery { kinds: kinds.into_values().collect(), stale, versions, plain_status }
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
        short_names: resource.short_names,
        singular: resource.singular_resource.unwrap_or_default(),
        verbs: resource.verbs,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(name: &str, kind: &str) -> serde_json::Value {
        json!({"resource": name, "responseKind": {"group": "", "version": "", "kind": kind}, "scope": "Namespaced", "verbs": ["get", "list"]})
    }

    #[test]
    fn kinds_of_any_version_are_found_and_stale_groups_named() {
        let core = json!({"items": [{"metadata": {}, "versions": [{"version": "v1", "resources": [resource("pods", "Pod")]}]}]});
        let mut unlisted = resource("probes", "Probe");
        unlisted["verbs"] = json!(["create"]);
        let groups = json!({"items": [
            {"metadata": {"name": "shop.example"}, "versions": [
                {"version": "v2", "freshness": "Current", "resources": [resource("orders", "Order"), unlisted]},
                {"version": "v1", "freshness": "Current", "resources": [resource("orders", "Order"), resource("carts", "Cart"), resource("probes", "Probe")]}]},
            {"metadata": {"name": "metrics.k8s.io"}, "versions": [{"version": "v1beta1", "freshness": "Stale", "resources": []}]}]});
        let found = read(serde_json::from_value(core).unwrap(), serde_json::from_value(groups).unwrap());
        let list: Vec<String> = found.kinds.iter().map(|s| format!("{} {}", s.kind, s.kind.api_version())).collect();
        assert_eq!(
            list,
            [
                "carts.shop.example shop.example/v1",
                "orders.shop.example shop.example/v2",
                "pods v1",
                "probes.shop.example shop.example/v1"
            ]
        );
        let mut older = found.get("orders.shop.example").unwrap().kind.clone();
        older.version = "v1".into();
        assert!(found.serves(&older), "also in a version that the group does not prefer");
        assert_eq!(found.stale, ["metrics.k8s.io/v1beta1"]);
        assert_eq!(found.get("probes.shop.example").unwrap().kind.version, "v1", "where it can be listed");
        assert!(found.get("orders.shop.example").is_some_and(|s| s.can("list") && !s.can("create")));
    }
}
