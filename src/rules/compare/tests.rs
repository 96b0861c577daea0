use super::*;
use crate::rules::testing::kind;
use crate::rules::tidy::{Tidy, TidyOptions};
use serde_json::json;

/// What an update would write over `live`, and what it changes.
fn update(kind: &Kind, saved: Value, live: &Value) -> (Value, Vec<Change>) {
    let tidy = Tidy::committed().unwrap();
    let (mut adapted, mut bare) = (saved, live.clone());
    tidy.apply(kind, &mut adapted, &TidyOptions::default());
    tidy.apply(kind, &mut bare, &TidyOptions::default());
    let wanted = wanted(kind, adapted, live, &bare);
    let changes = changes(live, &wanted);
    (wanted, changes)
}

fn paths(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.path.as_str()).collect()
}

#[test]
fn what_the_api_server_set_is_no_change_and_stays() {
    let service = kind("services", "Service");
    let saved = json!({"metadata": {"name": "web", "uid": "old", "resourceVersion": "5", "managedFields": [{"manager": "x"}],
            "finalizers": ["old/one"]},
        "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"name": "b", "port": 81, "nodePort": 31000}, {"name": "a", "port": 80, "nodePort": 30000}]}});
    let live = json!({"metadata": {"name": "web", "uid": "new", "resourceVersion": "9", "generation": 3, "finalizers": ["f/x"]},
        "spec": {"type": "NodePort", "clusterIP": "10.9.9.9", "clusterIPs": ["10.9.9.9"],
            "ports": [{"name": "b", "port": 81, "nodePort": 32001}, {"name": "a", "port": 80, "nodePort": 32000}]},
        "status": {"loadBalancer": {}}});
    let (wanted, changes) = update(&service, saved, &live);
    assert_eq!(changes, []);
    for pointer in ["/metadata/uid", "/metadata/resourceVersion", "/metadata/finalizers", "/spec", "/status"] {
        assert_eq!(wanted.pointer(pointer), live.pointer(pointer), "{pointer}");
    }
    assert!(wanted.pointer("/metadata/managedFields").is_none());
}

#[test]
fn ports_are_known_by_number_when_one_is_gone() {
    let service = kind("services", "Service");
    let port = |port: u16, node: Option<u16>| match node {
        Some(node) => json!({"port": port, "protocol": "TCP", "nodePort": node}),
        None => json!({"port": port, "protocol": "TCP"}),
    };
    let saved = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [port(81, Some(1)), port(82, Some(2))]}});
    let live = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [port(80, Some(7)), port(81, Some(8))]}});
    let (wanted, _) = update(&service, saved, &live);
    assert_eq!(wanted["spec"]["ports"], json!([port(81, Some(8)), port(82, None)]));
    let plain = json!({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP", "ports": [port(80, None)]}});
    assert_eq!(
        update(&service, plain, &live).0["spec"]["ports"],
        json!([port(80, None)]),
        "a ClusterIP has no node ports"
    );
    let outside = json!({"metadata": {"name": "web"}, "spec": {"type": "ExternalName", "externalName": "x"}});
    let live = json!({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1"}});
    assert!(update(&service, outside, &live).0["spec"].get("clusterIP").is_none());
}

#[test]
fn a_pod_keeps_its_machine_and_its_token() {
    let pod = kind("pods", "Pod");
    let token = |suffix: &str| json!({"name": format!("kube-api-access-{suffix}"), "projected": {}});
    let mount = |suffix: &str| json!({"name": format!("kube-api-access-{suffix}"), "mountPath": "/var/run/secrets"});
    let object = |suffix: &str, node: &str| {
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "priority": 5,
            "volumes": [{"name": "data"}, token(suffix)],
            "containers": [{"name": "web", "image": "a:1", "volumeMounts": [{"name": "data", "mountPath": "/d"}, mount(suffix)]}]}})
    };
    let live = object("bcdfg", "n2");
    let (wanted, changes) = update(&pod, object("xzvwt", "n1"), &live);
    assert_eq!((changes, &wanted), (vec![], &live));
    let mut newer = object("xzvwt", "n1");
    newer["spec"]["containers"][0]["image"] = json!("a:2");
    let (_, changes) = update(&pod, newer, &live);
    assert_eq!((paths(&changes), immutable(&pod, &live, &changes)), (vec!["spec.containers[0].image"], None));
}

