//! Restores and undos whose pod is killed between two writes: the Job's next pod goes on, and what never ended is undone.

use crate::harness::{ClusterName::A, *};
use crate::interrupted::{end, kill};
use crate::proxy::Proxy;
use serde_json::{Value, json};
use std::process::{Child, Stdio};

/// What every wave fetches: held back, the worker stands between two waves.
const OBJECTS: &str = "/objects.tar.zst";

/// A location behind a proxy, and a namespace that is backed up there.
struct Stage {
    proxy: Proxy,
    place: Location,
    name: String,
    namespace: TempNamespace,
    id: String,
}

impl Stage {
    fn new(prefix: &str) -> Self {
        let proxy = Proxy::start();
        let place = location_at(prefix, &proxy.endpoint());
        let name = add_location(&place.prefix, &place);
        let namespace = TempNamespace::new(A, prefix);
        for object in [config_map("settings", "saved"), deployment("saved")] {
            kubectl_apply(&namespace.name, &object);
        }
        let ran = backup(A, &["ns", &namespace.name, "--location", &name, "-o", "json"]).exits(0).json();
        let id = ran["id"].as_str().expect("an id").to_owned();
        Self { proxy, place, name, namespace, id }
    }

    /// Starts something that goes on while the test acts.
    fn begin(&self, args: &[&str]) -> Child {
        let all = [args, &["--location", &self.name, "--yes", "-o", "json"]].concat();
        let mut command = backup_command(A, &all);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
    }

    fn run(&self, args: &[&str]) -> Ran {
        backup(A, &[args, &["--location", &self.name, "-o", "json"]].concat())
    }

    /// Lets the worker go on from wave to wave until something is so; it is held between two waves then.
    fn stop_when(&self, what: &str, is_so: impl Fn() -> bool) {
        self.proxy.wait_held(1);
        for _ in 0..20 {
            if is_so() {
                return;
            }
            self.proxy.next();
            self.proxy.wait_held(1);
        }
        panic!("twenty waves, and never {what}");
    }

    /// The Job of this verb, and its pod.
    fn run_of(&self, verb: &str) -> (String, String) {
        let jobs = get(A, &["jobs", "-n", "kubectl-backup", "-l", &format!("kubectl-backup/verb={verb}")]);
        let is_ours = |job: &&Value| job.to_string().contains(&self.place.prefix) && job["status"]["active"] == 1;
        let job = jobs["items"].as_array().expect("jobs").iter().find(is_ours).expect("the Job");
        let job = job["metadata"]["name"].as_str().expect("a name").to_owned();
        let label = format!("batch.kubernetes.io/job-name={job}");
        let pods = get(A, &["pods", "-n", "kubectl-backup", "-l", &label, "--field-selector=status.phase=Running"]);
        let pod = pods["items"][0]["metadata"]["name"].as_str().expect("a pod").to_owned();
        (job, pod)
    }
}

fn kubectl_apply(namespace: &str, object: &Value) {
    let mut object = object.clone();
    object["metadata"]["namespace"] = json!(namespace);
    apply(A, &object.to_string());
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"colour": value}})
}

/// Without pods, and of a later wave.
fn deployment(value: &str) -> Value {
    let labels = json!({"app": "web"});
    let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": value}]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
           "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod}})
}

/// What the ConfigMap and the Deployment of a namespace say, where they are.
fn state(namespace: &str) -> (Option<String>, Option<String>) {
    let read = |args: &[&str]| {
        let ran = kubectl(A, &[&["-n", namespace, "get", "--ignore-not-found", "-o"], args].concat()).exits(0);
        Some(ran.stdout).filter(|text| !text.is_empty())
    };
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    (read(&["jsonpath={.data.colour}", "configmap", "settings"]), read(&[image, "deployment", "web"]))
}

fn both(value: &str) -> (Option<String>, Option<String>) {
    (Some(value.to_owned()), Some(value.to_owned()))
}

#[test]
fn promise_6_a_restore_and_its_undo_that_are_killed_between_two_updates_converge() {
    let stage = Stage::new("killed-update");
    let name = &stage.namespace.name;
    for object in [config_map("settings", "now"), deployment("now")] {
        kubectl_apply(name, &object);
    }
    for (args, verb, from, to) in [
        (&["restore", &stage.id, "--existing=update"][..], "restore", "now", "saved"),
        (&["undo"][..], "undo", "saved", "now"),
    ] {
        assert_eq!(state(name), both(from), "{verb}");
        stage.proxy.hold("GET", OBJECTS, 1);
        let running = stage.begin(args);
        stage.stop_when("one update without the other", || state(name).0.as_deref() == Some(to));
        assert_eq!(state(name).1.as_deref(), Some(from), "{verb}");
        kill(&stage.run_of(verb).1);
        stage.proxy.release();
        end(running).exits(0);
        assert_eq!(state(name), both(to), "{verb}");
        let backups = keys(&format!("{}/backups/", stage.place.prefix));
        assert_eq!(backups.iter().filter(|key| key.contains("/safety-")).count(), 1, "{backups:?}");
    }
}

#[test]
fn promise_6_a_restore_that_was_killed_and_never_ran_again_is_undone() {
    let stage = Stage::new("killed-restore");
    let copy = unique("killed-copy");
    let mapping = format!("{}={copy}", stage.namespace.name);
    stage.proxy.hold("GET", OBJECTS, 1);
    let running = stage.begin(&["restore", &stage.id, "--map-namespace", &mapping]);
    stage.stop_when("a ConfigMap without the Deployment", || state(&copy).0.is_some());
    assert_eq!(state(&copy), (Some("saved".to_owned()), None));
    let (job, pod) = stage.run_of("restore");
    // while it is at work nobody undoes it
    let table = || backup(A, &["list", "--restores", "--location", &stage.name]).exits(0).stdout;
    assert!(table().contains("Running"), "{}", table());
    let stops = format!("`kubectl delete job {job} -n kubectl-backup` stops it");
    stage.run(&["undo", "--yes"]).exits(1).says(&["is still at work", &stops]);
    assert_eq!(state(&copy), (Some("saved".to_owned()), None));
    kubectl(A, &["delete", "job", "-n", "kubectl-backup", &job, "--cascade=orphan"]).exits(0);
    kill(&pod);
    stage.proxy.release();
    end(running);
    // what somebody made where the restore was to write
    kubectl_apply(&copy, &deployment("mine"));

    let listed = stage.run(&["list", "--restores"]).exits(0).json();
    let record = &listed["restores"][0];
    assert_eq!((&record["id"], &record["endedAt"]), (&json!(job), &Value::Null), "{listed}");
    assert_eq!(record["standing"], "Interrupted", "{listed}");
    assert!(table().contains("Interrupted"), "{}", table());
    let undone = stage.run(&["undo", "--yes"]).exits(0).says(&["was interrupted"]).json();
    let verdicts = verdicts(&undone);
    assert_eq!(verdicts[&format!("configmaps {copy}/settings")], "deleted", "{undone}");
    assert_eq!(verdicts[&format!("namespaces /{copy}")], "skip", "{undone}");
    assert!(!verdicts.keys().any(|name| name.starts_with("deployments")), "{undone}");
    assert_eq!(state(&copy), (None, Some("mine".to_owned())));
    stage.run(&["undo", &job, &format!("namespace/{copy}"), "--yes"]).exits(0);
    kubectl(A, &["wait", "--for=delete", &format!("namespace/{copy}"), "--timeout=60s"]).exits(0);
}
