//! Selections through Jobs: kinds, names, labels and namespaces; what they take along and what they leave out; what
//! `--explain` says of them; and that labels mean what kubectl and the API server take them for.

use crate::harness::{ClusterName::A, *};
use kubectl_backup::rules::selector::Selector;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A namespace with labelled ConfigMaps and Secrets.
fn labelled(prefix: &str) -> TempNamespace {
    let namespace = TempNamespace::empty(A, prefix);
    let object = |kind: &str, name: &str, labels: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace.name, "labels": labels}});
    let items = [
        object("ConfigMap", "web", json!({"app": "web", "tier": "front"})),
        object("ConfigMap", "db", json!({"app": "db", "tier": "back", "size": "12"})),
        object("ConfigMap", "plain", json!({})),
        object("ConfigMap", "left", json!({"app": "web", "kubectl-backup/exclude": "true"})),
        object("ConfigMap", "kept", json!({"app": "", "kubectl-backup/exclude": "false"})),
        object("Secret", "db", json!({"app": "db"})),
        object("Secret", "left", json!({"velero.io/exclude-from-backup": "true"})),
    ];
    apply(A, &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    namespace
}

/// What a backup holds: `KIND/NAME`.
fn held(id: &str, location: &Location) -> BTreeSet<String> {
    let names = backup_local(A, &["show", id, "--location", &location.url, "-o", "name"]).exits(0).stdout;
    names.lines().map(str::to_owned).collect()
}

fn report(location: &Location, manifest: &Value) -> Value {
    let key = manifest["files"]["report"]["key"].as_str().expect("a key");
    serde_json::from_slice(&download(&format!("{}/{key}", location.prefix))).expect("a report")
}

/// Makes a backup in a Job and answers with what it holds, its manifest and its report.
fn selected(args: &[&str], location: &Location) -> (BTreeSet<String>, Value, Value) {
    installed(A);
    let told = backup(A, &[args, &["--location", &location.url, "-o", "json", "--volumes=skip"]].concat()).exits(0);
    let told = told.json();
    let manifest = manifest(location, told["id"].as_str().expect("an id"));
    let report = report(location, &manifest);
    (held(manifest["id"].as_str().expect("an id"), location), manifest, report)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// How many objects of a kind a report says the flags left out, by a rule.
fn others(report: &Value, subject: &str, rule: &str) -> Option<u64> {
    let omissions = report["omissions"].as_array().expect("omissions");
    omissions.iter().find(|one| one["subject"] == subject && one["rule"] == rule)?["objects"].as_u64()
}

/// How many objects of a kind there are.
fn there(namespace: &TempNamespace, kind: &str) -> u64 {
    get(A, &["-n", &namespace.name, kind])["items"].as_array().expect("items").len() as u64
}

/// The rules of a report's omissions about something.
fn omitted<'a>(report: &'a Value, subject: &str) -> Vec<&'a str> {
    let omissions = report["omissions"].as_array().expect("omissions");
    omissions.iter().filter(|one| one["subject"] == subject).filter_map(|one| one["rule"].as_str()).collect()
}

