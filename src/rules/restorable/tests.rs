use super::*;
use crate::rules::testing::kind;
use serde_json::{Value, json};

const UID: &str = "0d4e6bc9-3b6a-4f2e-9d43-5f0c7e1f2a3b";

fn facts(key: &str, object: &Value) -> Facts {
    Facts::of(&kind(key, "X"), &object.to_string()).unwrap()
}

fn owned(api_version: &str, owner: &str, controller: bool) -> Value {
    json!({"metadata": {"ownerReferences": [{"apiVersion": api_version, "kind": owner, "name": "o", "uid": UID, "controller": controller}]}})
}

/// The reason why an object of this kind, namespace and name is never restored.
fn never(key: &str, name: &str, object: &Value) -> Option<&'static str> {
    let name = match name.split_once('/') {
        Some((namespace, name)) => ObjectName::new(Some(namespace), name),
        None => ObjectName::new(None, name),
    };
    let asked = Namespaces::all();
    let protected = Protected { install_namespace: Some("kubectl-backup"), asked: &asked };
    never_restored(&kind(key, "X"), &name, &facts(key, object), &protected)
}

#[test]
fn facts_are_small() {
    assert!(size_of::<Facts>() <= 24, "{}", size_of::<Facts>());
    assert!(size_of_val(facts("configmaps", &json!({"data": {"a": "b"}})).owners()) == 0);
}

#[test]
fn kinds_never_restored() {
    for key in [
        "nodes",
        "events",
        "events.events.k8s.io",
        "leases.coordination.k8s.io",
        "csinodes.storage.k8s.io",
        "volumeattachments.storage.k8s.io",
        "volumesnapshots.snapshot.storage.k8s.io",
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        "volumegroupsnapshots.groupsnapshot.storage.k8s.io",
        "componentstatuses",
        "certificatesigningrequests.certificates.k8s.io",
        "pods.metrics.k8s.io",
        "nodeclaims.karpenter.sh",
    ] {
        assert!(never(key, "a/x", &json!({})).is_some(), "{key}");
    }
    for key in [
        "pods",
        "secrets",
        "endpoints",
        "storageclasses.storage.k8s.io",
        "nodepools.karpenter.sh",
        "csidrivers.storage.k8s.io",
    ] {
        assert_eq!(never(key, "a/x", &json!({})), None, "{key}");
    }
}

#[test]
fn objects_never_restored_by_name() {
    let webhooks = "admissionregistration.k8s.io";
    let (mutating, validating) =
        (format!("mutatingwebhookconfigurations.{webhooks}"), format!("validatingwebhookconfigurations.{webhooks}"));
    for (key, name, out) in [
        ("configmaps", "shop/kube-root-ca.crt", true),
        ("secrets", "shop/kube-root-ca.crt", false),
        ("configmaps", "shop/aws-auth", false),
        ("services", "default/kubernetes", true),
        ("services", "shop/kubernetes", false),
        ("endpoints", "default/kubernetes", true),
        (&mutating, "pod-identity-webhook", true),
        (&mutating, "vpc-resource-mutating-webhook", true),
        (&validating, "vpc-resource-validating-webhook", true),
        (&validating, "pod-identity-webhook", false),
        (&mutating, "aws-load-balancer-webhook", false),
    ] {
        assert_eq!(never(key, name, &json!({})).is_some(), out, "{key} {name}");
    }
}

