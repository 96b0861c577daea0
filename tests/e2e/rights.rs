//! Promise 7: each verb under a user with exactly the rights that `manifests/callers.yaml` gives, and without one of them.

use crate::harness::{ClusterName::A, *};
use serde_json::{Value, json};

pub(crate) const CALLERS: &str = include_str!("../../manifests/callers.yaml");

/// A user with some of the roles of a file; gone at the end.
pub(crate) struct User(String);

impl User {
    /// With roles of callers.
    fn new(roles: &[&str], without: Option<(&str, &str)>) -> Self {
        Self::of(CALLERS, roles, without, "kubectl-backup")
    }

    /// `without`: a verb and a resource that the user doesn't get. `namespace`: where roles hold that are of one.
    pub(crate) fn of(file: &str, roles: &[&str], without: Option<(&str, &str)>, namespace: &str) -> Self {
        let user = unique("caller");
        // what is asked for until the API server knows of it
        let mut last = (String::new(), String::new(), String::new());
        for mut role in roles_of(file) {
            let name = role["metadata"]["name"].as_str().expect("a name");
            if !roles.contains(&name) {
                continue;
            }
            let own = format!("{name}-{user}");
            let label = json!({ "caller": user });
            role["metadata"] = match role["metadata"].get("namespace") {
                Some(_) => json!({"name": own, "labels": label, "namespace": namespace}),
                None => json!({"name": own, "labels": label}),
            };
            let rules = role["rules"].as_array().expect("rules").iter().flat_map(|rule| split(rule, without));
            role["rules"] = rules.collect();
            if let Some(rule) = role["rules"].as_array().and_then(|rules| rules.last()) {
                let text = |field: &str| rule[field][0].as_str().expect("a text").to_owned();
                last = match rule["resourceNames"][0].as_str() {
                    Some(name) => (text("verbs"), format!("{}/{name}", text("resources")), String::new()),
                    None => match text("resources").split_once('/') {
                        Some((resource, part)) => (text("verbs"), resource.to_owned(), part.to_owned()),
                        None => (text("verbs"), text("resources"), String::new()),
                    },
                };
            }
            let kind = role["kind"].as_str().expect("a kind").to_owned();
            let binding = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
                "metadata": role["metadata"],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": own},
                "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
            });
            apply(A, &role.to_string());
            apply(A, &binding.to_string());
        }
        // without any right there is nothing to wait for
        let last = Some(last).filter(|last| !last.0.is_empty());
        eventually("the API server to know the user's rights", || {
            let Some(last) = &last else { return Some(()) };
            let part = format!("--subresource={}", last.2);
            let args = ["auth", "can-i", &last.0, &last.1, &part, "-n", namespace, "--as", &user];
            (kubectl(A, &args).code == 0).then_some(())
        });
        Self(user)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    pub(crate) fn backup(&self, args: &[&str]) -> Ran {
        backup(A, &[args, &["--as", &self.0]].concat())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let label = format!("caller={}", self.0);
        for (kinds, all) in [("role,rolebinding", "-A"), ("clusterrole,clusterrolebinding", "--ignore-not-found")] {
            kubectl(A, &["delete", kinds, all, "-l", &label]);
        }
    }
}

/// The roles of a file of manifests.
fn roles_of(file: &str) -> Vec<Value> {
    let documents = file.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).expect("YAML"));
    documents.filter(|one| one["kind"].as_str().is_some_and(|kind| kind.ends_with("Role"))).collect()
}

/// Every single rule of a file: the role, a verb and a resource.
pub(crate) fn rules_of(file: &str) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut rules = Vec::new();
    for role in roles_of(file) {
        for rule in role["rules"].as_array().expect("rules").iter().flat_map(|rule| split(rule, None)) {
            rules.push((text(&role["metadata"]["name"]), text(&rule["verbs"][0]), text(&rule["resources"][0])));
        }
    }
    rules
}

