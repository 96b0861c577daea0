//! Hides Secret values from what is shown to people.

use crate::resource::Kind;
use serde_json::Value;

/// What stands where a value was.
pub const MASK: &str = "********";

/// kubectl keeps a copy of the whole object here, Secret values included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Hides the values of a Secret; other kinds stay as they are.
pub fn mask(kind: &Kind, object: &mut Value) {
    if !kind.is("secrets") {
        return;
    }
    for field in ["data", "stringData"] {
        if let Some(Value::Object(values)) = object.get_mut(field) {
            values.values_mut().for_each(|value| *value = MASK.into());
        }
    }
    if let Some(copy) = object.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(LAST_APPLIED)) {
        *copy = MASK.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_value_of_a_secret_stays_readable() {
        let kind = |resource: &str| Kind {
            group: String::new(),
            version: "v1".into(),
            kind: "Secret".into(),
            resource: resource.into(),
            namespaced: true,
        };
        let annotations = json!({LAST_APPLIED: "{\"data\":{\"k\":\"cGxhbnRlZA==\"}}", "other": "kept"});
        let secret = json!({"metadata": {"name": "db", "annotations": annotations}, "data": {"k": "cGxhbnRlZA=="}, "stringData": {"s": "planted"}, "type": "Opaque"});
        let mut masked = secret.clone();
        mask(&kind("secrets"), &mut masked);
        let text = masked.to_string();
        assert!(!text.contains("cGxhbnRlZA") && !text.contains("planted"), "{text}");
        assert_eq!((&masked["data"]["k"], &masked["metadata"]["annotations"]["other"]), (&json!(MASK), &json!("kept")));
        let mut config_map = secret.clone();
        mask(&kind("configmaps"), &mut config_map);
        assert_eq!(config_map, secret);
    }
}
