//! What is worth a word, how it is recognised, and the word.

use super::super::Labels;
use crate::resource::Kind;
use crate::rules::mapping::NamespaceMapping;
use crate::rules::walk::{CONTAINERS, pod_spec};
use serde_json::Value;
use std::collections::BTreeSet;

/// Something that a plan names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Topic {
    ClusterAdmin,
    Rbac,
    Admission,
    Definitions,
    NodePower,
    RoleArn,
    LoadBalancer,
    TargetGroup,
    ExternalDns,
    Disk,
    NodeName,
    HostOfNamespace,
    Autoscaler,
}

impl Topic {
    /// `2 service accounts have an AWS role`.
    pub(super) fn counted(self, count: usize) -> String {
        let (one, many) = match self {
            Self::ClusterAdmin => ("binding gives", "bindings give"),
            Self::Rbac => ("role or binding", "roles and bindings"),
            Self::Admission => {
                ("webhook, admission policy or API service", "webhooks, admission policies and API services")
            }
            Self::Definitions => ("custom resource definition", "custom resource definitions"),
            Self::NodePower => ("object makes pods", "objects make pods"),
            Self::RoleArn => ("service account has", "service accounts have"),
            Self::LoadBalancer => ("object names", "objects name"),
            Self::TargetGroup => ("TargetGroupBinding", "TargetGroupBindings"),
            Self::ExternalDns => ("object has", "objects have"),
            Self::Disk => ("volume names", "volumes name"),
            Self::NodeName => ("object wants", "objects want"),
            Self::HostOfNamespace => ("object may name", "objects may name"),
            Self::Autoscaler => ("autoscaler", "autoscalers"),
        };
        let what = match self {
            Self::ClusterAdmin => " the rights of cluster-admin",
            Self::NodePower => " with power over their node: privileged, in its namespaces, or with its files",
            Self::RoleArn => " an AWS role",
            Self::LoadBalancer => " a load balancer, address, certificate or subnet of AWS",
            Self::ExternalDns => " a DNS name that external-dns sets",
            Self::Disk => " a disk of the old place",
            Self::NodeName => " a node by its name",
            Self::HostOfNamespace => " a host in a namespace that is mapped",
            Self::Rbac | Self::Admission | Self::Definitions | Self::TargetGroup | Self::Autoscaler => "",
        };
        format!("{count} {}{what}", if count == 1 { one } else { many })
    }

    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::ClusterAdmin | Self::Rbac => "look whether their subjects are to have these rights here",
            Self::Admission => "they see or answer requests of others; look whether what they call runs here",
            Self::Definitions => "they are cluster-wide, for all namespaces",
            Self::NodePower => "such pods can reach everything on the machine they run on",
            Self::RoleArn => {
                "the role's trust policy must name this cluster's OIDC provider and the service account's namespace here"
            }
            Self::LoadBalancer => "it may still serve the old place; change it with `--modifiers`",
            Self::TargetGroup => {
                "two clusters would register their pods in one target group; change it with `--modifiers`"
            }
            Self::ExternalDns => "the name would move here, or two clusters fight over it; change it with `--map-host`",
            Self::Disk => "it must be in reach of this cluster's nodes, and not be used by the old one any more",
            Self::NodeName => {
                "no node here has the name, and the pods would stay pending; change it with `--modifiers`"
            }
            Self::Autoscaler => "they leave alone what has no replicas, and take over once it has some",
            Self::HostOfNamespace => "host names in texts stay as they are; change them with `--modifiers`",
        }
    }
}

/// What a kind alone tells.
pub(super) fn by_kind(kind: &Kind) -> BTreeSet<Topic> {
    let topic = match (kind.group.as_str(), kind.resource.as_str()) {
        ("rbac.authorization.k8s.io", _) => Topic::Rbac,
        ("admissionregistration.k8s.io", _) | ("apiregistration.k8s.io", "apiservices") => Topic::Admission,
        ("apiextensions.k8s.io", _) => Topic::Definitions,
        _ => return BTreeSet::new(),
    };
    BTreeSet::from([topic])
}

/// Annotations by which the AWS controllers are told of one very thing, by the ends of their keys.
const AWS_NAMES: &[&str] = &[
    "load-balancer-name",
    "load-balancer-eip-allocations",
    "load-balancer-private-ipv4-addresses",
    "load-balancer-subnets",
    "load-balancer-security-groups",
    "load-balancer-ssl-cert",
    "/certificate-arn",
    "/subnets",
    "/security-groups",
    "/wafv2-acl-arn",
    "/group.name",
];
const AWS_PREFIXES: [&str; 2] = ["service.beta.kubernetes.io/aws-", "alb.ingress.kubernetes.io/"];

