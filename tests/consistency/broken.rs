//! What a real API server can't read any more costs one namespace, and is named: a Secret whose encryption key is gone, and
//! custom resources whose conversion webhook is dead.

use crate::api::{Api, DEFINITIONS, Kind};
use crate::engine::Backups;
use crate::plane::ControlPlane;
use http::Method;
use serde_json::json;
use std::collections::BTreeSet;

/// A second version that is preferred, and a webhook that nobody answers to convert what is stored into it.
async fn orders_nobody_converts(api: &Api) {
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let patch = json!({"spec": {"versions": [version("v1", false), version("v2", true)],
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://127.0.0.1:9/convert"}}}}});
    let path = format!("{DEFINITIONS}/orders.shop.example");
    api.call(Method::PATCH, &path, Some(&patch)).await.expect("a patched definition");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_any_more_costs_one_namespace() {
    let plane = ControlPlane::start("broken", &[]);
    let api = plane.api().await;
    api.namespace().await;
    api.post("/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "blog"}}))
        .await;
    for (namespace, name) in [("blog", "of-blog"), ("shop", "of-shop")] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        api.post(&format!("/api/v1/namespaces/{namespace}/secrets"), &secret).await;
    }
    api.orders().await;
    api.create(Kind::Order, "unconverted").await;
    orders_nobody_converts(&api).await;
    api.wait_discovered(Kind::Order.key(), true).await;
    // as it is stored by a key that the API server has no more
    plane.etcd().put("/registry/secrets/shop/of-shop", "k8s:enc:aescbc:v1:gone:0123456789").await;

    let backup = Backups::new().run(&plane, 3, &["cluster"]);
    let problems: BTreeSet<&str> = backup.report.problems.iter().map(|problem| problem.subject.as_str()).collect();
    assert_eq!(problems, BTreeSet::from(["orders.shop.example in namespace shop", "secrets in namespace shop"]));
    assert!(backup.of("secrets").contains_key("of-blog") && !backup.of("secrets").contains_key("of-shop"));
    assert_eq!(backup.of("namespaces").len(), 6, "and all else");
}