#[test]
fn objects_never_restored_by_what_they_hold() {
    let labelled = |key: &str, value: &str| json!({"metadata": {"labels": {key: value}}});
    let annotated = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let condition = |name: &str, status: &str| json!({"status": {"conditions": [{"type": name, "status": status}]}});
    let bootstrap = labelled("kubernetes.io/bootstrapping", "rbac-defaults");
    let refreshed = annotated("apf.kubernetes.io/autoupdate-spec", "true");
    let roles = "clusterroles.rbac.authorization.k8s.io";
    let flows = "flowschemas.flowcontrol.apiserver.k8s.io";
    let services = "apiservices.apiregistration.k8s.io";
    for (key, object, out) in [
        ("pods", annotated("kubernetes.io/config.mirror", "abc"), true),
        ("configmaps", annotated("kubernetes.io/config.mirror", "abc"), false),
        ("pods", json!({"status": {"phase": "Succeeded"}}), true),
        ("pods", json!({"status": {"phase": "Failed"}}), true),
        ("pods", json!({"status": {"phase": "Running"}}), false),
        ("widgets.example.com", json!({"status": {"phase": "Failed"}}), false),
        ("widgets.example.com", json!({"status": "odd", "spec": 1, "type": ["x"]}), false),
        ("jobs.batch", json!({"status": {"completionTime": "2026-11-20T10:00:00Z"}}), true),
        ("jobs.batch", condition("Failed", "True"), true),
        ("jobs.batch", condition("Complete", "False"), false),
        ("jobs.batch", condition("Suspended", "True"), false),
        ("jobs.batch", json!({"status": null}), false),
        (roles, bootstrap.clone(), true),
        ("configmaps", bootstrap, false),
        (flows, refreshed, true),
        (flows, annotated("apf.kubernetes.io/autoupdate-spec", "false"), false),
        (services, labelled("kube-aggregator.kubernetes.io/automanaged", "onstart"), true),
        (services, json!({}), false),
        ("jobs.batch", labelled("kubectl-backup/id", "shop-1"), true),
    ] {
        assert_eq!(never(key, "shop/x", &object).is_some(), out, "{key} {object}");
    }
}

#[test]
fn tokens_of_service_accounts() {
    let token = "kubernetes.io/service-account-token";
    for (name, of_type, account, out) in [
        ("default-token-x7k2m", token, "default", true),
        ("my-token-sa-token-x7k2m", token, "my-token-sa", true),
        ("default-token-x7k2m", token, "other", false),
        ("default-token-build1", token, "default", false),
        ("ci-token", token, "ci", false),
        ("default-token-x7k2m", "Opaque", "default", false),
    ] {
        let metadata = json!({"name": name, "annotations": {"kubernetes.io/service-account.name": account}});
        let secret = json!({"metadata": metadata, "type": of_type, "data": {"token": "c2VjcmV0"}});
        assert_eq!(never("secrets", &format!("a/{name}"), &secret).is_some(), out, "{name} {of_type} {account}");
    }
}

#[test]
fn namespaces_of_the_cluster_and_our_own() {
    let facts = Facts::default();
    for (asked, install, key, namespace, name, out) in [
        ("*", Some("kubectl-backup"), "secrets", Some("kubectl-backup"), "x", true),
        ("*", Some("kubectl-backup"), "namespaces", None, "kubectl-backup", true),
        ("kubectl-backup", Some("kubectl-backup"), "secrets", Some("kubectl-backup"), "x", true),
        ("shop", None, "secrets", Some("shop"), "x", false),
        ("*", None, "secrets", Some("kube-system"), "x", true),
        ("kube-*", None, "secrets", Some("kube-system"), "x", true),
        ("kube-system", None, "secrets", Some("kube-system"), "x", false),
        ("kube-system", None, "namespaces", None, "kube-system", false),
        ("kube-system", None, "secrets", Some("kube-public"), "x", true),
        ("*", None, "storageclasses.storage.k8s.io", None, "kube-system", false),
        ("kube-system", None, "configmaps", Some("kube-system"), "aws-auth", true),
        ("kube-system", None, "configmaps", Some("kube-system"), "extension-apiserver-authentication", true),
    ] {
        let asked = Namespaces::parse(&[asked]).unwrap();
        let protected = Protected { install_namespace: install, asked: &asked };
        let reason = never_restored(&kind(key, "X"), &ObjectName::new(namespace, name), &facts, &protected);
        assert_eq!(reason.is_some(), out, "{key} {namespace:?} {name}");
    }
}

