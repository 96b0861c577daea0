//! Two states of an object side by side, as people are shown them: what no application says taken out, Secret values
//! masked so that only their change is seen, as `kubectl diff` does.

use crate::resource::Kind;
use serde_json::Value;

/// What stands where a Secret's value is the same on both sides, or is on one only.
const SAME: &str = "***";
/// What stands where it differs.
const BEFORE: &str = "*** (before)";
const AFTER: &str = "*** (after)";

/// Hides the values of a Secret on both sides; other kinds stay as they are.
pub fn mask(kind: &Kind, left: Option<&mut Value>, right: Option<&mut Value>) {
    if !kind.is("secrets") {
        return;
    }
    let (mut nothing, mut none) = (Value::Null, Value::Null);
    let (left, right) = (left.unwrap_or(&mut nothing), right.unwrap_or(&mut none));
    for pointer in ["/data", "/stringData"] {
        hide(left.pointer_mut(pointer), right.pointer_mut(pointer), |_| true);
    }
    // kubectl keeps a copy of the whole object there, values included
    let is_copy = |key: &str| key == "kubectl.kubernetes.io/last-applied-configuration";
    hide(left.pointer_mut("/metadata/annotations"), right.pointer_mut("/metadata/annotations"), is_copy);
}

fn hide(left: Option<&mut Value>, right: Option<&mut Value>, is_secret: impl Fn(&str) -> bool) {
    let (before, after) = (left.as_deref().cloned(), right.as_deref().cloned());
    let masked = |own: &Value, other: Option<&Value>, differs: &str| match own.as_object() {
        Some(own) => {
            let value = |(key, value): (&String, &Value)| {
                let twin = other.and_then(|other| other.get(key));
                let text = if twin.is_none_or(|twin| twin == value) { SAME } else { differs };
                (key.clone(), if is_secret(key) { Value::from(text) } else { value.clone() })
            };
            own.iter().map(value).collect()
        }
        None => Value::from(if other.is_none_or(|other| other == own) { SAME } else { differs }),
    };
    if let (Some(left), Some(before)) = (left, &before) {
        *left = masked(before, after.as_ref(), BEFORE);
    }
    if let (Some(right), Some(after)) = (right, &after) {
        *right = masked(after, before.as_ref(), AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;
    use serde_json::json;

    #[test]
    fn of_a_secret_only_that_a_value_changes_is_seen() {
        let copy = |value: &str| json!({"kubectl.kubernetes.io/last-applied-configuration": value, "a": value});
        let mut left = json!({"metadata": {"annotations": copy("planted1")}, "data": {"same": "planted", "differs": "planted1", "gone": "planted"}});
        let mut right = json!({"metadata": {"annotations": copy("planted2")}, "data": {"same": "planted", "differs": "planted2"}, "stringData": {"new": "planted"}});
        mask(&kind("secrets", "Secret"), Some(&mut left), Some(&mut right));
        assert_eq!(left["data"], json!({"same": SAME, "differs": BEFORE, "gone": SAME}));
        assert_eq!(
            (&right["data"], &right["stringData"]),
            (&json!({"same": SAME, "differs": AFTER}), &json!({"new": SAME}))
        );
        assert_eq!(
            left["metadata"]["annotations"],
            json!({"kubectl.kubernetes.io/last-applied-configuration": BEFORE, "a": "planted1"})
        );
        let mut alone = json!({"data": {"a": "planted"}, "stringData": "planted"});
        mask(&kind("secrets", "Secret"), None, Some(&mut alone));
        assert_eq!(alone, json!({"data": {"a": SAME}, "stringData": SAME}));
        let mut plain = json!({"data": {"a": "seen"}});
        mask(&kind("configmaps", "ConfigMap"), Some(&mut plain), None);
        assert_eq!(plain["data"]["a"], "seen");
    }
}