/// What an object's annotations and kind bind to the old place, wherever it goes to another cluster or namespace.
pub(super) fn bound(kind: &Kind, annotations: &Labels<'_>) -> BTreeSet<Topic> {
    let mut topics = BTreeSet::new();
    if kind.is("serviceaccounts") && annotations.get("eks.amazonaws.com/role-arn").is_some() {
        topics.insert(Topic::RoleArn);
    }
    let is_aws = |key: &str| {
        AWS_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) && AWS_NAMES.iter().any(|end| key.ends_with(end))
    };
    if annotations.keys().any(is_aws) {
        topics.insert(Topic::LoadBalancer);
    }
    if annotations.get("external-dns.alpha.kubernetes.io/hostname").is_some() {
        topics.insert(Topic::ExternalDns);
    }
    if kind.is("targetgroupbindings.elbv2.k8s.aws") {
        topics.insert(Topic::TargetGroup);
    }
    topics
}

/// Whether [`in_object`] has to look into objects of a kind.
pub(super) fn is_read_whole(kind: &Kind) -> bool {
    let kinds = [
        "services",
        "persistentvolumes",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "customresourcedefinitions.apiextensions.k8s.io",
    ];
    pod_spec(kind).is_some() || kinds.iter().any(|key| kind.is(key))
}

/// What only the whole object tells.
pub(super) fn in_object(kind: &Kind, object: &Value, other_cluster: bool, is_mapped: bool) -> BTreeSet<Topic> {
    let mut topics = BTreeSet::new();
    let mut add = |topic: Topic, is_so: bool| {
        if is_so {
            topics.insert(topic);
        }
    };
    let spec = |field: &str| object.get("spec").and_then(|spec| spec.get(field));
    let is_filled = |value: Option<&Value>| match value {
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        _ => false,
    };
    match kind.resource.as_str() {
        "services" => {
            let has_address = is_filled(spec("loadBalancerIP")) || is_filled(spec("externalIPs"));
            add(Topic::LoadBalancer, (other_cluster || is_mapped) && has_address);
        }
        "persistentvolumes" => {
            let names_disk = ["/csi/volumeHandle", "/awsElasticBlockStore/volumeID"];
            let spec = object.get("spec").unwrap_or(&Value::Null);
            add(Topic::Disk, other_cluster && names_disk.iter().any(|pointer| is_filled(spec.pointer(pointer))));
            add(Topic::NodeName, other_cluster && names_node(spec.get("nodeAffinity")));
        }
        "clusterrolebindings" => {
            let role = object.pointer("/roleRef/name").and_then(Value::as_str);
            add(Topic::ClusterAdmin, role == Some("cluster-admin"));
        }
        _ => {
            let pointer = pod_spec(kind).map(|path| format!("/{path}"));
            if let Some(pod) = pointer.and_then(|pointer| object.pointer(&pointer)) {
                add(Topic::NodePower, has_node_power(pod));
                add(
                    Topic::NodeName,
                    other_cluster && (names_node(pod.get("nodeSelector")) || names_node(pod.get("affinity"))),
                );
            }
        }
    }
    topics
}

fn has_node_power(pod: &Value) -> bool {
    let is_true = |value: Option<&Value>| value == Some(&Value::Bool(true));
    let items = |field: &str| pod.get(field).and_then(Value::as_array).into_iter().flatten();
    let mut containers = CONTAINERS.iter().flat_map(|list| items(list));
    ["hostNetwork", "hostPID", "hostIPC"].iter().any(|field| is_true(pod.get(*field)))
        || items("volumes").any(|volume| volume.get("hostPath").is_some())
        || containers.any(|container| is_true(container.pointer("/securityContext/privileged")))
}

const HOST_NAME: &str = "kubernetes.io/hostname";

/// Whether a node selector (a map, or terms with `key`s) chooses nodes by their names. Spreading over names
/// (`topologyKey`) is no choice.
fn names_node(selector: Option<&Value>) -> bool {
    match selector {
        Some(Value::Object(map)) => {
            map.contains_key(HOST_NAME)
                || map.get("key").and_then(Value::as_str) == Some(HOST_NAME)
                || map.values().any(|value| names_node(Some(value)))
        }
        Some(Value::Array(items)) => items.iter().any(|item| names_node(Some(item))),
        _ => false,
    }
}

/// Whether a definition's kind has a status subresource in all its versions.
pub(super) fn has_status_subresource(definition: &Value) -> bool {
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    versions.is_some_and(|versions| versions.iter().all(|version| version.pointer("/subresources/status").is_some()))
}

/// Whether a text holds what looks like a host in one of the mapped namespaces: `db.shop.svc`, `db.shop:5432`, `"db.shop"`.
/// One pass for all of them: a person may map hundreds.
pub(super) fn names_host(raw: &str, mapping: &NamespaceMapping) -> bool {
    raw.match_indices('.').any(|(at, _)| {
        let behind = &raw[at + 1..];
        let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(behind.len());
        let (label, rest) = behind.split_at(end);
        let is_host = raw[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        is_host
            && (rest.starts_with(".svc") || rest.starts_with(['"', ':', '/', ',', ' ', '\\']))
            && mapping.maps(label)
    })
}
