//! What a restore takes out of an object before it creates it. The list is data, `tidy.json`: paths with their kinds,
//! conditions and reasons. Tests read the same list through `tidy.jq`, and compare everything else.
//!
//! Finalizers stay in, and are told ([`finalizers`]). Owner references are the business of `owners`, namespaces that of
//! `mapping`.

use super::restorable::is_generated_suffix;
use super::{Error, nodeports};
use crate::resource::Kind;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const LIST: &str = include_str!("tidy.json");

/// The committed list of what a restore takes out.
#[derive(Debug)]
pub struct Tidy(Vec<Rule<'static>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List<'a> {
    #[serde(rename = "about")]
    _about: serde::de::IgnoredAny,
    #[serde(borrow)]
    rules: Vec<Rule<'a>>,
}

/// One line of the list; its `about` says what the fields mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule<'a> {
    #[serde(borrow)]
    kinds: Vec<&'a str>,
    #[serde(borrow)]
    path: Vec<&'a str>,
    reason: &'a str,
    #[serde(borrow)]
    when: Option<When<'a>>,
    #[serde(borrow)]
    element: Option<Element<'a>>,
    #[serde(default)]
    keep: Vec<Value>,
    unless: Option<Unless>,
    by: Option<By>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct When<'a> {
    #[serde(borrow)]
    path: Vec<&'a str>,
    is: Option<Value>,
    is_not: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Element<'a> {
    field: &'a str,
    like: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Unless {
    WithStatus,
    NodePortWanted,
    VolumeKept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum By {
    Owners,
}

/// What a restore was asked to keep.
#[derive(Clone, Copy, Debug)]
pub struct TidyOptions<'a> {
    /// `--with-status`: the status stays in, for whoever writes it after the object is created.
    pub with_status: bool,
    /// Node ports stay as they are, also those that the API server had allotted.
    pub keep_node_ports: bool,
    /// The PersistentVolumes that claims may name: restored with them, or there.
    pub kept_volumes: &'a BTreeSet<String>,
}

static NO_VOLUMES: BTreeSet<String> = BTreeSet::new();

impl Default for TidyOptions<'_> {
    fn default() -> Self {
        Self { with_status: false, keep_node_ports: false, kept_volumes: &NO_VOLUMES }
    }
}

/// Something that was taken out of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Where it was when its turn came: `spec.ports[0].nodePort`, `metadata.annotations["a.b/c"]`.
    pub path: String,
    /// Why.
    pub reason: &'static str,
}

impl Tidy {
    /// Reads the list that was compiled in.
    pub fn committed() -> Result<Self, Error> {
        let list: List<'static> = serde_json::from_str(LIST)
            .map_err(|error| Error::TidyList { line: error.line(), why: error.to_string() })?;
        Ok(Self(list.rules))
    }

    /// Takes out of an object what the list says, and tells what that was.
    pub fn apply(&self, kind: &Kind, object: &mut Value, options: &TidyOptions<'_>) -> Vec<Removed> {
        let name = if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
        let chosen = if name == "Service" { nodeports::chosen(object) } else { nodeports::Chosen::default() };
        let concerns =
            |rule: &&Rule<'_>| rule.by.is_none() && rule.kinds.iter().any(|kind| *kind == "*" || *kind == name);
        let mut removed = Vec::new();
        // decided on the object as it was: a rule's condition may name what another rule takes out
        let rules: Vec<_> = self.0.iter().filter(concerns).filter(|rule| rule.holds(object)).collect();
        let fills =
            rules.iter().map(|rule| rule.element.as_ref().map(|element| (element.field, element.filled(object))));
        let fills: Vec<_> = fills.collect();
        for (rule, fill) in rules.into_iter().zip(fills) {
            let goes = |at: &[Step], value: &Value| {
                let kept = match rule.unless {
                    None => false,
                    Some(Unless::WithStatus) => options.with_status,
                    Some(Unless::NodePortWanted) => options.keep_node_ports || is_chosen(&chosen, at),
                    Some(Unless::VolumeKept) => value.as_str().is_some_and(|name| options.kept_volumes.contains(name)),
                };
                let is_meant = |(field, like): &(&str, String)| {
                    value.get(field).and_then(Value::as_str).is_some_and(|text| is_like(text, like))
                };
                !kept && !rule.keep.contains(value) && fill.as_ref().is_none_or(is_meant)
            };
            let mut walk = Walk { goes: &goes, at: Vec::new(), paths: Vec::new() };
            walk.strip(object, &rule.path);
            removed.extend(walk.paths.into_iter().map(|path| Removed { path, reason: rule.reason }));
        }
        removed
    }
}

