//! The promises of the README, each through a Job on a real cluster and a real S3 server.

use crate::harness::{
    ClusterName::{A, B},
    *,
};
use crate::planted::planted_needles;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use kubectl_backup::cluster::connect::{self, ConnectOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

fn id(manifest: &Value) -> &str {
    manifest["id"].as_str().expect("an id")
}

fn restored(cluster: ClusterName, args: &[&str]) -> Value {
    let args: Vec<&str> = ["restore"].iter().chain(args).chain(&["--yes", "-o", "json"]).copied().collect();
    backup(cluster, &args).exits(0).json()
}

fn count(result: &Value, verdict: &str) -> usize {
    verdicts(result).values().filter(|found| *found == verdict).count()
}

/// Removes the application: its namespace and what is cluster-scoped.
fn accident(namespace: &TempNamespace, suffix: &str) {
    namespace.delete();
    for name in shop_cluster_scoped(suffix) {
        kubectl(namespace.cluster, &["delete", &name, "--timeout=60s"]).exits(0);
    }
}

#[test]
fn promises_4_5_6_what_restores_is_what_was_saved_as_planned_and_again() {
    let (location, namespace) = (location("round-trip"), TempNamespace::new(A, "round-trip"));
    apply_shop(&namespace, "rt");
    let before = shop_objects(A, &namespace.name, "rt");
    installed(A);
    let silent = backup(A, &["ns", &namespace.name, "--location", &location.url]);
    silent.exits(3).says(&[&format!("persistentvolumeclaims {}/data", namespace.name), "not saved", "--volumes=skip"]);
    let manifest = backed_up(&namespace.name, &location);
    accident(&namespace, "rt");

    let plan = backup(A, &["restore", id(&manifest), "--location", &location.url, "--dry-run=client", "-o", "json"])
        .exits(0)
        .json();
    assert!(count(&plan, "create") > 15 && count(&plan, "created") == 0, "{plan}");
    kubectl(A, &["get", "namespace", &namespace.name]).exits(1);

    let result = restored(A, &[id(&manifest), "--location", &location.url]);
    assert_eq!(result["planDigest"], plan["planDigest"], "what is executed is the plan that was shown");
    let planned: Vec<String> =
        verdicts(&plan).into_iter().filter(|(_, verdict)| verdict == "create").map(|(name, _)| name).collect();
    for (name, verdict) in verdicts(&result) {
        // the service account `default` may be made by its controller in the meantime
        let made = verdict == "created" || (name.ends_with("/default") && verdict == "skip");
        assert_eq!(made, planned.contains(&name) || (name.ends_with("/default") && made), "{name}: {verdict}");
    }
    kubectl(A, &["-n", &namespace.name, "rollout", "status", "deployment/web", "--timeout=120s"]).exits(0);
    let after = shop_objects(A, &namespace.name, "rt");
    for (was, is) in before.iter().zip(&after) {
        assert_eq!(was, is);
    }
    assert_eq!(before.len(), after.len());

    let again = restored(A, &[id(&manifest), "--location", &location.url]);
    assert_eq!((count(&again, "created"), count(&again, "failed")), (0, 0), "{again}");
    accident(&namespace, "rt");
}

#[test]
fn promise_1_and_9_a_new_cluster_needs_the_bucket_and_nothing_else() {
    let (location, namespace) = (location("elsewhere"), TempNamespace::new(A, "elsewhere"));
    apply_shop(&namespace, "el");
    let before = shop_objects(A, &namespace.name, "el");
    backed_up(&namespace.name, &location);
    installed(B);
    let target = TempNamespace { cluster: B, name: namespace.name.clone() };
    let result = restored(B, &["latest", "--location", &location.url]);
    assert_eq!(count(&result, "failed"), 0, "{result}");
    kubectl(B, &["-n", &target.name, "rollout", "status", "deployment/web", "--timeout=120s"]).exits(0);
    assert_eq!(shop_objects(B, &target.name, "el"), before);
    accident(&target, "el");
    accident(&namespace, "el");
}

#[test]
fn promise_4_a_damaged_archive_is_refused_and_nothing_is_applied() {
    let (location, namespace) = (location("damaged"), TempNamespace::new(A, "damaged"));
    kubectl(A, &["create", "configmap", "-n", &namespace.name, "kept", "--from-literal=a=b"]).exits(0);
    let manifest = backed_up(&namespace.name, &location);
    let target = unique("never");
    let mapping = format!("{}={target}", namespace.name);
    let refused = |what: &str| {
        // names what is damaged, and the way out
        let args = ["restore", id(&manifest), "--location", &location.url, "--map-namespace", &mapping, "--yes"];
        backup(A, &args).exits(7).says(&[what, "damaged", "hint:"]);
        kubectl(A, &["get", "namespace", &target]).exits(1);
    };
    for (file, flipped_says) in [("objects", "frame"), ("index", "index")] {
        let key = format!("{}/{}", location.prefix, manifest["files"][file]["key"].as_str().expect("a key"));
        let whole = download(&key);
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        overwrite(&key, &flipped);
        refused(flipped_says);
        overwrite(&key, &whole[..whole.len() - 30]);
        refused(file);
        overwrite(&key, &whole);
    }
    let key = format!("{}/backups/{}.json", location.prefix, id(&manifest));
    for (field, value, says) in [
        ("format", json!("kubectl-backup/9"), "format `kubectl-backup/9`"),
        ("requires", json!(["age"]), "requires `age`"),
    ] {
        let mut newer = manifest.clone();
        newer[field] = value;
        overwrite(&key, newer.to_string().as_bytes());
        let args = ["restore", id(&manifest), "--location", &location.url, "--map-namespace", &mapping, "--yes"];
        backup(A, &args).exits(7).says(&[says, "newer kubectl-backup"]);
    }
    kubectl(A, &["get", "namespace", &target]).exits(1);
}

/// The API of a kind in a namespace of cluster A: a client of the test's own, as kubectl is too slow for what changes all
/// the time.
async fn api<K: kube::Resource<DynamicType = ()>>(namespace: &str) -> (Api<DynamicObject>, ApiResource) {
    let kubeconfig = Some(world().of(A, "KUBECONFIG").into());
    let options = ConnectOptions { kubeconfig, ..ConnectOptions::default() };
    let connected = connect::from_kubeconfig(&options).await.expect("a client");
    let kind = ApiResource::erase::<K>(&());
    (Api::namespaced_with(connected.cluster.client().clone(), namespace, &kind), kind)
}

async fn create((api, kind): &(Api<DynamicObject>, ApiResource), name: &str) {
    api.create(&PostParams::default(), &DynamicObject::new(name, kind)).await.expect("an object is made");
}

/// Makes an object and then one that depends on it, and deletes those of the round before in the other order, again and again.
async fn write<K>(namespace: &str, needed: &str, dependent: &str, stop: &AtomicBool)
where
    K: kube::Resource<DynamicType = ()>,
{
    let (of_needed, of_dependent) = (api::<K>(namespace).await, api::<ConfigMap>(namespace).await);
    for round in 1u32.. {
        create(&of_needed, &format!("{needed}{round}")).await;
        create(&of_dependent, &format!("{dependent}{round}")).await;
        // of the round before, so that there is always a dependent object
        for (of, name) in [(&of_dependent, dependent), (&of_needed, needed)] {
            let deleted = of.0.delete(&format!("{name}{}", round - 1), &DeleteParams::default()).await;
            assert!(round == 1 || deleted.is_ok(), "{deleted:?}");
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// The dependent objects of one writer are of another kind than what they need; those of the other stand on the last page of
/// a kind, and what they need on the first, with thousands between them.
#[test]
fn promise_3_all_objects_of_a_backup_are_from_one_instant() {
    let (location, namespace) = (location("instant"), TempNamespace::new(A, "instant"));
    let (stop, name) = (AtomicBool::new(false), namespace.name.as_str());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // pages of 500, of 2,000 and a bit
    runtime.block_on(async {
        let api = api::<ConfigMap>(name).await;
        let made = futures::stream::iter(0..2600);
        made.for_each_concurrent(32, async |number| create(&api, &format!("m-{number:05}")).await).await;
    });
    let manifests: Vec<Value> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (pairs, ends) =
                (write::<Secret>(name, "pair-", "pair-", &stop), write::<ConfigMap>(name, "a-", "z-", &stop));
            runtime.block_on(async { tokio::join!(pairs, ends) });
        });
        let manifests = (0..4).map(|_| backed_up(name, &location)).collect();
        stop.store(true, Ordering::Relaxed);
        manifests
    });
    for manifest in manifests {
        let consistency = &manifest["consistency"];
        assert!(
            consistency["revision"].as_str().is_some_and(|revision| revision.parse::<u64>().is_ok()),
            "{consistency}"
        );
        assert_eq!(
            (&consistency["unpinned"], &consistency["skewSeconds"]),
            (&Value::Null, &json!(0.0)),
            "{consistency}"
        );
        let shown = backup(A, &["show", id(&manifest), "--location", &location.url, "-o", "json"]).exits(0).json();
        let entries = shown.as_array().expect("entries");
        let rounds = |kind: &str, prefix: &str| -> Vec<&str> {
            let names = entries.iter().filter(|entry| entry["kind"] == kind).filter_map(|entry| entry["name"].as_str());
            names.filter_map(|name| name.strip_prefix(prefix)).collect()
        };
        assert_eq!(rounds("configmaps", "m-").len(), 2600);
        for (dependent, needed) in [
            (rounds("configmaps", "pair-"), rounds("secrets", "pair-")),
            (rounds("configmaps", "z-"), rounds("configmaps", "a-")),
        ] {
            let alone: Vec<&&str> = dependent.iter().filter(|round| !needed.contains(round)).collect();
            assert!(alone.is_empty(), "{alone:?} are there without what they need: a state that never existed");
        }
    }
}

