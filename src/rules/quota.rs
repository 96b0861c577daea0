//! What objects need of a ResourceQuota. A dry run tries each write alone, so that a hundred that fit one by one are all let
//! through: what they need together is added up here.

mod scopes;

use crate::resource::Kind;
use scopes::{Marks, Scopes};
use serde_json::Value;
use std::collections::BTreeMap;

/// Needs by the resource's name in a quota, in thousandths.
type Amounts = BTreeMap<String, i128>;

/// What objects need of quotas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    all: Amounts,
    /// What pods need of it, by what scopes ask of them.
    pods: BTreeMap<Marks, Amounts>,
}

/// A resource of which a quota has not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// The resource, such as `secrets` or `requests.storage`.
    pub resource: String,
    /// What is left and what is needed, in words.
    pub text: String,
}

/// Kinds that quotas count by their bare name.
const COUNTED: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];

impl Needs {
    /// What creating an object needs.
    pub fn of(kind: &Kind, object: &Value) -> Self {
        let mut needs = Self::default();
        needs.add(format!("count/{}", kind.key()), 1000);
        if COUNTED.iter().any(|key| kind.is(key)) {
            needs.add(kind.key(), 1000);
        }
        match kind.key().as_str() {
            "services" => needs.service(object),
            "persistentvolumeclaims" => needs.claim(object),
            "pods" => {
                needs.pod(object);
                needs.pods.insert(Marks::of(object), needs.all.clone());
            }
            _ => (),
        }
        needs
    }

    fn add(&mut self, resource: String, thousandths: i128) {
        *self.all.entry(resource).or_default() += thousandths;
    }

    /// Adds what another object needs.
    pub fn extend(&mut self, other: Self) {
        add_all(&mut self.all, &other.all);
        other.pods.iter().for_each(|(marks, amounts)| add_all(self.pods.entry(marks.clone()).or_default(), amounts));
    }

    /// What of it a quota looks at; `None` where it can't be told.
    fn seen_by(&self, quota: &Value) -> Option<Amounts> {
        let Some(scopes) = Scopes::of(quota)? else { return Some(self.all.clone()) };
        let mut seen = Amounts::new();
        let within = self.pods.iter().filter(|(marks, _)| scopes.take(marks));
        within.for_each(|(_, amounts)| add_all(&mut seen, amounts));
        Some(seen)
    }

    fn service(&mut self, object: &Value) {
        let ports = object.pointer("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
        let of_type = object.pointer("/spec/type").and_then(Value::as_str).unwrap_or("");
        if matches!(of_type, "NodePort" | "LoadBalancer") {
            self.add("services.nodeports".to_owned(), 1000 * i128::try_from(ports).unwrap_or(0));
        }
        if of_type == "LoadBalancer" {
            self.add("services.loadbalancers".to_owned(), 1000);
        }
    }

    fn claim(&mut self, object: &Value) {
        let size = object.pointer("/spec/resources/requests/storage").and_then(thousandths).unwrap_or(0);
        self.add("requests.storage".to_owned(), size);
        if let Some(class) = object.pointer("/spec/storageClassName").and_then(Value::as_str) {
            self.add(format!("{class}.storageclass.storage.k8s.io/requests.storage"), size);
            self.add(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), 1000);
        }
    }

    /// The sum of a pod's containers; init containers run before them and need less, as a rule.
    fn pod(&mut self, object: &Value) {
        for container in object.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten() {
            for side in ["requests", "limits"] {
                let amounts = container.pointer(&format!("/resources/{side}")).and_then(Value::as_object);
                for (resource, amount) in amounts.into_iter().flatten() {
                    let amount = thousandths(amount).unwrap_or(0);
                    self.add(format!("{side}.{resource}"), amount);
                    if side == "requests" {
                        self.add(resource.clone(), amount);
                    }
                }
            }
        }
    }
}

fn add_all(sum: &mut Amounts, more: &Amounts) {
    more.iter().for_each(|(resource, needed)| *sum.entry(resource.clone()).or_default() += needed);
}

/// Of what a quota has not enough. One whose scopes aren't known here is not added up.
pub fn short(quota: &Value, needs: &Needs) -> Vec<Short> {
    let Some(needs) = needs.seen_by(quota) else { return Vec::new() };
    let hard = quota.pointer("/status/hard").and_then(Value::as_object);
    let amount = |at: &str, resource: &String| quota.pointer(at).and_then(|all| all.get(resource));
    let one = |(resource, hard): (&String, &Value)| {
        let used = amount("/status/used", resource);
        let left = thousandths(hard)? - used.and_then(thousandths).unwrap_or(0);
        let needed = *needs.get(resource)?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("0").to_owned();
        (needed > left).then(|| Short {
            resource: resource.clone(),
            text: format!(
                "`{resource}`: {} more are needed, {} of {} are used",
                told(needed),
                text(used),
                text(Some(hard))
            ),
        })
    };
    hard.into_iter().flatten().filter_map(one).collect()
}

