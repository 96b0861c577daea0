use super::*;
use crate::rules::testing::kind;
use serde_json::json;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Objects with everything the list is about: kind key, the object, and what is taken out of it.
fn samples() -> Vec<(&'static str, Value, &'static str)> {
    let token = "kube-api-access-x7k2m";
    let mount = |name: &str| json!({"name": name, "mountPath": "/x"});
    let token_secret = |of_type: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": of_type,
            "metadata": {"name": "t", "labels": {"kubernetes.io/legacy-token-last-used": "2026-11-20"},
                "annotations": {"kubernetes.io/service-account.name": "ci", "kubernetes.io/service-account.uid": "u"}},
            "data": {"token": "YQ==", "ca.crt": "YQ==", "namespace": "YQ==", "own": "YQ=="}})
    };
    let job = |manual: bool| {
        let uid = json!({"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u"});
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "labels": uid},
            "spec": {"selector": {"matchLabels": uid}, "template": {"metadata": {"labels": uid}, "spec": {}}}});
        job["spec"]["template"]["metadata"]["labels"]["job-name"] = "j".into();
        if manual {
            job["spec"]["manualSelector"] = true.into();
        }
        job
    };
    let pod = |automount: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"nodeName": "n", "priority": 0, "preemptionPolicy": "Never", "overhead": {"cpu": "1"}, "priorityClassName": "high",
                "serviceAccountName": "web", "automountServiceAccountToken": automount,
                "volumes": [{"name": token}, {"name": "data"}, {"name": "web-token-x7k2m"}, {"name": "kube-api-access"}, {"name": "db-token-x7k2m"}],
                "initContainers": [{"name": "i", "volumeMounts": [mount(token), mount("web-token-x7k2m"), mount("data")]}],
                "containers": [{"name": "c", "volumeMounts": [mount("data"), mount("web-token-x7k2m"), mount(token)]}, {"name": "d"}],
                "ephemeralContainers": [{"name": "debug"}]}})
    };
    let annotation = |kind: &str, annotations: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "annotations": annotations}});
    let ports = json!([{"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30002}]);
    let applied = json!({"spec": {"ports": [{"name": "b", "nodePort": 30002}]}}).to_string();
    vec![
        (
            "configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"uid": "kept", "status": "kept"}, "status": {"a": 1},
                "metadata": {"name": "c", "namespace": "n", "uid": "u", "resourceVersion": "1", "generation": 1, "creationTimestamp": "t",
                    "deletionTimestamp": "t", "deletionGracePeriodSeconds": 30, "selfLink": "/x", "managedFields": [], "generateName": "c-",
                    "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["a/b"], "ownerReferences": [{"kind": "X"}]}}),
            "metadata.uid metadata.resourceVersion metadata.generation metadata.creationTimestamp metadata.deletionTimestamp \
             metadata.deletionGracePeriodSeconds metadata.selfLink metadata.managedFields metadata.generateName status",
        ),
        (
            "namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}}),
            "spec.finalizers",
        ),
        (
            "services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1",
                "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ports": ports, "healthCheckNodePort": 32000}}),
            "spec.clusterIP spec.clusterIPs spec.ports[0].nodePort spec.ports[1].nodePort spec.healthCheckNodePort",
        ),
        (
            "services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
            "",
        ),
        (
            "services",
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": "ExternalName", "externalName": "x", "clusterIP": ""}}),
            "",
        ),
        (
            "services.serving.knative.dev",
            json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "spec": {"clusterIP": "10.0.0.1"}}),
            "",
        ),
        (
            "persistentvolumeclaims",
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"volumeName": "pv-1", "storageClassName": "gp3",
                "dataSource": {"kind": "VolumeSnapshot", "name": "s"}, "dataSourceRef": {"kind": "VolumeSnapshot", "name": "s"}},
                "metadata": {"name": "c", "annotations": {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
                    "volume.beta.kubernetes.io/storage-provisioner": "x", "volume.kubernetes.io/storage-provisioner": "x",
                    "volume.kubernetes.io/selected-node": "n"}}}),
            "metadata.annotations[\"pv.kubernetes.io/bind-completed\"] metadata.annotations[\"pv.kubernetes.io/bound-by-controller\"] \
             metadata.annotations[\"volume.beta.kubernetes.io/storage-provisioner\"] \
             metadata.annotations[\"volume.kubernetes.io/storage-provisioner\"] \
             metadata.annotations[\"volume.kubernetes.io/selected-node\"] spec.volumeName spec.dataSource spec.dataSourceRef",
        ),
        (
            "persistentvolumes",
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "ebs.csi.aws.com",
                "pv.kubernetes.io/bound-by-controller": "yes"}}, "spec": {"claimRef": {"name": "c", "uid": "u", "resourceVersion": "1"},
                "nodeAffinity": {"required": {}}}}),
            "metadata.annotations[\"pv.kubernetes.io/bound-by-controller\"] spec.claimRef.uid spec.claimRef.resourceVersion",
        ),
        (
            "pods",
            pod(Value::Null),
            "spec.nodeName spec.priority spec.preemptionPolicy spec.overhead spec.ephemeralContainers spec.volumes[0] \
             spec.containers[0].volumeMounts[2] spec.initContainers[0].volumeMounts[0] spec.volumes[1] \
             spec.containers[0].volumeMounts[1] spec.initContainers[0].volumeMounts[0]",
        ),
        (
            "pods",
            pod(false.into()),
            "spec.nodeName spec.priority spec.preemptionPolicy spec.overhead spec.ephemeralContainers",
        ),
        (
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"},
                "secrets": [{"name": "web-token-x7k2m"}, {"name": "web-token-mine1"}, {"name": "other-token-x7k2m"}, {"name": "mine"}]}),
            "secrets[0]",
        ),
        (
            "secrets",
            token_secret("kubernetes.io/service-account-token"),
            "metadata.annotations[\"kubernetes.io/service-account.uid\"] metadata.labels[\"kubernetes.io/legacy-token-last-used\"] \
             data.token data[\"ca.crt\"] data.namespace",
        ),
        ("secrets", token_secret("Opaque"), ""),
        (
            "jobs.batch",
            job(false),
            "metadata.labels.controller-uid spec.selector.matchLabels.controller-uid spec.template.metadata.labels.controller-uid \
             metadata.labels[\"batch.kubernetes.io/controller-uid\"] spec.selector.matchLabels[\"batch.kubernetes.io/controller-uid\"] \
             spec.template.metadata.labels[\"batch.kubernetes.io/controller-uid\"]",
        ),
        ("jobs.batch", job(true), ""),
        (
            "deployments.apps",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"annotations": {"deployment.kubernetes.io/revision": "3"}},
                "spec": {"template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}], "priority": 0}}}}),
            "metadata.annotations[\"deployment.kubernetes.io/revision\"]",
        ),
        (
            "horizontalpodautoscalers.autoscaling",
            json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"annotations": {
                "autoscaling.alpha.kubernetes.io/conditions": "[]", "autoscaling.alpha.kubernetes.io/current-metrics": "[]", "autoscaling.alpha.kubernetes.io/metrics": "[]"}}}),
            "metadata.annotations[\"autoscaling.alpha.kubernetes.io/conditions\"] \
             metadata.annotations[\"autoscaling.alpha.kubernetes.io/current-metrics\"]",
        ),
        (
            "widgets.example.com",
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": "odd", "metadata": {"name": "w"}}),
            "",
        ),
        ("services", annotation("Service", json!({"kubectl.kubernetes.io/last-applied-configuration": applied})), ""),
    ]
}