/// The rules by which a backup left kinds out, by kind.
fn omissions(described: &Value) -> BTreeMap<&str, &str> {
    let omissions = described["report"]["omissions"].as_array().expect("omissions").iter();
    omissions.map(|one| (one["subject"].as_str().expect("a subject"), one["rule"].as_str().expect("a rule"))).collect()
}

#[test]
fn promise_2_what_could_not_be_saved_is_a_problem_and_the_exit_code_says_so() {
    installed(B);
    let (location, namespace) = (location("silent"), TempNamespace::new(B, "silent"));
    let describe = |id: &str| backup(B, &["describe", id, "--location", &location.url, "-o", "json"]).exits(0).json();
    // kinds that the API server can't list are left out by that rule, of a backup that is complete
    let told = backup(B, &["ns", &namespace.name, "--location", &location.url, "-o", "json"]).exits(0).json();
    let described = describe(id(&told));
    let reviews = ["tokenreviews.authentication.k8s.io", "localsubjectaccessreviews.authorization.k8s.io"];
    for kind in reviews {
        let rule = omissions(&described).get(kind).copied();
        assert_eq!(rule, Some("the API server doesn't list it; it is asked, not stored"), "{kind}: {described}");
    }
    assert_eq!((&told["outcome"], &told["problemsTotal"]), (&json!("Complete"), &json!(0)), "{told}");
    let broken = "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1.broken.example.com}\nspec: {group: broken.example.com, version: v1, groupPriorityMinimum: 1000, versionPriority: 10, insecureSkipTLSVerify: true, service: {namespace: default, name: nobody}}";
    apply(B, broken);
    eventually("the API server to notice that the group is broken", || {
        let discovery =
            kubectl(B, &["get", "--raw", "/apis/apiregistration.k8s.io/v1/apiservices/v1.broken.example.com"]).json();
        let conditions = discovery["status"]["conditions"].as_array()?.clone();
        conditions.iter().any(|c| c["type"] == "Available" && c["status"] == "False").then_some(())
    });
    let ran = eventually("discovery to list the broken group", || {
        let ran = backup(B, &["ns", &namespace.name, "--location", &location.url, "-o", "json"]);
        (ran.code != 0).then_some(ran)
    });
    kubectl(B, &["delete", "apiservice", "v1.broken.example.com"]).exits(0);
    let ran = ran.exits(3).says(&["broken.example.com/v1"]);
    let told = ran.json();
    assert_eq!((&told["outcome"], &told["problemsTotal"]), (&json!("Partial"), &json!(1)), "{told}");
    let manifest = manifest(&location, id(&told));
    assert_eq!((&manifest["outcome"], &manifest["counts"]["problems"]), (&json!("Partial"), &json!(1)), "{manifest}");
    let described = describe(id(&manifest));
    assert_eq!(described["report"]["problems"][0]["subject"], "broken.example.com/v1", "{described}");
    let omissions = omissions(&described);
    assert!(!omissions["events"].is_empty() && omissions.contains_key(reviews[0]), "{omissions:?}");
}