#[test]
fn labels_of_several_selectors_and_the_namespace_with_them() {
    let (location, namespace) = (location("labels"), labelled("labels"));
    let name = namespace.name.as_str();
    let of_namespace = format!("namespaces/{name}");
    // one selector, which the API server looks at
    let (held, manifest, report) = selected(&["ns", name, "-l", "app=web,tier in (front, back)"], &location);
    assert_eq!(held, set(&["configmaps/web", &of_namespace]));
    assert_eq!(manifest["selection"], "-l 'app=web,tier in (front, back)'");
    let consistency = &manifest["consistency"];
    assert!(consistency["revision"].is_string() && consistency["unpinned"].is_null(), "{consistency}");
    // the API server has counted what it passed over
    let rule = "-l 'app=web,tier in (front, back)'";
    assert_eq!(others(&report, "configmaps", rule), Some(there(&namespace, "configmaps") - 1), "{report}");
    for kind in ["secrets", "serviceaccounts"] {
        assert_eq!(others(&report, kind, rule), Some(there(&namespace, kind)), "{kind}: {report}");
    }
    assert_eq!(omitted(&report, "other objects"), [""; 0]);
    assert_eq!(report["selection"]["selectors"], json!(["app=web,tier in (front, back)"]));
    // several, of which one has to match
    let (held, _, report) = selected(&["ns", name, "-l", "app=web", "-l", "size>9", "--parallel", "1"], &location);
    assert_eq!(held, set(&["configmaps/web", "configmaps/db", &of_namespace]));
    assert_eq!(omitted(&report, "configmaps"), ["label kubectl-backup/exclude=true", "-l 'app=web' or -l 'size>9'"]);
    // of ours and the root certificates: two are taken, one is left out by its own label
    let rest = there(&namespace, "configmaps") - 3;
    assert_eq!(others(&report, "configmaps", "-l 'app=web' or -l 'size>9'"), Some(rest));
    let (held, ..) = selected(&["ns", name, "-l", "!app", "--include", "cm", "--exclude", "secrets"], &location);
    assert_eq!(held, set(&["configmaps/plain", "configmaps/kube-root-ca.crt", &of_namespace]));
    let described = backup(A, &["describe", "latest", "--location", &location.url]).exits(0).stdout;
    assert!(described.contains("--include cm --exclude secrets -l '!app'"), "{described}");
    let listed = backup(A, &["list", "--refresh", "--location", &location.url]).exits(0).stdout;
    assert!(listed.contains(&format!("{name}(part)")), "{listed}");
}

#[test]
fn kinds_and_names_and_what_is_said_of_the_rest() {
    let (location, namespace) = (location("kinds"), labelled("kinds"));
    let name = namespace.name.as_str();
    let of_namespace = format!("namespaces/{name}");
    let (held, _, report) = selected(&["ns", name, "--include", "ConfigMaps.v1.,Secret"], &location);
    let expected = ["web", "db", "plain", "kept", "kube-root-ca.crt"].map(|name| format!("configmaps/{name}"));
    let expected = expected.iter().map(String::as_str).chain(["secrets/db", &of_namespace]).collect::<Vec<_>>();
    assert_eq!(held, set(&expected));
    assert_eq!(omitted(&report, "all other kinds"), ["--include ConfigMaps.v1.,Secret"]);
    assert_eq!(report["resolved"]["kinds"], json!(["configmaps", "namespaces", "secrets"]));

    let (held, _, report) = selected(&["ns", name, "--include-secrets=false"], &location);
    assert!(held.contains("configmaps/web") && held.contains("serviceaccounts/default"), "{held:?}");
    assert!(!held.iter().any(|object| object.starts_with("secrets/")), "{held:?}");
    assert_eq!(omitted(&report, "secrets"), ["--exclude secrets"]);

    // what is named is meant, whatever its labels say
    let (held, manifest, report) = selected(&["ns", name, "cm/web", "secret/left"], &location);
    assert_eq!(held, set(&["configmaps/web", "secrets/left", &of_namespace]));
    assert_eq!(manifest["selection"], "cm/web secret/left");
    let rule = "only cm/web, secret/left is named";
    assert_eq!(omitted(&report, "all other kinds"), [rule]);
    let rest = ["configmaps", "secrets"].map(|kind| (others(&report, kind, rule), there(&namespace, kind) - 1));
    assert!(rest.iter().all(|(told, there)| *told == Some(*there)), "{rest:?}");
    let described = backup(A, &["describe", "latest", "--location", &location.url]).exits(0).stdout;
    assert!(described.contains(&format!("all other kinds (not read): {rule}")), "{described}");
    let (held, ..) = selected(&["ns", name, "cm/plain", "-l", "app=db"], &location);
    assert_eq!(held, set(&["configmaps/plain", "configmaps/db", "secrets/db", &of_namespace]));

    // and can be restored by itself
    namespace.delete();
    backup(A, &["restore", "latest", "--yes", "--location", &location.url]).exits(0);
    kubectl(A, &["-n", name, "get", "configmap/plain", "configmap/db", "secret/db"]).exits(0);
    kubectl(A, &["-n", name, "get", "configmap/web"]).exits(1);
}

