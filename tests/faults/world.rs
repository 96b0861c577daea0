//! What the fake API server holds: kinds, objects with all their versions by revision, and what an archive of them must
//! hold, byte for byte.

use crate::planted::PLANTED;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;

/// A kind that the fake serves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KindDef {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) namespaced: bool,
    /// Its items state `apiVersion` and `kind` and come before the list's metadata, as custom resources do.
    pub(crate) custom: bool,
    /// Served by an aggregated API that counts revisions for itself and knows nothing of ours.
    pub(crate) own_counter: bool,
    /// Its objects are kept where only this definition makes it served.
    pub(crate) definition: Option<&'static str>,
}

const RBAC: &str = "rbac.authorization.k8s.io";
const NONE: KindDef = KindDef {
    group: "",
    kind: "",
    resource: "",
    namespaced: false,
    custom: false,
    own_counter: false,
    definition: None,
};

/// All kinds, ordered by group as discovery states them.
pub(crate) const KINDS: &[KindDef] = &[
    KindDef { kind: "Namespace", resource: "namespaces", ..NONE },
    KindDef { kind: "ConfigMap", resource: "configmaps", namespaced: true, ..NONE },
    KindDef { kind: "Secret", resource: "secrets", namespaced: true, ..NONE },
    KindDef { kind: "ServiceAccount", resource: "serviceaccounts", namespaced: true, ..NONE },
    KindDef { kind: "PersistentVolumeClaim", resource: "persistentvolumeclaims", namespaced: true, ..NONE },
    KindDef { kind: "PersistentVolume", resource: "persistentvolumes", ..NONE },
    KindDef { kind: "Event", resource: "events", namespaced: true, ..NONE },
    KindDef { group: "apps", kind: "Deployment", resource: "deployments", namespaced: true, ..NONE },
    KindDef { group: RBAC, kind: "ClusterRole", resource: "clusterroles", ..NONE },
    KindDef { group: RBAC, kind: "ClusterRoleBinding", resource: "clusterrolebindings", ..NONE },
    KindDef { group: "storage.k8s.io", kind: "StorageClass", resource: "storageclasses", ..NONE },
    KindDef {
        group: "snapshot.storage.k8s.io",
        kind: "VolumeSnapshotContent",
        resource: "volumesnapshotcontents",
        custom: true,
        definition: Some("volumesnapshotcontents.snapshot.storage.k8s.io"),
        ..NONE
    },
    KindDef {
        group: "snapshot.storage.k8s.io",
        kind: "VolumeSnapshot",
        resource: "volumesnapshots",
        namespaced: true,
        custom: true,
        definition: Some("volumesnapshots.snapshot.storage.k8s.io"),
        ..NONE
    },
    KindDef {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        resource: "customresourcedefinitions",
        ..NONE
    },
    KindDef {
        group: "shop.example",
        kind: "Order",
        resource: "orders",
        namespaced: true,
        custom: true,
        definition: Some("orders.shop.example"),
        ..NONE
    },
    KindDef {
        group: "own.example",
        kind: "Gauge",
        resource: "gauges",
        namespaced: true,
        custom: true,
        own_counter: true,
        ..NONE
    },
    // of a later Kubernetes: built in, and unknown to this program
    KindDef { group: "novel.k8s.io", kind: "Novelty", resource: "novelties", namespaced: true, ..NONE },
];

impl KindDef {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", self.group) }
    }

    pub(crate) fn key(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }
}

/// The number of a kind.
pub(crate) fn kind(resource: &str) -> usize {
    KINDS.iter().position(|def| def.resource == resource).unwrap()
}

/// One version of an object: its JSON as a list gives it, and its metadata alone. `None`: deleted.
type Version = (u64, Option<(String, String)>);

/// Objects by kind and place (`namespace/name`, or `name`): etcd's order.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) revision: u64,
    pub(crate) own_revision: u64,
    objects: BTreeMap<(usize, String), Vec<Version>>,
    churned: u64,
}