#[test]
fn promise_7_the_writer_has_no_rights_before_and_after_a_restore() {
    let (location, namespace) = (location("rights"), TempNamespace::new(A, "rights"));
    let manifest = backed_up(&namespace.name, &location);
    restored(A, &[id(&manifest), "--location", &location.url]);
    for account in ["reader", "writer"] {
        let who = format!("--as=system:serviceaccount:kubectl-backup:kubectl-backup-{account}");
        // a restore of another test may be running with the writer bound for it; standing rights never go
        for verb in ["create", "update", "delete"] {
            eventually(&format!("{account} not to be allowed to {verb} secrets"), || {
                let allowed = kubectl(A, &["auth", "can-i", verb, "secrets", "-n", &namespace.name, &who]);
                (allowed.stdout.trim() == "no").then_some(())
            });
        }
    }
    let run = format!("kubectl-backup-restore-{}", namespace.name);
    let bindings = get(A, &["clusterrolebindings", "-l", "kubectl-backup/id"]);
    let left: Vec<&str> = bindings["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|b| b["metadata"]["name"].as_str())
        .filter(|name| name.starts_with(&run))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn promise_7_a_caller_who_may_not_bind_is_told_so() {
    let (location, namespace) = (location("caller"), TempNamespace::new(A, "caller"));
    let manifest = backed_up(&namespace.name, &location);
    let user = unique("developer");
    let rights = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {user}, namespace: kubectl-backup}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}\nsubjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]"
    );
    apply(A, &rights);
    let ran = backup(A, &["restore", id(&manifest), "--location", &location.url, "--yes", "--as", &user]);
    kubectl(A, &["delete", "rolebinding", "-n", "kubectl-backup", &user]).exits(0);
    ran.exits(6).says(&["clusterrolebindings", "hint:"]);
}

