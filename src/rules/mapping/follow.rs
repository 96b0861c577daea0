//! Where objects name namespaces, and follow when one is restored under another name. Only places stand here where the
//! API says that it is a namespace; what merely looks like one, such as a host name in an environment variable, is told
//! to the person instead.

use super::{NAME_LABEL, NamespaceMapping};
use crate::resource::Kind;
use crate::rules::walk::{each, each_pod_spec};
use serde_json::Value;

/// Fields that hold a namespace's name: group, resource (`*`: all of the group), path.
const NAMES: &[(&str, &str, &str)] = &[
    ("", "persistentvolumes", "spec/claimRef/namespace"),
    ("", "persistentvolumes", "spec/csi/controllerExpandSecretRef/namespace"),
    ("", "persistentvolumes", "spec/csi/controllerPublishSecretRef/namespace"),
    ("", "persistentvolumes", "spec/csi/nodeExpandSecretRef/namespace"),
    ("", "persistentvolumes", "spec/csi/nodePublishSecretRef/namespace"),
    ("", "persistentvolumes", "spec/csi/nodeStageSecretRef/namespace"),
    ("", "persistentvolumeclaims", "spec/dataSourceRef/namespace"),
    ("", "endpoints", "subsets/*/addresses/*/targetRef/namespace"),
    ("", "endpoints", "subsets/*/notReadyAddresses/*/targetRef/namespace"),
    ("discovery.k8s.io", "endpointslices", "endpoints/*/targetRef/namespace"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "webhooks/*/clientConfig/service/namespace"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "webhooks/*/clientConfig/service/namespace"),
    ("admissionregistration.k8s.io", "*", "spec/paramRef/namespace"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "spec/conversion/webhook/clientConfig/service/namespace"),
    ("apiregistration.k8s.io", "apiservices", "spec/service/namespace"),
    ("networking.k8s.io", "ingressclasses", "spec/parameters/namespace"),
    ("snapshot.storage.k8s.io", "volumesnapshotcontents", "spec/volumeSnapshotRef/namespace"),
    ("monitoring.coreos.com", "*", "spec/namespaceSelector/matchNames/*"),
    ("gateway.networking.k8s.io", "*", "spec/parentRefs/*/namespace"),
    ("gateway.networking.k8s.io", "*", "spec/rules/*/backendRefs/*/namespace"),
    ("gateway.networking.k8s.io", "*", "spec/listeners/*/tls/certificateRefs/*/namespace"),
    ("gateway.networking.k8s.io", "referencegrants", "spec/from/*/namespace"),
];

/// Label selectors for namespaces, which may choose them by name.
const SELECTORS: &[(&str, &str, &str)] = &[
    ("admissionregistration.k8s.io", "*", "webhooks/*/namespaceSelector"),
    ("admissionregistration.k8s.io", "*", "spec/matchConstraints/namespaceSelector"),
    ("admissionregistration.k8s.io", "*", "spec/matchResources/namespaceSelector"),
    ("networking.k8s.io", "networkpolicies", "spec/ingress/*/from/*/namespaceSelector"),
    ("networking.k8s.io", "networkpolicies", "spec/egress/*/to/*/namespaceSelector"),
    ("gateway.networking.k8s.io", "*", "spec/listeners/*/allowedRoutes/namespaces/selector"),
];

/// Where a pod says which pods it wants to be near to or far from.
const AFFINITY_TERMS: [&str; 4] = [
    "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/*",
    "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/*/podAffinityTerm",
    "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/*",
    "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/*/podAffinityTerm",
];

/// Annotations that hold `NAMESPACE/NAME`: where cert-manager finds the CA of webhooks, definitions and APIServices.
const QUALIFIED: [&str; 2] = ["cert-manager.io/inject-ca-from", "cert-manager.io/inject-ca-from-secret"];
/// Where Helm notes the namespace of an object's release.
const HELM: &str = "meta.helm.sh/release-namespace";

/// Maps the namespaces that an object names; whether any changed.
pub(super) fn references(mapping: &NamespaceMapping, kind: &Kind, object: &mut Value) -> bool {
    let mut changed = false;
    let mut map = |value: &mut Value| changed |= mapping.map_text(value);
    let concerns = |(group, resource, _): &&(&str, &str, &str)| {
        kind.group == *group && (*resource == "*" || kind.resource == *resource)
    };
    for (_, _, path) in NAMES.iter().filter(concerns) {
        each(object, path, &mut map);
    }
    for (_, _, path) in SELECTORS.iter().filter(concerns) {
        each(object, path, &mut |selector| by_name(selector, &mut map));
    }
    each_pod_spec(kind, object, &mut |spec| {
        for path in AFFINITY_TERMS {
            each(spec, &format!("{path}/namespaces/*"), &mut map);
            each(spec, &format!("{path}/namespaceSelector"), &mut |selector| by_name(selector, &mut map));
        }
    });
    each(object, "metadata/annotations", &mut |annotations| {
        annotations.get_mut(HELM).into_iter().for_each(&mut map);
        for key in QUALIFIED {
            annotations.get_mut(key).into_iter().for_each(|value| qualified(value, &mut map));
        }
    });
    if kind.group == "rbac.authorization.k8s.io" {
        each(object, "subjects/*", &mut |subject| map_subject(subject, &mut map));
    }
    changed
}

