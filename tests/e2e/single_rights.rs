//! Promise 7, rule by rule: without any single one of the rights that `manifests/` lists something fails and names it. What
//! the API server's own authorizer refuses to a client in this process needs no Job; the rest goes through one.

use crate::harness::{ClusterName::A, *};
use crate::rights::{CALLERS, User, rules_of};
use kubectl_backup::cluster::connect::{self, ConnectOptions};
use kubectl_backup::id::{Attempt, BackupId};
use kubectl_backup::jobs::publish::{Owner, Pace, Publisher};
use kubectl_backup::jobs::{self, Status, binding};
use serde_json::json;
use std::time::Duration;

const READER: &str = include_str!("../../manifests/base/reader.yaml");
const RESTORE: &str = include_str!("../../manifests/base/restore.yaml");
const WORKER: &str = include_str!("../../manifests/base/worker.yaml");

/// An installation in which no pod is ever started.
const STUCK: &str = "kubectl-backup-stuck";

/// What all of them need.
struct Stage {
    namespace: TempNamespace,
    other: TempNamespace,
    place: Location,
    id: String,
    cluster_role: String,
}

/// How something ended that was tried without a right, and what was said.
struct End {
    code: i32,
    said: String,
}

impl From<Ran> for End {
    fn from(ran: Ran) -> Self {
        Self { code: ran.code, said: ran.stderr }
    }
}

/// A kind whose status is written on its own.
fn define() {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version =
        json!({"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}}});
    let names = json!({"plural": "singles", "singular": "single", "kind": "Single", "listKind": "SingleList"});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "singles.single.example.com"},
        "spec": {"group": "single.example.com", "scope": "Namespaced", "versions": [version], "names": names}});
    apply(A, &definition.to_string());
    let name = "crd/singles.single.example.com";
    kubectl(A, &["wait", "--for=condition=Established", name, "--timeout=60s"]).exits(0);
}

impl Stage {
    fn new() -> Self {
        let (namespace, other) = (TempNamespace::new(A, "single"), TempNamespace::empty(A, "single-other"));
        let (cluster_role, name) = (unique("single"), namespace.name.as_str());
        let watch = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["watch"]}]);
        let rbac = "rbac.authorization.k8s.io";
        let meta = |named: &str| json!({"name": named, "namespace": name});
        let binding = |named: &str, kind: &str, role: &str| {
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": meta(named),
                "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": name}],
                "roleRef": {"apiGroup": rbac, "kind": kind, "name": role}})
        };
        define();
        for object in [
            json!({"apiVersion": "single.example.com/v1", "kind": "Single", "metadata": meta("one")}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings"), "data": {"a": "1"}}),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": meta("watcher"), "rules": watch}),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": cluster_role}, "rules": watch}),
            binding("to-role", "Role", "watcher"),
            binding("to-cluster-role", "ClusterRole", &cluster_role),
        ] {
            apply(A, &object.to_string());
        }
        let status = ["--subresource=status", "--type=merge", "-p", r#"{"status":{"phase":"Ready"}}"#];
        kubectl(A, &[&["-n", name, "patch", "singles.single.example.com", "one"][..], &status].concat()).exits(0);
        let place = location("single");
        let id = backed_up(name, &place)["id"].as_str().expect("an id").to_owned();
        kubectl(A, &["-n", name, "patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"a":"2"}}"#])
            .exits(0);
        Self { namespace, other, place, id, cluster_role }
    }

    fn job(&self, user: &User, args: &[&str]) -> End {
        user.backup(&[args, &["--location", &self.place.url]].concat()).into()
    }

    fn ns(&self, user: &User) -> End {
        self.job(user, &["ns", &self.namespace.name, "--volumes=skip"])
    }

    fn list(&self, user: &User) -> End {
        self.job(user, &["list"])
    }

    fn show(&self, user: &User) -> End {
        self.job(user, &["show", &self.id])
    }

    fn logs(&self, user: &User) -> End {
        self.job(user, &["logs", &self.id])
    }

    fn restore(&self, user: &User) -> End {
        self.job(user, &["restore", &self.id, "configmap/settings", "--existing=update", "--yes"])
    }

    /// A Job whose pod is never made.
    fn stuck(&self, user: &User) -> End {
        self.job(user, &["show", &self.id, "--install-namespace", STUCK, "--timeout", "3s"])
    }

    fn local(&self, user: &User, args: &[&str]) -> End {
        backup_local(A, &[args, &["--location", &self.place.url, "--as", user.name()]].concat()).into()
    }

    fn local_ns(&self, user: &User) -> End {
        self.local(user, &["ns", &self.namespace.name, "--volumes=skip"])
    }

    fn local_restore(&self, user: &User) -> End {
        self.restored(user, "configmap/settings", &["--existing=update"])
    }

    fn local_recreate(&self, user: &User) -> End {
        self.restored(user, "configmap/settings", &["--existing=recreate"])
    }

    fn restored(&self, user: &User, object: &str, flags: &[&str]) -> End {
        self.local(user, &[&["restore", &self.id, object, "--yes"], flags].concat())
    }

    /// Into a namespace that is there.
    fn elsewhere(&self, user: &User, objects: &[&str]) -> End {
        let map = format!("{}={}", self.namespace.name, self.other.name);
        self.local(user, &[&["restore", &self.id, "--yes", "--map-namespace", &map][..], objects].concat())
    }

    fn local_create(&self, user: &User) -> End {
        self.elsewhere(user, &["configmap/settings"])
    }

    fn local_role(&self, user: &User) -> End {
        self.elsewhere(user, &["role/watcher"])
    }

    fn local_binding(&self, user: &User) -> End {
        kubectl(A, &["-n", &self.other.name, "delete", "role,rolebinding", "--all"]).exits(0);
        self.elsewhere(user, &["role/watcher", "rolebinding/to-role"])
    }

    fn local_cluster_role(&self, user: &User) -> End {
        kubectl(A, &["delete", "clusterrole", &self.cluster_role, "--ignore-not-found"]).exits(0);
        self.restored(user, &format!("clusterrole/{}", self.cluster_role), &[])
    }

    fn local_cluster_binding(&self, user: &User) -> End {
        let rules = ["create", "clusterrole", &self.cluster_role, "--verb=watch", "--resource=pods"];
        kubectl(A, &rules); // unless it is there
        self.elsewhere(user, &["rolebinding/to-cluster-role"])
    }

    fn local_status(&self, user: &User) -> End {
        self.elsewhere(user, &["singles.single.example.com/one", "--with-status"])
    }
}

/// Does something as a user, with the engine in this process.
fn as_user(user: &User, deed: impl AsyncFnOnce(kube::Client) -> Result<(), jobs::Error>) -> End {
    let options = ConnectOptions {
        kubeconfig: Some(world().of(A, "KUBECONFIG").into()),
        impersonate: Some(user.name().to_owned()),
        ..ConnectOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let connected = connect::from_kubeconfig(&options).await.expect("a client");
        match deed(connected.cluster.client().clone()).await {
            Ok(()) => End { code: 0, said: String::new() },
            Err(error) => End { code: error.exit_code() as i32, said: error.to_string() },
        }
    })
}

