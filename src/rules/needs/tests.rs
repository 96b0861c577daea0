use super::*;
use crate::rules::testing::kind;
use serde_json::{Value, json};

/// What an object of this kind needs, as `key/name` in order.
fn needed(key: &str, object: &Value) -> String {
    let mut needs = Needs::default();
    needs_of(&kind(key, "X"), &object.to_string(), &mut needs).unwrap();
    flat(needs.take())
}

fn flat(taken: BTreeMap<String, BTreeSet<String>>) -> String {
    let all = taken.iter().flat_map(|(key, names)| names.iter().map(move |name| format!("{key}/{name}")));
    all.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_objects_name() {
    let pod = json!({"priorityClassName": "high", "runtimeClassName": "gvisor", "containers": [{"name": "a"}]});
    let both = "priorityclasses.scheduling.k8s.io/high runtimeclasses.node.k8s.io/gvisor";
    let workload = json!({"spec": {"replicas": 1, "template": {"metadata": {}, "spec": pod}}});
    for key in [
        "deployments.apps",
        "daemonsets.apps",
        "replicasets.apps",
        "statefulsets.apps",
        "jobs.batch",
        "replicationcontrollers",
    ] {
        assert_eq!(needed(key, &workload), both, "{key}");
    }
    let ephemeral = json!({"volumes": [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "ephemeral": {"volumeClaimTemplate": {"metadata": {"creationTimestamp": null}, "spec": {"storageClassName": "fast"}}}},
    ]});
    let set = json!({"spec": {"template": {"spec": {}}, "volumeClaimTemplates": [
        {"metadata": {"name": "data"}, "spec": {"storageClassName": "gp3", "volumeAttributesClassName": "gold"}},
        {"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "old"}}, "spec": {"storageClassName": ""}},
    ]}});
    let request = json!([{"name": "a", "exactly": {"deviceClassName": "gpu"}}, {"deviceClassName": "nic"},
        {"firstAvailable": [{"deviceClassName": "big"}, {"deviceClassName": "small"}]}]);
    let (big, gpu, nic, small) = ("big", "gpu", "nic", "small");
    let devices = [big, gpu, nic, small].map(|name| format!("deviceclasses.resource.k8s.io/{name}")).join(" ");
    let bound = json!({"spec": {"volumeName": "pv-1", "storageClassName": "gp3"}});
    let snapshot = json!({"spec": {"volumeSnapshotClassName": "ebs", "source": {"persistentVolumeClaimName": "data"}},
        "status": {"boundVolumeSnapshotContentName": "content-1"}});
    let legacy = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "alb"}}, "spec": {}});
    let binding =
        |kind: &str| json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "reader"}});
    for (key, object, names) in [
        ("pods", json!({"spec": pod}), both),
        ("pods", json!({"spec": ephemeral}), "storageclasses.storage.k8s.io/fast"),
        ("podtemplates", json!({"template": {"spec": pod}}), both),
        ("cronjobs.batch", json!({"spec": {"jobTemplate": workload}}), both),
        (
            "statefulsets.apps",
            set,
            "storageclasses.storage.k8s.io/gp3 storageclasses.storage.k8s.io/old volumeattributesclasses.storage.k8s.io/gold",
        ),
        ("persistentvolumeclaims", bound, "persistentvolumes/pv-1 storageclasses.storage.k8s.io/gp3"),
        ("persistentvolumeclaims", json!({"spec": {"storageClassName": ""}}), ""),
        (
            "persistentvolumes",
            json!({"spec": {"storageClassName": "gp3", "claimRef": {"name": "x"}}}),
            "storageclasses.storage.k8s.io/gp3",
        ),
        (
            "ingresses.networking.k8s.io",
            json!({"spec": {"ingressClassName": "nginx"}}),
            "ingressclasses.networking.k8s.io/nginx",
        ),
        ("ingresses.networking.k8s.io", legacy, "ingressclasses.networking.k8s.io/alb"),
        (
            "rolebindings.rbac.authorization.k8s.io",
            binding("ClusterRole"),
            "clusterroles.rbac.authorization.k8s.io/reader",
        ),
        ("rolebindings.rbac.authorization.k8s.io", binding("Role"), ""),
        (
            "clusterrolebindings.rbac.authorization.k8s.io",
            binding("ClusterRole"),
            "clusterroles.rbac.authorization.k8s.io/reader",
        ),
        (
            "volumesnapshots.snapshot.storage.k8s.io",
            snapshot,
            "volumesnapshotclasses.snapshot.storage.k8s.io/ebs volumesnapshotcontents.snapshot.storage.k8s.io/content-1",
        ),
        (
            "gateways.gateway.networking.k8s.io",
            json!({"spec": {"gatewayClassName": "istio"}}),
            "gatewayclasses.gateway.networking.k8s.io/istio",
        ),
        ("resourceclaims.resource.k8s.io", json!({"spec": {"devices": {"requests": request}}}), &devices),
        (
            "resourceclaimtemplates.resource.k8s.io",
            json!({"spec": {"spec": {"devices": {"requests": request}}}}),
            &devices,
        ),
        ("configmaps", json!({"data": {"priorityClassName": "high"}}), ""),
        ("pods.metrics.k8s.io", json!({"spec": pod}), ""),
        ("deployments.apps", json!({"metadata": {"name": "no spec"}}), ""),
    ] {
        assert_eq!(needed(key, &object), names, "{key} {object}");
    }
}

