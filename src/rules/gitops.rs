//! Objects that Argo CD, Flux or Helm look after, known by the marks that these put on them. A controller that finds its
//! mark on an object in another namespace takes it for its own: it would prune it, or fight over it. So the marks come
//! off where an object is restored under another namespace.

use super::Labels;
use serde_json::Value;
use std::fmt;

/// What looks after an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Manager {
    /// Argo CD, by tracking annotation or its own instance label. (`app.kubernetes.io/instance` says nothing: charts set
    /// it as well.)
    ArgoCd,
    /// Flux's kustomize controller or helm controller.
    Flux,
    /// Helm, run by a person or a pipeline.
    Helm,
}

const ARGO_ANNOTATION: &str = "argocd.argoproj.io/tracking-id";
const ARGO_LABEL: &str = "argocd.argoproj.io/instance";
const FLUX_KUSTOMIZE: [&str; 2] = ["kustomize.toolkit.fluxcd.io/name", "kustomize.toolkit.fluxcd.io/namespace"];
const FLUX_HELM: [&str; 2] = ["helm.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/namespace"];
const HELM_RELEASE: &str = "meta.helm.sh/release-name";

/// What looks after an object, and the name of its application, kustomization or release there.
pub fn managed_by(labels: &Labels<'_>, annotations: &Labels<'_>) -> Option<(Manager, String)> {
    if let Some(id) = annotations.get(ARGO_ANNOTATION) {
        // APPLICATION:GROUP/KIND:NAMESPACE/NAME
        return Some((Manager::ArgoCd, id.split(':').next().unwrap_or(id).to_owned()));
    }
    if let Some(application) = labels.get(ARGO_LABEL) {
        return Some((Manager::ArgoCd, application.to_owned()));
    }
    for ([name, namespace], what) in [(FLUX_KUSTOMIZE, "kustomization"), (FLUX_HELM, "helmrelease")] {
        if let Some(name) = labels.get(name) {
            return Some((Manager::Flux, format!("{what} {}/{name}", labels.get(namespace).unwrap_or("?"))));
        }
    }
    annotations.get(HELM_RELEASE).map(|release| (Manager::Helm, release.to_owned()))
}

/// Takes off the marks by which Argo CD and Flux would know the object; whether there were any. Helm's stay: a release
/// of that name in the new namespace may adopt the object by them.
pub(super) fn strip_tracking(object: &mut Value) -> bool {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return false };
    let mut any = false;
    let labels = FLUX_KUSTOMIZE.into_iter().chain(FLUX_HELM).chain([ARGO_LABEL]);
    for (field, keys) in [("labels", labels.collect::<Vec<_>>()), ("annotations", vec![ARGO_ANNOTATION])] {
        let Some(Value::Object(map)) = metadata.get_mut(field) else { continue };
        let before = map.len();
        map.retain(|key, _| !keys.contains(&key.as_str()));
        any |= map.len() < before;
        if map.is_empty() && before > 0 {
            metadata.remove(field);
        }
    }
    any
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ArgoCd => "Argo CD",
            Self::Flux => "Flux",
            Self::Helm => "Helm",
        })
    }
}

impl Manager {
    /// What a person should know who restores such objects where they were.
    pub fn advice(self) -> &'static str {
        match self {
            Self::ArgoCd => {
                "it puts back what differs from Git; to keep what is restored, stop its automatic sync (`argocd app set NAME --sync-policy none`)"
            }
            Self::Flux => {
                "it puts back what differs from Git; to keep what is restored, suspend it (`flux suspend kustomization|helmrelease NAME -n NAMESPACE`)"
            }
            Self::Helm => {
                "its records of the release are restored with them, so that `helm history` tells of the backup's time"
            }
        }
    }

    /// What a person should know where such objects go to another namespace.
    pub fn advice_elsewhere(self) -> &'static str {
        match self {
            Self::ArgoCd | Self::Flux => {
                "its tracking marks are taken off what goes to another namespace, so that it leaves that alone"
            }
            Self::Helm => {
                "its records of the release stay behind: they name the old namespace, where `helm uninstall` would reach the original; `helm upgrade --install` there adopts what is restored"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(json: &str) -> Labels<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn managers_are_known_by_their_marks() {
        for (on_labels, on_annotations, expected) in [
            (
                "{}",
                r#"{"argocd.argoproj.io/tracking-id":"shop:apps/Deployment:shop/web"}"#,
                Some((Manager::ArgoCd, "shop")),
            ),
            (r#"{"argocd.argoproj.io/instance":"shop"}"#, "{}", Some((Manager::ArgoCd, "shop"))),
            (
                r#"{"kustomize.toolkit.fluxcd.io/name":"apps","kustomize.toolkit.fluxcd.io/namespace":"flux-system"}"#,
                "{}",
                Some((Manager::Flux, "kustomization flux-system/apps")),
            ),
            (
                r#"{"helm.toolkit.fluxcd.io/name":"db","helm.toolkit.fluxcd.io/namespace":"shop"}"#,
                r#"{"meta.helm.sh/release-name":"db"}"#,
                Some((Manager::Flux, "helmrelease shop/db")),
            ),
            (
                r#"{"app.kubernetes.io/managed-by":"Helm"}"#,
                r#"{"meta.helm.sh/release-name":"db"}"#,
                Some((Manager::Helm, "db")),
            ),
            (r#"{"app.kubernetes.io/managed-by":"Helm","app.kubernetes.io/instance":"db"}"#, "{}", None),
            ("{}", "{}", None),
        ] {
            let found = managed_by(&labels(on_labels), &labels(on_annotations));
            assert_eq!(
                found,
                expected.map(|(manager, name)| (manager, name.to_owned())),
                "{on_labels} {on_annotations}"
            );
        }
    }

    #[test]
    fn tracking_marks_come_off_and_others_stay() {
        let mut object = json!({"metadata": {
            "labels": {"argocd.argoproj.io/instance": "a", "helm.toolkit.fluxcd.io/name": "a", "kustomize.toolkit.fluxcd.io/namespace": "a", "app": "a"},
            "annotations": {"argocd.argoproj.io/tracking-id": "a"}}});
        assert!(strip_tracking(&mut object));
        assert_eq!(object, json!({"metadata": {"labels": {"app": "a"}}}));
        for object in
            [json!({"metadata": {"annotations": {"meta.helm.sh/release-name": "a"}, "labels": {}}}), json!({})]
        {
            let mut same = object.clone();
            assert!(!strip_tracking(&mut same));
            assert_eq!(same, object);
        }
    }
}
