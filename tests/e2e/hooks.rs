//! Hooks, through Jobs that exec into real containers: their order around the save, containers, timeouts, on-error; that
//! post hooks run when the backup fails or is cancelled; and what is said where the right is missing.

use crate::harness::{ClusterName::A, *};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::OnceLock;

/// An installation of this module's own, whose reader may exec: that of the other tests may not.
const INSTALL: &str = "kubectl-backup-hooks";

fn installed_with_hooks() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        install(A, INSTALL, "");
        backup(A, &["init", "--install-namespace", INSTALL, "--hooks"]).exits(0);
    });
}

fn command(script: &str) -> String {
    json!(["sh", "-c", script]).to_string()
}

/// Pods of two containers with a folder in common, `/shared`, once they run.
fn run_pods(namespace: &TempNamespace, pods: &[(&str, Value)]) {
    let container = |name: &str| {
        json!({"name": name, "image": "localhost/bb:1", "imagePullPolicy": "Never",
            "command": ["sh", "-c", "sleep 100000"], "env": [{"name": "NAME", "value": name}],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]})
    };
    for (name, annotations) in pods {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace.name, "annotations": annotations},
            "spec": {"terminationGracePeriodSeconds": 0, "volumes": [{"name": "shared", "emptyDir": {}}],
                "containers": [container("main"), container("side")]}});
        apply(A, &pod.to_string());
    }
    let wait = ["wait", "-n", &namespace.name, "pods", "--all", "--for=condition=Ready", "--timeout=120s"];
    kubectl(A, &wait).exits(0);
}

fn in_pod(namespace: &TempNamespace, pod: &str, script: &str) -> String {
    kubectl(A, &["exec", "-n", &namespace.name, pod, "-c", "main", "--", "sh", "-c", script]).stdout
}

fn wait_for_line(namespace: &TempNamespace, line: &str) {
    eventually(&format!("`{line}` in the pod's log"), || {
        in_pod(namespace, "db", "cat /shared/log").lines().any(|have| have == line).then_some(())
    });
}