fn named(key: &str, object: &Value) -> Kind {
    kind(key, object["kind"].as_str().unwrap())
}

fn paths(removed: &[Removed]) -> String {
    removed.iter().map(|removed| removed.path.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn exactly_the_listed_paths_go() {
    let tidy = Tidy::committed().unwrap();
    for (key, object, expected) in samples() {
        let mut tidied = object.clone();
        let removed = tidy.apply(&named(key, &object), &mut tidied, &TidyOptions::default());
        assert_eq!(paths(&removed), expected, "{key} {object}");
        assert_eq!(tidied == object, expected.is_empty(), "{key} {object}");
        let again = tidy.apply(&named(key, &object), &mut tidied, &TidyOptions::default());
        assert!(again.is_empty(), "a second time: {again:?}");
    }
}

#[test]
fn every_rule_is_needed_by_a_sample_and_has_a_reason() {
    for rule in Tidy::committed().unwrap().0.into_iter().filter(|rule| rule.by.is_none()) {
        let about = format!("{rule:?}");
        assert!(rule.reason.len() > 15 && !rule.path.is_empty() && !rule.kinds.is_empty(), "{about}");
        assert!(rule.when.as_ref().is_none_or(|when| when.is.is_some() != when.is_not.is_some()), "{about}");
        let alone = Tidy(vec![rule]);
        let hits = |(key, mut object, _): (&str, Value, _)| {
            let kind = named(key, &object);
            !alone.apply(&kind, &mut object, &TidyOptions::default()).is_empty()
        };
        assert!(samples().into_iter().any(hits), "no sample for {about}");
    }
}

#[test]
fn jq_takes_out_the_same() {
    let tidy = Tidy::committed().unwrap();
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/src/rules");
    let mut jq = Command::new("jq")
        .args(["-c", "-L", rules, "include \"tidy\"; map(tidied)"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tests of the cluster need jq, and so does this one");
    let objects: Vec<Value> = samples().into_iter().map(|(_, object, _)| object).collect();
    jq.stdin.take().unwrap().write_all(&serde_json::to_vec(&objects).unwrap()).unwrap();
    let output = jq.wait_with_output().unwrap();
    let by_jq: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    for ((key, object, _), by_jq) in samples().into_iter().zip(by_jq) {
        let mut by_us = object.clone();
        tidy.apply(&named(key, &object), &mut by_us, &TidyOptions::default());
        assert_eq!(by_us, by_jq, "{key} {object}");
    }
}

#[test]
fn what_was_asked_for_stays() {
    let tidy = Tidy::committed().unwrap();
    let volumes = BTreeSet::from(["pv-1".to_owned()]);
    let default = TidyOptions::default();
    let status = json!({"apiVersion": "v1", "kind": "ConfigMap", "status": {"a": 1}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"volumeName": "pv-1"}});
    let other = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"volumeName": "pv-2"}});
    let source = json!({"kind": "PersistentVolumeClaim", "name": "c"});
    let cloned = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"dataSource": source, "dataSourceRef": source}});
    let ports = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"nodePort": 30001}], "healthCheckNodePort": 32000}});
    for (key, object, options, expected) in [
        ("configmaps", &status, default, "status"),
        ("configmaps", &status, TidyOptions { with_status: true, ..default }, ""),
        ("persistentvolumeclaims", &cloned, default, ""),
        ("persistentvolumeclaims", &claim, default, "spec.volumeName"),
        ("persistentvolumeclaims", &claim, TidyOptions { kept_volumes: &volumes, ..default }, ""),
        ("persistentvolumeclaims", &other, TidyOptions { kept_volumes: &volumes, ..default }, "spec.volumeName"),
        ("services", &ports, default, "spec.ports[0].nodePort spec.healthCheckNodePort"),
        ("services", &ports, TidyOptions { keep_node_ports: true, ..default }, ""),
    ] {
        let removed = tidy.apply(&named(key, object), &mut object.clone(), &options);
        assert_eq!(paths(&removed), expected, "{key} {options:?}");
    }
}

