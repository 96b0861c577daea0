//! Node ports that a person chose, as Velero's service action tells them from those that the API server allotted: they
//! stand in the configuration that `kubectl apply` last applied, or a field manager owns them.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The node ports of a Service that a person chose.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// By their place in `spec.ports`.
    pub(super) ports: BTreeSet<usize>,
    /// `spec.healthCheckNodePort`.
    pub(super) health_check: bool,
}

/// Reads them from a Service that still has its managed fields.
pub(super) fn chosen(service: &Value) -> Chosen {
    let applied = last_applied(service);
    let owned = owned_specs(service);
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_chosen = |port: &Value| is_applied(port, applied.as_ref()) || owned.iter().any(|spec| is_owned(port, spec));
    Chosen {
        ports: ports.iter().enumerate().filter(|(_, port)| is_chosen(port)).map(|(at, _)| at).collect(),
        health_check: applied.as_ref().is_some_and(|spec| is_port(spec.get("healthCheckNodePort")))
            || owned.iter().any(|spec| spec.contains_key("f:healthCheckNodePort")),
    }
}

fn is_port(port: Option<&Value>) -> bool {
    port.and_then(Value::as_u64).is_some_and(|port| port > 0)
}

/// The `spec` that `kubectl apply` last applied.
fn last_applied(service: &Value) -> Option<Map<String, Value>> {
    let annotation =
        service.pointer("/metadata/annotations")?.get("kubectl.kubernetes.io/last-applied-configuration")?;
    let mut applied: Value = serde_json::from_str(annotation.as_str()?).ok()?;
    match applied.get_mut("spec")?.take() {
        Value::Object(spec) => Some(spec),
        _ => None,
    }
}

/// A port with a name is known by it, one without by the node port itself.
fn is_applied(port: &Value, applied: Option<&Map<String, Value>>) -> bool {
    let ports = applied.and_then(|spec| spec.get("ports")).and_then(Value::as_array);
    let name = |port: &Value| port.get("name").and_then(Value::as_str).unwrap_or("").to_owned();
    ports.is_some_and(|ports| {
        ports.iter().filter(|other| is_port(other.get("nodePort"))).any(|other| {
            name(other) == name(port) && (!name(port).is_empty() || other.get("nodePort") == port.get("nodePort"))
        })
    })
}

/// What the field managers own below `spec`.
fn owned_specs(service: &Value) -> Vec<&Map<String, Value>> {
    let managers = service.pointer("/metadata/managedFields").and_then(Value::as_array);
    managers
        .into_iter()
        .flatten()
        .filter_map(|manager| manager.pointer("/fieldsV1/f:spec").and_then(Value::as_object))
        .collect()
}

/// Managed fields know a port by its number and protocol.
fn is_owned(port: &Value, spec: &Map<String, Value>) -> bool {
    let number = port.get("port").and_then(Value::as_u64).unwrap_or(0);
    let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
    let key = format!(r#"k:{{"port":{number},"protocol":"{protocol}"}}"#);
    spec.get("f:ports").and_then(|ports| ports.get(&key)).is_some_and(|fields| fields.get("f:nodePort").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(applied: Option<Value>, owned: Value) -> Value {
        let annotations = applied.map_or(
            json!({}),
            |applied| json!({"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()}),
        );
        json!({
            "metadata": {"annotations": annotations, "managedFields": [
                {"manager": "other", "fieldsV1": {"f:metadata": {}}}, {"manager": "kubectl", "fieldsV1": owned},
            ]},
            "spec": {"healthCheckNodePort": 32000, "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
            ]},
        })
    }

    #[test]
    fn ports_that_were_applied() {
        for (spec, ports, health_check) in [
            (json!({"ports": [{"name": "http", "nodePort": 30080}]}), vec![0], false),
            (json!({"ports": [{"name": "http"}, {"name": "dns", "nodePort": 30053}]}), vec![1], false),
            (json!({"ports": [{"name": "http", "nodePort": 0}]}), vec![], false),
            (json!({"ports": [{"nodePort": 30080}]}), vec![], false),
            (json!({"healthCheckNodePort": 32000}), vec![], true),
            (json!("odd"), vec![], false),
        ] {
            let chosen = chosen(&service(Some(json!({"spec": spec})), json!({})));
            assert_eq!((chosen.ports, chosen.health_check), (ports.into_iter().collect(), health_check), "{spec}");
        }
    }

    #[test]
    fn a_port_without_a_name_is_known_by_its_node_port() {
        for (applied, expected) in [(30080, true), (30081, false)] {
            let applied = json!({"spec": {"ports": [{"port": 80, "nodePort": applied}]}}).to_string();
            let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
            let service =
                json!({"metadata": {"annotations": annotations}, "spec": {"ports": [{"port": 80, "nodePort": 30080}]}});
            assert_eq!(chosen(&service).ports.contains(&0), expected, "{applied}");
        }
    }

    #[test]
    fn ports_that_a_manager_owns() {
        let tcp = r#"k:{"port":80,"protocol":"TCP"}"#;
        for (owned, ports, health_check) in [
            (json!({"f:spec": {"f:ports": {tcp: {".": {}, "f:nodePort": {}, "f:port": {}}}}}), vec![0], false),
            (json!({"f:spec": {"f:ports": {tcp: {".": {}, "f:port": {}}}}}), vec![], false),
            (json!({"f:spec": {"f:ports": {r#"k:{"port":53,"protocol":"UDP"}"#: {"f:nodePort": {}}}}}), vec![1], false),
            (json!({"f:spec": {"f:ports": {r#"k:{"port":80,"protocol":"UDP"}"#: {"f:nodePort": {}}}}}), vec![], false),
            (json!({"f:spec": {"f:healthCheckNodePort": {}}}), vec![], true),
            (json!({"f:status": {}}), vec![], false),
        ] {
            let chosen = chosen(&service(None, owned.clone()));
            assert_eq!((chosen.ports, chosen.health_check), (ports.into_iter().collect(), health_check), "{owned}");
        }
    }

    #[test]
    fn nothing_is_chosen_where_nothing_says_so() {
        for odd in [
            json!({}),
            json!(null),
            json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{"}}}),
        ] {
            assert_eq!(chosen(&odd), Chosen::default(), "{odd}");
        }
    }
}
