//! Whether a run is still at work, asked once.

use super::api::{Deed, optional};
use super::error::Error;
use super::{has_ended, selector};
use crate::id::BackupId;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

/// Whether the Job of a run has not ended, or one of its pods hasn't: a Job that was deleted is gone before its pods are.
///
/// # Errors
/// The API server's refusal, or no answer from it.
pub async fn is_at_work(client: &kube::Client, namespace: &str, id: &BackupId) -> Result<bool, Error> {
    let deed = |verb, resource, name| Deed { verb, resource, namespace: Some(namespace), name };
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let job = optional(deed("get", "jobs.batch", id.as_str()).again(|| jobs.get(id.as_str())).await)?;
    if job.is_some_and(|job| !has_ended(&job)) {
        return Ok(true);
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&selector(id));
    let pods = optional(deed("list", "pods", "").again(|| pods.list(&params)).await)?;
    let phase = |pod: Pod| pod.status.and_then(|status| status.phase).unwrap_or_default();
    let pods = pods.map(|pods| pods.items).unwrap_or_default();
    Ok(pods.into_iter().any(|pod| !matches!(phase(pod).as_str(), "Succeeded" | "Failed")))
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_run_works_until_its_job_has_ended_and_its_pods_are_gone() {
        let (fake, id) = (Fake::default(), BackupId::parse("r-1").unwrap());
        let path = "/apis/batch/v1/namespaces/kb/jobs/r-1";
        let at_work = async |fake: &Fake| is_at_work(&fake.client(), "kb", &id).await.unwrap();
        assert!(!at_work(&fake).await, "there is none");
        let job = |status| json!({"metadata": {"name": "r-1"}, "status": status});
        fake.put(path, job(json!({"active": 1})));
        assert!(at_work(&fake).await);
        // between two pods
        fake.put(path, job(json!({"failed": 1})));
        assert!(at_work(&fake).await);
        fake.put(path, job(json!({"conditions": [{"type": "Failed", "status": "True"}]})));
        assert!(!at_work(&fake).await);
        // deleted, and its pod takes its time
        let fake = Fake::default();
        let pod = |phase| {
            let labels = json!({"batch.kubernetes.io/job-name": "r-1"});
            json!({"metadata": {"name": "r-1-x", "labels": labels}, "status": {"phase": phase}})
        };
        fake.put("/api/v1/namespaces/kb/pods/r-1-x", pod("Running"));
        assert!(at_work(&fake).await);
        fake.put("/api/v1/namespaces/kb/pods/r-1-x", pod("Failed"));
        assert!(!at_work(&fake).await);
    }
}
