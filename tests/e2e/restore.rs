//! Restores onto what is there: what a plan says, what the API server says to it, and what is done, through Jobs.

use crate::harness::{ClusterName::A, *};
use serde_json::{Value, json};

/// A namespace with a backup of it.
struct Saved {
    namespace: TempNamespace,
    location: Location,
    id: String,
}

impl Saved {
    fn new(prefix: &str, objects: &[Value]) -> Self {
        let namespace = TempNamespace::new(A, prefix);
        Self::of(namespace, objects)
    }

    fn of(namespace: TempNamespace, objects: &[Value]) -> Self {
        for object in objects {
            let mut object = object.clone();
            object["metadata"]["namespace"] = json!(namespace.name);
            apply(A, &object.to_string());
        }
        let location = location(&namespace.name);
        let id = backed_up(&namespace.name, &location)["id"].as_str().expect("an id").to_owned();
        Self { namespace, location, id }
    }

    fn restore(&self, more: &[&str]) -> Ran {
        backup(A, &[&["restore", &self.id, "--location", &self.location.url, "-o", "json"], more].concat())
    }

    fn verdict(&self, result: &Value, kind: &str, name: &str) -> (String, String) {
        let item = self.item(result, kind, name);
        let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
        (text("verdict"), text("reason"))
    }

    fn item<'a>(&self, result: &'a Value, kind: &str, name: &str) -> &'a Value {
        let items = result["items"].as_array().expect("items");
        let found = items.iter().find(|item| item["kind"] == kind && item["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name} in {result}"))
    }

    fn get(&self, name: &str) -> Value {
        get(A, &["-n", &self.namespace.name, name])
    }

    fn patch(&self, name: &str, patch: &Value) {
        kubectl(A, &["-n", &self.namespace.name, "patch", name, "--type=merge", "-p", &patch.to_string()]).exits(0);
    }
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"colour": value}})
}

fn application() -> Vec<Value> {
    let frozen = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "frozen"}, "data": {"a": "saved"}, "immutable": true});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": "planted-before"}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "localhost/bb:1"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    vec![config_map("settings", "green"), config_map("same", "x"), frozen, secret, service, deployment]
}

/// What somebody did after the backup.
fn change(saved: &Saved) {
    saved.patch("configmap/settings", &json!({"data": {"colour": "red", "more": "x"}}));
    saved.patch("secret/db", &json!({"data": {"password": "cGxhbnRlZC1hZnRlcg=="}}));
    saved.patch("service/web", &json!({"spec": {"ports": [{"port": 81}]}}));
    saved.patch("deployment/web", &json!({"spec": {"paused": true}}));
    kubectl(A, &["-n", &saved.namespace.name, "delete", "configmap", "frozen"]).exits(0);
    let frozen = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "frozen", "namespace": saved.namespace.name}, "data": {"a": "other"}, "immutable": true});
    apply(A, &frozen.to_string());
}

