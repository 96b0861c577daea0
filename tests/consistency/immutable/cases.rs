//! The objects, and of each the changes that an API server refuses and takes.

use crate::api::DEFINITIONS;
use serde_json::{Value, json};

/// All of them.
pub(super) fn all() -> Vec<Case> {
    [workloads(), jobs(), pods(), services(), config(), storage(), the_rest()].into_iter().flatten().collect()
}

/// An object and changes of it, as merge patches.
pub(super) struct Case {
    /// The list that it is posted to.
    pub(super) path: &'static str,
    pub(super) object: Value,
    /// What a controller would say of it.
    pub(super) status: Option<Value>,
    pub(super) refused: Vec<Value>,
    pub(super) taken: Vec<Value>,
}

fn case(path: &'static str, object: Value, refused: Vec<Value>, taken: Vec<Value>) -> Case {
    Case { path, object, status: None, refused, taken }
}

/// RFC 7386.
pub(super) fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in fields {
        match value {
            Value::Null => _ = object.as_object_mut().and_then(|object| object.remove(key)),
            value => merge(&mut object[key.as_str()], value),
        }
    }
}

/// Each change with these fields around it.
fn each(around: impl Fn(Value) -> Value, changes: impl IntoIterator<Item = Value>) -> Vec<Value> {
    changes.into_iter().map(around).collect()
}

fn spec(changes: impl IntoIterator<Item = Value>) -> Vec<Value> {
    each(|spec| json!({"spec": spec}), changes)
}

fn pod(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web", "tier": "a"}}, "spec": {"containers": [{"name": "web", "image": image}]}})
}

fn workloads() -> Vec<Case> {
    let selector = |labels: Value| json!({"selector": {"matchLabels": labels}});
    let (web, both) = (json!({"app": "web"}), json!({"tier": "a"}));
    let plain = || json!({"spec": {"selector": {"matchLabels": web}, "template": pod("web:1")}});
    let replicas = || spec([json!({"replicas": 3}), json!({"template": pod("web:2")})]);
    let claim = |size: &str| json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}}]);
    let mut set = plain();
    merge(&mut set, &json!({"spec": {"serviceName": "web", "volumeClaimTemplates": claim("1Gi")}}));
    vec![
        case("/apis/apps/v1/namespaces/shop/deployments", plain(), spec([selector(both.clone())]), replicas()),
        case("/apis/apps/v1/namespaces/shop/replicasets", plain(), spec([selector(both.clone())]), replicas()),
        case(
            "/apis/apps/v1/namespaces/shop/daemonsets",
            plain(),
            spec([selector(both.clone())]),
            spec([json!({"template": pod("web:2")}), json!({"minReadySeconds": 5})]),
        ),
        case(
            "/apis/apps/v1/namespaces/shop/statefulsets",
            set,
            spec([
                selector(both),
                json!({"serviceName": "other"}),
                json!({"podManagementPolicy": "Parallel"}),
                json!({"volumeClaimTemplates": claim("2Gi")}),
            ]),
            spec([
                json!({"replicas": 3}),
                json!({"ordinals": {"start": 3}}),
                json!({"template": pod("web:2")}),
                json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}),
                json!({"revisionHistoryLimit": 3}),
                json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}),
                json!({"minReadySeconds": 5}),
            ]),
        ),
        case(
            "/apis/apps/v1/namespaces/shop/controllerrevisions",
            json!({"revision": 1, "data": {"a": "1"}}),
            vec![json!({"data": {"a": "2"}})],
            vec![json!({"revision": 2})],
        ),
        case(
            "/api/v1/namespaces/shop/replicationcontrollers",
            json!({"spec": {"selector": {"app": "web"}, "template": pod("web:1")}}),
            vec![],
            spec([json!({"selector": {"tier": "a"}}), json!({"replicas": 3})]),
        ),
    ]
}