/// The part of a selector that chooses namespaces by name; other labels are a person's, and stay.
fn by_name(selector: &mut Value, map: &mut impl FnMut(&mut Value)) {
    each(selector, "matchLabels", &mut |labels| labels.get_mut(NAME_LABEL).into_iter().for_each(&mut *map));
    each(selector, "matchExpressions/*", &mut |expression| {
        if expression.get("key").and_then(Value::as_str) == Some(NAME_LABEL) {
            each(expression, "values/*", map);
        }
    });
}

/// `NAMESPACE/NAME`.
fn qualified(value: &mut Value, map: &mut impl FnMut(&mut Value)) {
    let Some((namespace, name)) = value.as_str().and_then(|text| text.split_once('/')) else { return };
    let (mut namespace, name) = (Value::from(namespace), name.to_owned());
    map(&mut namespace);
    *value = format!("{}/{name}", namespace.as_str().unwrap_or_default()).into();
}

const ACCOUNT: &str = "system:serviceaccount:";
const ACCOUNTS: &str = "system:serviceaccounts:";

/// A service account, or a group or user that stands for some.
fn map_subject(subject: &mut Value, map: &mut impl FnMut(&mut Value)) {
    if subject.get("kind").and_then(Value::as_str) == Some("ServiceAccount") {
        return each(subject, "namespace", map);
    }
    let name = subject.get("name").and_then(Value::as_str).unwrap_or("");
    let (before, namespace, after) = if let Some(namespace) = name.strip_prefix(ACCOUNTS) {
        (ACCOUNTS, namespace, String::new())
    } else if let Some((namespace, account)) = name.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':')) {
        (ACCOUNT, namespace, format!(":{account}"))
    } else {
        return;
    };
    let mut namespace = Value::from(namespace);
    map(&mut namespace);
    subject["name"] = format!("{before}{}{after}", namespace.as_str().unwrap_or_default()).into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;
    use serde_json::json;

    const WEBHOOKS: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";
    const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
    const BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";
    const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

    fn selector(namespace: &str) -> Value {
        json!({"matchLabels": {NAME_LABEL: namespace, "team": "a"},
            "matchExpressions": [{"key": NAME_LABEL, "operator": "In", "values": [namespace, "x"]}, {"key": "team", "operator": "In", "values": ["a"]}]})
    }

    fn service(namespace: &str) -> Value {
        json!({"service": {"namespace": namespace, "name": "a"}})
    }

    fn pod(namespace: &str) -> Value {
        let term =
            json!({"namespaces": [namespace, "x"], "namespaceSelector": selector(namespace), "topologyKey": "a"});
        let both = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term],
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]});
        json!({"affinity": {"podAffinity": both, "podAntiAffinity": both}})
    }

    /// A kind, and an object of it that names a namespace.
    type Case = (&'static str, fn(&str) -> Value);

    fn cases() -> Vec<Case> {
        vec![
            (
                "persistentvolumes",
                |n| json!({"spec": {"claimRef": {"namespace": n, "name": "a"}, "csi": {"nodeStageSecretRef": {"namespace": n, "name": "a"}}}}),
            ),
            ("persistentvolumeclaims", |n| json!({"spec": {"dataSourceRef": {"namespace": n, "name": "a"}}})),
            (
                "endpoints",
                |n| json!({"subsets": [{"addresses": [{"targetRef": {"namespace": n}}], "notReadyAddresses": [{"targetRef": {"namespace": n}}]}]}),
            ),
            ("endpointslices.discovery.k8s.io", |n| json!({"endpoints": [{"targetRef": {"namespace": n}}]})),
            (
                WEBHOOKS,
                |n| json!({"webhooks": [{"clientConfig": service(n), "namespaceSelector": selector(n)}, {"clientConfig": {"url": "a"}}]}),
            ),
            (POLICIES, |n| json!({"spec": {"matchConstraints": {"namespaceSelector": selector(n)}}})),
            (
                BINDINGS,
                |n| json!({"spec": {"paramRef": {"namespace": n}, "matchResources": {"namespaceSelector": selector(n)}}}),
            ),
            (DEFINITIONS, |n| json!({"spec": {"conversion": {"webhook": {"clientConfig": service(n)}}}})),
            ("apiservices.apiregistration.k8s.io", |n| json!({"spec": service(n)})),
            (
                "networkpolicies.networking.k8s.io",
                |n| json!({"spec": {"ingress": [{"from": [{"namespaceSelector": selector(n)}]}], "egress": [{"to": [{"namespaceSelector": selector(n)}, {"podSelector": {}}]}]}}),
            ),
            ("ingressclasses.networking.k8s.io", |n| json!({"spec": {"parameters": {"namespace": n, "name": "a"}}})),
            (
                "servicemonitors.monitoring.coreos.com",
                |n| json!({"spec": {"namespaceSelector": {"matchNames": [n, "x"]}}}),
            ),
            (
                "httproutes.gateway.networking.k8s.io",
                |n| json!({"spec": {"parentRefs": [{"namespace": n, "name": "a"}], "rules": [{"backendRefs": [{"namespace": n, "name": "a"}]}]}}),
            ),
            (
                "gateways.gateway.networking.k8s.io",
                |n| json!({"spec": {"listeners": [{"tls": {"certificateRefs": [{"namespace": n}]}, "allowedRoutes": {"namespaces": {"selector": selector(n)}}}]}}),
            ),
            (
                "referencegrants.gateway.networking.k8s.io",
                |n| json!({"spec": {"from": [{"namespace": n, "kind": "HTTPRoute"}]}}),
            ),
            (
                "volumesnapshotcontents.snapshot.storage.k8s.io",
                |n| json!({"spec": {"volumeSnapshotRef": {"namespace": n}}}),
            ),
            ("pods", |n| json!({"spec": pod(n)})),
            ("deployments.apps", |n| json!({"spec": {"template": {"spec": pod(n)}}})),
            ("cronjobs.batch", |n| json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": pod(n)}}}}})),
            (
                "rolebindings.rbac.authorization.k8s.io",
                |n| json!({"subjects": [{"kind": "ServiceAccount", "namespace": n, "name": "a"}]}),
            ),
            (
                "clusterrolebindings.rbac.authorization.k8s.io",
                |n| json!({"subjects": [{"kind": "Group", "name": format!("system:serviceaccounts:{n}")}, {"kind": "User", "name": format!("system:serviceaccount:{n}:a")}]}),
            ),
            (
                "widgets.example.com",
                |n| json!({"metadata": {"annotations": {HELM: n, "cert-manager.io/inject-ca-from": format!("{n}/a")}}}),
            ),
        ]
    }

    #[test]
    fn what_names_a_namespace_follows_it() {
        let mapping = NamespaceMapping::parse(&["a=b", "b=c"]).unwrap();
        for (key, of) in cases() {
            for (from, to) in [("a", "b"), ("b", "c"), ("z", "z")] {
                let mut object = of(from);
                let changed = references(&mapping, &kind(key, "X"), &mut object);
                assert_eq!((&object, changed), (&of(to), from != to), "{key} {from}");
            }
        }
    }

    #[test]
    fn every_place_is_reached_by_a_case() {
        for (group, resource, path) in NAMES.iter().chain(SELECTORS) {
            let reached = cases().iter().any(|(key, of)| {
                let kind = kind(key, "X");
                let mut found = false;
                each(&mut of("a"), path, &mut |_| found = true);
                found && kind.group == *group && (*resource == "*" || kind.resource == *resource)
            });
            // the other secrets of a CSI volume are spelled alike
            assert!(
                reached || path.contains("SecretRef") || *resource == "mutatingwebhookconfigurations",
                "{group} {path}"
            );
        }
    }

    #[test]
    fn what_only_looks_like_a_namespace_stays() {
        let mapping = NamespaceMapping::parse(&["a=b"]).unwrap();
        for (key, object) in [
            ("configmaps", json!({"spec": {"claimRef": {"namespace": "a"}}, "data": {"host": "db.a.svc"}})),
            (
                "rolebindings.rbac.authorization.k8s.io",
                json!({"subjects": [{"kind": "User", "name": "a"}, {"kind": "User", "name": "system:serviceaccount:x:a"}]}),
            ),
            ("rolebindings.rbac.authorization.k8s.io", json!({"subjects": null})),
            (
                "networkpolicies.networking.k8s.io",
                json!({"spec": {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}]}}),
            ),
        ] {
            let mut mapped = object.clone();
            assert!(!references(&mapping, &kind(key, "X"), &mut mapped), "{key}");
            assert_eq!(mapped, object);
        }
    }
}
