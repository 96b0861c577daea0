//! The scopes of a quota: which pods it looks at (`k8s.io/kubernetes/pkg/quota/v1/evaluator/core/pods.go`).

use crate::rules::walk::CONTAINERS;
use serde_json::Value;

/// What scopes ask of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Marks {
    terminating: bool,
    best_effort: bool,
    reaches_out: bool,
    priority_class: String,
}

impl Marks {
    /// Those of a pod.
    pub(super) fn of(pod: &Value) -> Self {
        let spec = &pod["spec"];
        let containers = CONTAINERS.iter().filter_map(|list| spec[*list].as_array()).flatten();
        let asks = |container: &Value| {
            ["requests", "limits"].iter().any(|side| {
                let amounts = container["resources"][*side].as_object();
                amounts.is_some_and(|amounts| amounts.contains_key("cpu") || amounts.contains_key("memory"))
            })
        };
        Self {
            terminating: !spec["activeDeadlineSeconds"].is_null(),
            best_effort: !containers.into_iter().any(asks),
            reaches_out: ["podAffinity", "podAntiAffinity"].iter().any(|of| reaches_out(&spec["affinity"][*of])),
            priority_class: spec["priorityClassName"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// Whether an affinity looks at pods of other namespaces.
fn reaches_out(affinity: &Value) -> bool {
    let terms = |field: &str| affinity[field].as_array().into_iter().flatten();
    let preferred = terms("preferredDuringSchedulingIgnoredDuringExecution").map(|term| &term["podAffinityTerm"]);
    let mut all = terms("requiredDuringSchedulingIgnoredDuringExecution").chain(preferred);
    all.any(|term| {
        !term["namespaceSelector"].is_null() || term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
    })
}

/// What a quota asks of pods: all of these.
pub(super) struct Scopes(Vec<Scope>);

enum Scope {
    Terminating(bool),
    BestEffort(bool),
    ReachesOut,
    /// Whether the class must, or must not, be one of these; of none: any at all.
    PriorityClass(bool, Vec<String>),
}

impl Scopes {
    /// Those of a quota: `None` where one isn't known here, `Some(None)` where it has none.
    pub(super) fn of(quota: &Value) -> Option<Option<Self>> {
        let items = |at: &str| quota.pointer(at).and_then(Value::as_array).into_iter().flatten();
        let plain = items("/spec/scopes").map(|name| Scope::of(name.as_str()?, "Exists", &Value::Null));
        let selected = items("/spec/scopeSelector/matchExpressions").map(|expression| {
            let text = |field: &str| expression[field].as_str();
            Scope::of(text("scopeName")?, text("operator")?, &expression["values"])
        });
        let scopes = plain.chain(selected).collect::<Option<Vec<_>>>()?;
        Some((!scopes.is_empty()).then_some(Self(scopes)))
    }

    /// Whether a pod is one of those that the quota looks at.
    pub(super) fn take(&self, pod: &Marks) -> bool {
        self.0.iter().all(|scope| match scope {
            Scope::Terminating(is) => pod.terminating == *is,
            Scope::BestEffort(is) => pod.best_effort == *is,
            Scope::ReachesOut => pod.reaches_out,
            Scope::PriorityClass(is, among) if among.is_empty() => pod.priority_class.is_empty() != *is,
            Scope::PriorityClass(is, among) => among.contains(&pod.priority_class) == *is,
        })
    }
}

impl Scope {
    fn of(name: &str, operator: &str, values: &Value) -> Option<Self> {
        let among = || values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Some(match (name, operator) {
            ("Terminating", "Exists") => Self::Terminating(true),
            ("NotTerminating", "Exists") => Self::Terminating(false),
            ("BestEffort", "Exists") => Self::BestEffort(true),
            ("NotBestEffort", "Exists") => Self::BestEffort(false),
            ("CrossNamespacePodAffinity", "Exists") => Self::ReachesOut,
            ("PriorityClass", "Exists") => Self::PriorityClass(true, Vec::new()),
            ("PriorityClass", "DoesNotExist") => Self::PriorityClass(false, Vec::new()),
            ("PriorityClass", "In") => Self::PriorityClass(true, among()),
            ("PriorityClass", "NotIn") => Self::PriorityClass(false, among()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_quota_looks_at_the_pods_of_its_scopes() {
        let urgent = json!({"spec": {"priorityClassName": "urgent", "activeDeadlineSeconds": 60,
            "containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        let term = json!({"topologyKey": "x", "namespaces": ["other"]});
        let plain = json!({"spec": {"containers": [{}],
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
        let class = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        for (spec, takes_urgent, takes_plain) in [
            (json!({"scopes": ["Terminating"]}), true, false),
            (json!({"scopes": ["NotTerminating"]}), false, true),
            (json!({"scopes": ["BestEffort"]}), false, true),
            (json!({"scopes": ["NotBestEffort", "Terminating"]}), true, false),
            (json!({"scopes": ["BestEffort", "Terminating"]}), false, false),
            (json!({"scopes": ["CrossNamespacePodAffinity"]}), false, true),
            (json!({"scopes": ["PriorityClass"]}), true, false),
            (class("In", json!(["urgent", "high"])), true, false),
            (class("NotIn", json!(["urgent"])), false, true),
            (class("DoesNotExist", Value::Null), false, true),
        ] {
            let scopes = Scopes::of(&json!({"spec": spec})).unwrap().unwrap();
            let taken = (scopes.take(&Marks::of(&urgent)), scopes.take(&Marks::of(&plain)));
            assert_eq!(taken, (takes_urgent, takes_plain), "{spec}");
        }
        assert!(Scopes::of(&json!({"spec": {}})).unwrap().is_none());
        assert!(Scopes::of(&json!({"spec": {"scopes": ["ComesLater"]}})).is_none());
        assert!(Scopes::of(&json!({"spec": class("Near", json!([]))})).is_none());
    }
}
