//! Restores that change what was saved: into other namespaces, classes, registries and hosts, without starting, by a
//! person's own rules, and what the plan says of objects that bind elsewhere. Each through a Job.

use crate::harness::{ClusterName::A, *};
use serde_json::{Value, json};

fn id(manifest: &Value) -> &str {
    manifest["id"].as_str().expect("an id")
}

fn all(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

fn container(image: &str) -> Value {
    json!({"name": "c", "image": image, "imagePullPolicy": "Never", "command": ["sleep", "1000000"]})
}

fn deployment(namespace: &str, name: &str, replicas: u32) -> Value {
    let labels = json!({"app": name});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container("localhost/bb:1")], "initContainers": [{"name": "i", "image": "localhost/bb:1", "imagePullPolicy": "Never", "command": ["true"]}]});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}})
}

/// Restores a backup with these flags; the result, with the notes.
fn restored(manifest: &Value, location: &Location, flags: &[&str]) -> Value {
    let args = [&["restore", id(manifest), "--location", &location.url, "--yes", "-o", "json"], flags].concat();
    backup(A, &args).exits(0).json()
}

#[track_caller]
fn notes_say(result: &Value, texts: &[&str]) {
    let notes: Vec<&str> = result["notes"].as_array().expect("notes").iter().filter_map(Value::as_str).collect();
    for text in texts {
        assert!(notes.iter().any(|note| note.contains(text)), "`{text}` is not in {notes:#?}");
    }
}

#[test]
fn a_namespace_is_restored_under_another_name_with_all_that_names_it() {
    let (location, namespace) = (location("map"), TempNamespace::new(A, "map"));
    let name = &namespace.name;
    let named = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let release = json!({"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": name});
    let term = json!({"labelSelector": {"matchLabels": {"app": "x"}}, "namespaces": [name], "topologyKey": "kubernetes.io/hostname"});
    let mut web = deployment(name, "web", 0);
    web["spec"]["template"]["spec"]["affinity"] =
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    web["metadata"]["labels"] =
        json!({"argocd.argoproj.io/instance": "shop", "kustomize.toolkit.fluxcd.io/name": "apps", "app": "web"});
    let object = |kind: &str, version: &str, at: &str, rest: Value| {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": at, "namespace": name}});
        object.as_object_mut().expect("a map").extend(rest.as_object().expect("a map").clone());
        object
    };
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    let group = format!("system:serviceaccounts:{name}");
    let subjects = json!([{"kind": "ServiceAccount", "name": "default", "namespace": name}, {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group}]);
    apply(
        A,
        &all(&[
            web,
            object(
                "RoleBinding",
                "rbac.authorization.k8s.io/v1",
                "view",
                json!({"roleRef": role, "subjects": subjects}),
            ),
            object(
                "NetworkPolicy",
                "networking.k8s.io/v1",
                "own",
                json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": named}]}]}}),
            ),
            object("ConfigMap", "v1", "settings", json!({"data": {"host": format!("db.{name}.svc.cluster.local")}})),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of-helm", "namespace": name, "annotations": release}}),
            object("Secret", "v1", "sh.helm.release.v1.web.v1", json!({"type": "helm.sh/release.v1"})),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "aws", "namespace": name, "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/x"}}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}, "imagePullSecrets": [{"name": "registry"}]}),
        ]),
    );
    let manifest = backed_up(name, &location);
    let copy = TempNamespace { cluster: A, name: unique("map-copy") };
    let result = restored(&manifest, &location, &["--map-namespace", &format!("{name}={}", copy.name)]);
    notes_say(
        &result,
        &[
            "belongs to Argo CD (shop): its tracking marks are taken off",
            "belongs to Helm (web)",
            "1 service account has an AWS role",
            "1 object may name a host in a namespace that is mapped (configmaps ",
            "1 role or binding (rolebindings.rbac.authorization.k8s.io ",
            "what it lacked was added",
        ],
    );
    let of = |kind: &str, of: &str| get(A, &["-n", &copy.name, kind, of]);
    let web = of("deployment", "web");
    let affinity = &web["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!((&affinity[0]["namespaces"], &web["metadata"]["labels"]), (&json!([copy.name]), &json!({"app": "web"})));
    let subjects = &of("rolebinding", "view")["subjects"];
    assert_eq!(
        (&subjects[0]["namespace"], &subjects[1]["name"]),
        (&json!(copy.name), &json!(format!("system:serviceaccounts:{}", copy.name)))
    );
    let from = &of("networkpolicy", "own")["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"];
    assert_eq!(from["kubernetes.io/metadata.name"], json!(copy.name));
    assert_eq!(
        of("configmap", "settings")["data"]["host"],
        json!(format!("db.{name}.svc.cluster.local")),
        "texts stay"
    );
    let annotations = &of("configmap", "of-helm")["metadata"]["annotations"];
    assert_eq!(annotations["meta.helm.sh/release-namespace"], json!(copy.name));
    assert_eq!(of("serviceaccount", "default")["imagePullSecrets"], json!([{"name": "registry"}]));
    let record = format!("secrets {}/sh.helm.release.v1.web.v1", copy.name);
    assert_eq!(verdicts(&result)[&record], "skip", "Helm's record names the old namespace");
}

