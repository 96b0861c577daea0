//! Gives the writer its rights for one restore, and takes them away again.
//!
//! The caller of the restore makes the binding, so the API server's own check decides: nobody can give what they don't
//! hold. The run removes it as its last deed; [`sweep`] removes what a killed run left behind.

use super::api::{Deed, optional};
use super::error::Error;
use super::{APP, MANAGER, WRITER};
use crate::id::BackupId;
use crate::rules::marks;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use serde_json::json;

/// The role that a restore is bound to; its name begins the names of the bindings.
pub const ROLE: &str = "kubectl-backup-restore";
/// The label that says which installation a binding belongs to.
const INSTALLATION: &str = "kubectl-backup/install-namespace";
/// A binding is made before its Job, so a young one without a Job isn't left behind yet.
const YOUNG: SignedDuration = SignedDuration::from_mins(10);

const RESOURCE: &str = "clusterrolebindings.rbac.authorization.k8s.io";

/// The name of a run's binding.
pub fn name(id: &BackupId) -> String {
    format!("{ROLE}-{id}")
}

fn deed<'a>(verb: &'static str, name: &'a str) -> Deed<'a> {
    Deed { verb, resource: RESOURCE, namespace: None, name }
}

fn binding(namespace: &str, id: &BackupId) -> Result<ClusterRoleBinding, Error> {
    let object = json!({
        "metadata": {
            "name": name(id),
            "labels": { "app.kubernetes.io/name": APP, marks::ID: id, INSTALLATION: namespace },
        },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE },
        "subjects": [{ "kind": "ServiceAccount", "name": WRITER, "namespace": namespace }],
    });
    serde_json::from_value(object)
        .map_err(|error| Error::Manifest { name: ROLE.to_owned(), message: error.to_string() })
}

/// Binds the writer of this installation to the restore role, for one run. Fine when that very binding is there.
pub async fn create(client: &kube::Client, namespace: &str, id: &BackupId) -> Result<(), Error> {
    let (api, name, wanted): (Api<ClusterRoleBinding>, _, _) =
        (Api::all(client.clone()), name(id), binding(namespace, id)?);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), dry_run: false };
    match deed("create", &name).again(|| api.create(&params, &wanted)).await {
        Err(Error::Api { reason, .. }) if reason == "AlreadyExists" => (),
        answer => return answer.map(|_| ()),
    }
    // by a list, which the caller has the right to: `get` would be one right more for an answer that got lost
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let listed = deed("list", &name).again(|| api.list(&params)).await?.items;
    let there = listed.iter().find(|there| there.metadata.name.as_ref() == Some(&name));
    if there.is_some_and(|there| there.role_ref == wanted.role_ref && there.subjects == wanted.subjects) {
        return Ok(());
    }
    Err(Error::Taken {
        what: format!("clusterrolebinding `{name}`"),
        why: "binds something else".to_owned(),
        hint: "look at who made it, and delete it".to_owned(),
    })
}

/// Removes a run's binding. Fine when there is none.
pub async fn remove(client: &kube::Client, id: &BackupId) -> Result<(), Error> {
    let (api, name): (Api<ClusterRoleBinding>, _) = (Api::all(client.clone()), name(id));
    let params = DeleteParams::default();
    optional(deed("delete", &name).again(|| api.delete(&name, &params)).await).map(|_| ())
}

/// Removes the bindings of this installation whose Job ended, or is gone; gives their runs.
pub async fn sweep(client: &kube::Client, namespace: &str, now: Timestamp) -> Result<Vec<BackupId>, Error> {
    let api: Api<ClusterRoleBinding> = Api::all(client.clone());
    let params = ListParams::default().labels(&format!("app.kubernetes.io/name={APP},{INSTALLATION}={namespace}"));
    let mut swept = Vec::new();
    for found in deed("list", "").again(|| api.list(&params)).await?.items {
        let Some(id) = run_of(&found) else { continue };
        let created = found.metadata.creation_timestamp.as_ref().map(|time| time.0);
        if !left_behind(client, namespace, &id, created, now).await? {
            continue;
        }
        let same = Preconditions { uid: found.metadata.uid.clone(), ..Preconditions::default() };
        let (params, name) = (DeleteParams::default().preconditions(same), name(&id));
        match optional(deed("delete", &name).again(|| api.delete(&name, &params)).await) {
            // another by that name meanwhile
            Err(Error::Api { code: 409, .. }) => (),
            answer => {
                answer?;
                swept.push(id);
            }
        }
    }
    Ok(swept)
}

/// The run that a binding says it is for, where its name agrees.
fn run_of(binding: &ClusterRoleBinding) -> Option<BackupId> {
    let id = BackupId::parse(binding.metadata.labels.as_ref()?.get(marks::ID)?).ok()?;
    (binding.metadata.name.as_deref()? == name(&id)).then_some(id)
}

