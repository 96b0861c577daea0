//! What a restore leaves out by rule: objects that tell of the old cluster and not of the application, and objects that
//! a controller makes anew. [`Facts`] is what these rules need to know of an object, in few bytes, because a restore
//! remembers it of every object.

use super::head::{Head, Reference};
use super::json::{Text, parse};
use super::kinds::KindRule;
use super::marks;
use super::owners::{Uid, is_taken_over};
use super::selection::Namespaces;
use super::{Error, Labels};
use crate::resource::{Kind, ObjectName};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What rules need to know of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    marks: u16,
    maker: Option<Maker>,
    owners: Box<[Uid]>,
}

/// One bit of [`Facts::marks`].
#[derive(Clone, Copy)]
#[repr(u16)]
enum Mark {
    Mirror = 1,
    Finished = 1 << 1,
    TokenOfAccount = 1 << 2,
    Bootstrap = 1 << 3,
    Registered = 1 << 4,
    Refreshed = 1 << 5,
    Managed = 1 << 6,
    Selects = 1 << 7,
    Finalizers = 1 << 8,
    Deleting = 1 << 9,
    OfRun = 1 << 10,
    Release = 1 << 11,
}

/// The place in [`MAKERS`] of what makes an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Maker(u8);

const FOLLOWS: &str = "it follows its Service";

/// What Kubernetes' own controllers make: the child's kind, the group and kind of the owner, and the reason for the plan.
/// Only pairs stand here whose owner makes its child anew. Others that have one of these owners, such as a ConfigMap that
/// an operator gave its own Deployment, or a claim with a StatefulSet (the data would be new, too), are restored.
const MAKERS: &[(&str, &str, &str, &str)] = &[
    ("pods", "apps", "ReplicaSet", "its ReplicaSet makes it anew"),
    ("pods", "apps", "StatefulSet", "its StatefulSet makes it anew"),
    ("pods", "apps", "DaemonSet", "its DaemonSet makes it anew"),
    ("pods", "batch", "Job", "its Job makes it anew"),
    ("pods", "", "ReplicationController", "its ReplicationController makes it anew"),
    ("pods", "", "Node", "its machine's kubelet makes it anew"),
    ("replicasets.apps", "apps", "Deployment", "its Deployment makes it anew"),
    ("jobs.batch", "batch", "CronJob", "its CronJob makes the next one"),
    ("controllerrevisions.apps", "apps", "StatefulSet", "its StatefulSet makes it anew"),
    ("controllerrevisions.apps", "apps", "DaemonSet", "its DaemonSet makes it anew"),
    ("endpointslices.discovery.k8s.io", "", "Service", FOLLOWS),
    ("endpointslices.discovery.k8s.io", "", "Endpoints", "it follows its Endpoints"),
    ("persistentvolumeclaims", "", "Pod", "its Pod asks for it in its own spec and gets it anew"),
    ("resourceclaims.resource.k8s.io", "", "Pod", "its Pod asks for it in its own spec and gets it anew"),
    ("policyendpoints.networking.k8s.aws", "networking.k8s.io", "NetworkPolicy", "it follows its NetworkPolicy"),
];

impl Facts {
    /// Reads the facts from an object's JSON.
    ///
    /// # Errors
    /// When it isn't shaped as an object of its kind.
    pub fn of(kind: &Kind, raw: &str) -> Result<Self, Error> {
        Self::of_head(kind, &Head::of(raw)?)
    }

    /// The same of an object that was read already.
    ///
    /// # Errors
    /// When it isn't shaped as an object of its kind.
    pub fn of_head(kind: &Kind, object: &Head<'_>) -> Result<Self, Error> {
        let metadata = &object.metadata;
        let references = metadata.owner_references.as_deref().unwrap_or_default();
        let maker =
            references.iter().filter(|owner| owner.controller == Some(true)).find_map(|owner| maker(kind, owner));
        let waits = |owner: &&Reference<'_>| !is_taken_over(kind, &owner.api_version, &owner.kind);
        // what a controller makes anew isn't created, and waits for nobody
        let owners = if maker.is_some() { &[] } else { references };
        let mut facts =
            Self { marks: 0, maker, owners: owners.iter().filter(waits).map(|owner| Uid::parse(&owner.uid)).collect() };
        // those of Kubernetes' own controllers are taken away wherever there is a cluster
        let foreign = |finalizer: &Text<'_>| !finalizer.starts_with("kubernetes.io/") && &**finalizer != "kubernetes";
        facts.mark(Mark::Finalizers, metadata.finalizers.iter().flatten().any(foreign));
        facts.mark(Mark::Deleting, metadata.deletion_timestamp.is_some());
        facts.mark(Mark::OfRun, metadata.labels.get(marks::ID).is_some());
        facts.mark_by_kind(kind, object)?;
        Ok(facts)
    }

