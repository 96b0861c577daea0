//! Which objects a rule is for.

use crate::resource::Kind;
use regex::Regex;
use serde_json::Value;

/// All of them must hold.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) group_resource: Regex,
    /// Empty: all. Objects in no namespace are not judged by it, as with Velero.
    pub(super) namespaces: Vec<Regex>,
    pub(super) name: Option<Regex>,
    pub(super) labels: Vec<Requirement>,
    /// Paths that must have these values.
    pub(super) matches: Vec<(String, Value)>,
}

/// What a label must be.
#[derive(Debug)]
pub(super) struct Requirement {
    pub(super) key: String,
    pub(super) operator: Operator,
    pub(super) values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub(super) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Conditions {
    pub(super) fn hold(&self, kind: &Kind, namespace: Option<&str>, name: &str, object: &Value) -> bool {
        let is_in = |namespace: &str| self.namespaces.iter().any(|glob| glob.is_match(namespace));
        self.group_resource.is_match(&kind.key())
            && namespace.is_none_or(|namespace| self.namespaces.is_empty() || is_in(namespace))
            && self.name.as_ref().is_none_or(|regex| regex.is_match(name))
            && self.labels.iter().all(|requirement| requirement.holds(object))
            && self.matches.iter().all(|(path, value)| super::is_there(object, path, value))
    }
}

impl Requirement {
    fn holds(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = labels.and_then(|labels| labels.get(&self.key)).and_then(Value::as_str);
        let is_one = |label: &str| self.values.iter().any(|value| value == label);
        match self.operator {
            Operator::In => label.is_some_and(is_one),
            Operator::NotIn => !label.is_some_and(is_one),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }
}

/// A glob as Velero reads it (`github.com/gobwas/glob`): `*` for any letters but `separator`, `**` for any, `?` for one,
/// `[abc]`, `[!a-c]`, `{one,other}`.
pub(super) fn glob(pattern: &str, separator: Option<char>) -> Result<Regex, String> {
    let one =
        separator.map_or_else(|| ".".to_owned(), |separator| format!("[^{}]", regex::escape(&separator.to_string())));
    let (mut regex, mut braces, mut rest) = ("^(?:".to_owned(), 0, pattern);
    while let Some(letter) = rest.chars().next() {
        let mut used = letter.len_utf8();
        match letter {
            '*' if rest.starts_with("**") => {
                regex.push_str(".*");
                used = 2;
            }
            '*' => regex.push_str(&format!("{one}*")),
            '?' => regex.push_str(&one),
            '{' => {
                braces += 1;
                regex.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                regex.push(')');
            }
            ',' if braces > 0 => regex.push('|'),
            '[' => {
                let end = rest.find(']').ok_or_else(|| format!("`{pattern}` is no pattern: a `]` is missing"))?;
                let (inner, not) = rest[1..end].strip_prefix('!').map_or((&rest[1..end], ""), |inner| (inner, "^"));
                let inner: String = inner.split('-').map(regex::escape).collect::<Vec<_>>().join("-");
                regex.push_str(&format!("[{not}{inner}]"));
                used = end + 1;
            }
            other => regex.push_str(&regex::escape(&other.to_string())),
        }
        rest = &rest[used..];
    }
    regex.push_str(")$");
    Regex::new(&regex).map_err(|_| format!("`{pattern}` is no pattern"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_read_as_velero_does() {
        for (pattern, text, fits) in [
            ("pods", "pods", true),
            ("pods", "pods.metrics.k8s.io", false),
            ("*", "pods", true),
            ("*", "deployments.apps", false),
            ("*.apps", "deployments.apps", true),
            ("*.apps", "apps", false),
            ("**", "ingresses.networking.k8s.io", true),
            ("*.*", "deployments.apps", true),
            ("*.storage.k8s.io", "storageclasses.storage.k8s.io", true),
            ("{pods,services}", "services", true),
            ("{pods,services}", "secrets", false),
            ("p?ds", "pods", true),
            ("p?ds", "p.ds", false),
            ("po[a-d]s", "pods", true),
            ("po[!a-d]s", "pods", false),
            ("a+b", "aab", false),
        ] {
            assert_eq!(glob(pattern, Some('.')).unwrap().is_match(text), fits, "{pattern} {text}");
        }
        assert!(glob("shop*", None).unwrap().is_match("shop.a"));
        for bad in ["po[ds", "{a", "[]"] {
            assert!(glob(bad, None).is_err(), "{bad}");
        }
    }
}
