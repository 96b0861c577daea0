//! Fields that the API server lets nobody change, so that a plan says before the first write what an update would be
//! refused for. `tests/consistency/immutable.rs` tries every entry, and every exception, on a real API server; a field
//! that is missing here is refused when it is written.

use super::Change;
use crate::resource::Kind;
use crate::rules::quota::thousandths;
use serde_json::Value;

/// What of some kinds can't be changed.
#[derive(Debug)]
pub struct Fixed {
    /// The kinds' keys, with spaces between.
    pub kinds: &'static str,
    /// The fields, with all that is below them.
    pub roots: &'static [&'static str],
    /// Those below the roots that can be changed nevertheless, with all that is below them.
    pub except: &'static [&'static str],
}

/// The table. What depends on the object besides is in [`immutable`].
pub const FIXED: &[Fixed] = &[
    Fixed { kinds: "deployments.apps daemonsets.apps replicasets.apps", roots: &["spec.selector"], except: &[] },
    Fixed {
        kinds: "statefulsets.apps",
        roots: &["spec"],
        except: &[
            "spec.replicas",
            "spec.ordinals",
            "spec.template",
            "spec.updateStrategy",
            "spec.revisionHistoryLimit",
            "spec.persistentVolumeClaimRetentionPolicy",
            "spec.minReadySeconds",
        ],
    },
    Fixed {
        kinds: "jobs.batch",
        roots: &[
            "spec.selector",
            "spec.template",
            "spec.completions",
            "spec.completionMode",
            "spec.podFailurePolicy",
            "spec.successPolicy",
            "spec.backoffLimitPerIndex",
            "spec.managedBy",
        ],
        except: &[],
    },
    Fixed { kinds: "secrets", roots: &["type"], except: &[] },
    Fixed {
        kinds: "rolebindings.rbac.authorization.k8s.io clusterrolebindings.rbac.authorization.k8s.io",
        roots: &["roleRef"],
        except: &[],
    },
    Fixed {
        kinds: "services",
        roots: &[
            "spec.clusterIP",
            "spec.clusterIPs",
            "spec.ipFamilies",
            "spec.loadBalancerClass",
            "spec.healthCheckNodePort",
        ],
        except: &[],
    },
    Fixed { kinds: "persistentvolumeclaims", roots: &["spec", OLD_CLASS], except: &["spec.volumeAttributesClassName"] },
    Fixed {
        kinds: "persistentvolumes",
        roots: &["spec"],
        except: &[
            "spec.accessModes",
            "spec.capacity",
            "spec.claimRef",
            "spec.mountOptions",
            "spec.persistentVolumeReclaimPolicy",
            "spec.storageClassName",
            "spec.volumeAttributesClassName",
        ],
    },
    Fixed {
        kinds: "storageclasses.storage.k8s.io",
        roots: &["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"],
        except: &[],
    },
    Fixed { kinds: "volumeattributesclasses.storage.k8s.io", roots: &["driverName", "parameters"], except: &[] },
    Fixed {
        kinds: "csidrivers.storage.k8s.io",
        roots: &["spec.attachRequired", "spec.volumeLifecycleModes"],
        except: &[],
    },
    Fixed { kinds: "pods", roots: &["spec"], except: &[] },
    Fixed { kinds: "resourcequotas", roots: &["spec.scopes"], except: &[] },
    Fixed { kinds: "priorityclasses.scheduling.k8s.io", roots: &["value", "preemptionPolicy"], except: &[] },
    Fixed { kinds: "ingressclasses.networking.k8s.io", roots: &["spec.controller"], except: &[] },
    Fixed { kinds: "servicecidrs.networking.k8s.io", roots: &["spec.cidrs"], except: &[] },
    Fixed { kinds: "runtimeclasses.node.k8s.io", roots: &["handler"], except: &[] },
    Fixed { kinds: "endpointslices.discovery.k8s.io", roots: &["addressType"], except: &[] },
    Fixed { kinds: "controllerrevisions.apps", roots: &["data"], except: &[] },
    Fixed {
        kinds: "resourceclaims.resource.k8s.io resourceclaimtemplates.resource.k8s.io",
        roots: &["spec"],
        except: &[],
    },
    Fixed {
        kinds: "customresourcedefinitions.apiextensions.k8s.io",
        roots: &["spec.group", "spec.scope", "spec.names.kind", "spec.names.plural"],
        except: &[],
    },
];

/// The storage class of older claims.
const OLD_CLASS: &str = r#"metadata.annotations["volume.beta.kubernetes.io/storage-class"]"#;

/// What can be changed in the pod template of a Job as long as it is suspended; and resources of containers.
const OF_SUSPENDED: [&str; 6] = [
    "spec.template.metadata.annotations",
    "spec.template.metadata.labels",
    "spec.template.spec.affinity",
    "spec.template.spec.nodeSelector",
    "spec.template.spec.tolerations",
    "spec.template.spec.schedulingGates",
];