fn sweep(_: &Stage, user: &User) -> End {
    as_user(user, async |client| binding::sweep(&client, "kubectl-backup", jiff::Timestamp::now()).await.map(drop))
}

fn unbind(stage: &Stage, user: &User) -> End {
    let id = BackupId::parse(&stage.id).expect("an id");
    as_user(user, async |client| binding::remove(&client, &id).await)
}

/// The status of a run, told once and at its end.
async fn published(client: &kube::Client, id: &str) -> Result<(), jobs::Error> {
    let job = BackupId::parse(id).expect("an id");
    let owner = Owner { namespace: "kubectl-backup".into(), job: job.clone(), job_uid: "6f1e".into() };
    let attempt = Attempt::parse("attempt-1").expect("an attempt");
    let status = Status::new(job, "backup", "v1", attempt, jiff::Timestamp::now());
    let pace = Pace { last_words: Duration::from_secs(5), ..Pace::default() };
    Publisher::start(client.clone(), owner, status.clone(), pace).await?.finish(status).await
}

/// What a worker does that is the first of its run.
fn publish(_: &Stage, user: &User) -> End {
    let id = unique("published");
    as_user(user, async |client| published(&client, &id).await)
}

/// What one does that finds the status of an attempt before it.
fn publish_again(_: &Stage, user: &User) -> End {
    let id = unique("published");
    let made =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": id, "namespace": "kubectl-backup"}});
    apply(A, &made.to_string());
    let end = as_user(user, async |client| published(&client, &id).await);
    kubectl(A, &["-n", "kubectl-backup", "delete", "configmap", &id]).exits(0);
    end
}

/// `get` on `pods/exec` was what opening an exec took until Kubernetes 1.35: `tests/consistency/older.rs` tries it on such a server.
fn on_older_servers(_: &Stage, _: &User) -> End {
    End { code: 6, said: "`get` on `pods/exec`".into() }
}

type Deed = fn(&Stage, &User) -> End;

/// A rule, what is tried without it, how that ends, and what the API server says of it where it isn't the rule.
struct Single {
    file: &'static str,
    role: &'static str,
    verb: &'static str,
    resource: &'static str,
    deed: Deed,
    code: i32,
    said: Option<&'static str>,
}

const fn single(
    file: &'static str,
    role: &'static str,
    verb: &'static str,
    resource: &'static str,
    deed: Deed,
    code: i32,
) -> Single {
    Single { file, role, verb, resource, deed, code, said: None }
}

const HELD: Option<&str> = Some("not currently held");

