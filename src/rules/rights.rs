//! Rights that are missing: what an API server says when it refuses a request for want of them, read for the rule that
//! would allow it; and many such refusals told once for each rule.

use crate::resource::{Kind, ObjectName};
use std::collections::BTreeMap;
use std::fmt;

/// A right that is missing, in the words of a role's rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The verb, such as `create`.
    pub verb: String,
    /// The resource as kubectl names it: `configmaps`, `jobs.batch`, `pods/log`.
    pub resource: String,
    /// The namespace; `None`: it is a right in the whole cluster.
    pub namespace: Option<String>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` on `{}`", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace `{namespace}`"),
            None => f.write_str(" in the whole cluster"),
        }
    }
}

/// What stands between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}

impl Rule {
    /// The rule that is missing for the write of an object; `None`: it was refused for another reason. An authorizer says
    /// `User "x" cannot create resource "jobs" in API group "batch" in the namespace "shop"`
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters`), and who writes roles and bindings must have what they
    /// give, or `escalate` and `bind` (`k8s.io/kubernetes/pkg/registry/rbac`).
    pub fn of_refusal(kind: &Kind, name: &ObjectName, message: &str) -> Option<Self> {
        if message.contains("attempting to grant RBAC permissions not currently held") {
            let (verb, resource) = match kind.resource.as_str() {
                // which of the two the binding names isn't said
                "rolebindings" | "clusterrolebindings" => ("bind", "roles or clusterroles".to_owned()),
                _ => ("escalate", kind.key()),
            };
            return Some(Self { verb: verb.to_owned(), resource, namespace: name.namespace.clone() });
        }
        if !message.contains("User \"") {
            return None;
        }
        let verb = between(message, " cannot ", " resource \"")?.to_owned();
        let (resource, group) = (between(message, " resource \"", "\"")?, between(message, "in API group \"", "\"")?);
        let (plural, part) = resource.split_once('/').map_or((resource, ""), |(plural, part)| (plural, part));
        let dot = if group.is_empty() { "" } else { "." };
        let slash = if part.is_empty() { "" } else { "/" };
        let namespace = between(message, " in the namespace \"", "\"").map(str::to_owned);
        Some(Self { verb, resource: format!("{plural}{dot}{group}{slash}{part}"), namespace })
    }
}

/// Objects that were refused for want of rights, by the rule that is missing.
#[derive(Debug, Default)]
pub struct Missing(BTreeMap<Rule, Refused>);

#[derive(Debug)]
struct Refused {
    objects: usize,
    /// The first few.
    named: Vec<String>,
    /// What the API server said of the first.
    said: String,
}

/// Objects that are named for each rule.
const NAMED: usize = 3;

impl Missing {
    /// Notes an object that was refused. `false`: for another reason than rights.
    pub fn note(&mut self, kind: &Kind, name: &ObjectName, message: &str) -> bool {
        let Some(rule) = Rule::of_refusal(kind, name, message) else { return false };
        let new = || Refused { objects: 0, named: Vec::new(), said: message.to_owned() };
        let refused = self.0.entry(rule).or_insert_with(new);
        refused.objects += 1;
        if refused.named.len() < NAMED {
            refused.named.push(format!("{kind} {name}"));
        }
        true
    }

    /// How many objects were refused so.
    pub fn objects(&self) -> usize {
        self.0.values().map(|refused| refused.objects).sum()
    }

    /// A line for each rule.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(rule, refused)| {
            let more = match refused.objects - refused.named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("{rule}: needed for {}{more}: {}", refused.named.join(", "), refused.said)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;

    #[test]
    fn the_rule_is_read_from_the_refusal() {
        let shop = ObjectName::new(Some("shop"), "a");
        for (key, message, expected) in [
            (
                "configmaps",
                r#"configmaps is forbidden: User "u" cannot create resource "configmaps" in API group "" in the namespace "shop""#,
                Some("`create` on `configmaps` in namespace `shop`"),
            ),
            (
                "namespaces",
                r#"namespaces is forbidden: User "u" cannot create resource "namespaces" in API group "" at the cluster scope"#,
                Some("`create` on `namespaces` in the whole cluster"),
            ),
            (
                "singles.example.com",
                r#"singles.example.com "a" is forbidden: User "u" cannot patch resource "singles/status" in API group "example.com" in the namespace "shop": no"#,
                Some("`patch` on `singles.example.com/status` in namespace `shop`"),
            ),
            (
                "roles.rbac.authorization.k8s.io",
                r#"roles.rbac.authorization.k8s.io "a" is forbidden: user "u" (groups=[]) is attempting to grant RBAC permissions not currently held: {}"#,
                Some("`escalate` on `roles.rbac.authorization.k8s.io` in namespace `shop`"),
            ),
            (
                "rolebindings.rbac.authorization.k8s.io",
                r#"rolebindings.rbac.authorization.k8s.io "a" is forbidden: user "u" (groups=[]) is attempting to grant RBAC permissions not currently held: {}"#,
                Some("`bind` on `roles or clusterroles` in namespace `shop`"),
            ),
            ("pods", r#"pods "a" is forbidden: violates PodSecurity "restricted:latest""#, None),
            ("configmaps", "configmaps is forbidden: exceeded quota: few", None),
        ] {
            let rule = Rule::of_refusal(&kind(key, "X"), &shop, message).map(|rule| rule.to_string());
            assert_eq!(rule.as_deref(), expected, "{message}");
        }
    }

    #[test]
    fn a_rule_is_told_once() {
        let mut missing = Missing::default();
        let said = |name: &str| {
            format!("{name}: User \"u\" cannot create resource \"secrets\" in API group \"\" in the namespace \"shop\"")
        };
        for name in ["a", "b", "c", "d", "e"] {
            let object = ObjectName::new(Some("shop"), name);
            assert!(missing.note(&kind("secrets", "Secret"), &object, &said(name)));
        }
        assert!(!missing.note(&kind("pods", "Pod"), &ObjectName::new(Some("shop"), "p"), "exceeded quota"));
        let expected = format!(
            "`create` on `secrets` in namespace `shop`: needed for secrets shop/a, secrets shop/b, secrets shop/c and 2 more: {}",
            said("a")
        );
        assert_eq!((missing.lines().collect::<Vec<_>>(), missing.objects()), (vec![expected], 5));
    }
}
