//! The order of a restore: [`Wave`] by wave, each ended before the next begins, so that what is created finds what it
//! refers to. Within a wave order doesn't matter; what fails because another isn't there yet is tried again.

use super::builtin;
use crate::resource::Kind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A step of a restore. The order of the variants is the order of the waves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Wave {
    /// CustomResourceDefinitions; ends when they are served.
    Definitions,
    /// Namespaces.
    Namespaces,
    /// Cluster-wide policy and storage: classes of all sorts, CSI drivers, flow control.
    ClusterPolicy,
    /// Volumes, claims and snapshots. Ends when they are written, not bound: claims may wait for their first consumer.
    Volumes,
    /// ConfigMaps, limits (pods get their defaults from them), templates.
    Config,
    /// Service accounts; before Secrets, for a token's Secret is refused without its account.
    ServiceAccounts,
    /// Secrets.
    Secrets,
    /// Roles and bindings.
    Rbac,
    /// Network policies, so that no workload starts without them, and services, so that none misses its neighbours.
    Network,
    /// Pods and what makes pods.
    Workloads,
    /// Objects of kinds that are defined in the cluster; after the workloads, among which are their controllers.
    CustomResources,
    /// Autoscalers, disruption budgets, ingresses (traffic comes when there is something to answer) and quotas (the API
    /// server refuses everything that a quota counts until it was counted once).
    Rest,
    /// Webhooks and admission policies, which could refuse what is restored, and APIServices, whose backends are workloads.
    Admission,
}

impl Wave {
    /// All waves in order.
    pub const ALL: [Self; 13] = [
        Self::Definitions,
        Self::Namespaces,
        Self::ClusterPolicy,
        Self::Volumes,
        Self::Config,
        Self::ServiceAccounts,
        Self::Secrets,
        Self::Rbac,
        Self::Network,
        Self::Workloads,
        Self::CustomResources,
        Self::Rest,
        Self::Admission,
    ];
}

impl fmt::Display for Wave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Definitions => "custom resource definitions",
            Self::Namespaces => "namespaces",
            Self::ClusterPolicy => "cluster-wide policy and storage",
            Self::Volumes => "volumes and claims",
            Self::Config => "config",
            Self::ServiceAccounts => "service accounts",
            Self::Secrets => "secrets",
            Self::Rbac => "roles and bindings",
            Self::Network => "network policies and services",
            Self::Workloads => "workloads",
            Self::CustomResources => "custom resources",
            Self::Rest => "autoscalers and the rest",
            Self::Admission => "webhooks and API services",
        })
    }
}

/// The wave in which objects of a kind are created, owners aside (see `owners::places`).
pub fn wave_of(kind: &Kind) -> Wave {
    match (kind.group.as_str(), kind.resource.as_str()) {
        ("apiextensions.k8s.io", _) => Wave::Definitions,
        ("", "namespaces") => Wave::Namespaces,
        ("scheduling.k8s.io" | "node.k8s.io" | "flowcontrol.apiserver.k8s.io" | "storage.k8s.io", _)
        | ("networking.k8s.io", "ingressclasses" | "servicecidrs")
        | ("resource.k8s.io", "deviceclasses")
        | ("snapshot.storage.k8s.io", "volumesnapshotclasses")
        | ("groupsnapshot.storage.k8s.io", "volumegroupsnapshotclasses") => Wave::ClusterPolicy,
        ("", "persistentvolumes" | "persistentvolumeclaims")
        | ("snapshot.storage.k8s.io" | "groupsnapshot.storage.k8s.io", _) => Wave::Volumes,
        ("", "configmaps" | "limitranges" | "podtemplates") | ("resource.k8s.io", _) => Wave::Config,
        ("", "serviceaccounts") => Wave::ServiceAccounts,
        ("", "secrets") => Wave::Secrets,
        ("rbac.authorization.k8s.io", _) => Wave::Rbac,
        ("", "services" | "endpoints") | ("discovery.k8s.io", _) | ("networking.k8s.io", "networkpolicies") => {
            Wave::Network
        }
        ("", "pods" | "replicationcontrollers") | ("apps" | "batch", _) => Wave::Workloads,
        ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Wave::Admission,
        (group, _) if builtin::is_built_in(group) => Wave::Rest,
        _ => Wave::CustomResources,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;

    #[test]
    fn every_kind_has_its_wave() {
        for (wave, keys) in [
            (Wave::Definitions, "customresourcedefinitions.apiextensions.k8s.io"),
            (Wave::Namespaces, "namespaces"),
            (
                Wave::ClusterPolicy,
                "storageclasses.storage.k8s.io csidrivers.storage.k8s.io priorityclasses.scheduling.k8s.io",
            ),
            (Wave::ClusterPolicy, "ingressclasses.networking.k8s.io runtimeclasses.node.k8s.io"),
            (
                Wave::ClusterPolicy,
                "volumesnapshotclasses.snapshot.storage.k8s.io flowschemas.flowcontrol.apiserver.k8s.io",
            ),
            (Wave::Volumes, "persistentvolumes persistentvolumeclaims volumesnapshots.snapshot.storage.k8s.io"),
            (Wave::Config, "configmaps limitranges resourceclaims.resource.k8s.io"),
            (Wave::ServiceAccounts, "serviceaccounts"),
            (Wave::Secrets, "secrets"),
            (Wave::Rbac, "roles.rbac.authorization.k8s.io clusterrolebindings.rbac.authorization.k8s.io"),
            (Wave::Network, "services endpoints endpointslices.discovery.k8s.io networkpolicies.networking.k8s.io"),
            (
                Wave::Workloads,
                "pods deployments.apps statefulsets.apps jobs.batch cronjobs.batch replicationcontrollers",
            ),
            (
                Wave::CustomResources,
                "certificates.cert-manager.io gateways.gateway.networking.k8s.io services.serving.knative.dev",
            ),
            (Wave::Rest, "horizontalpodautoscalers.autoscaling poddisruptionbudgets.policy resourcequotas"),
            (Wave::Rest, "ingresses.networking.k8s.io"),
            (Wave::Admission, "validatingwebhookconfigurations.admissionregistration.k8s.io"),
            (
                Wave::Admission,
                "apiservices.apiregistration.k8s.io validatingadmissionpolicies.admissionregistration.k8s.io",
            ),
        ] {
            for key in keys.split(' ') {
                assert_eq!(wave_of(&kind(key, "X")), wave, "{key}");
            }
        }
    }

    #[test]
    fn waves_are_listed_in_their_order() {
        assert!(Wave::ALL.is_sorted_by(|a, b| a < b));
        assert_eq!((Wave::ALL[0], Wave::ALL[12] as usize), (Wave::Definitions, 12));
    }
}
