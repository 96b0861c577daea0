//! Objects of the tests, as plain JSON.

use http::{Method, Request};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A kind that the tests write, in the namespace of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Secret,
    ConfigMap,
    /// A custom resource.
    Order,
}

pub(crate) const KINDS: [Kind; 3] = [Kind::Secret, Kind::ConfigMap, Kind::Order];
pub(crate) const NAMESPACE: &str = "shop";

impl Kind {
    /// Its key.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
            Self::Order => "orders.shop.example",
        }
    }

    /// Where its objects in the namespace are.
    pub(crate) fn path(self) -> String {
        let (api, plural) = match self {
            Self::Secret => ("/api/v1", "secrets"),
            Self::ConfigMap => ("/api/v1", "configmaps"),
            Self::Order => ("/apis/shop.example/v1", "orders"),
        };
        format!("{api}/namespaces/{NAMESPACE}/{plural}")
    }

    fn body(self, name: &str) -> Value {
        let (api, kind) = match self {
            Self::Secret => ("v1", "Secret"),
            Self::ConfigMap => ("v1", "ConfigMap"),
            Self::Order => ("shop.example/v1", "Order"),
        };
        json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}})
    }
}

/// An administrator.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) kube::Client);

impl Api {
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> kube::Result<Value> {
        let patch = method == Method::PATCH;
        let kind = if patch { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(bytes);
        self.0.request(request.expect("a request")).await
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> impl Future<Output = Value> {
        let (api, path) = (self.clone(), path.to_owned());
        async move { api.call(Method::GET, &path, None).await.unwrap_or_else(|error| panic!("GET {path}: {error}")) }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        self.call(Method::POST, path, Some(body)).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    pub(crate) async fn create(&self, kind: Kind, name: &str) -> Value {
        self.post(&kind.path(), &kind.body(name)).await
    }

    pub(crate) async fn delete(&self, kind: Kind, name: &str) {
        self.delete_path(&format!("{}/{name}", kind.path())).await;
    }

    pub(crate) async fn delete_path(&self, path: &str) {
        self.call(Method::DELETE, path, None).await.unwrap_or_else(|error| panic!("DELETE {path}: {error}"));
    }

    /// Writes a number on an object; its new resourceVersion.
    pub(crate) async fn number(&self, kind: Kind, name: &str, number: u64) -> u64 {
        let path = format!("{}/{name}", kind.path());
        let body = json!({"metadata": {"annotations": {"number": number.to_string()}}});
        let written = self.call(Method::PATCH, &path, Some(&body)).await;
        let written = written.unwrap_or_else(|error| panic!("PATCH {path}: {error}"));
        written["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a resourceVersion")
    }

    /// The namespace of the tests.
    pub(crate) async fn namespace(&self) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        self.post("/api/v1/namespaces", &body).await;
    }

    /// Defines a kind in a group, and doesn't wait for anything.
    pub(crate) async fn define(&self, group: &str, plural: &str, kind: &str) {
        let version = json!({"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
        let body = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": "Namespaced", "versions": [version],
                "names": {"plural": plural, "singular": plural.trim_end_matches('s'), "kind": kind, "listKind": format!("{kind}List")}}});
        self.post(DEFINITIONS, &body).await;
    }

    /// Waits until a condition of a definition in any group has this status.
    pub(crate) async fn wait_condition(&self, name: &str, condition: &str, status: &str) {
        let path = format!("{DEFINITIONS}/{name}");
        eventually(&format!("{condition} of {name} to be {status}"), || async {
            let definition = self.get(&path).await;
            let conditions = definition["status"]["conditions"].as_array()?;
            conditions.iter().any(|c| c["type"] == condition && c["status"] == status).then_some(())
        })
        .await;
    }

    /// Waits until discovery lists a kind or no longer does.
    pub(crate) async fn wait_discovered(&self, key: &str, listed: bool) {
        let cluster = kubectl_backup::cluster::Cluster::new(self.0.clone(), self.0.clone());
        eventually(&format!("discovery of {key}: {listed}"), || async {
            let found = cluster.discover().await.ok()?;
            (found.stale.is_empty() && found.get(key).is_some() == listed).then_some(())
        })
        .await;
    }

    /// Defines `orders`, and waits until they can be made and discovery lists them.
    pub(crate) async fn orders(&self) {
        self.define("shop.example", "orders", "Order").await;
        self.wait_condition("orders.shop.example", "Established", "True").await;
        self.wait_discovered(Kind::Order.key(), true).await;
        eventually("orders to be served", || async { self.call(Method::GET, &Kind::Order.path(), None).await.ok() })
            .await;
    }
}

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Asks until there is an answer.
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited 60 s for {what}, in vain");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