fn jobs() -> Vec<Case> {
    let path = "/apis/batch/v1/namespaces/shop/jobs";
    // as the API server has it, so that nothing else is changed
    let container = |more: Value| {
        let mut container = json!({"name": "web", "image": "web:1", "imagePullPolicy": "IfNotPresent", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"});
        merge(&mut container, &more);
        json!({"spec": {"containers": [container]}})
    };
    let template = |change: Value| {
        let mut template = pod("web:1");
        template["spec"]["restartPolicy"] = "Never".into();
        merge(&mut template, &container(json!({})));
        merge(&mut template, &change);
        template
    };
    let job = |change: Value| {
        let mut job = json!({"spec": {"completions": 2, "parallelism": 2, "template": template(json!({}))}});
        merge(&mut job, &json!({"spec": change}));
        job
    };
    let changed = |change: Value| json!({"template": template(change)});
    let rule = json!({"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [3]}}]});
    vec![
        case(
            path,
            job(json!({})),
            spec([
                json!({"selector": {"matchLabels": {"app": "web"}}}),
                changed(container(json!({"image": "web:2"}))),
                changed(json!({"metadata": {"annotations": {"a": "b"}}})),
                json!({"completions": 3}),
                json!({"completionMode": "Indexed"}),
                json!({"podFailurePolicy": rule}),
                json!({"managedBy": "example.com/other"}),
            ]),
            spec([
                json!({"parallelism": 1}),
                json!({"suspend": true}),
                json!({"activeDeadlineSeconds": 60}),
                json!({"ttlSecondsAfterFinished": 60}),
            ]),
        ),
        case(
            path,
            job(json!({"completionMode": "Indexed"})),
            spec([json!({"backoffLimitPerIndex": 1}), json!({"successPolicy": {"rules": [{"succeededCount": 1}]}})]),
            spec([json!({"completions": 3, "parallelism": 3})]),
        ),
        case(
            path,
            job(json!({"suspend": true})),
            spec([changed(container(json!({"image": "web:2"})))]),
            spec([
                changed(json!({"metadata": {"annotations": {"a": "b"}}})),
                changed(json!({"metadata": {"labels": {"more": "b"}}})),
                changed(json!({"spec": {"nodeSelector": {"a": "b"}}})),
                changed(json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}})),
                changed(container(json!({"resources": {"requests": {"cpu": "1"}}}))),
            ]),
        ),
    ]
}

fn pods() -> Vec<Case> {
    let path = "/api/v1/namespaces/shop/pods";
    let containers = |more: Value| {
        let mut container = json!({"name": "web", "image": "web:1"});
        merge(&mut container, &more);
        json!([container])
    };
    let bare = |more: Value| {
        let mut pod = json!({"spec": {"containers": containers(json!({})), "initContainers": [{"name": "first", "image": "web:1"}],
            "automountServiceAccountToken": false, "tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 100}});
        merge(&mut pod["spec"], &more);
        pod
    };
    // two more stand behind it, which admission adds
    let tolerations = |keys: &[&str]| {
        let own = keys.iter().map(|key| json!({"key": key, "operator": "Exists"}));
        let added = ["not-ready", "unreachable"].map(|key| {
            json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
        });
        json!({"tolerations": own.chain(added).collect::<Vec<_>>()})
    };
    vec![
        case(
            path,
            bare(json!({})),
            spec([
                json!({"hostname": "other"}),
                json!({"nodeSelector": {"a": "b"}}),
                json!({"containers": [{"name": "web", "image": "web:1", "command": ["sleep"]}]}),
                tolerations(&[]),
                tolerations(&["b"]),
                json!({"activeDeadlineSeconds": 200}),
                json!({"activeDeadlineSeconds": null}),
            ]),
            spec([tolerations(&["a", "b"]), json!({"activeDeadlineSeconds": 50})]),
        ),
        case(
            path,
            bare(json!({"schedulingGates": [{"name": "example.com/a"}, {"name": "example.com/b"}]})),
            spec([
                json!({"schedulingGates": [{"name": "example.com/a"}, {"name": "example.com/b"}, {"name": "example.com/c"}]}),
            ]),
            spec([json!({"schedulingGates": [{"name": "example.com/b"}]}), json!({"schedulingGates": null})]),
        ),
    ]
}

fn services() -> Vec<Case> {
    let path = "/api/v1/namespaces/shop/services";
    let ports = json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]);
    let external = json!({"type": "ExternalName", "externalName": "web.example.com", "clusterIP": null, "clusterIPs": null,
        "ipFamilies": null, "ipFamilyPolicy": null, "internalTrafficPolicy": null});
    let within = json!({"type": "ClusterIP", "loadBalancerClass": null, "externalTrafficPolicy": null, "healthCheckNodePort": null,
        "allocateLoadBalancerNodePorts": null, "ports": ports});
    vec![
        case(
            path,
            json!({"spec": {"selector": {"app": "web"}, "ports": ports, "clusterIP": "10.96.77.1"}}),
            spec([
                json!({"clusterIP": "10.96.77.2", "clusterIPs": ["10.96.77.2"]}),
                json!({"clusterIP": "None", "clusterIPs": ["None"]}),
                json!({"clusterIPs": ["10.96.77.2"]}),
                json!({"ipFamilies": ["IPv6"]}),
            ]),
            spec([
                json!({"selector": {"app": "other"}}),
                json!({"ports": [{"port": 81, "protocol": "TCP", "targetPort": 81}]}),
                json!({"type": "NodePort"}),
                json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}),
                external,
            ]),
        ),
        case(
            path,
            json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/a", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 31977, "ports": ports}}),
            spec([
                json!({"loadBalancerClass": "example.com/b"}),
                json!({"loadBalancerClass": null}),
                json!({"healthCheckNodePort": 31978}),
            ]),
            spec([json!({"sessionAffinity": "ClientIP"}), within]),
        ),
        case(
            path,
            json!({"spec": {"type": "ExternalName", "externalName": "web.example.com"}}),
            vec![],
            spec([
                json!({"type": "ClusterIP", "externalName": null, "ports": ports, "clusterIP": "10.96.77.3", "clusterIPs": ["10.96.77.3"]}),
            ]),
        ),
    ]
}