#[test]
fn claims_jobs_and_tokens_keep_what_controllers_filled_in() {
    let claim = |volume: &str| json!({"metadata": {"name": "c", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}});
    let (wanted, changes) =
        update(&kind("persistentvolumeclaims", "PersistentVolumeClaim"), claim("old"), &claim("new"));
    assert_eq!((changes, wanted), (vec![], claim("new")));
    let job = |uid: &str| {
        let labels = json!({"controller-uid": uid, "app": "x"});
        json!({"metadata": {"name": "j", "labels": labels}, "spec": {"selector": {"matchLabels": {"controller-uid": uid}}, "template": {"metadata": {"labels": labels}}}})
    };
    let (wanted, changes) = update(&kind("jobs.batch", "Job"), job("old"), &job("new"));
    assert_eq!((changes, wanted), (vec![], job("new")));
    let token = |token: &str| json!({"metadata": {"name": "t"}, "type": "kubernetes.io/service-account-token", "data": {"token": token}});
    let (wanted, changes) = update(&kind("secrets", "Secret"), token("old"), &token("new"));
    assert_eq!((changes, wanted), (vec![], token("new")));
}

#[test]
fn a_volume_stays_with_the_claim_that_has_it() {
    let volume =
        |claim: Value| json!({"metadata": {"name": "v"}, "spec": {"claimRef": claim, "capacity": {"storage": "1Gi"}}});
    let bound = |name: &str, uid: &str| json!({"namespace": "a", "name": name, "uid": uid, "resourceVersion": "7"});
    let live = volume(bound("new", "u2"));
    let (wanted, changes) = update(&kind("persistentvolumes", "PersistentVolume"), volume(bound("old", "u1")), &live);
    assert_eq!((changes, wanted), (vec![], live));
    let free = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}}});
    let (wanted, _) = update(&kind("persistentvolumes", "PersistentVolume"), volume(bound("old", "u1")), &free);
    assert_eq!(
        wanted["spec"]["claimRef"],
        json!({"namespace": "a", "name": "old"}),
        "for its claim, should it come back"
    );
}

#[test]
fn fields_that_differ_are_named_with_what_was_and_what_will_be() {
    let from = json!({"metadata": {"name": "a", "labels": {"x": "1", "gone": "y"}, "annotations": {}}, "data": {"k": null}, "list": [1, {"a": 2}], "short": [1]});
    let to = json!({"metadata": {"name": "a", "labels": {"x": "2"}, "annotations": {"a.b/c": "d"}}, "list": [1, {"a": 3}], "short": [1, 2], "data": {}});
    let told: Vec<String> = changes(&from, &to)
        .iter()
        .map(|c| {
            format!("{} {:?} {:?}", c.path, c.from.as_ref().map(Value::to_string), c.to.as_ref().map(Value::to_string))
        })
        .collect();
    let mut sorted = told;
    sorted.sort();
    assert_eq!(
        sorted,
        [
            r#"list[1].a Some("2") Some("3")"#,
            r#"metadata.annotations None Some("{\"a.b/c\":\"d\"}")"#,
            r#"metadata.labels.gone Some("\"y\"") None"#,
            r#"metadata.labels.x Some("\"1\"") Some("\"2\"")"#,
            r#"short Some("[1]") Some("[1,2]")"#,
        ]
    );
    assert_eq!(changes(&to, &to), []);
    assert_ne!(digest(&changes(&from, &to)), digest(&changes(&to, &from)));
}

#[test]
fn of_a_secret_only_that_a_value_changes_is_shown() {
    let secrets = kind("secrets", "Secret");
    let copy = |value: &str| json!({LAST_APPLIED: format!("{{\"data\":\"{value}\"}}"), "plain": value});
    let from = json!({"metadata": {"annotations": copy("planted1")}, "data": {"a": "planted1", "gone": "planted1"}, "type": "Opaque"});
    let to = json!({"metadata": {"annotations": copy("planted2")}, "data": {"a": "planted2"}, "type": "Other"});
    let shown = masked(&secrets, changes(&from, &to));
    let text = serde_json::to_string(&shown).unwrap();
    assert_eq!(text.matches("planted").count(), 2, "only the annotation that is no copy: {text}");
    assert!(text.contains("Opaque") && text.contains("data.gone"), "{text}");
    for (from, to) in [
        (json!({"data": {"a": "planted"}}), json!({})),
        (
            json!({"metadata": {}}),
            json!({"metadata": {"annotations": copy("planted")}, "stringData": {"b": "planted"}}),
        ),
        (json!({"data": "planted"}), json!({"data": ["planted"]})),
    ] {
        let text = serde_json::to_string(&masked(&secrets, changes(&from, &to))).unwrap();
        assert!(!text.contains("planted") && text.contains(MASK), "{text}");
    }
    assert_eq!(masked(&kind("configmaps", "ConfigMap"), changes(&from, &to)), changes(&from, &to));
}