/// Whether creating objects of this kind needs some of a resource.
pub fn concerns(resource: &str, kind: &Kind) -> bool {
    match resource {
        counted if counted.starts_with("count/") => kind.is(&counted["count/".len()..]),
        counted if COUNTED.contains(&counted) => kind.is(counted),
        services if services.starts_with("services.") => kind.is("services"),
        storage if storage == "requests.storage" || storage.contains(".storageclass.storage.k8s.io/") => {
            kind.is("persistentvolumeclaims")
        }
        _ => kind.is("pods"),
    }
}

fn told(thousandths: i128) -> String {
    if thousandths % 1000 == 0 { (thousandths / 1000).to_string() } else { format!("{thousandths}m") }
}

/// A quantity of Kubernetes (`k8s.io/apimachinery/pkg/api/resource`) in thousandths, rounded up.
pub(super) fn thousandths(quantity: &Value) -> Option<i128> {
    let text = match quantity {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = u32::try_from(fraction.len()).ok().filter(|places| *places < 20)?;
    let (factor, divisor): (i128, i128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000 << 50, 1),
        "Ei" => (1000 << 60, 1),
        other => {
            let exponent: u32 = other.strip_prefix(['e', 'E'])?.parse().ok().filter(|exponent| *exponent < 20)?;
            (1000 * 10i128.pow(exponent), 1)
        }
    };
    let divisor = divisor.checked_mul(10i128.checked_pow(places)?)?;
    let product = digits.checked_mul(factor)?;
    Some(product / divisor + i128::from(product % divisor > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;
    use serde_json::json;

    #[test]
    fn quantities() {
        for (text, expected) in [
            (json!("1"), Some(1000)),
            (json!(2), Some(2000)),
            (json!("100m"), Some(100)),
            (json!("1500u"), Some(2)),
            (json!("0.5"), Some(500)),
            (json!("1.5Gi"), Some(1536 * 1024 * 1024 * 1000)),
            (json!("1k"), Some(1_000_000)),
            (json!("12e3"), Some(12_000_000)),
            (json!("1Ei"), Some(1000 << 60)),
            (json!("x"), None),
            (json!("1Zi"), None),
            (json!("9e99"), None),
            (json!(null), None),
        ] {
            assert_eq!(thousandths(&text), expected, "{text}");
        }
    }

    #[test]
    fn what_fits_one_by_one_may_not_fit_together() {
        let quota = json!({"status": {
            "hard": {"secrets": "10", "count/deployments.apps": "5", "requests.storage": "10Gi", "services.nodeports": "2", "requests.cpu": "1", "pods": "9"},
            "used": {"secrets": "8", "requests.storage": "9Gi", "requests.cpu": "900m"}}});
        let mut needs = Needs::default();
        let mut add = |key: &str, object: Value| needs.extend(Needs::of(&kind(key, "X"), &object));
        for _ in 0..3 {
            add("secrets", json!({}));
            add("deployments.apps", json!({}));
        }
        add("persistentvolumeclaims", json!({"spec": {"resources": {"requests": {"storage": "512Mi"}}}}));
        add("services", json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}, {}]}}));
        let container = json!({"resources": {"requests": {"cpu": "60m"}, "limits": {"cpu": "2"}}});
        add("pods", json!({"spec": {"containers": [container, container]}}));
        let short: Vec<String> = short(&quota, &needs).into_iter().map(|short| short.text).collect();
        assert_eq!(
            short,
            [
                "`requests.cpu`: 120m more are needed, 900m of 1 are used",
                "`secrets`: 3 more are needed, 8 of 10 are used",
                "`services.nodeports`: 3 more are needed, 0 of 2 are used",
            ]
        );
        let scoped = |spec: Value| {
            let quota = json!({"spec": spec, "status": quota["status"]});
            super::short(&quota, &needs).into_iter().map(|short| short.resource).collect::<Vec<_>>()
        };
        assert_eq!(scoped(json!({"scopes": ["NotBestEffort"]})), ["requests.cpu"], "only pods, and of these");
        assert_eq!(scoped(json!({"scopes": ["BestEffort"]})), [""; 0]);
        assert_eq!(scoped(json!({"scopes": ["NotBestEffort", "ComesLater"]})), [""; 0], "nobody can tell");
    }

    #[test]
    fn a_resource_concerns_kinds() {
        for (resource, key, expected) in [
            ("secrets", "secrets", true),
            ("secrets", "pods", false),
            ("count/deployments.apps", "deployments.apps", true),
            ("services.nodeports", "services", true),
            ("fast.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims", true),
            ("limits.memory", "pods", true),
            ("limits.memory", "deployments.apps", false),
        ] {
            assert_eq!(concerns(resource, &kind(key, "X")), expected, "{resource} {key}");
        }
    }
}