/// A rule for each verb and resource of one, less the one that is left out.
fn split(rule: &Value, without: Option<(&str, &str)>) -> Vec<Value> {
    let texts = |field: &str| rule[field].as_array().expect("texts").clone();
    let mut rules = Vec::new();
    for verb in texts("verbs") {
        for resource in texts("resources") {
            if without.is_none_or(|(v, r)| verb != v || resource != r) {
                let mut one = rule.clone();
                (one["verbs"], one["resources"]) = (json!([verb]), json!([resource]));
                rules.push(one);
            }
        }
    }
    rules
}

#[test]
fn promise_7_each_verb_runs_with_exactly_the_rights_that_are_listed() {
    let namespace = TempNamespace::new(A, "rights");
    let place = location("rights");
    installed(A);
    let at = |args: &[&str]| {
        [args, &["--location", &place.url]].concat().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let run = |user: &User, args: &[&str]| {
        let args = at(args);
        user.backup(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": namespace.name}, "data": {"a": "1"}});
    apply(A, &settings.to_string());

    let caller = User::new(&["kubectl-backup-caller"], None);
    run(&caller, &["ns", &namespace.name, "--volumes=skip"]).exits(0);
    run(&caller, &["cluster", "--include", "runtimeclasses,namespaces", "--volumes=skip"]).exits(0);
    run(&caller, &["list", "--refresh"]).exits(0);
    let latest = format!("latest:{}", namespace.name);
    for verb in ["show", "describe", "diff", "logs"] {
        run(&caller, &[verb, &latest]).exits(0);
    }
    // the log of a run whose Job is still there
    let id = run(&caller, &["describe", &latest, "-o", "json"]).exits(0).json()["manifest"]["id"].clone();
    run(&caller, &["logs", id.as_str().expect("an id")]).exits(0);
    run(&caller, &["restore", &latest, "--dry-run=client"]).exits(0);
    let restore = ["restore", &latest, "configmap/settings", "--existing=update", "--yes"];
    run(&caller, &restore).exits(6).says(&["clusterrolebindings", "hint:"]);
    drop(caller);
    let lister = User::new(&["kubectl-backup-lister"], None);
    run(&lister, &["list"]).exits(0);
    run(&lister, &["list", "--refresh"]).exits(6).says(&["jobs"]);
    drop(lister);
    let restorer = User::new(&["kubectl-backup-caller", "kubectl-backup-restorer"], None);
    let patch = r#"{"data":{"a":"2"}}"#;
    kubectl(A, &["-n", &namespace.name, "patch", "configmap", "settings", "--type=merge", "-p", patch]).exits(0);
    run(&restorer, &restore).exits(0);
    run(&restorer, &["undo", "--yes"]).exits(0);
    let live = get(A, &["-n", &namespace.name, "configmap/settings"]);
    assert_eq!(live["data"]["a"], "2");
}

#[test]
fn promise_7_without_one_of_them_the_answer_names_it() {
    let namespace = TempNamespace::new(A, "less");
    let place = location("less");
    backed_up(&namespace.name, &place);
    let ns = ["ns", &namespace.name, "--volumes=skip"];
    let show = ["show", "latest"];
    let restore = ["restore", "latest", "--yes"];
    for (args, verb, resource) in [
        (&ns[..], "create", "jobs"),
        (&ns, "get", "jobs"),
        (&ns, "get", "configmaps"),
        (&show, "create", "pods/exec"),
        (&restore, "create", "clusterrolebindings"),
        (&restore, "bind", "clusterroles"),
    ] {
        let user = User::new(&["kubectl-backup-caller", "kubectl-backup-restorer"], Some((verb, resource)));
        let ran = user.backup(&[args, &["--location", &place.url]].concat());
        assert_eq!(ran.code, 6, "{} without {verb} on {resource}: {}", args[0], ran.stderr);
        let named =
            if verb == "bind" { "kubectl-backup-restore" } else { resource.split('/').next().unwrap_or(resource) };
        assert!(ran.stderr.contains(named) && ran.stderr.contains("hint:"), "{}: {}", args[0], ran.stderr);
    }
}