const RULES: &[Single] = &[
    single(CALLERS, "kubectl-backup-lister", "get", "configmaps", Stage::list, 6),
    single(CALLERS, "kubectl-backup-caller", "get", "configmaps", Stage::list, 6),
    single(CALLERS, "kubectl-backup-caller", "create", "jobs", Stage::ns, 6),
    single(CALLERS, "kubectl-backup-caller", "get", "jobs", Stage::ns, 6),
    // what doesn't end in time has an exit code of its own
    single(CALLERS, "kubectl-backup-caller", "delete", "jobs", Stage::stuck, 4),
    single(CALLERS, "kubectl-backup-caller", "list", "events", Stage::stuck, 4),
    single(CALLERS, "kubectl-backup-caller", "list", "pods", Stage::show, 6),
    single(CALLERS, "kubectl-backup-caller", "get", "pods/log", Stage::logs, 6),
    single(CALLERS, "kubectl-backup-caller", "create", "pods/exec", Stage::show, 6),
    single(CALLERS, "kubectl-backup-caller", "get", "pods/exec", on_older_servers, 6),
    single(CALLERS, "kubectl-backup-restorer", "create", "clusterrolebindings", Stage::restore, 6),
    single(CALLERS, "kubectl-backup-restorer", "list", "clusterrolebindings", sweep, 6),
    single(CALLERS, "kubectl-backup-restorer", "delete", "clusterrolebindings", unbind, 6),
    Single { said: HELD, ..single(CALLERS, "kubectl-backup-restorer", "bind", "clusterroles", Stage::restore, 6) },
    single(WORKER, "kubectl-backup-worker", "create", "configmaps", publish, 6),
    single(WORKER, "kubectl-backup-worker", "get", "configmaps", publish_again, 6),
    single(WORKER, "kubectl-backup-worker", "patch", "configmaps", publish, 6),
    single(READER, "kubectl-backup-reader", "get", "*", Stage::local_ns, 6),
    single(READER, "kubectl-backup-reader", "list", "*", Stage::local_ns, 6),
    single(RESTORE, "kubectl-backup-restore", "get", "*", Stage::local_restore, 6),
    single(RESTORE, "kubectl-backup-restore", "list", "*", Stage::local_restore, 6),
    // where nothing at all may be written
    single(RESTORE, "kubectl-backup-restore", "create", "*", Stage::local_create, 6),
    single(RESTORE, "kubectl-backup-restore", "update", "*", Stage::local_restore, 6),
    single(RESTORE, "kubectl-backup-restore", "delete", "*", Stage::local_recreate, 6),
    Single { said: HELD, ..single(RESTORE, "kubectl-backup-restore", "escalate", "roles", Stage::local_role, 6) },
    Single {
        said: HELD,
        ..single(RESTORE, "kubectl-backup-restore", "escalate", "clusterroles", Stage::local_cluster_role, 6)
    },
    Single {
        said: HELD,
        ..single(RESTORE, "kubectl-backup-restore", "bind", "clusterroles", Stage::local_cluster_binding, 6)
    },
    // where something was written: the object without its status, the role without its binding
    single(RESTORE, "kubectl-backup-restore", "patch", "*", Stage::local_status, 3),
    Single { said: HELD, ..single(RESTORE, "kubectl-backup-restore", "bind", "roles", Stage::local_binding, 3) },
];

impl Single {
    /// What is wrong with how it ended; nothing where it is right.
    fn judge(&self, end: &End) -> Option<String> {
        let Self { verb, resource, .. } = self;
        let resource = if *resource == "*" { "" } else { resource };
        let named = match self.said {
            Some(said) => end.said.contains(said),
            None => {
                let ours = format!("`{verb}` on `{resource}");
                let theirs = format!("cannot {verb} resource \"{resource}");
                end.said.contains(&ours) || end.said.contains(&theirs)
            }
        };
        let right = end.code == self.code && named;
        (!right).then(|| {
            format!("{} without `{verb}` on `{}` ended with {}:\n{}", self.role, self.resource, end.code, end.said)
        })
    }
}

#[test]
fn promise_7_every_single_right_that_is_listed_is_needed() {
    installed(A);
    install(A, STUCK, "");
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": STUCK},
        "spec": {"hard": {"pods": "0"}}});
    apply(A, &quota.to_string());
    let stage = Stage::new();
    let mut wrong = Vec::new();
    for one in RULES {
        let namespace = if one.code == 4 { STUCK } else { "kubectl-backup" };
        // a restorer is a caller besides
        let roles: &[&str] = match one.role {
            "kubectl-backup-restorer" => &["kubectl-backup-caller", "kubectl-backup-restorer"],
            _ => &[one.role],
        };
        let user = User::of(one.file, roles, Some((one.verb, one.resource)), namespace);
        wrong.extend(one.judge(&(one.deed)(&stage, &user)));
    }
    kubectl(A, &["delete", "clusterrole", &stage.cluster_role, "--ignore-not-found"]);
    kubectl(A, &["delete", "crd/singles.single.example.com", "--wait=false"]);
    kubectl(A, &["delete", "namespace", STUCK, "--wait=false"]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_rule_of_the_manifests_is_among_them() {
    let mut listed: Vec<_> =
        RULES.iter().map(|one| (one.role.to_owned(), one.verb.to_owned(), one.resource.to_owned())).collect();
    let mut there: Vec<_> = [CALLERS, READER, WORKER, RESTORE].into_iter().flat_map(rules_of).collect();
    listed.sort();
    there.sort();
    assert_eq!(listed, there);
}