/// `tests/leaks` looks through all that every test here leaves behind; this one works at the level at which most is told.
#[test]
fn promise_8_no_secret_value_leaves_the_bucket_unasked() {
    let (location, namespace) = (location("secrets"), TempNamespace::new(A, "secrets"));
    const LOUD: &str = "kubectl-backup-loud";
    install(A, LOUD, "  env: {RUST_LOG: trace}\n");
    let place = ["--location", &location.url, "--install-namespace", LOUD];
    let run = |args: &[&str]| backup(A, &[args, &place[..]].concat());
    let told = run(&["ns", &namespace.name, "-o", "json"]).exits(0).json();
    let id = id(&told);
    let masked = run(&["show", id, "secret/planted", "-n", &namespace.name]).exits(0);
    let revealed = run(&["show", id, "secret/planted", "-n", &namespace.name, "--reveal", "-o", "json"]).exits(0);
    let mapping = format!("{}={}", namespace.name, unique("secrets-copy"));
    let copy = TempNamespace { cluster: A, name: mapping.split_once('=').expect("a mapping").1.to_owned() };
    run(&["restore", id, "--map-namespace", &mapping, "--yes"]).exits(0);
    run(&["logs", id]).exits(0);
    // a value that differs is told by its field
    let other = r#"{"data":{"more":"cGxhbnRlZA==","password":"b3RoZXI="}}"#;
    kubectl(A, &["-n", &namespace.name, "patch", "secret", "planted", "--type=merge", "-p", other]).exits(0);
    let differs = run(&["diff", id]);
    assert!(differs.stdout.contains("planted"), "{}{}", differs.stdout, differs.stderr);
    run(&["restore", id, "--existing=update", "--yes"]).exits(0);
    run(&["verify", id]).exits(0);
    let elsewhere = self::location("secrets-elsewhere");
    run(&["copy", id, "--to", &elsewhere.url]).exits(0);

    let restored = get(A, &["-n", &copy.name, "secret", "planted"]);
    let encoded = restored["data"]["password"].as_str().expect("a value");
    assert!(revealed.stdout.contains(encoded), "asked for, the value is shown");
    let unwanted = planted_needles();
    run(&["undo", "--yes"]).exits(0);
    run(&["delete", id, "--yes"]).exits(0);
    let is_clean = |what: &str, text: &str| {
        let leak = unwanted.iter().find(|(needle, _)| text.contains(needle));
        assert_eq!(leak.map(|(_, form)| form), None, "{what} holds the Secret's value");
    };
    is_clean("show without --reveal", &format!("{}{}", masked.stdout, masked.stderr));
    is_clean("the terminal of show --reveal", &revealed.stderr);
    for kind in ["configmaps", "events", "jobs", "pods"] {
        is_clean(kind, &kubectl(A, &["-n", LOUD, "get", kind, "-o", "yaml"]).exits(0).stdout);
    }
    for verb in ["backup", "show", "restore", "diff", "verify", "copy", "undo", "delete"] {
        let label = format!("kubectl-backup/verb={verb}");
        let log = kubectl(A, &["-n", LOUD, "logs", "-l", &label, "--tail=-1"]).exits(0).stdout;
        assert!(log.contains("DEBUG") && log.contains("asking S3"), "{verb} told less than it can: {log}");
        is_clean(&format!("the log of {verb}"), &log);
    }
    is_clean("diff", &format!("{}{}", differs.stdout, differs.stderr));
    for key in [location, elsewhere].iter().flat_map(|place| keys(&format!("{}/", place.prefix))) {
        if key.ends_with(".json") {
            is_clean(&key, &String::from_utf8_lossy(&download(&key)));
        }
    }
}