#[test]
fn promise_5_what_exists_is_compared_planned_and_replaced_as_planned() {
    let saved = Saved::new("update", &application());
    change(&saved);
    let (before, service) = (saved.get("configmap/settings"), saved.get("service/web"));

    // the default touches nothing
    let skipped = saved.restore(&["--yes"]).exits(0).json();
    assert_eq!(saved.verdict(&skipped, "configmaps", "settings").0, "skip");
    assert_eq!(saved.get("configmap/settings")["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);

    let plan = saved.restore(&["--existing=update", "--dry-run=client"]).exits(3).json();
    let tried = saved.restore(&["--existing=update", "--dry-run=server"]).exits(3).json();
    assert_eq!(plan["planDigest"], tried["planDigest"], "one plan, however it is looked at");
    for result in [&plan, &tried] {
        for (kind, name) in
            [("configmaps", "settings"), ("secrets", "db"), ("services", "web"), ("deployments.apps", "web")]
        {
            assert_eq!(saved.verdict(result, kind, name).0, "update", "{kind} {name}: {result}");
        }
        assert_eq!(saved.verdict(result, "configmaps", "same").0, "unchanged", "{result}");
        let (verdict, reason) = saved.verdict(result, "configmaps", "frozen");
        assert!(verdict == "refused" && reason.contains("--existing=recreate"), "{verdict}: {reason}");
        let changes = &saved.item(result, "configmaps", "settings")["changes"];
        assert_eq!(
            *changes,
            json!([{"path": "data.colour", "from": "red", "to": "green"}, {"path": "data.more", "from": "x"}])
        );
        let text = result.to_string();
        assert!(!text.contains("cGxhbnRlZ") && text.contains("data.password"), "{text}");
    }
    assert_eq!(saved.get("configmap/settings")["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);

    let updated =
        saved.restore(&["--existing=update", "--yes"]).exits(3).says(&["frozen", "--existing=recreate"]).json();
    assert_eq!(saved.verdict(&updated, "configmaps", "settings").0, "updated", "{updated}");
    let after = saved.get("configmap/settings");
    assert_eq!(after["data"], json!({"colour": "green"}));
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(saved.get("secret/db")["data"]["password"], "cGxhbnRlZC1iZWZvcmU=");
    let now = saved.get("service/web");
    assert_eq!(now["spec"]["ports"][0]["port"], 80);
    assert_eq!(now["spec"]["clusterIP"], service["spec"]["clusterIP"], "what the API server allotted stays");
    assert_eq!(saved.get("configmap/frozen")["data"]["a"], "other");

    let recreated = saved.restore(&["--existing=recreate", "--yes"]).exits(0).json();
    assert_eq!(saved.verdict(&recreated, "configmaps", "frozen").0, "recreated", "{recreated}");
    assert_eq!(verdicts(&recreated).values().filter(|verdict| *verdict == "recreated").count(), 1, "{recreated}");
    assert_eq!(saved.get("configmap/frozen")["data"]["a"], "saved");
    saved.restore(&["--existing=fail", "--yes"]).exits(0);
    saved.patch("configmap/same", &json!({"data": {"colour": "y"}}));
    saved.restore(&["--existing=fail", "--yes"]).exits(1).says(&[
        "1 objects exist and differ",
        "nothing was written",
        "hint:",
    ]);
}

#[test]
fn promise_5_a_plan_in_a_file_is_what_runs_or_nothing() {
    let saved = Saved::new("plan", &application());
    change(&saved);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plan.json");
    let file = path.to_str().expect("a path");
    let wanted = ["configmap/settings", "configmap/same", "--existing=update"];
    saved.restore(&[&wanted[..], &["--plan-out", file]].concat()).exits(0).says(&["--plan"]);
    let carry_out =
        || backup(A, &["restore", "--plan", file, "--location", &saved.location.url, "--yes", "-o", "json"]);
    saved.patch("configmap/same", &json!({"data": {"colour": "moved on"}}));
    carry_out().exits(1).says(&["the plan has changed", "hint:"]);
    assert_eq!(saved.get("configmap/settings")["data"]["colour"], "red", "nothing was written");
    saved.patch("configmap/same", &json!({"data": {"colour": "x"}}));
    let result = carry_out().exits(0).json();
    assert_eq!(saved.verdict(&result, "configmaps", "settings").0, "updated", "{result}");
    assert_eq!(saved.get("configmap/settings")["data"], json!({"colour": "green"}));
    assert_eq!(saved.get("service/web")["spec"]["ports"][0]["port"], 81, "only what the plan says");
    carry_out().exits(1).says(&["the plan has changed"]);
    std::fs::write(&path, "{}").expect("a file");
    carry_out().exits(2).says(&["is no plan", "hint:"]);
}

#[test]
fn a_server_side_dry_run_tells_what_the_api_server_would_refuse() {
    let namespace = TempNamespace::new(A, "tried");
    let name = namespace.name.clone();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"},
        "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "localhost/bb:1", "imagePullPolicy": "Never"}]}});
    let denied = config_map("denied", "x");
    let secret = |n: u8| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("s{n}")}, "stringData": {"a": "planted-value"}});
    let saved = Saved::of(namespace, &[pod, denied, config_map("fine", "x"), secret(1), secret(2), secret(3)]);
    for object in ["pod/root", "configmap/denied", "configmap/fine", "secret/s1", "secret/s2", "secret/s3"] {
        kubectl(A, &["-n", &name, "delete", object, "--grace-period=0", "--force"]).exits(0);
    }
    kubectl(A, &["label", "namespace", &name, "pod-security.kubernetes.io/enforce=baseline"]).exits(0);
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
            "validations": [{"expression": "object.metadata.name != 'denied'", "message": "nobody is called so"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}}});
    apply(A, &policy.to_string());
    apply(A, &binding.to_string());
    kubectl(A, &["-n", &name, "create", "quota", "few", "--hard=secrets=2"]).exits(0);
    let counted = "--for=jsonpath={.status.used.secrets}=1"; // the one that every test has in its namespace
    kubectl(A, &["-n", &name, "wait", counted, "quota/few", "--timeout=60s"]).exits(0);
    let tried = eventually("policy and quota to be in force", || {
        let tried = saved.restore(&["--dry-run=server"]).json();
        let in_force = saved.verdict(&tried, "configmaps", "denied").0 == "refused" && tried["problems"][0].is_object();
        in_force.then_some(tried)
    });
    kubectl(A, &["delete", "validatingadmissionpolicybinding", &name]).exits(0);
    kubectl(A, &["delete", "validatingadmissionpolicy", &name]).exits(0);
    assert!(saved.verdict(&tried, "configmaps", "denied").1.contains("nobody is called so"), "{tried}");
    let (verdict, reason) = saved.verdict(&tried, "pods", "root");
    assert!(verdict == "refused" && reason.contains("PodSecurity"), "{verdict}: {reason}");
    assert_eq!(saved.verdict(&tried, "configmaps", "fine").0, "create", "{tried}");
    let (verdict, reason) = saved.verdict(&tried, "secrets", "s1");
    assert!(verdict == "unverified" && reason.contains("quota `few`"), "{verdict}: {reason}");
    assert_eq!(tried["problems"][0]["message"], "`secrets`: 3 more are needed, 1 of 2 are used", "{tried}");
    kubectl(A, &["-n", &name, "get", "configmap", "fine"]).exits(1);

    // on the laptop it is the person's own rights that are tried
    let user = unique("reader");
    kubectl(
        A,
        &["create", "clusterrolebinding", &user, "--clusterrole=kubectl-backup-reader", &format!("--user={user}")],
    )
    .exits(0);
    let args =
        ["restore", &saved.id, "--location", &saved.location.url, "-o", "json", "--dry-run=server", "--as", &user];
    let tried = backup_local(A, &args);
    kubectl(A, &["delete", "clusterrolebinding", &user]).exits(0);
    let tried = tried.exits(6).json(); // nothing at all may be written
    let (verdict, reason) = saved.verdict(&tried, "configmaps", "fine");
    assert!(verdict == "forbidden" && reason.contains("cannot create resource"), "{verdict}: {reason}");
    assert!(!tried.to_string().contains("planted-value"), "{tried}");

    // what has no namespace yet can't be tried
    let mapping = format!("{name}={}", unique("nowhere"));
    let tried = saved.restore(&["--dry-run=server", "--map-namespace", &mapping]).exits(0).json();
    let (verdict, reason) = saved.verdict(&tried, "configmaps", "fine");
    assert_eq!((verdict.as_str(), reason.as_str()), ("unverified", "its namespace isn't there yet"));
}

#[test]
fn a_namespace_that_is_being_deleted_is_waited_for() {
    let saved = Saved::new("going", &[config_map("settings", "green")]);
    let name = &saved.namespace.name;
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "namespace": name, "finalizers": ["example.com/hold"]}});
    apply(A, &held.to_string());
    kubectl(A, &["delete", "namespace", name, "--wait=false"]).exits(0);
    let result = std::thread::scope(|scope| {
        let restore = scope.spawn(|| saved.restore(&["--yes"]));
        eventually("the restore to wait", || {
            let pods = kubectl(A, &["-n", "kubectl-backup", "logs", "-l", "kubectl-backup/verb=restore", "--tail=-1"]);
            pods.stdout.contains(&format!("waiting until namespace `{name}` is deleted")).then_some(())
        });
        kubectl(
            A,
            &["-n", name, "patch", "configmap", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#],
        )
        .exits(0);
        restore.join().expect("the restore")
    });
    let result = result.exits(0).json();
    assert_eq!(saved.verdict(&result, "configmaps", "settings").0, "created", "{result}");
    assert_eq!(saved.get("configmap/settings")["data"]["colour"], "green");
}
