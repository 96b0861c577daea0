//! Shapes that old objects still have, because the API server keeps what it once took, and that it takes from nobody any
//! more. They are made to what the API server itself treats them as.

use crate::resource::Kind;
use crate::rules::walk::each;
use serde_json::{Value, json};

/// Gives an object a shape that the API server takes.
pub(super) fn accepted(kind: &Kind, object: &mut Value) {
    match (kind.group.as_str(), kind.resource.as_str(), kind.version.as_str()) {
        ("apiextensions.k8s.io", "customresourcedefinitions", "v1") => preserve_fields(object),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations", "v1") => {
            each(object, "webhooks/*/sideEffects", &mut |effects| {
                if !matches!(effects.as_str(), Some("None" | "NoneOnDryRun")) {
                    *effects = "None".into();
                }
            });
        }
        _ => (),
    }
}

/// A definition that was made as v1beta1 and keeps unknown fields as a whole: v1 has it said in each version's schema
/// (Velero: crd-preserve-fields action).
fn preserve_fields(definition: &mut Value) {
    let Some(spec) = definition.get_mut("spec") else { return };
    if spec.get("preserveUnknownFields") != Some(&Value::Bool(true)) {
        return;
    }
    spec["preserveUnknownFields"] = false.into();
    each(spec, "versions/*", &mut |version| {
        if let Value::Object(version) = version {
            let schema = version.entry("schema").or_insert_with(|| json!({"openAPIV3Schema": {"type": "object"}}));
            each(schema, "openAPIV3Schema", &mut |schema| {
                schema["x-kubernetes-preserve-unknown-fields"] = true.into();
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;

    #[test]
    fn old_shapes_are_made_to_ones_that_are_taken() {
        let definition = |preserve: bool, schema: Value| json!({"spec": {"preserveUnknownFields": preserve, "versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
        let keeps = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let hook = |effects: &str| json!({"webhooks": [{"name": "a", "sideEffects": effects}]});
        for (key, object, expected) in [
            (
                "customresourcedefinitions.apiextensions.k8s.io",
                definition(true, json!({"type": "object"})),
                definition(false, keeps.clone()),
            ),
            (
                "customresourcedefinitions.apiextensions.k8s.io",
                json!({"spec": {"preserveUnknownFields": true, "versions": [{"name": "v1"}]}}),
                json!({"spec": {"preserveUnknownFields": false, "versions": [{"name": "v1", "schema": {"openAPIV3Schema": keeps}}]}}),
            ),
            (
                "customresourcedefinitions.apiextensions.k8s.io",
                definition(false, json!({"type": "object"})),
                definition(false, json!({"type": "object"})),
            ),
            ("validatingwebhookconfigurations.admissionregistration.k8s.io", hook("Unknown"), hook("None")),
            ("mutatingwebhookconfigurations.admissionregistration.k8s.io", hook("NoneOnDryRun"), hook("NoneOnDryRun")),
            ("configmaps", hook("Unknown"), hook("Unknown")),
        ] {
            let mut object = object;
            accepted(&kind(key, "X"), &mut object);
            assert_eq!(object, expected, "{key}");
        }
    }
}