#[test]
fn what_controllers_make_anew() {
    for (key, api_version, owner, made) in [
        ("pods", "apps/v1", "ReplicaSet", true),
        ("pods", "apps/v1", "StatefulSet", true),
        ("pods", "apps/v1", "DaemonSet", true),
        ("pods", "batch/v1", "Job", true),
        ("pods", "v1", "ReplicationController", true),
        ("pods", "v1", "Node", true),
        ("replicasets.apps", "apps/v1", "Deployment", true),
        ("jobs.batch", "batch/v1", "CronJob", true),
        ("controllerrevisions.apps", "apps/v1", "DaemonSet", true),
        ("endpointslices.discovery.k8s.io", "v1", "Service", true),
        ("persistentvolumeclaims", "v1", "Pod", true),
        // restored: no controller of Kubernetes makes these anew, or not with what was in them
        ("persistentvolumeclaims", "apps/v1", "StatefulSet", false),
        ("configmaps", "apps/v1", "Deployment", false),
        ("pods", "argoproj.io/v1alpha1", "ReplicaSet", false),
        ("pods", "postgresql.cnpg.io/v1", "Cluster", false),
        ("replicasets.apps", "argoproj.io/v1alpha1", "Rollout", false),
        ("controllerrevisions.apps", "kubevirt.io/v1", "VirtualMachine", false),
    ] {
        let reason = made_by_controller(&kind(key, "X"), &facts(key, &owned(api_version, owner, true)), None);
        assert_eq!(reason.is_some(), made, "{key} of {owner}");
        assert!(reason.is_none_or(|reason| owner == "Node" || reason.contains(owner)), "{reason:?} {owner}");
        let unmanaged = facts(key, &owned(api_version, owner, false));
        assert_eq!(made_by_controller(&kind(key, "X"), &unmanaged, None), None, "{key} of {owner}, not its controller");
    }
}

#[test]
fn endpoints_follow_services_that_select() {
    let service = |spec: Value| facts("services", &json!({"spec": spec}));
    let selects = service(json!({"selector": {"app": "web"}}));
    let bare = facts("endpoints", &json!({"subsets": []}));
    for (service, made) in [
        (Some(&selects), true),
        (Some(&service(json!({"clusterIP": "None"}))), false),
        (Some(&service(json!({"selector": null}))), false),
        (Some(&service(json!({"type": "ExternalName", "selector": {"app": "web"}}))), false),
        (None, false),
    ] {
        assert_eq!(made_by_controller(&kind("endpoints", "Endpoints"), &bare, service).is_some(), made, "{service:?}");
    }
    assert_eq!(made_by_controller(&kind("configmaps", "ConfigMap"), &bare, Some(&selects)), None);
    for (key, label, manager, made) in [
        (
            "endpointslices.discovery.k8s.io",
            "endpointslice.kubernetes.io/managed-by",
            "endpointslice-controller.k8s.io",
            true,
        ),
        (
            "endpointslices.discovery.k8s.io",
            "endpointslice.kubernetes.io/managed-by",
            "endpointslicemirroring-controller.k8s.io",
            true,
        ),
        ("endpointslices.discovery.k8s.io", "endpointslice.kubernetes.io/managed-by", "me", false),
        ("endpoints", "endpoints.kubernetes.io/managed-by", "endpoint-controller", true),
    ] {
        let facts = facts(key, &json!({"metadata": {"labels": {label: manager}}}));
        assert_eq!(made_by_controller(&kind(key, "X"), &facts, None).is_some(), made, "{key} {manager}");
    }
}

#[test]
fn owners_that_creation_waits_for() {
    let one = [Uid::parse(UID)];
    assert_eq!(facts("secrets", &owned("cert-manager.io/v1", "Certificate", true)).owners(), one);
    assert_eq!(facts("configmaps", &owned("apps/v1", "Deployment", false)).owners(), one);
    assert_eq!(facts("pods", &owned("apps/v1", "ReplicaSet", true)).owners(), []);
    assert_eq!(facts("persistentvolumeclaims", &owned("apps/v1", "StatefulSet", true)).owners(), []);
}

#[test]
fn other_facts() {
    let object = json!({"metadata": {"finalizers": ["a/b"], "deletionTimestamp": "2026-11-20T10:00:00Z"}});
    let marked = facts("widgets.example.com", &object);
    assert!(marked.has_finalizers() && marked.was_being_deleted() && !marked.is_bootstrap());
    let plain = facts("widgets.example.com", &json!({"metadata": {"finalizers": [], "deletionTimestamp": null}}));
    assert!(!plain.has_finalizers() && !plain.was_being_deleted());
}

#[test]
fn misshapen_objects_are_errors_that_quote_nothing() {
    for raw in ["", "[", r#"{"metadata":"s3cret"}"#, r#"{"status":{"phase":["s3cret"]}}"#] {
        let error = Facts::of(&kind("pods", "Pod"), raw).unwrap_err();
        assert!(matches!(error, Error::Object { .. }) && !error.to_string().contains("s3cret"), "{error}");
    }
}