async fn left_behind(
    client: &kube::Client,
    namespace: &str,
    id: &BackupId,
    created: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, Error> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let deed = Deed { verb: "get", resource: "jobs.batch", namespace: Some(namespace), name: id.as_str() };
    Ok(match optional(deed.again(|| jobs.get(id.as_str())).await)? {
        Some(job) => super::has_ended(&job),
        None => created.is_none_or(|created| now.duration_since(created) >= YOUNG),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, failure};
    use super::*;
    use crate::report::ExitCode;
    use serde_json::Value;

    const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

    fn id(text: &str) -> BackupId {
        BackupId::parse(text).unwrap()
    }

    fn path(id: &str) -> String {
        format!("{BINDINGS}/kubectl-backup-restore-{id}")
    }

    fn job(name: &str, status: Value) -> (String, Value) {
        let path = format!("/apis/batch/v1/namespaces/kb/jobs/{name}");
        (path, json!({ "metadata": { "name": name }, "status": status }))
    }

    fn now() -> Timestamp {
        // the fake makes everything at ten
        "2026-11-20T10:20:00Z".parse().unwrap()
    }

    #[tokio::test]
    async fn a_run_is_bound_and_unbound_and_both_can_be_said_twice() {
        let fake = Fake::default();
        create(&fake.client(), "kb", &id("r-1")).await.unwrap();
        create(&fake.client(), "kb", &id("r-1")).await.unwrap();
        let made = fake.get(&path("r-1")).unwrap();
        assert_eq!(made["roleRef"]["name"], "kubectl-backup-restore");
        assert_eq!(
            made["subjects"],
            json!([{ "kind": "ServiceAccount", "name": "kubectl-backup-writer", "namespace": "kb" }])
        );
        assert_eq!(made["metadata"]["labels"]["kubectl-backup/id"], "r-1");
        remove(&fake.client(), &id("r-1")).await.unwrap();
        remove(&fake.client(), &id("r-1")).await.unwrap();
        assert_eq!(fake.get(&path("r-1")), None);
    }

    #[tokio::test]
    async fn a_binding_of_that_name_for_somebody_else_is_an_error() {
        let fake = Fake::default();
        let other = json!({ "metadata": { "name": name(&id("r-1")) }, "subjects": [],
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" } });
        fake.put(&path("r-1"), other);
        assert!(matches!(create(&fake.client(), "kb", &id("r-1")).await, Err(Error::Taken { .. })));
    }

    #[tokio::test]
    async fn who_may_not_give_the_rights_reads_why() {
        let fake = Fake::default();
        let text = "clusterrolebindings.rbac.authorization.k8s.io \"x\" is forbidden: user \"ann\" (groups=[\"dev\"]) is \
                    attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"get\"]}";
        fake.answer("POST", BINDINGS, 403, failure(403, "Forbidden", text));
        let error = create(&fake.client(), "kb", &id("r-1")).await.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Forbidden);
        assert!(error.to_string().contains("not currently held: {APIGroups:[\"*\"]"), "{error}");
        assert!(error.to_string().contains("\nhint: only who holds these rights"), "{error}");
    }

    #[tokio::test]
    async fn what_a_run_left_behind_is_swept() {
        let fake = Fake::default();
        for run in ["done", "failed", "running", "gone", "elsewhere"] {
            let namespace = if run == "elsewhere" { "other" } else { "kb" };
            create(&fake.client(), namespace, &id(run)).await.unwrap();
        }
        let condition = |kind: &str| json!({ "conditions": [{ "type": kind, "status": "True" }] });
        for (path, job) in [
            job("done", condition("Complete")),
            job("failed", condition("Failed")),
            job("running", json!({ "active": 1 })),
        ] {
            fake.put(&path, job);
        }
        let early = "2026-11-20T10:09:59Z".parse().unwrap();
        let swept = sweep(&fake.client(), "kb", early).await.unwrap();
        assert_eq!(swept, [id("done"), id("failed")]);
        // its Job may be on its way for ten minutes
        let swept = sweep(&fake.client(), "kb", now()).await.unwrap();
        assert_eq!(swept, [id("gone")]);
        assert!(fake.get(&path("running")).is_some() && fake.get(&path("elsewhere")).is_some());
        let deletes: Vec<_> = fake.calls("DELETE", &path("gone"));
        assert_eq!(deletes[0].body["preconditions"]["uid"], "uid-kubectl-backup-restore-gone");
    }

    #[tokio::test]
    async fn bindings_that_only_look_like_ours_are_left_alone() {
        let fake = Fake::default();
        let mut foreign = serde_json::to_value(binding("kb", &id("gone")).unwrap()).unwrap();
        foreign["metadata"]["name"] = json!("important");
        fake.put(&format!("{BINDINGS}/important"), foreign);
        assert_eq!(sweep(&fake.client(), "kb", now()).await.unwrap(), []);
        assert!(fake.get(&format!("{BINDINGS}/important")).is_some());
    }
}