#[test]
fn names_change_and_nothing_starts() {
    let (location, namespace) = (location("names"), TempNamespace::new(A, "names"));
    let name = &namespace.name;
    let meta = |of: &str| json!({"name": of, "namespace": name});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "old-class", "resources": {"requests": {"storage": "1Mi"}}});
    let pod = json!({"restartPolicy": "Never", "containers": [container("localhost/bb:1")]});
    let labels = json!({"app": "db"});
    apply(
        A,
        &all(&[
            deployment(name, "web", 2),
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta("data"), "spec": claim}),
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta("db"), "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "serviceName": "db",
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container("localhost/bb:1")]}}, "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": claim}]}}),
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta("nightly"), "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": pod}}}}}),
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta("web"), "spec": {"tls": [{"hosts": ["shop.old.example"]}],
                "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}, "rules": [{"host": "shop.old.example"}, {"host": "other.example"}]}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web"), "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        ]),
    );
    let port = &get(A, &["-n", name, "service", "web"])["spec"]["ports"][0]["nodePort"];
    let manifest = backed_up(name, &location);
    namespace.delete();
    let result = restored(
        &manifest,
        &location,
        &[
            "--map-storage-class=old-class=new-class",
            "--map-image=localhost=registry.example/mirror",
            "--map-host=old.example=new.example",
            "--map-host=typo.example=x.example",
            "--suspend-cronjobs",
            "--scale-to-zero",
            "--keep-node-ports",
        ],
    );
    notes_say(
        &result,
        &[
            "`--map-image localhost=registry.example/mirror` changes 3 objects",
            "`--map-host typo.example=x.example` changes nothing",
            "`--scale-to-zero` changes 2 objects",
            "storage class `new-class` is not in this cluster",
        ],
    );
    let of = |kind: &str, of: &str| get(A, &["-n", name, kind, of]);
    let web = of("deployment", "web");
    let spec = &web["spec"]["template"]["spec"];
    for image in [&spec["containers"][0]["image"], &spec["initContainers"][0]["image"]] {
        assert_eq!(image, "registry.example/mirror/bb:1");
    }
    assert_eq!(
        (&web["spec"]["replicas"], &web["metadata"]["annotations"]["kubectl-backup/replicas"]),
        (&json!(0), &json!("2"))
    );
    let db = of("statefulset", "db");
    assert_eq!(
        (&db["spec"]["replicas"], &db["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"]),
        (&json!(0), &json!("new-class"))
    );
    assert_eq!(of("pvc", "data")["spec"]["storageClassName"], "new-class");
    let nightly = of("cronjob", "nightly");
    assert_eq!(
        (&nightly["spec"]["suspend"], &nightly["metadata"]["annotations"]["kubectl-backup/suspend"]),
        (&json!(true), &json!("false"))
    );
    let ingress = of("ingress", "web");
    let hosts = [
        &ingress["spec"]["rules"][0]["host"],
        &ingress["spec"]["rules"][1]["host"],
        &ingress["spec"]["tls"][0]["hosts"][0],
    ];
    assert_eq!(hosts, ["shop.new.example", "other.example", "shop.new.example"]);
    assert_eq!(
        &of("service", "web")["spec"]["ports"][0]["nodePort"],
        port,
        "a port that nobody chose is kept when asked for"
    );
}