impl Rule<'_> {
    fn holds(&self, object: &Value) -> bool {
        let Some(when) = &self.when else { return true };
        let value = when.path.iter().try_fold(object, |value, key| value.get(key));
        match (&when.is, &when.is_not) {
            (Some(is), _) => value == Some(is),
            (None, Some(is_not)) => value != Some(is_not),
            (None, None) => true,
        }
    }
}

impl Element<'_> {
    fn filled(&self, object: &Value) -> String {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        self.like
            .replace("{name}", text("/metadata/name"))
            .replace("{serviceAccount}", text("/spec/serviceAccountName"))
    }
}

fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.strip_suffix("{random}") {
        Some(begin) => text.strip_prefix(begin).is_some_and(is_generated_suffix),
        None => text == pattern,
    }
}

fn is_chosen(chosen: &nodeports::Chosen, at: &[Step]) -> bool {
    match at {
        [_, _, Step::Index(port), _] => chosen.ports.contains(port),
        _ => chosen.health_check,
    }
}

/// The finalizers of an object. They are kept: an object without them would go without what they wait for, and one with
/// them stays until their controllers run.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    finalizers.into_iter().flatten().filter_map(Value::as_str).collect()
}

enum Step {
    Key(String),
    Index(usize),
}

/// A way through an object along a path with wildcards, taking out what it leads to.
struct Walk<'a> {
    goes: &'a dyn Fn(&[Step], &Value) -> bool,
    at: Vec<Step>,
    paths: Vec<String>,
}

impl Walk<'_> {
    fn strip(&mut self, value: &mut Value, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        match value {
            Value::Object(map) => {
                let keys: Vec<String> = match *first {
                    "*" => map.keys().cloned().collect(),
                    key => map.get_key_value(key).map(|(key, _)| key.clone()).into_iter().collect(),
                };
                for key in keys {
                    self.at.push(Step::Key(key.clone()));
                    if map.get_mut(&key).is_some_and(|child| self.empties(child, rest)) {
                        map.remove(&key);
                    }
                    self.at.pop();
                }
            }
            Value::Array(items) if *first == "*" => {
                let mut index = 0;
                items.retain_mut(|item| {
                    self.at.push(Step::Index(index));
                    // elements that are left empty stay: what follows them would move
                    let goes = self.empties(item, rest) && rest.is_empty();
                    self.at.pop();
                    index += 1;
                    !goes
                });
            }
            _ => (),
        }
    }

    /// Strips a child; whether it goes itself, because the path ends here or nothing is left in it.
    fn empties(&mut self, child: &mut Value, rest: &[&str]) -> bool {
        if rest.is_empty() {
            let goes = (self.goes)(&self.at, child);
            if goes {
                self.paths.push(self.path());
            }
            return goes;
        }
        let before = self.paths.len();
        self.strip(child, rest);
        let is_empty = match child {
            Value::Object(map) => map.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        is_empty && self.paths.len() > before
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.at {
            _ = match step {
                Step::Index(index) => write!(path, "[{index}]"),
                Step::Key(key) if key.contains(['.', '/']) => write!(path, "[\"{key}\"]"),
                Step::Key(key) if path.is_empty() => write!(path, "{key}"),
                Step::Key(key) => write!(path, ".{key}"),
            };
        }
        path
    }
}

#[cfg(test)]
mod tests;