/// Three objects that each need a class, and the classes, whose names are the suffix.
fn classes(namespace: &str, suffix: &str) -> Value {
    let object = |version: &str, kind: &str, rest: Value| {
        let namespaced = !kind.ends_with("Class");
        let metadata = if namespaced {
            json!({"name": "of-a-class", "namespace": namespace, "labels": {"pick": suffix}})
        } else {
            json!({"name": suffix})
        };
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        object.as_object_mut().expect("an object").extend(rest.as_object().expect("fields").clone());
        object
    };
    let labels = json!({"app": "of-a-class"});
    let claim = json!({"storageClassName": suffix, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let pod = json!({"runtimeClassName": suffix, "containers": [{"name": "web", "image": "web"}]});
    let workload = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        object("storage.k8s.io/v1", "StorageClass", json!({"provisioner": "nobody.example.com"})),
        object("networking.k8s.io/v1", "IngressClass", json!({"spec": {"controller": "nobody.example.com/x"}})),
        object("node.k8s.io/v1", "RuntimeClass", json!({"handler": "nobody"})),
        object("v1", "PersistentVolumeClaim", json!({"spec": claim})),
        object("networking.k8s.io/v1", "Ingress", json!({"spec": {"ingressClassName": suffix, "defaultBackend": backend}})),
        object("apps/v1", "Deployment", json!({"spec": workload})),
    ]})
}

#[test]
fn what_selected_objects_need_comes_along() {
    let (location, namespace) = (location("needs"), TempNamespace::new(A, "needs"));
    let (suffix, name) = (unique("n").replace('-', ""), namespace.name.as_str());
    apply_shop(&namespace, &suffix);
    apply(A, &classes(name, &suffix).to_string());
    let (of_namespace, orders) = (format!("namespaces/{name}"), format!("orders{suffix}.shop.example.com"));
    let (held, ..) = selected(&["ns", name, "--include", &format!("orders{suffix}.*")], &location);
    let (own, needed): (Vec<String>, Vec<String>) = held.into_iter().partition(|object| object.starts_with("orders"));
    assert!(!own.is_empty(), "{needed:?}");
    assert_eq!(needed, [format!("customresourcedefinitions.apiextensions.k8s.io/{orders}"), of_namespace.clone()]);
    kubectl(
        A,
        &["-n", name, "label", "serviceaccount/web", "deployment/web", "--overwrite", &format!("pick={suffix}")],
    );
    let (held, ..) = selected(&["cluster", "-l", &format!("pick={suffix}")], &location);
    let needed = [
        of_namespace.clone(),
        "serviceaccounts/web".to_owned(),
        "deployments.apps/web".to_owned(),
        format!("priorityclasses.scheduling.k8s.io/shop-{suffix}"),
        format!("clusterrolebindings.rbac.authorization.k8s.io/shop:reader-{suffix}"),
        format!("clusterroles.rbac.authorization.k8s.io/shop:reader-{suffix}"),
        "persistentvolumeclaims/of-a-class".to_owned(),
        "ingresses.networking.k8s.io/of-a-class".to_owned(),
        "deployments.apps/of-a-class".to_owned(),
        format!("storageclasses.storage.k8s.io/{suffix}"),
        format!("ingressclasses.networking.k8s.io/{suffix}"),
        format!("runtimeclasses.node.k8s.io/{suffix}"),
    ];
    assert_eq!(held, needed.into_iter().collect(), "of the whole cluster");
    let (held, _, report) =
        selected(&["ns", name, "-l", &format!("pick={suffix}"), "--exclude", "clusterrolebindings"], &location);
    assert!(!held.iter().any(|object| object.contains("shop:reader")), "{held:?}");
    assert_eq!(omitted(&report, "clusterrolebindings.rbac.authorization.k8s.io"), ["--exclude clusterrolebindings"]);
    let classes = ["storageclass", "ingressclass", "runtimeclass"].map(|kind| format!("{kind}/{suffix}"));
    for object in shop_cluster_scoped(&suffix).iter().chain(&classes) {
        kubectl(A, &["delete", object, "--wait=false", "--ignore-not-found"]);
    }
}

