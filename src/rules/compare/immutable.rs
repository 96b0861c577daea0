//! Fields that the API server lets nobody change, so that a plan says before the first write what an update would be
//! refused for. The list is that of Kubernetes' validation of updates (`pkg/apis/*/validation`); a field that it misses is
//! refused when it is written.

use super::Change;
use crate::resource::Kind;
use serde_json::Value;

/// What of a kind can't be changed: the fields that stand below `root`, all of them or all but those that start in one of
/// `except`.
struct Fixed {
    kinds: &'static str,
    roots: &'static [&'static str],
    except: &'static [&'static str],
}

const FIXED: &[Fixed] = &[
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
        roots: &["spec.selector", "spec.template", "spec.completionMode", "spec.podFailurePolicy", "spec.managedBy"],
        except: &["spec.template.metadata.annotations"],
    },
    Fixed { kinds: "secrets", roots: &["type"], except: &[] },
    Fixed {
        kinds: "rolebindings.rbac.authorization.k8s.io clusterrolebindings.rbac.authorization.k8s.io",
        roots: &["roleRef"],
        except: &[],
    },
    Fixed { kinds: "services", roots: &["spec.clusterIP", "spec.clusterIPs"], except: &[] },
    Fixed {
        kinds: "persistentvolumeclaims",
        roots: &["spec"],
        except: &["spec.resources", "spec.volumeAttributesClassName"],
    },
    Fixed {
        kinds: "persistentvolumes",
        roots: &["spec.csi", "spec.awsElasticBlockStore", "spec.hostPath", "spec.nfs", "spec.local", "spec.volumeMode"],
        except: &[],
    },
    Fixed {
        kinds: "storageclasses.storage.k8s.io",
        roots: &["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"],
        except: &[],
    },
    Fixed {
        kinds: "pods",
        roots: &["spec"],
        except: &["spec.containers", "spec.initContainers", "spec.activeDeadlineSeconds", "spec.tolerations"],
    },
    Fixed { kinds: "priorityclasses.scheduling.k8s.io", roots: &["value", "preemptionPolicy"], except: &[] },
    Fixed { kinds: "ingressclasses.networking.k8s.io", roots: &["spec.controller"], except: &[] },
    Fixed { kinds: "runtimeclasses.node.k8s.io", roots: &["handler"], except: &[] },
    Fixed { kinds: "endpointslices.discovery.k8s.io", roots: &["addressType"], except: &[] },
    Fixed { kinds: "controllerrevisions.apps", roots: &["data"], except: &[] },
    Fixed {
        kinds: "customresourcedefinitions.apiextensions.k8s.io",
        roots: &["spec.group", "spec.scope", "spec.names.kind", "spec.names.plural"],
        except: &[],
    },
];

/// The first field among these changes that the API server lets nobody change.
pub fn immutable<'a>(kind: &Kind, live: &Value, changes: &'a [Change]) -> Option<&'a str> {
    let frozen = (kind.is("configmaps") || kind.is("secrets")) && live.get("immutable") == Some(&Value::Bool(true));
    let fixed = FIXED.iter().find(|fixed| fixed.kinds.split(' ').any(|key| kind.is(key)));
    let is_fixed = |path: &str| {
        let below = |roots: &[&str]| roots.iter().any(|root| is_below(path, root));
        frozen && below(&["data", "binaryData", "immutable"])
            || fixed.is_some_and(|fixed| below(fixed.roots) && !below(fixed.except))
            || kind.is("pods") && (below(&["spec.containers", "spec.initContainers"]) && !path.ends_with("].image"))
    };
    changes.iter().map(|change| change.path.as_str()).find(|path| is_fixed(path))
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
