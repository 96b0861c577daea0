//! What every Kubernetes has: the API groups that need no CustomResourceDefinition, and the short names that kubectl
//! takes where discovery can't be asked.

use crate::resource::Kind;

/// The groups that the API server and its aggregator serve themselves (`k8s.io/kubernetes/pkg/controlplane`,
/// `kube-aggregator`, `apiextensions-apiserver`). Other groups below `k8s.io`, such as `snapshot.storage.k8s.io`, come
/// from CustomResourceDefinitions or aggregated servers.
const GROUPS: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "imagepolicy.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// The short names that a current API server gives its own kinds in discovery.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("certificatesigningrequests.certificates.k8s.io", "csr"),
    ("componentstatuses", "cs"),
    ("configmaps", "cm"),
    ("cronjobs.batch", "cj"),
    ("customresourcedefinitions.apiextensions.k8s.io", "crd"),
    ("customresourcedefinitions.apiextensions.k8s.io", "crds"),
    ("daemonsets.apps", "ds"),
    ("deployments.apps", "deploy"),
    ("endpoints", "ep"),
    ("events", "ev"),
    ("events.events.k8s.io", "ev"),
    ("horizontalpodautoscalers.autoscaling", "hpa"),
    ("ingresses.networking.k8s.io", "ing"),
    ("ipaddresses.networking.k8s.io", "ip"),
    ("limitranges", "limits"),
    ("namespaces", "ns"),
    ("networkpolicies.networking.k8s.io", "netpol"),
    ("nodes", "no"),
    ("persistentvolumeclaims", "pvc"),
    ("persistentvolumes", "pv"),
    ("poddisruptionbudgets.policy", "pdb"),
    ("pods", "po"),
    ("priorityclasses.scheduling.k8s.io", "pc"),
    ("replicasets.apps", "rs"),
    ("replicationcontrollers", "rc"),
    ("resourcequotas", "quota"),
    ("serviceaccounts", "sa"),
    ("services", "svc"),
    ("statefulsets.apps", "sts"),
    ("storageclasses.storage.k8s.io", "sc"),
    ("volumeattributesclasses.storage.k8s.io", "vac"),
];

/// Whether the group is one that every Kubernetes serves by itself.
pub fn is_built_in(group: &str) -> bool {
    GROUPS.binary_search(&group).is_ok()
}

/// The short names of one of Kubernetes' own kinds; empty for all others.
pub fn short_names(kind: &Kind) -> impl Iterator<Item = &'static str> {
    SHORT_NAMES.iter().filter(|(key, _)| kind.is(key)).map(|(_, short)| *short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;

    #[test]
    fn groups_are_found() {
        assert!(GROUPS.is_sorted(), "binary search needs it");
        for group in GROUPS {
            assert!(is_built_in(group), "{group}");
        }
        for group in ["snapshot.storage.k8s.io", "metrics.k8s.io", "gateway.networking.k8s.io", "k8s.io", "example.com"]
        {
            assert!(!is_built_in(group), "{group}");
        }
    }

    #[test]
    fn short_names_are_of_one_kind() {
        let of = |key| short_names(&kind(key, "X")).collect::<Vec<_>>();
        assert_eq!(of("customresourcedefinitions.apiextensions.k8s.io"), ["crd", "crds"]);
        assert_eq!(of("services"), ["svc"]);
        assert_eq!(of("services.serving.knative.dev"), [""; 0]);
    }
}