#[test]
fn namespaces_by_globs_all_of_them_and_those_that_are_left_out() {
    let location = location("without");
    let (first, second) = (labelled("without-a"), labelled("without-b"));
    let glob = format!("without-[ab]-{}-*", std::process::id());
    let mut args = vec!["ns", &glob, "--include", "cm", "--exclude-namespace", &second.name];
    let (held, manifest, report) = selected(&args[..4], &location);
    assert_eq!(
        (&manifest["namespaces"], &manifest["scope"]),
        (&json!([first.name, second.name]), &json!("namespaces"))
    );
    let namespaces = [&first, &second].map(|one| format!("namespaces/{}", one.name));
    assert!(namespaces.iter().all(|one| held.contains(one)) && held.contains("configmaps/web"), "{held:?}");
    assert!(held.iter().all(|object| object.starts_with("configmaps/") || namespaces.contains(object)), "{held:?}");
    assert_eq!(report["resolved"]["excludedNamespaces"], Value::Null);
    let (_, manifest, report) = selected(&args, &location);
    assert_eq!(manifest["namespaces"], json!([first.name]));
    assert_eq!(report["resolved"]["excludedNamespaces"], json!([second.name]));
    let rule = format!("--exclude-namespace {}", second.name);
    assert_eq!(omitted(&report, "namespaces"), [rule.as_str()]);
    args[5] = "without-*";
    backup(A, &[&args[..], &["--location", &location.url]].concat()).exits(2).says(&["leaves no namespace", "hint:"]);

    // all namespaces, but of the cluster only what they need
    let selector = format!("pick={}", first.name);
    for namespace in [&first, &second] {
        kubectl(A, &["label", "-n", &namespace.name, "cm/web", "secret/db", &selector]).exits(0);
    }
    let (held, manifest, _) = selected(&["ns", "-A", "-l", &selector], &location);
    let (of_all, others): (BTreeSet<_>, BTreeSet<_>) = held.into_iter().partition(|one| one.starts_with("namespaces/"));
    assert_eq!(others, set(&["configmaps/web", "secrets/db"]));
    assert!(of_all.is_superset(&namespaces.into()) && of_all.contains("namespaces/default"), "{of_all:?}");
    assert_eq!(manifest["scope"], "namespaces", "{manifest}");
    let all = ["cluster", "--exclude-namespace", &first.name, "--include", "ns,cm", "--location", &location.url];
    let explained = backup(A, &[&all[..], &["--explain", "-o", "json"]].concat()).exits(0).json();
    assert_eq!(omitted(&explained, "namespaces"), [format!("--exclude-namespace {}", first.name)]);
    // by a label, which leaves out what is in it, too; but not where it is named
    kubectl(A, &["label", "namespace", &second.name, "velero.io/exclude-from-backup=true"]).exits(0);
    let glob = format!("{}*", second.name);
    let (held, manifest, report) = selected(&["ns", &first.name, &glob, "--include", "cm"], &location);
    assert_eq!((held.len(), &manifest["namespaces"]), (6, &json!([first.name])), "{held:?}");
    let rule = "label velero.io/exclude-from-backup=true, with all that is in it";
    assert_eq!(omitted(&report, &format!("namespaces {}", second.name)), [rule]);
    let (held, ..) = selected(&["ns", &second.name, "--include", "cm"], &location);
    assert!(held.contains(&format!("namespaces/{}", second.name)) && held.len() == 6, "{held:?}");
}