    fn mark_by_kind(&mut self, kind: &Kind, object: &Head<'_>) -> Result<(), Error> {
        let (labels, annotations) = (&object.metadata.labels, &object.metadata.annotations);
        match (kind.group.as_str(), kind.resource.as_str()) {
            ("", "pods") => {
                self.mark(Mark::Mirror, annotations.get("kubernetes.io/config.mirror").is_some());
                self.mark(Mark::Finished, part::<Status<'_>>(object.status)?.is_finished());
            }
            ("batch", "jobs") => self.mark(Mark::Finished, part::<Status<'_>>(object.status)?.is_finished()),
            ("", "services") => self.mark(Mark::Selects, part::<ServiceSpec<'_>>(object.spec)?.selects()),
            ("", "secrets") => {
                self.mark(Mark::TokenOfAccount, is_token_of_account(object)?);
                self.mark(Mark::Release, &*part::<Text<'_>>(object.of_type)? == "helm.sh/release.v1");
            }
            // where Helm was told to keep its records in ConfigMaps
            ("", "configmaps") => {
                let is_record = object.metadata.name.starts_with("sh.helm.release.v1.");
                self.mark(Mark::Release, is_record && labels.has("owner", "helm"));
            }
            ("", "endpoints") => {
                self.mark(Mark::Managed, labels.has("endpoints.kubernetes.io/managed-by", "endpoint-controller"));
            }
            ("discovery.k8s.io", "endpointslices") => {
                let manager = labels.get("endpointslice.kubernetes.io/managed-by").unwrap_or("");
                let ours = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
                self.mark(Mark::Managed, ours.contains(&manager));
            }
            ("rbac.authorization.k8s.io", _) => {
                self.mark(Mark::Bootstrap, labels.has("kubernetes.io/bootstrapping", "rbac-defaults"));
            }
            ("flowcontrol.apiserver.k8s.io", _) => {
                self.mark(Mark::Refreshed, annotations.has("apf.kubernetes.io/autoupdate-spec", "true"));
            }
            ("apiregistration.k8s.io", "apiservices") => {
                self.mark(Mark::Registered, labels.get("kube-aggregator.kubernetes.io/automanaged").is_some());
            }
            _ => (),
        }
        Ok(())
    }

    fn mark(&mut self, mark: Mark, on: bool) {
        if on {
            self.marks |= mark as u16;
        }
    }

    fn has(&self, mark: Mark) -> bool {
        self.marks & mark as u16 != 0
    }

    /// The uids of its owners, as far as its creation has to wait for them; none where a controller makes it anew.
    pub fn owners(&self) -> &[Uid] {
        &self.owners
    }

    /// Whether it has finalizers of other controllers than Kubernetes' own: restored, it can't be deleted unless they run.
    pub fn has_finalizers(&self) -> bool {
        self.has(Mark::Finalizers)
    }

    /// Whether it was being deleted when it was backed up.
    pub fn was_being_deleted(&self) -> bool {
        self.has(Mark::Deleting)
    }

    /// Whether it is Helm's record of a release.
    pub fn is_release(&self) -> bool {
        self.has(Mark::Release)
    }

    /// Whether it is one of the RBAC objects that the API server makes, and repairs whenever it starts.
    pub fn is_bootstrap(&self) -> bool {
        self.has(Mark::Bootstrap)
    }
}

fn maker(kind: &Kind, owner: &Reference<'_>) -> Option<Maker> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    let at = MAKERS.iter().position(|(child, of, name, _)| kind.is(child) && *of == group && **name == *owner.kind)?;
    u8::try_from(at).ok().map(Maker)
}

/// What a restore must not touch unless it was asked to.
#[derive(Clone, Copy, Debug)]
pub struct Protected<'a> {
    /// Our own namespace. `None` where it is also the application's (`init --single-namespace`): then only what belongs
    /// to runs is left out.
    pub install_namespace: Option<&'a str>,
    /// The namespaces as they were asked for: `kube-system` and its like are restored when they are named, not when a
    /// glob catches them.
    pub asked: &'a Namespaces,
}

const MACHINE: &str = "it stands for a machine of the old cluster";
/// The snapshot controller acts on what it finds: of one with a claim or a volume as its source it takes a snapshot of what is
/// there now, and of one with the policy `Delete` whose snapshot is in the storage it removes that along.
const SNAPSHOT: &str = "it would take a new snapshot under the old name, or remove one that others use";
const DERIVED: &str = "it is made from what runs in the cluster, over and over";

/// The kinds that are never restored.
pub const NEVER_RESTORED: &[KindRule] = &[
    KindRule { kinds: "nodes", reason: MACHINE },
    KindRule { kinds: "csinodes.storage.k8s.io", reason: MACHINE },
    KindRule {
        kinds: "volumeattachments.storage.k8s.io",
        reason: "it says which machine of the old cluster has a volume",
    },
    KindRule { kinds: "csistoragecapacities.storage.k8s.io", reason: DERIVED },
    KindRule { kinds: "resourceslices.resource.k8s.io", reason: MACHINE },
    KindRule { kinds: "volumesnapshots.snapshot.storage.k8s.io", reason: SNAPSHOT },
    KindRule { kinds: "volumesnapshotcontents.snapshot.storage.k8s.io", reason: SNAPSHOT },
    KindRule { kinds: "volumegroupsnapshots.groupsnapshot.storage.k8s.io", reason: SNAPSHOT },
    KindRule { kinds: "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io", reason: SNAPSHOT },
    KindRule { kinds: "events", reason: "it tells what happened in the old cluster" },
    KindRule { kinds: "*.events.k8s.io", reason: "it tells what happened in the old cluster" },
    KindRule { kinds: "*.coordination.k8s.io", reason: "it says who leads or lives at the moment" },
    KindRule { kinds: "componentstatuses", reason: "it is computed when asked for" },
    KindRule { kinds: "*.metrics.k8s.io", reason: "it is measured when asked for" },
    KindRule { kinds: "*.custom.metrics.k8s.io", reason: "it is measured when asked for" },
    KindRule { kinds: "*.external.metrics.k8s.io", reason: "it is measured when asked for" },
    KindRule {
        kinds: "certificatesigningrequests.certificates.k8s.io",
        reason: "its signature would be the old cluster's",
    },
    KindRule { kinds: "ipaddresses.networking.k8s.io", reason: "the API server allots addresses anew" },
    KindRule { kinds: "*.internal.apiserver.k8s.io", reason: "it is the API server's own" },
    // EKS, Karpenter, Cilium, Calico: per machine, or the ledger of the old cluster's addresses
    KindRule { kinds: "cninodes.vpcresources.k8s.aws", reason: MACHINE },
    KindRule { kinds: "nodeclaims.karpenter.sh", reason: "it stands for a machine; restored, it would buy a new one" },
    KindRule { kinds: "ciliumnodes.cilium.io", reason: MACHINE },
    KindRule { kinds: "ciliumendpoints.cilium.io", reason: DERIVED },
    KindRule { kinds: "ciliumendpointslices.cilium.io", reason: DERIVED },
    KindRule { kinds: "ciliumidentities.cilium.io", reason: DERIVED },
    KindRule {
        kinds: "blockaffinities.crd.projectcalico.org",
        reason: "it says which machine of the old cluster has an address",
    },
    KindRule {
        kinds: "ipamblocks.crd.projectcalico.org",
        reason: "it says which pod of the old cluster has an address",
    },
    KindRule {
        kinds: "ipamhandles.crd.projectcalico.org",
        reason: "it says which pod of the old cluster has an address",
    },
];

const API_SERVERS: &str = "the API server makes it for itself";
const EKS: &str = "EKS makes it for itself, and it points at the old cluster's control plane";
const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// Single objects that are never restored: kind, namespace (`None`: any, or none), name, reason.
pub const NEVER_RESTORED_OBJECTS: &[(&str, Option<&str>, &str, &str)] = &[
    ("configmaps", None, "kube-root-ca.crt", "every namespace is given its own"),
    ("configmaps", None, "openshift-service-ca.crt", "every namespace is given its own"),
    ("configmaps", Some("kube-system"), "extension-apiserver-authentication", API_SERVERS),
    ("configmaps", Some("kube-system"), "aws-auth", "it says which machines and people may enter the old cluster"),
    ("services", Some("default"), "kubernetes", API_SERVERS),
    ("endpoints", Some("default"), "kubernetes", API_SERVERS),
    ("endpointslices.discovery.k8s.io", Some("default"), "kubernetes", API_SERVERS),
    ("servicecidrs.networking.k8s.io", None, "kubernetes", API_SERVERS),
    (VALIDATING, None, "vpc-resource-validating-webhook", EKS),
    (MUTATING, None, "vpc-resource-mutating-webhook", EKS),
    (MUTATING, None, "pod-identity-webhook", EKS),
];

const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Why an object is never restored, if it isn't.
pub fn never_restored(
    kind: &Kind,
    name: &ObjectName,
    facts: &Facts,
    protected: &Protected<'_>,
) -> Option<&'static str> {
    KindRule::first(NEVER_RESTORED, kind)
        .or_else(|| by_name(kind, name))
        .or_else(|| by_mark(facts))
        .or_else(|| by_namespace(kind, name, protected))
}

fn by_name(kind: &Kind, name: &ObjectName) -> Option<&'static str> {
    let is = |(key, namespace, called, _): &&(&str, Option<&str>, &str, &str)| {
        *called == name.name && kind.is(key) && (namespace.is_none() || *namespace == name.namespace.as_deref())
    };
    NEVER_RESTORED_OBJECTS.iter().find(is).map(|(_, _, _, reason)| *reason)
}

fn by_mark(facts: &Facts) -> Option<&'static str> {
    let reasons = [
        (Mark::Mirror, "a machine's kubelet makes it from its own files"),
        (Mark::Finished, "it had finished"),
        (Mark::TokenOfAccount, "the token was made for a service account of the old cluster"),
        (Mark::Bootstrap, API_SERVERS),
        (Mark::Registered, "the aggregator registers it by itself"),
        (Mark::Refreshed, API_SERVERS),
        (Mark::OfRun, "it belongs to a run of kubectl-backup"),
    ];
    reasons.into_iter().find(|(mark, _)| facts.has(*mark)).map(|(_, reason)| reason)
}