#[test]
fn promise_9_stock_tools_open_an_archive() {
    let (location, namespace) = (location("stock"), TempNamespace::new(A, "stock"));
    let long = "n".repeat(253);
    kubectl(A, &["create", "configmap", "-n", &namespace.name, &long, "--from-literal=a=b"]).exits(0);
    let manifest = backed_up(&namespace.name, &location);
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["objects", "index", "report", "log"] {
        let entry = &manifest["files"][file];
        let path = folder.path().join(file);
        std::fs::write(&path, download(&format!("{}/{}", location.prefix, entry["key"].as_str().expect("a key"))))
            .expect("a file");
        let sum = Command::new("sha256sum").arg(&path).output().expect("sha256sum runs");
        assert!(
            String::from_utf8_lossy(&sum.stdout).starts_with(entry["sha256"].as_str().expect("a digest")),
            "{file}"
        );
    }
    let shell = |script: &str| {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(folder.path())
            .output()
            .expect("bash runs");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let listing = shell("zstd -dc objects | tar t");
    let paths: Vec<&str> = listing.lines().collect();
    assert_eq!(paths.len() as u64, manifest["counts"]["objects"].as_u64().expect("a count"), "{listing}");
    assert!(paths.iter().any(|path| path.len() > 100), "{listing}");
    let frames = shell("zstd -dc index | grep -c '^{\"frame\"'").trim().parse::<u32>().expect("a number");
    assert!(frames >= 3, "{frames} frames");
    let path = paths.iter().find(|path| path.contains("/nnnn")).expect("the long name");
    let object: Value = serde_json::from_str(&shell(&format!("zstd -dc objects | tar xO {path}"))).expect("JSON");
    assert_eq!((&object["kind"], &object["metadata"]["name"]), (&json!("ConfigMap"), &json!(long)));
    shell("mkdir out && zstd -dc objects | tar x -C out && find out -type f | xargs -d '\\n' jq -e .kind >/dev/null");
}

#[test]
fn promise_10_memory_is_bounded() {
    let (location, namespace) = (location("bounded"), TempNamespace::new(A, "bounded"));
    install(A, "kubectl-backup-small", "  resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 96Mi}}\n");
    let value = "0123456789abcdef".repeat(60_000); // 960 kB
    for batch in 0..15 {
        let object = |n: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("big-{batch}-{n}"), "namespace": namespace.name}, "data": {"value": value}});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": (0..10).map(object).collect::<Vec<_>>()});
        apply(A, &list.to_string());
    }
    let small = ["--install-namespace", "kubectl-backup-small", "--location", &location.url, "-o", "json"];
    let told = backup(A, &[&["ns", &namespace.name][..], &small].concat()).exits(0).json();
    let manifest = manifest(&location, id(&told));
    assert!(manifest["counts"]["bytes"].as_u64().is_some_and(|bytes| bytes > 140_000_000), "{manifest}");
    let pods = get(A, &["-n", "kubectl-backup-small", "pods", "-l", "kubectl-backup/verb=backup"]);
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(1), "no pod was killed for its memory");
    let copy = TempNamespace { cluster: A, name: unique("bounded-copy") };
    let mapping = format!("{}={}", namespace.name, copy.name);
    let result = backup(A, &[&["restore", id(&manifest), "--map-namespace", &mapping, "--yes"][..], &small].concat())
        .exits(0)
        .json();
    assert!(count(&result, "created") >= 150, "{}", count(&result, "created"));
    kubectl(A, &["delete", "namespace", "kubectl-backup-small", "--wait=false"]).exits(0);
}