#[test]
fn an_explanation_is_what_a_backup_does_and_writes_nothing() {
    installed(A);
    let (location, namespace) = (location("explain"), labelled("explain"));
    let name = namespace.name.as_str();
    let at = ["--location", location.url.as_str()];
    let args = ["ns", name, "-l", "app", "--exclude", "secrets"];
    let explained = backup(A, &[&args[..], &["--explain", "-o", "json"], &at].concat()).exits(0).json();
    assert_eq!(keys(&location.prefix), [""; 0], "nothing is written");
    let taken = |explained: &Value| -> u64 {
        explained["taken"].as_array().expect("a list").iter().filter_map(|one| one["objects"].as_u64()).sum()
    };
    let (_, manifest, report) = selected(&args, &location);
    assert_eq!(taken(&explained), manifest["counts"]["objects"].as_u64().expect("a count"));
    assert_eq!(explained["omissions"], report["omissions"], "and leaves out the same");
    let why: Vec<&Value> = explained["taken"].as_array().expect("a list").iter().map(|one| &one["why"]).collect();
    assert_eq!(why, ["-l 'app'", "asked for"]);
    let table = backup(A, &[&["ns", name, "--explain"][..], &at].concat()).exits(0).stdout;
    assert!(table.starts_with("SAVED") && table.contains("configmaps") && table.contains("events"), "{table}");

    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", folder.path().join("none").display());
    let local = backup_local(A, &["ns", name, "-l", "app", "--explain", "-o", "json", "--location", &url]).exits(0);
    assert!(taken(&local.json()) > taken(&explained), "with the Secrets");
    assert!(!folder.path().join("none").exists(), "nothing is written");
}

#[test]
fn what_cannot_be_meant_or_is_not_there() {
    installed(A);
    let (location, namespace) = (location("unmeant"), labelled("unmeant"));
    let name = namespace.name.as_str();
    for (args, code, said) in [
        (&["--include", "deplyo"][..], 2, "did you mean `deployments.apps`?"),
        (&["--exclude", "nonsenses.example"], 2, "kubectl api-resources"),
        (&["--include", "events"], 2, "no backup holds `events`"),
        (&["--include", "pv"], 2, "kubectl backup cluster --include pv"),
        (&["cm/web", "--exclude", "configmaps"], 2, "hint: give one of the two"),
        (&["-l", "app=web=x"], 2, "not a label selector"),
        (&["cm/web", "cm/nothing"], 5, "there is no `configmaps/nothing`"),
        (&["-l", "app=typo"], 5, "hint: `--explain`"),
        (&["--include", "deploy"], 5, "matches `--include deploy`"),
    ] {
        let args = [&["ns", name, "--location", &location.url][..], args].concat();
        backup(A, &args).exits(code).says(&[said]);
    }
    let left: Vec<String> = keys(&location.prefix).into_iter().filter(|key| !key.ends_with("/log.jsonl.zst")).collect();
    assert_eq!(left, [""; 0], "no backup of nothing");
}

/// kubectl and the API server share the parser whose grammar ours follows.
#[test]
fn selectors_mean_what_kubectl_takes_them_for() {
    let namespace = labelled("grammar");
    let objects = get(A, &["-n", &namespace.name, "configmaps"]);
    let objects = objects["items"].as_array().expect("items");
    for selector in [
        "app",
        "!app",
        "app=web",
        "app==web",
        "app!=web",
        "app in (web,db)",
        "app notin (web)",
        "app=",
        "app!=",
        "app in (,web)",
        "app in (web,)",
        "size>9",
        "size<9",
        "size>9,app=db",
        "tier,!size",
        " app = db ",
        "app in ()",
        "app in (web",
        "app=web,",
        ",app",
        "app=a=b",
        "size>x",
        "!app=web",
        "-app",
        "app=-x",
        "a/b/c",
        "x.y/z",
        "/z",
        "app in (a,,web)",
        "app in (,,)",
        "app in (web,,)",
        "in in (in)",
        "app===web",
        "app web",
        "!!app",
        "app=web db",
    ] {
        let ran = kubectl(A, &["-n", &namespace.name, "get", "configmaps", "-o", "name", "-l", selector]);
        let theirs = (ran.code == 0).then(|| {
            let mut names: Vec<String> = ran.stdout.lines().map(|line| line.replace("configmap/", "")).collect();
            names.sort();
            names
        });
        let ours = Selector::parse(selector).ok().map(|selector| {
            let matches = |object: &&Value| {
                let labels = object["metadata"]["labels"].to_string();
                selector.matches(&serde_json::from_str(&labels).expect("labels"))
            };
            let matching = objects.iter().filter(matches);
            let mut names: Vec<String> =
                matching.filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned)).collect();
            names.sort();
            names
        });
        assert_eq!(ours, theirs, "{selector:?}: {}", ran.stderr);
    }
}