fn config() -> Vec<Case> {
    let frozen = |of_type: Option<&str>| {
        let mut object = json!({"immutable": true, "data": {"a": "MQ=="}});
        if let Some(of_type) = of_type {
            object["type"] = of_type.into();
        }
        object
    };
    let changes = || vec![json!({"data": {"a": "Mg=="}}), json!({"immutable": null}), json!({"data": null})];
    let labels = || vec![json!({"metadata": {"labels": {"a": "b"}}})];
    let mut binary = changes();
    binary.push(json!({"binaryData": {"b": "MQ=="}}));
    let role = |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    let binding = || json!({"roleRef": role("view"), "subjects": []});
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "a"});
    let rebound = || (vec![json!({"roleRef": role("edit")})], vec![json!({"subjects": [subject]})]);
    let ((refused, taken), (everywhere, in_all)) = (rebound(), rebound());
    vec![
        case("/api/v1/namespaces/shop/configmaps", frozen(None), binary, labels()),
        case("/api/v1/namespaces/shop/secrets", frozen(Some("Opaque")), changes(), labels()),
        case(
            "/api/v1/namespaces/shop/secrets",
            json!({"data": {"a": "MQ=="}}),
            vec![json!({"type": "example.com/other"})],
            vec![json!({"data": {"a": "Mg=="}}), json!({"immutable": true})],
        ),
        case("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings", binding(), refused, taken),
        case("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding(), everywhere, in_all),
        case(
            "/api/v1/namespaces/shop/resourcequotas",
            json!({"spec": {"hard": {"pods": "3"}, "scopes": ["BestEffort"]}}),
            spec([json!({"scopes": ["NotBestEffort"]})]),
            spec([json!({"hard": {"pods": "4"}})]),
        ),
        case(
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            json!({"value": 7}),
            vec![json!({"value": 8}), json!({"preemptionPolicy": "Never"})],
            vec![json!({"description": "other"})],
        ),
        case(
            "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}}}),
            vec![],
            spec([json!({"scaleTargetRef": {"name": "b"}}), json!({"maxReplicas": 4})]),
        ),
        case(
            "/apis/policy/v1/namespaces/shop/poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}),
            vec![],
            spec([json!({"selector": {"matchLabels": {"a": "c"}}})]),
        ),
    ]
}

fn storage() -> Vec<Case> {
    let claim = |more: Value| {
        let mut claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}, "storageClassName": "grows"});
        merge(&mut claim, &more);
        json!({"spec": claim})
    };
    let size = |size: &str| json!({"resources": {"requests": {"storage": size}}});
    let claims = "/api/v1/namespaces/shop/persistentvolumeclaims";
    let mut old = claim(json!({"storageClassName": null}));
    old["metadata"] = json!({"annotations": {"volume.beta.kubernetes.io/storage-class": "grows"}});
    let affinity = |zone: &str| {
        let terms =
            json!([{"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}]);
        json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}})
    };
    let volume = |more: Value| {
        let mut volume = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"},
            "csi": {"driver": "example.com", "volumeHandle": "a"}});
        merge(&mut volume, &more);
        json!({"spec": volume})
    };
    vec![
        case(
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"metadata": {"name": "grows"}, "provisioner": "example.com", "parameters": {"a": "b"}, "allowVolumeExpansion": true}),
            vec![
                json!({"provisioner": "other.example.com"}),
                json!({"parameters": {"a": "c"}}),
                json!({"reclaimPolicy": "Retain"}),
                json!({"volumeBindingMode": "WaitForFirstConsumer"}),
            ],
            vec![json!({"allowVolumeExpansion": false}), json!({"mountOptions": ["a"]})],
        ),
        Case {
            status: Some(json!({"phase": "Bound", "capacity": {"storage": "10Gi"}})),
            ..case(
                claims,
                claim(json!({"volumeName": "a"})),
                spec([
                    json!({"accessModes": ["ReadWriteMany"]}),
                    json!({"volumeName": "b"}),
                    json!({"storageClassName": "other"}),
                    size("5Gi"),
                ]),
                spec([size("20Gi"), json!({"volumeAttributesClassName": "fast"})]),
            )
        },
        case(
            claims,
            claim(json!({})),
            spec([size("20Gi"), json!({"volumeMode": "Block"})]),
            spec([json!({"volumeName": "b"})]),
        ),
        case(
            claims,
            old,
            vec![json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "other"}}})],
            vec![],
        ),
        case(
            "/api/v1/persistentvolumes",
            volume(affinity("a")),
            spec([
                json!({"csi": {"volumeHandle": "b"}}),
                json!({"csi": {"volumeAttributes": {"a": "b"}}}),
                json!({"volumeMode": "Block"}),
                affinity("b"),
            ]),
            spec([
                json!({"capacity": {"storage": "20Gi"}}),
                json!({"persistentVolumeReclaimPolicy": "Delete"}),
                json!({"storageClassName": "grows"}),
                json!({"mountOptions": ["a"]}),
                json!({"accessModes": ["ReadWriteMany"]}),
                json!({"claimRef": {"namespace": "shop", "name": "a"}}),
                json!({"csi": {"controllerExpandSecretRef": {"namespace": "shop", "name": "a"}}}),
            ]),
        ),
        case("/api/v1/persistentvolumes", volume(json!({})), vec![], spec([affinity("a")])),
        case(
            "/apis/storage.k8s.io/v1/volumeattributesclasses",
            json!({"driverName": "example.com", "parameters": {"iops": "1"}}),
            vec![json!({"driverName": "other.example.com"}), json!({"parameters": {"iops": "2"}})],
            vec![],
        ),
        case(
            "/apis/storage.k8s.io/v1/csidrivers",
            json!({"spec": {"attachRequired": true}}),
            spec([json!({"attachRequired": false}), json!({"volumeLifecycleModes": ["Ephemeral"]})]),
            spec([json!({"podInfoOnMount": true}), json!({"fsGroupPolicy": "File"})]),
        ),
    ]
}