fn by_namespace(kind: &Kind, name: &ObjectName, protected: &Protected<'_>) -> Option<&'static str> {
    let own = kind.is("namespaces").then_some(name.name.as_str());
    let namespace = name.namespace.as_deref().or(own)?;
    match namespace {
        _ if protected.install_namespace == Some(namespace) => Some("kubectl-backup itself runs there"),
        _ if SYSTEM_NAMESPACES.contains(&namespace) && !protected.asked.names(namespace) => {
            Some("the cluster itself runs there; name the namespace to restore it")
        }
        _ => None,
    }
}

/// Why an object isn't restored because a controller of Kubernetes makes it anew. `service` is what is known of the
/// Service of the same namespace and name, for Endpoints; others need none.
///
/// What a controller of a custom kind owns is restored, after its owner and with its new uid: nobody knows here whether
/// that controller would make it anew, or runs at all.
pub fn made_by_controller(kind: &Kind, facts: &Facts, service: Option<&Facts>) -> Option<&'static str> {
    let follows = |service: &Facts| kind.is("endpoints") && service.has(Mark::Selects);
    if facts.has(Mark::Managed) || service.is_some_and(follows) {
        return Some(FOLLOWS);
    }
    MAKERS.get(usize::from(facts.maker?.0)).map(|(_, _, _, reason)| *reason)
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow)]
    completion_time: Text<'a>,
    #[serde(borrow)]
    conditions: Option<Vec<Condition<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition<'a> {
    #[serde(borrow, rename = "type")]
    of_type: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceSpec<'a> {
    #[serde(borrow, rename = "type")]
    of_type: Text<'a>,
    #[serde(borrow)]
    selector: Labels<'a>,
}