// each kind's whole table is tried on a real API server: `tests/consistency/immutable.rs`
#[test]
fn fields_that_nobody_may_change() {
    let live = json!({"immutable": true, "spec": {"type": "LoadBalancer"}});
    for (key, path, fixed) in [
        ("deployments.apps", "spec.selector.matchLabels.app", true),
        ("deployments.apps", "spec.selectors", false),
        ("statefulsets.apps", "spec.replicas", false),
        ("statefulsets.apps", "spec.volumeClaimTemplates[0].spec", true),
        ("statefulsets.apps", "metadata.labels.a", false),
        ("jobs.batch", "spec.parallelism", false),
        ("jobs.batch", "spec.template.metadata.annotations", true),
        ("configmaps", "data.a", true),
        ("configmaps", "metadata.labels.a", false),
        ("pods", "spec.containers[0].image", false),
        ("pods", "spec.containers[0].env[0].image", true),
        ("pods", "spec.containers[0].env", true),
        ("persistentvolumeclaims", "spec.resources.requests.storage", true), // it has no volume
        ("persistentvolumeclaims", "spec.accessModes", true),
        ("roles.rbac.authorization.k8s.io", "rules", false),
        ("services", "spec.healthCheckNodePort", false),
        ("services", "spec.loadBalancerClass", true),
    ] {
        let changes = [Change { path: path.to_owned(), from: None, to: None }];
        assert_eq!(immutable(&kind(key, "X"), &live, &changes).is_some(), fixed, "{key} {path}");
    }
    let changes = [Change { path: "data.a".to_owned(), from: None, to: None }];
    assert_eq!(immutable(&kind("configmaps", "X"), &json!({}), &changes), None);
}

#[test]
fn a_claim_grows_and_does_not_shrink() {
    let change = |from: &str, to: &str| {
        let path = "spec.resources.requests.storage".to_owned();
        [Change { path, from: Some(json!(from)), to: Some(json!(to)) }]
    };
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "10Gi"}}});
    for (from, to, fixed) in
        [("10Gi", "20Gi", false), ("20Gi", "15Gi", false), ("20Gi", "10Gi", true), ("10Gi", "9000Mi", true)]
    {
        let changes = change(from, to);
        assert_eq!(immutable(&kind("persistentvolumeclaims", "X"), &bound, &changes).is_some(), fixed, "{from} {to}");
    }
}

#[test]
fn what_is_alike_at_first_sight_has_no_changes() {
    let object =
        json!({"metadata": {"name": "a", "uid": "1", "labels": {"a": "b"}}, "spec": {"list": [{"a": 1}, null]}});
    for (change, alike) in [
        (json!({"metadata": {"name": "a", "uid": "2", "generation": 3, "labels": {"a": "b"}}}), true),
        (json!({"status": {"phase": "Ready"}}), true),
        (json!({"spec": {"list": [{"a": 1, "none": null}, null], "none": null}}), true),
        (json!({"metadata": {"name": "a", "labels": {"a": "c"}}}), false),
        (json!({"metadata": {"name": "a"}}), false),
        (json!({"spec": {"list": [{"a": 1}]}}), false),
        (json!({"spec": {"list": [{"a": 2}, null]}}), false),
        (json!({"spec": null}), false),
        (json!({"data": {}}), false),
    ] {
        let mut other = object.clone();
        for (key, value) in change.as_object().unwrap() {
            other[key] = value.clone();
        }
        for (from, to) in [(&object, &other), (&other, &object)] {
            assert_eq!(is_alike(from, to), alike, "{change}");
            assert_eq!(changes(from, to).is_empty(), alike, "{change}");
        }
    }
}
