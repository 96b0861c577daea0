//! `--suspend-cronjobs` and `--scale-to-zero`: an application that is restored without starting. What was there before
//! is kept in an annotation, so that a person can put it back.

use super::Change;
use crate::resource::Kind;
use crate::rules::walk::annotate;
use serde_json::Value;

/// How many replicas there were.
pub const REPLICAS: &str = "kubectl-backup/replicas";
/// Whether a CronJob was suspended: `false`, or it would not have been touched.
pub const SUSPEND: &str = "kubectl-backup/suspend";

/// Suspends a CronJob.
pub(super) fn suspend(kind: &Kind, object: &mut Value, changes: &mut Vec<Change>) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if kind.is("cronjobs.batch") && spec.get("suspend") != Some(&Value::Bool(true)) {
        spec.insert("suspend".to_owned(), true.into());
        annotate(object, SUSPEND, "false");
        changes.push(Change::Suspended);
    }
}

/// Scales what has replicas to zero.
pub(super) fn scale_to_zero(kind: &Kind, object: &mut Value, changes: &mut Vec<Change>) {
    let scaled = ["deployments.apps", "statefulsets.apps", "replicasets.apps", "replicationcontrollers"];
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    // the API server takes a missing number for one
    let replicas = spec.get("replicas").and_then(Value::as_u64).unwrap_or(1);
    if scaled.iter().any(|key| kind.is(key)) && replicas > 0 {
        spec.insert("replicas".to_owned(), 0.into());
        annotate(object, REPLICAS, &replicas.to_string());
        changes.push(Change::Scaled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;
    use serde_json::json;

    #[test]
    fn cron_jobs_are_suspended() {
        let suspended =
            |annotations: Value| json!({"metadata": {"annotations": annotations}, "spec": {"suspend": true}});
        let noted = suspended(json!({SUSPEND: "false"}));
        for (key, object, expected) in [
            ("cronjobs.batch", json!({"metadata": {}, "spec": {}}), noted.clone()),
            ("cronjobs.batch", json!({"metadata": {}, "spec": {"suspend": false}}), noted),
            ("cronjobs.batch", suspended(json!({})), suspended(json!({}))),
            ("jobs.batch", json!({"metadata": {}, "spec": {}}), json!({"metadata": {}, "spec": {}})),
            ("cronjobs.batch", json!({"spec": "odd"}), json!({"spec": "odd"})),
        ] {
            let (mut object, mut changes) = (object, Vec::new());
            let before = object.clone();
            suspend(&kind(key, "X"), &mut object, &mut changes);
            assert_eq!((&object, changes.is_empty()), (&expected, before == expected), "{key} {before}");
        }
    }

    #[test]
    fn what_has_replicas_is_scaled_to_zero() {
        let scaled = |was: &str| json!({"metadata": {"annotations": {REPLICAS: was}}, "spec": {"replicas": 0}});
        let of = |replicas: Value| json!({"metadata": {}, "spec": {"replicas": replicas}});
        for (key, object, expected) in [
            ("deployments.apps", of(3.into()), scaled("3")),
            ("statefulsets.apps", json!({"metadata": {}, "spec": {}}), scaled("1")),
            ("replicasets.apps", of(2.into()), scaled("2")),
            ("replicationcontrollers", of(1.into()), scaled("1")),
            ("deployments.apps", of(0.into()), of(0.into())),
            ("daemonsets.apps", of(3.into()), of(3.into())),
            ("deployments.example.com", of(3.into()), of(3.into())),
        ] {
            let (mut object, mut changes) = (object, Vec::new());
            let before = object.clone();
            scale_to_zero(&kind(key, "X"), &mut object, &mut changes);
            assert_eq!((&object, changes.is_empty()), (&expected, before == expected), "{key} {before}");
        }
    }
}