fn begin(namespaces: &str, url: &str) -> std::process::Child {
    let args = ["ns", namespaces, "--location", url, "--install-namespace", INSTALL, "-o", "json"];
    let mut command = backup_command(A, &args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
}

fn report(location: &Location, manifest: &Value) -> Value {
    let key = manifest["files"]["report"]["key"].as_str().expect("a key");
    serde_json::from_slice(&download(&format!("{}/{key}", location.prefix))).expect("a report")
}

#[test]
fn pre_hooks_end_before_the_revision_and_post_hooks_before_the_manifest() {
    installed_with_hooks();
    let (location, namespace) = (location("hook-order"), TempNamespace::new(A, "hook-order"));
    let wait = |which: &str| format!("until [ -f /shared/go-{which} ]; do sleep 1; done");
    run_pods(
        &namespace,
        &[(
            "db",
            json!({
                "kubectl-backup/pre": command(&format!("echo pre $NAME >>/shared/log; {}", wait("pre"))),
                "kubectl-backup/pre-timeout": "2m",
                "post.hook.backup.velero.io/command": command(&format!("echo post $NAME >>/shared/log; {}", wait("post"))),
                "post.hook.backup.velero.io/container": "side",
                "post.hook.backup.velero.io/timeout": "2m",
            }),
        )],
    );
    // what a glob means is found out again after the hooks
    let child = begin(&format!("hook-order-{}-*", std::process::id()), &location.url);
    wait_for_line(&namespace, "pre main");
    kubectl(A, &["create", "configmap", "-n", &namespace.name, "made-during-pre"]).exits(0);
    let (late, left_out) = (TempNamespace::empty(A, "hook-order"), TempNamespace::empty(A, "hook-order"));
    kubectl(A, &["label", "namespace", &left_out.name, "kubectl-backup/exclude=true"]).exits(0);
    in_pod(&namespace, "db", "touch /shared/go-pre");
    wait_for_line(&namespace, "post side");
    kubectl(A, &["create", "configmap", "-n", &namespace.name, "made-during-post"]).exits(0);
    assert_eq!(keys(&format!("{}/backups/", location.prefix)), [""; 0], "nothing is committed before the post hooks");
    in_pod(&namespace, "db", "touch /shared/go-post");
    let told = Ran::ended(child).exits(0).json();
    let id = told["id"].as_str().expect("an id");

    let at = ["--location", &location.url, "--install-namespace", INSTALL];
    let shown = backup(A, &[&["show", id][..], &at].concat()).exits(0).stdout;
    assert!(shown.contains("made-during-pre") && !shown.contains("made-during-post"), "{shown}");
    let manifest = manifest(&location, id);
    let report = report(&location, &manifest);
    let mut meant = [namespace.name.as_str(), &late.name];
    meant.sort_unstable();
    assert_eq!(manifest["namespaces"], json!(meant), "as they are at the revision");
    assert_eq!(report["resolved"]["excludedNamespaces"], json!([left_out.name]));
    let log = backup(A, &[&["logs", id][..], &at].concat()).exits(0).stdout;
    let noted = format!("namespace `{}` is meant at the revision, and was not when the backup began", late.name);
    assert!(log.contains(&noted) && log.contains("and no hook was run in it"), "{log}");
    let ran: Vec<String> = report["hooks"]
        .as_array()
        .expect("hooks")
        .iter()
        .map(|hook| {
            format!("{} {} {} {} {}", hook["when"], hook["pod"], hook["container"], hook["command"], hook["outcome"])
        })
        .collect();
    let expected = [r#""pre" "db" "main" "sh" "succeeded""#, r#""post" "db" "side" "sh" "succeeded""#];
    assert_eq!(ran, expected);
    let described = backup(A, &[&["describe", id][..], &at].concat()).exits(0).stdout;
    assert!(described.contains("Hooks:") && described.contains("succeeded"), "{described}");
}

#[test]
fn what_goes_wrong_in_hooks_is_a_problem_unless_it_may() {
    installed_with_hooks();
    let (location, namespace) = (location("hook-errors"), TempNamespace::new(A, "hook-errors"));
    let failing = command("echo stdout is not told; echo first >&2; echo no space left >&2; exit 3");
    run_pods(
        &namespace,
        &[
            ("fails", json!({"kubectl-backup/pre": failing, "kubectl-backup/post": command("touch /shared/post")})),
            ("may-fail", json!({"kubectl-backup/pre": failing, "kubectl-backup/pre-on-error": "Continue"})),
            (
                "slow",
                json!({"pre.hook.backup.velero.io/command": command("echo waits for a lock; sleep 300"), "pre.hook.backup.velero.io/timeout": "2s"}),
            ),
            ("word", json!({"hook.backup.velero.io/command": "true"})),
            ("array", json!({"kubectl-backup/post": r#"["touch", "/shared/two words"]"#})),
            ("absent", json!({"kubectl-backup/pre": "no-such-program"})),
            ("wrong", json!({"kubectl-backup/pre": "true", "kubectl-backup/pre-container": "sidecar"})),
        ],
    );
    let at = ["--location", &location.url, "--install-namespace", INSTALL];
    let told = backup(A, &[&["ns", &namespace.name, "-o", "json"][..], &at].concat()).exits(3).json();
    let manifest = manifest(&location, told["id"].as_str().expect("an id"));
    assert_eq!(manifest["outcome"], "Partial");
    let report = report(&location, &manifest);
    let message = |subject: &str| {
        let problems = report["problems"].as_array().expect("problems");
        let found = problems.iter().find(|problem| problem["subject"] == subject).unwrap_or_else(|| panic!("{report}"));
        found["message"].as_str().expect("a message").to_owned()
    };
    let of = |when: &str, pod: &str| message(&format!("{when} of pod {}/{pod}", namespace.name));
    assert_eq!(of("pre hook", "fails"), "`sh` in container `main` exited with 3: first / no space left");
    let slow = of("pre hook", "slow");
    assert!(slow.contains("didn't end within 2s; the connection is closed"), "{slow}");
    assert!(slow.ends_with(": waits for a lock"), "on stdout, as it wrote nothing to stderr: {slow}");
    assert!(of("pre hook", "absent").contains("no-such-program"), "{report}");
    let wrong = "annotation `kubectl-backup/pre-container`: the pod has no container `sidecar`, it has `main`, `side`";
    assert!(of("hooks", "wrong").contains(wrong), "{report}");
    assert_eq!(report["problems"].as_array().expect("problems").len(), 4, "{report}");
    let outcome = |pod: &str| {
        let hooks = report["hooks"].as_array().expect("hooks");
        hooks.iter().find(|hook| hook["pod"] == pod).expect("a hook")["outcome"].as_str().expect("a word").to_owned()
    };
    let found = ["fails", "may-fail", "slow", "word", "array"].map(outcome);
    assert_eq!(found, ["failed", "failed", "timedOut", "succeeded", "succeeded"]);
    // what failed before is still undone after
    assert_eq!(in_pod(&namespace, "fails", "ls /shared"), "post\n");
    assert_eq!(in_pod(&namespace, "array", "ls /shared"), "two words\n");

    let told = backup(A, &[&["ns", &namespace.name, "--hooks=false", "-o", "json"][..], &at].concat()).exits(0).json();
    let manifest = crate::harness::manifest(&location, told["id"].as_str().expect("an id"));
    let report = self::report(&location, &manifest);
    let omissions = report["omissions"].as_array().expect("omissions");
    assert!(omissions.iter().any(|one| one["subject"] == "hooks" && one["rule"] == "--hooks=false"), "{report}");
    assert_eq!((&report["hooks"], &report["selection"]["hooks"]), (&json!([]), &json!(false)));
}

#[test]
fn only_pods_that_are_selected_are_asked() {
    installed_with_hooks();
    let (location, namespace) = (location("hook-selection"), TempNamespace::new(A, "hook-selection"));
    let annotations = json!({"kubectl-backup/pre": command("echo pre >>/shared/log")});
    run_pods(&namespace, &[("db", annotations.clone()), ("web", annotations)]);
    kubectl(A, &["label", "-n", &namespace.name, "pod", "db", "app=db"]).exits(0);
    let at = ["--location", &location.url, "--install-namespace", INSTALL];
    let run = |args: &[&str]| backup(A, &[&["ns", &namespace.name], args, &at].concat()).exits(0);
    let told = run(&["--explain"]).stdout;
    let line = |pod: &str| told.lines().find(|line| line.contains(&format!("{}/{pod}", namespace.name)));
    let words = |pod: &str| line(pod).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let expected = |pod: &str| Some(format!("pre {}/{pod} main sh kubectl-backup/pre", namespace.name));
    assert_eq!((words("db"), words("web")), (expected("db"), expected("web")), "{told}");
    assert!(!told.contains("/shared/log"), "arguments may hold a password: {told}");
    run(&["--include", "cm"]);
    assert_eq!(in_pod(&namespace, "db", "cat /shared/log"), "", "neither by a look nor without pods");
    run(&["-l", "app=db"]);
    let asked = ["db", "web"].map(|pod| in_pod(&namespace, pod, "cat /shared/log"));
    assert_eq!(asked, ["pre\n", ""]);
}

/// A pod whose pre hook says so in its log, and whose post hook too.
fn logging_pod(namespace: &TempNamespace, pre: &str) {
    let annotations = json!({
        "kubectl-backup/pre": command(&format!("echo pre >>/shared/log; {pre}")),
        "kubectl-backup/pre-timeout": "5m",
        "kubectl-backup/post": command("echo post >>/shared/log"),
    });
    run_pods(namespace, &[("db", annotations)]);
}

#[test]
fn post_hooks_run_when_the_backup_fails() {
    installed_with_hooks();
    let namespace = TempNamespace::new(A, "hook-failure");
    let mut place = location("hook-failure");
    place.url = place.url.replace(bucket(), "kubectl-backup-test-nowhere");
    let (named, role) = (format!("nowhere={}", place.url), world().s3("ROLE_ARN_A"));
    backup(A, &["init", "--install-namespace", INSTALL, "--location", &named, "--role-arn", role]).exits(0);
    logging_pod(&namespace, "true");
    backup(A, &["ns", &namespace.name, "--location", "nowhere", "--install-namespace", INSTALL])
        .exits(1)
        .says(&["bucket `kubectl-backup-test-nowhere`"]);
    assert_eq!(in_pod(&namespace, "db", "cat /shared/log"), "pre\npost\n");
}

#[test]
fn post_hooks_run_when_the_backup_is_cancelled() {
    installed_with_hooks();
    let (location, namespace) = (location("hook-cancel"), TempNamespace::new(A, "hook-cancel"));
    logging_pod(&namespace, "sleep 200");
    let child = begin(&namespace.name, &location.url);
    wait_for_line(&namespace, "pre");
    let jobs = get(A, &["jobs", "-n", INSTALL, "-l", "kubectl-backup/verb=backup"]);
    let mut names = jobs["items"].as_array().expect("jobs").iter().filter_map(|job| job["metadata"]["name"].as_str());
    let job = names.find(|name| name.starts_with(&namespace.name)).expect("the Job");
    kubectl(A, &["delete", "job", "-n", INSTALL, job, "--wait=false"]).exits(0);
    wait_for_line(&namespace, "post");
    let ran = Ran::ended(child);
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(keys(&format!("{}/backups/", location.prefix)), [""; 0]);
    assert_eq!(in_pod(&namespace, "db", "cat /shared/log"), "pre\npost\n");
}

#[test]
fn without_the_right_the_pods_and_the_way_out_are_named() {
    let install_namespace = "kubectl-backup-no-hooks";
    install(A, install_namespace, "");
    let (location, namespace) = (location("hook-rights"), TempNamespace::new(A, "hook-rights"));
    logging_pod(&namespace, "true");
    let at = ["--location", &location.url, "--install-namespace", install_namespace];
    let told = backup(A, &[&["ns", &namespace.name, "-o", "json"][..], &at].concat()).exits(3).json();
    let problem = &told["problems"][0];
    let message = problem["message"].as_str().expect("a message");
    assert_eq!((&problem["subject"], &told["problemsTotal"]), (&json!("hooks"), &json!(1)));
    for text in [
        &format!("pod `{}/db`", namespace.name),
        "`create` on `pods/exec` is not allowed",
        &format!("`kubectl backup init --hooks --install-namespace {install_namespace}`"),
    ] {
        assert!(message.contains(text), "{message}");
    }
    assert_eq!(in_pod(&namespace, "db", "ls /shared"), "", "nothing was run");
    // granted in this namespace only, as the manifest says
    let binding = format!("--serviceaccount={install_namespace}:kubectl-backup-reader");
    backup(A, &["init", "--install-namespace", INSTALL, "--hooks"]).exits(0);
    let grant =
        ["create", "rolebinding", "hooks", "-n", &namespace.name, "--clusterrole=kubectl-backup-hooks", &binding];
    kubectl(A, &grant).exits(0);
    backup(A, &[&["ns", &namespace.name][..], &at].concat()).exits(0);
    assert_eq!(in_pod(&namespace, "db", "cat /shared/log"), "pre\npost\n");
    kubectl(A, &["delete", "namespace", install_namespace, "--wait=false"]).exits(0);
}