#[test]
fn each_name_is_handed_out_once() {
    let mut needs = Needs::default();
    let claim = json!({"spec": {"volumeName": "pv-1", "storageClassName": "gp3"}}).to_string();
    let claims = kind("persistentvolumeclaims", "PersistentVolumeClaim");
    needs.have("storageclasses.storage.k8s.io", "gp3");
    for _ in 0..3 {
        needs_of(&claims, &claim, &mut needs).unwrap();
    }
    assert_eq!(flat(needs.take()), "persistentvolumes/pv-1");
    needs_of(&claims, &claim, &mut needs).unwrap();
    assert_eq!(flat(needs.take()), "");
    needs.want("persistentvolumes", "pv-2");
    needs.have("persistentvolumes", "pv-2");
    assert_eq!(flat(needs.take()), "");
}

#[test]
fn definitions_are_needed_of_custom_kinds_only() {
    let mut needs = Needs::default();
    needs.need_crd(&kind("deployments.apps", "Deployment"));
    needs.need_crd(&kind("volumesnapshots.snapshot.storage.k8s.io", "VolumeSnapshot"));
    let name = "volumesnapshots.snapshot.storage.k8s.io";
    assert_eq!(flat(needs.take()), format!("customresourcedefinitions.apiextensions.k8s.io/{name}"));
}

#[test]
fn bindings_of_the_service_accounts_seen() {
    let mut needs = Needs::default();
    let account = json!({"metadata": {"namespace": "shop", "name": "web"}}).to_string();
    needs_of(&kind("serviceaccounts", "ServiceAccount"), &account, &mut needs).unwrap();
    for (kind, namespace, name, yes) in [
        ("ServiceAccount", "shop", "web", true),
        ("ServiceAccount", "shop", "default", false),
        ("ServiceAccount", "bank", "web", false),
        ("Group", "", "system:serviceaccounts:shop", true),
        ("Group", "", "system:serviceaccounts:bank", false),
        ("Group", "", "system:serviceaccounts", false),
        ("Group", "", "system:authenticated", false),
        ("User", "", "system:serviceaccount:shop:web", true),
        ("User", "", "system:serviceaccount:shop:other", false),
        ("User", "", "web", false),
    ] {
        let other = json!({"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"});
        let binding = json!({"subjects": [other, {"kind": kind, "namespace": namespace, "name": name}]});
        assert_eq!(needs.binding_matches(&binding.to_string()), Ok(yes), "{kind} {namespace} {name}");
    }
    assert_eq!(needs.binding_matches(r#"{"subjects":null}"#), Ok(false));
    assert_eq!(needs.binding_matches("{}"), Ok(false));
}

#[test]
fn parts_of_aggregated_roles() {
    let mut needs = Needs::default();
    let roles = kind("clusterroles.rbac.authorization.k8s.io", "ClusterRole");
    needs_of(&roles, r#"{"rules":[]}"#, &mut needs).unwrap();
    assert!(!needs.aggregates());
    let role = json!({"aggregationRule": {"clusterRoleSelectors": [
        {"matchLabels": {"to-monitoring": "true"}},
        {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "off", "operator": "DoesNotExist"}]},
    ]}});
    needs_of(&roles, &role.to_string(), &mut needs).unwrap();
    assert!(needs.aggregates());
    for (labels, yes) in [
        (r#"{"to-monitoring":"true"}"#, true),
        (r#"{"to-monitoring":"false"}"#, false),
        (r#"{"tier":"a"}"#, true),
        (r#"{"tier":"c"}"#, false),
        (r#"{"tier":"a","off":""}"#, false),
        ("{}", false),
    ] {
        assert_eq!(needs.is_aggregated(&serde_json::from_str(labels).unwrap()), yes, "{labels}");
    }
}

#[test]
fn misshapen_objects_are_errors_that_quote_nothing() {
    let mut needs = Needs::default();
    let error = needs_of(&kind("pods", "Pod"), r#"{"spec":{"priorityClassName":["s3cret"]}}"#, &mut needs).unwrap_err();
    assert!(matches!(error, Error::Object { .. }) && !error.to_string().contains("s3cret"), "{error}");
}