#[test]
fn a_persons_rules_have_the_last_word_and_what_they_break_is_refused_before_anything_is_written() {
    let (location, namespace) = (location("rules"), TempNamespace::new(A, "rules"));
    let name = &namespace.name;
    apply(A, &deployment(name, "web", 0).to_string());
    kubectl(A, &["-n", name, "create", "configmap", "settings", "--from-literal=a=b"]).exits(0);
    kubectl(A, &["-n", name, "create", "secret", "generic", "db", "--from-literal=password=x"]).exits(0);
    let manifest = backed_up(name, &location);
    let copy = TempNamespace { cluster: A, name: unique("rules-copy") };
    let mapping = format!("{name}={}", copy.name);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_owned()
    };
    let rules = file(
        "rules.yaml",
        format!(
            "version: v1
resourceModifierRules:
- conditions: {{groupResource: deployments.apps, namespaces: [{name}]}}
  strategicPatches:
  - patchData: |
      spec: {{template: {{spec: {{containers: [{{name: c, image: 'repo2/web'}}]}}}}}}
- conditions: {{groupResource: configmaps, resourceNameRegex: '^set', matches: [{{path: /data/a, value: b}}]}}
  patches:
  - {{operation: add, path: /data/c, value: '\"1\"'}}
- conditions: {{groupResource: secrets}}
  patches: [{{operation: remove, path: /data/none}}]
"
        ),
    );
    let args =
        ["restore", id(&manifest), "--location", &location.url, "--map-namespace", &mapping, "--modifiers", &rules];
    let plan = backup(A, &[&args[..], &["--dry-run=client", "-o", "json"]].concat()).exits(3).json();
    let secret = format!("secrets {}/db", copy.name);
    assert_eq!(verdicts(&plan)[&secret], "refused", "seen before anything is written");
    let reason = plan["items"].as_array().expect("items").iter().find(|item| item["name"] == "db").expect("the secret");
    assert!(reason["reason"].as_str().is_some_and(|why| why.contains("modifier rule 3")), "{reason}");
    kubectl(A, &["get", "namespace", &copy.name]).exits(1);

    let result = backup(A, &[&args[..], &["--yes", "-o", "json"]].concat()).exits(3).json();
    assert_eq!(result["planDigest"], plan["planDigest"]);
    let web = get(A, &["-n", &copy.name, "deployment", "web"]);
    let containers = web["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
    assert_eq!((containers.len(), &containers[0]["image"]), (1, &json!("repo2/web")));
    assert_eq!(containers[0]["command"], json!(["sleep", "1000000"]), "the rest of the container stays");
    assert_eq!(get(A, &["-n", &copy.name, "configmap", "settings"])["data"], json!({"a": "b", "c": "1"}));

    let wrong = file("wrong.yaml", "version: v1\nresourceModifierRules:\n- conditions: {groupKind: pods}\n".to_owned());
    let ran = backup(A, &["restore", "latest", "--modifiers", &wrong]);
    ran.exits(2).says(&["rule 1", "groupKind"]);
}

/// A definition with two versions, of which v2 is the one that objects are saved in; `status` as a subresource or not.
fn definition(plural: &str, has_status: bool, v2_is_served: bool) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = |name: &str, served: bool| {
        let subresources = if has_status { json!({"status": {}}) } else { json!({}) };
        json!({"name": name, "served": served, "storage": name == "v1", "schema": schema, "subresources": subresources})
    };
    let names = json!({"plural": plural, "singular": plural, "kind": format!("K{plural}"), "listKind": format!("K{plural}List")});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.adapt.example.com")},
        "spec": {"group": "adapt.example.com", "scope": "Namespaced", "names": names, "versions": [version("v1", true), version("v2", v2_is_served)]}})
}