#[test]
fn promise_6_a_restore_that_is_killed_converges_when_it_runs_again() {
    let (location, namespace) = (location("resume"), TempNamespace::new(A, "resume"));
    let items: Vec<Value> = (0..800)
        .map(|n| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c-{n}"), "namespace": namespace.name}, "data": {"n": n.to_string()}}))
        .collect();
    apply(A, &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    let manifest = backed_up(&namespace.name, &location);
    let copy = TempNamespace { cluster: A, name: unique("resume-copy") };
    let mapping = format!("{}={}", namespace.name, copy.name);
    let args =
        ["restore", id(&manifest), "--location", &location.url, "--map-namespace", &mapping, "--yes", "-o", "json"];
    let mut command = backup_command(A, &args);
    let run = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // as soon as the first objects are there, its pod is killed; the Job starts another
    eventually("the first restored objects", || {
        let found = kubectl(A, &["-n", &copy.name, "get", "configmaps", "-o", "name"]);
        (found.stdout.lines().filter(|line| line.contains("/c-")).count() > 0).then_some(())
    });
    let pods = get(
        A,
        &["-n", "kubectl-backup", "pods", "-l", "kubectl-backup/verb=restore", "--field-selector=status.phase=Running"],
    );
    for pod in pods["items"].as_array().expect("items") {
        let task = pod["spec"]["containers"][0]["env"].to_string();
        if task.contains(&copy.name) {
            kubectl(
                A,
                &[
                    "-n",
                    "kubectl-backup",
                    "delete",
                    "pod",
                    pod["metadata"]["name"].as_str().expect("a name"),
                    "--grace-period=0",
                    "--force",
                ],
            );
        }
    }
    // its Job has started another pod, unless the kill came when all was written and only the answer was lost: whoever
    // isn't sure runs it again
    Ran::ended(run);
    let again = backup(A, &args).exits(0).json();
    assert_eq!(count(&again, "failed"), 0, "{again}");
    let after = get(A, &["-n", &copy.name, "configmaps"]);
    let restored = after["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter(|item| item["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("c-")));
    assert_eq!(restored.count(), 800);
}