/// The uid that an object's JSON states.
pub(crate) fn uid(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Where in the API server's store an object stands.
pub(crate) fn place(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

impl World {
    /// A cluster without anything but its own namespace.
    pub(crate) fn empty() -> Self {
        let mut world = Self { revision: 100, own_revision: 7, objects: BTreeMap::new(), churned: 0 };
        world.put("namespaces", None, "kube-system", "", r#""spec":{}"#);
        world
    }

    /// Two applications, and what belongs to them.
    pub(crate) fn full() -> Self {
        let mut world = Self::empty();
        for namespace in ["shop", "shop-dev", "blog"] {
            world.put("namespaces", None, namespace, "", r#""spec" : { "finalizers":["kubernetes"] }"#);
            for number in 0..5 {
                let data = format!(" \"data\" : {{ \"n\":\"{number}\", \"odd\":\"}}]\\\"\\\\ \u{e9}\\u0001\" }} ");
                world.put("configmaps", Some(namespace), &format!("settings-{number}"), "", &data);
            }
            world.put("configmaps", Some(namespace), "gone-soon", "", r#""data":{}"#);
            let password = format!(r#""data":{{"password":"{}"}},"type":"Opaque""#, STANDARD.encode(PLANTED));
            world.put("secrets", Some(namespace), "db", "", &password);
            world.put("secrets", Some(namespace), "web", "", r#""data":{"key":"a2V5"},"type":"Opaque""#);
            world.put("serviceaccounts", Some(namespace), "runner", "", r#""secrets":[]"#);
            world.put("deployments", Some(namespace), "web", "", r#""spec":{"replicas":1}"#);
            let owner = uid(world.get(kind("deployments"), &format!("{namespace}/web")).unwrap());
            let owned = format!(
                ",\"ownerReferences\":[{{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"name\":\"web\",\"uid\":\"{owner}\"}}]"
            );
            world.put("orders", Some(namespace), "owned", &owned, r#""spec":{}"#);
            world.put("events", Some(namespace), "started", "", r#""message":"x""#);
            for number in 0..4 {
                world.put("orders", Some(namespace), &format!("order-{number}"), "", r#""spec":{"items":[{}]}"#);
            }
        }
        world.put("novelties", Some("shop"), "first", "", r#""spec":{}"#);
        world.put("gauges", Some("shop"), "pressure", "", r#""value":1.50"#);
        world.put("gauges", Some("blog"), "pressure", "", r#""value":2.0"#);
        world.put(
            "configmaps",
            Some("shop"),
            "not-me",
            r#","labels":{"kubectl-backup/exclude":"true"}"#,
            "\"data\":{}",
        );
        let claim = r#""spec":{"volumeName":"volume-1","storageClassName":"fast"},"status":{"phase":"Bound"}"#;
        world.put("persistentvolumeclaims", Some("shop"), "disk", "", claim);
        let volume = r#""spec":{"storageClassName":"fast","claimRef":{"namespace":"shop","name":"disk"}}"#;
        world.put("persistentvolumes", None, "volume-1", "", volume);
        world.put("persistentvolumes", None, "volume-2", "", r#""spec":{}"#);
        world.put("storageclasses", None, "fast", "", r#""provisioner":"x""#);
        world.put("storageclasses", None, "slow", "", r#""provisioner":"x""#);
        world.put("clusterroles", None, "shop:Reader", "", r#""rules":[]"#);
        world.put("clusterroles", None, "other", "", r#""rules":[]"#);
        let binding = r#""subjects":[{"kind":"ServiceAccount","name":"runner","namespace":"shop"}],"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"shop:Reader"}"#;
        world.put("clusterrolebindings", None, "shop-reader", "", binding);
        let served =
            r#""spec":{"group":"shop.example"},"status":{"conditions":[{"type":"Established","status":"True"}]}"#;
        world.put("customresourcedefinitions", None, "orders.shop.example", "", served);
        world
    }

    /// Writes an object: more of its metadata (beginning with a comma), and the rest of its fields.
    pub(crate) fn put(&mut self, resource: &str, namespace: Option<&str>, name: &str, more_meta: &str, rest: &str) {
        let number = kind(resource);
        let revision = self.next(number);
        let def = &KINDS[number];
        let namespace_field = namespace.map_or_else(String::new, |n| format!("\"namespace\":\"{n}\","));
        let uid = format!("{number:08x}-0000-4000-8000-{:012x}", self.objects.len() as u64 * 4096 + revision);
        let meta = format!(
            "{{\"name\":\"{name}\",{namespace_field}\"uid\":\"{uid}\",\"resourceVersion\":\"{revision}\"{more_meta}}}"
        );
        let kind = if def.custom {
            format!("\"apiVersion\":\"{}\",\"kind\":\"{}\",", def.api_version(), def.kind)
        } else {
            String::new()
        };
        let text = format!("{{{kind}\"metadata\":{meta},{rest}}}");
        self.insert(number, &place(namespace, name), Some((text, meta)));
    }

    /// Writes a whole object's JSON, as a create gave it.
    pub(crate) fn insert(&mut self, kind: usize, place: &str, version: Option<(String, String)>) {
        let revision = if KINDS[kind].own_counter { self.own_revision } else { self.revision };
        self.objects.entry((kind, place.to_owned())).or_default().push((revision, version));
    }

    /// The revision of the next write of a kind.
    pub(crate) fn next(&mut self, kind: usize) -> u64 {
        let counter = if KINDS[kind].own_counter { &mut self.own_revision } else { &mut self.revision };
        *counter += 1;
        *counter
    }

    pub(crate) fn delete(&mut self, resource: &str, place: &str) {
        let number = kind(resource);
        self.next(number);
        self.insert(number, place, None);
    }

    /// What somebody else does between two requests: one object made, one changed, one deleted.
    pub(crate) fn churn(&mut self) {
        self.churned += 1;
        let now = self.churned;
        if now == 1 {
            for namespace in ["shop", "shop-dev", "blog"] {
                self.delete("configmaps", &format!("{namespace}/gone-soon"));
            }
        } else {
            self.delete("configmaps", &format!("shop/churn-{}", now - 1));
        }
        self.put("configmaps", Some("shop"), &format!("churn-{now}"), "", "\"data\":{}");
        self.put("configmaps", Some("shop"), "settings-3", "", &format!("\"data\":{{\"now\":\"{now}\"}}"));
        self.put("orders", Some("blog"), "order-2", "", &format!("\"spec\":{{\"now\":{now}}}"));
    }

    /// The current revision of what a kind is kept in.
    pub(crate) fn revision_of(&self, kind: usize) -> u64 {
        if KINDS[kind].own_counter { self.own_revision } else { self.revision }
    }

    /// The objects of a kind at a revision: place, JSON, metadata.
    pub(crate) fn at(&self, kind: usize, revision: u64) -> impl Iterator<Item = (&str, &str, &str)> {
        self.objects.range((kind, String::new())..(kind + 1, String::new())).filter_map(
            move |((_, place), versions)| {
                let version = versions.iter().rev().find(|(since, _)| *since <= revision)?;
                version.1.as_ref().map(|(text, meta)| (place.as_str(), text.as_str(), meta.as_str()))
            },
        )
    }

    /// An object as it is now.
    pub(crate) fn get(&self, kind: usize, place: &str) -> Option<&str> {
        let versions = self.objects.get(&(kind, place.to_owned()))?;
        versions.last()?.1.as_ref().map(|(text, _)| text.as_str())
    }

    /// All objects that are there now: kind, place, JSON.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        (0..KINDS.len()).flat_map(|kind| self.at(kind, u64::MAX).map(move |(place, text, _)| (kind, place, text)))
    }

    /// How often an object was made.
    pub(crate) fn times_made(&self, kind: usize, place: &str) -> usize {
        self.objects.get(&(kind, place.to_owned())).map_or(0, Vec::len)
    }

    pub(crate) fn is_served(&self, def: &KindDef) -> bool {
        def.definition.is_none_or(|name| self.get(kind("customresourcedefinitions"), name).is_some())
    }

    /// An object with its type in front, as a GET and an archive have it.
    pub(crate) fn whole(kind: usize, text: &str) -> String {
        let def = &KINDS[kind];
        if def.custom {
            return text.to_owned();
        }
        format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",{}", def.api_version(), def.kind, &text[1..])
    }
}

/// Whether a backup of the namespace `shop` holds an object.
pub(crate) fn belongs_to_shop(kind: usize, place: &str) -> bool {
    if KINDS[kind].namespaced {
        return place.starts_with("shop/");
    }
    ["shop", "volume-1", "fast", "shop:Reader", "shop-reader", "orders.shop.example"].contains(&place)
}

/// Whether any backup holds an object.
pub(crate) fn is_saved(kind: usize, place: &str) -> bool {
    KINDS[kind].resource != "events" && place != "shop/not-me"
}