impl Status<'_> {
    /// A pod by its phase, a Job by its time of completion or, if it failed, by its condition.
    fn is_finished(&self) -> bool {
        let ended = |c: &Condition<'_>| matches!(&*c.of_type, "Complete" | "Failed") && &*c.status == "True";
        matches!(&*self.phase, "Succeeded" | "Failed")
            || !self.completion_time.is_empty()
            || self.conditions.iter().flatten().any(ended)
    }
}

impl ServiceSpec<'_> {
    fn selects(&self) -> bool {
        &*self.of_type != "ExternalName" && !self.selector.is_empty()
    }
}

/// Whether it is a token's Secret that the control plane made for a service account by itself, before 1.24: named
/// after the account. One that a person made for a token has a name of its own, and is restored without its token.
fn is_token_of_account(object: &Head<'_>) -> Result<bool, Error> {
    let account = object.metadata.annotations.get("kubernetes.io/service-account.name").unwrap_or("");
    let generated = object.metadata.name.strip_prefix(account).and_then(|rest| rest.strip_prefix("-token-"));
    Ok(generated.is_some_and(is_generated_suffix)
        && &*part::<Text<'_>>(object.of_type)? == "kubernetes.io/service-account-token")
}

fn part<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>) -> Result<T, Error> {
    raw.map_or_else(|| Ok(T::default()), |raw| parse(raw.get()))
}

/// Whether this is what `generateName` appends: five of the letters of `k8s.io/apimachinery/pkg/util/rand`.
pub(super) fn is_generated_suffix(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b))
}

#[cfg(test)]
mod tests;
