//! Where the filesystems of claims are mounted, and by which container they can be frozen.

use serde_json::Value;
use std::collections::BTreeMap;

/// A container that has a claim's filesystem mounted, and may freeze it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container in it.
    pub container: String,
    /// Where.
    pub path: String,
}

/// The claims that a running pod has mounted, each with the container to freeze it from, or why there is none.
pub fn of_pod(pod: &Value) -> BTreeMap<String, Result<Mount, String>> {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if pod.pointer("/status/phase").and_then(Value::as_str) != Some("Running") {
        return BTreeMap::new();
    }
    let (namespace, name) = (text(&pod["metadata"], "namespace"), text(&pod["metadata"], "name"));
    // an init container that is always restarted is a sidecar
    let sidecars = list("/spec/initContainers").iter().filter(|one| text(one, "restartPolicy") == "Always");
    let containers: Vec<&Value> = list("/spec/containers").iter().chain(sidecars).collect();
    let mut found = BTreeMap::new();
    for volume in list("/spec/volumes") {
        let of = text(volume, "name");
        let claim = match (volume.pointer("/persistentVolumeClaim/claimName"), volume.get("ephemeral")) {
            (Some(claim), _) => claim.as_str().unwrap_or_default().to_owned(),
            (None, Some(_)) => format!("{name}-{of}"),
            (None, None) => continue,
        };
        let within = |container: &Value, field: &str, path: &str| {
            let all = container.get(field).and_then(Value::as_array).into_iter().flatten();
            all.filter(|one| text(one, "name") == of).map(|one| text(one, path)).next()
        };
        let mounts = containers.iter().filter_map(|one| Some((*one, within(one, "volumeMounts", "mountPath")?)));
        let mounts: Vec<(&Value, String)> = mounts.collect();
        let able = mounts.iter().find(|(container, _)| may_freeze(container));
        let result = match able {
            Some((container, path)) => Ok(Mount {
                namespace: namespace.clone(),
                pod: name.clone(),
                container: text(container, "name"),
                path: path.clone(),
            }),
            None if !mounts.is_empty() => Err(format!(
                "no container of pod `{namespace}/{name}` that mounts it may freeze it; one needs `privileged: true` or the \
                 capability SYS_ADMIN, and `sh` and `fsfreeze`"
            )),
            None if containers.iter().any(|one| within(one, "volumeDevices", "devicePath").is_some()) => {
                Err(format!("it is a raw device in pod `{namespace}/{name}`, without a filesystem"))
            }
            None => continue,
        };
        found.insert(claim, result);
    }
    found
}

/// Whether the kernel lets a container freeze filesystems.
fn may_freeze(container: &Value) -> bool {
    let added = container.pointer("/securityContext/capabilities/add").and_then(Value::as_array);
    let is_it = |one: &Value| one.as_str().is_some_and(|one| matches!(one, "SYS_ADMIN" | "CAP_SYS_ADMIN" | "ALL"));
    container.pointer("/securityContext/privileged") == Some(&Value::Bool(true))
        || added.is_some_and(|added| added.iter().any(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(volumes: Value, containers: Value) -> Value {
        json!({"metadata": {"namespace": "shop", "name": "db-0"}, "status": {"phase": "Running"},
               "spec": {"volumes": volumes, "containers": containers}})
    }

    #[test]
    fn the_container_that_may_freeze_is_chosen() {
        let mount = |path: &str| json!([{"name": "d", "mountPath": path}]);
        let mut pod = pod(
            json!([{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "tmp", "emptyDir": {}}]),
            json!([
                {"name": "db", "volumeMounts": mount("/var/lib/db")},
                {"name": "other", "securityContext": {"privileged": true}},
                {"name": "freezer", "volumeMounts": mount("/data"), "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
            ]),
        );
        let of = |container: &str, path: &str| {
            let text = str::to_owned;
            Ok(Mount { namespace: text("shop"), pod: text("db-0"), container: text(container), path: text(path) })
        };
        assert_eq!(of_pod(&pod), BTreeMap::from([("data".to_owned(), of("freezer", "/data"))]));
        pod["spec"]["initContainers"] = json!([{"name": "side", "restartPolicy": "Always", "volumeMounts": mount("/s"),
                                                "securityContext": {"privileged": true}}]);
        pod["spec"]["containers"][2]["securityContext"] = json!({"privileged": false});
        assert_eq!(of_pod(&pod)["data"], of("side", "/s"));
        pod["status"]["phase"] = json!("Succeeded");
        assert_eq!(of_pod(&pod), BTreeMap::new());
    }

    #[test]
    fn why_a_volume_can_not_be_frozen_is_said_and_one_that_nobody_mounts_needs_no_freezing() {
        let volumes = json!([
            {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "scratch", "ephemeral": {}},
            {"name": "raw", "persistentVolumeClaim": {"claimName": "raw"}},
            {"name": "idle", "persistentVolumeClaim": {"claimName": "idle"}},
        ]);
        let containers = json!([{"name": "db", "volumeMounts": [{"name": "d", "mountPath": "/d"}, {"name": "scratch", "mountPath": "/s"}],
                                 "volumeDevices": [{"name": "raw", "devicePath": "/dev/x"}]}]);
        let found = of_pod(&pod(volumes, containers));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["data", "db-0-scratch", "raw"]);
        assert!(found["data"].as_ref().is_err_and(|why| why.contains("needs `privileged: true`")));
        assert!(found["raw"].as_ref().is_err_and(|why| why.contains("a raw device in pod `shop/db-0`")));
    }
}