/// The first field among these changes that the API server lets nobody change. `live` is what is there.
pub fn immutable<'a>(kind: &Kind, live: &Value, changes: &'a [Change]) -> Option<&'a str> {
    let frozen = (kind.is("configmaps") || kind.is("secrets")) && live.get("immutable") == Some(&Value::Bool(true));
    let fixed = FIXED.iter().find(|fixed| fixed.kinds.split(' ').any(|key| kind.is(key)));
    let is_fixed = |change: &&Change| {
        let below = |roots: &[&str]| roots.iter().any(|root| is_below(&change.path, root));
        frozen && below(&["data", "binaryData", "immutable"])
            || fixed.is_some_and(|fixed| below(fixed.roots) && !below(fixed.except))
                && !is_let_through(kind, live, changes, change)
    };
    changes.iter().find(is_fixed).map(|change| change.path.as_str())
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether a change of such a field is one of the few that are taken.
fn is_let_through(kind: &Kind, live: &Value, changes: &[Change], change: &Change) -> bool {
    let path = change.path.as_str();
    let is_new = change.from.is_none();
    match (kind.group.as_str(), kind.resource.as_str()) {
        ("", "services") => of_service(live, changes, change),
        ("", "persistentvolumeclaims") => match path {
            "spec.volumeName" | "spec.storageClassName" => is_new,
            "spec.resources.requests.storage" => grows(live, change),
            _ => false,
        },
        ("", "persistentvolumes") => {
            is_new && matches!(path, "spec.nodeAffinity" | "spec.csi.controllerExpandSecretRef")
        }
        ("", "pods") => of_pod(change),
        ("batch", "jobs") => {
            let is_indexed = live.pointer("/spec/completionMode").is_some_and(|mode| mode == "Indexed");
            let is_suspended = live.pointer("/spec/suspend") == Some(&Value::Bool(true));
            is_indexed && path == "spec.completions"
                || is_suspended
                    && (OF_SUSPENDED.iter().any(|root| is_below(path, root))
                        || path.contains("ontainers[") && path.contains("].resources"))
        }
        _ => false,
    }
}

/// A Service gets and loses addresses with its type, and a second one beside the first.
fn of_service(live: &Value, changes: &[Change], change: &Change) -> bool {
    let was = live.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP");
    let changed = changes.iter().find(|change| change.path == "spec.type").and_then(|change| change.to.as_ref());
    let types = [was, changed.and_then(Value::as_str).unwrap_or(was)];
    let first = |list: &Option<Value>| list.as_ref().and_then(|list| list.get(0).cloned());
    match change.path.as_str() {
        _ if types.contains(&"ExternalName") => true,
        "spec.loadBalancerClass" => types != ["LoadBalancer"; 2],
        "spec.healthCheckNodePort" => change.from.is_none() || change.to.is_none(),
        // of both lists the second can come and go
        "spec.clusterIPs" | "spec.ipFamilies" => {
            first(&change.from).is_some() && first(&change.from) == first(&change.to)
        }
        _ => false,
    }
}

/// Of a running pod only images, and what makes it end sooner, be kept on more nodes, or be scheduled.
fn of_pod(change: &Change) -> bool {
    let is_image = |rest: &str| rest.starts_with('[') && rest.ends_with("].image") && rest.matches('.').count() == 1;
    let all_in = |some: &Option<Value>, all: &Option<Value>| {
        let items = |list: &Option<Value>| list.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        let all = items(all);
        items(some).iter().all(|item| all.contains(item))
    };
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_i64);
    match change.path.as_str() {
        "spec.tolerations" => all_in(&change.from, &change.to),
        "spec.schedulingGates" => all_in(&change.to, &change.from),
        "spec.activeDeadlineSeconds" => {
            number(&change.to).is_some_and(|to| number(&change.from).is_none_or(|from| to < from))
        }
        path if path.starts_with("spec.tolerations[") => path.ends_with("].tolerationSeconds"),
        path => {
            ["spec.containers", "spec.initContainers"].iter().any(|list| path.strip_prefix(list).is_some_and(is_image))
        }
    }
}

/// Only a claim that has a volume can ask for another size, and not for less than it has.
fn grows(live: &Value, change: &Change) -> bool {
    let size = |value: Option<&Value>| value.and_then(thousandths).unwrap_or(0);
    let (from, to) = (size(change.from.as_ref()), size(change.to.as_ref()));
    let is_bound = live.pointer("/status/phase").is_some_and(|phase| phase == "Bound");
    is_bound && (to > from || to > size(live.pointer("/status/capacity/storage")))
}