#[test]
fn custom_resources_keep_their_status_and_are_written_in_a_version_that_is_served() {
    let (location, namespace) = (location("status"), TempNamespace::new(A, "status"));
    let name = &namespace.name;
    let (plain, own) = (unique("plain").replace('-', ""), unique("own").replace('-', ""));
    apply(A, &all(&[definition(&plain, false, true), definition(&own, true, true)]));
    for plural in [&plain, &own] {
        kubectl(
            A,
            &["wait", "--for=condition=Established", &format!("crd/{plural}.adapt.example.com"), "--timeout=60s"],
        )
        .exits(0);
        let object = json!({"apiVersion": "adapt.example.com/v2", "kind": format!("K{plural}"), "metadata": {"name": "x", "namespace": name}, "status": {"phase": "Ready"}});
        apply(A, &object.to_string());
    }
    let patch = [
        "patch",
        "-n",
        name,
        &own,
        "x",
        "--subresource=status",
        "--type=merge",
        "-p",
        "{\"status\":{\"phase\":\"Ready\"}}",
    ];
    kubectl(A, &patch).exits(0);
    let manifest = backed_up(name, &location);

    apply(A, &definition(&own, true, false).to_string());
    eventually("v2 not to be served any more", || {
        let resources = kubectl(A, &["get", "--raw", "/apis/adapt.example.com/v2"]).stdout;
        (!resources.contains(&own)).then_some(())
    });
    let phase = |copy: &TempNamespace, plural: &str| {
        get(A, &["-n", &copy.name, &format!("{plural}.v1.adapt.example.com"), "x"])["status"]["phase"].clone()
    };
    for (with_status, expected) in [(false, Value::Null), (true, json!("Ready"))] {
        let copy = TempNamespace { cluster: A, name: unique("status-copy") };
        let mapping = format!("{name}={}", copy.name);
        let flags = ["--map-namespace", &mapping, "--with-status"];
        let flags = if with_status { &flags[..] } else { &flags[..2] };
        eventually("the API server's discovery to have settled", || {
            let args =
                [&["restore", id(&manifest), "--location", &location.url, "--yes", "-o", "json"], flags].concat();
            let result = backup(A, &args).exits(0).json();
            let key = format!("{own}.adapt.example.com {}/x", copy.name);
            (verdicts(&result)[&key] == "created").then_some(())
        });
        assert_eq!((phase(&copy, &plain), phase(&copy, &own)), (json!("Ready"), expected), "{with_status}");
    }
    // the definitions stay as long as the cluster: a backup of another test may know their kinds by now
}

#[test]
fn a_released_volume_goes_back_to_its_claim() {
    let (location, namespace) = (location("released"), TempNamespace::new(A, "released"));
    let (name, volume) = (&namespace.name, unique("released-pv"));
    let spec = json!({"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
        "hostPath": {"path": format!("/tmp/{volume}")}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": volume, "resources": {"requests": {"storage": "1Mi"}}});
    apply(
        A,
        &all(&[
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": spec}),
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": name}, "spec": claim}),
        ]),
    );
    let bound = ["wait", "-n", name, "pvc/data", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s"];
    kubectl(A, &bound).exits(0);
    let manifest = backed_up(name, &location);
    namespace.delete();
    let released = ["wait", &format!("pv/{volume}"), "--for=jsonpath={.status.phase}=Released", "--timeout=60s"];
    kubectl(A, &released).exits(0);
    let result = restored(&manifest, &location, &[]);
    notes_say(&result, &[&format!("volume `{volume}` was released by claim `{name}/data`")]);
    kubectl(A, &bound).exits(0);
    namespace.delete();
    kubectl(A, &["delete", "pv", &volume, "--wait=false"]).exits(0);
}