#[test]
fn chosen_node_ports_stay_though_managed_fields_go() {
    let key = r#"k:{"port":2,"protocol":"TCP"}"#;
    let fields = json!([{"manager": "helm", "fieldsV1": {"f:spec": {"f:ports": {key: {"f:nodePort": {}}}}}}]);
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"managedFields": fields},
        "spec": {"ports": [{"port": 1, "nodePort": 30001}, {"port": 2, "nodePort": 30002}], "healthCheckNodePort": 32000}});
    let tidy = Tidy::committed().unwrap();
    let removed = tidy.apply(&kind("services", "Service"), &mut service, &TidyOptions::default());
    assert_eq!(paths(&removed), "metadata.managedFields spec.ports[0].nodePort spec.healthCheckNodePort");
    assert_eq!(service["spec"], json!({"ports": [{"port": 1}, {"port": 2, "nodePort": 30002}]}));
}

#[test]
fn maps_and_lists_that_are_left_empty_go() {
    let tidy = Tidy::committed().unwrap();
    let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {}}, "spec": {"finalizers": ["kubernetes"]}});
    tidy.apply(&kind("namespaces", "Namespace"), &mut object, &TidyOptions::default());
    assert_eq!(object, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": {}}}));
}

#[test]
fn finalizers_are_told() {
    let object = json!({"metadata": {"finalizers": ["a/b", "c/d"]}});
    assert_eq!(finalizers(&object), ["a/b", "c/d"]);
    assert_eq!(finalizers(&json!({})), [""; 0]);
}