fn the_rest() -> Vec<Case> {
    let device =
        |class: &str| json!({"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": class}}]}});
    let definition = json!({"metadata": {"name": "parcels.shop.example"}, "spec": {"group": "shop.example", "scope": "Namespaced",
        "names": {"plural": "parcels", "singular": "parcel", "kind": "Parcel", "listKind": "ParcelList"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    vec![
        case(
            "/apis/networking.k8s.io/v1/ingressclasses",
            json!({"spec": {"controller": "example.com/a"}}),
            spec([json!({"controller": "example.com/b"})]),
            spec([json!({"parameters": {"kind": "X", "name": "a"}})]),
        ),
        case(
            "/apis/networking.k8s.io/v1/servicecidrs",
            json!({"spec": {"cidrs": ["10.97.0.0/24"]}}),
            spec([json!({"cidrs": ["10.98.0.0/24"]})]),
            vec![json!({"metadata": {"labels": {"a": "b"}}})],
        ),
        case(
            "/apis/networking.k8s.io/v1/namespaces/shop/ingresses",
            json!({"spec": {"ingressClassName": "a", "defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}}),
            vec![],
            spec([json!({"ingressClassName": "b"})]),
        ),
        case(
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"handler": "a"}),
            vec![json!({"handler": "b"})],
            vec![json!({"scheduling": {"nodeSelector": {"a": "b"}}})],
        ),
        case(
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices",
            json!({"addressType": "IPv4", "endpoints": [], "ports": []}),
            vec![json!({"addressType": "FQDN"})],
            vec![json!({"endpoints": [{"addresses": ["10.1.2.3"]}]})],
        ),
        case(
            "/apis/resource.k8s.io/v1/namespaces/shop/resourceclaims",
            json!({"spec": device("a")}),
            spec([device("b")]),
            vec![json!({"metadata": {"labels": {"a": "b"}}})],
        ),
        case(
            "/apis/resource.k8s.io/v1/namespaces/shop/resourceclaimtemplates",
            json!({"spec": {"spec": device("a")}}),
            spec([json!({"spec": device("b")})]),
            vec![json!({"metadata": {"labels": {"a": "b"}}})],
        ),
        case(
            "/apis/apiregistration.k8s.io/v1/apiservices",
            json!({"metadata": {"name": "v1.wells.example"}, "spec": {"group": "wells.example", "version": "v1", "groupPriorityMinimum": 100,
                "versionPriority": 10, "service": {"namespace": "shop", "name": "a"}, "insecureSkipTLSVerify": true}}),
            vec![],
            spec([json!({"service": {"name": "b"}}), json!({"versionPriority": 11})]),
        ),
        case(
            DEFINITIONS,
            definition,
            spec([
                json!({"group": "other.example"}),
                json!({"scope": "Cluster"}),
                json!({"names": {"kind": "Packet"}}),
                json!({"names": {"plural": "packets"}}),
            ]),
            spec([json!({"names": {"shortNames": ["pa"]}})]),
        ),
    ]
}
