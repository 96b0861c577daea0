//! The file of rules: strict YAML, each part read on its own, so that an error names the rule and the field.

use super::conditions::{Conditions, Operator, Requirement, glob};
use super::{Modifiers, Patches, Rule};
use json_patch::PatchOperation;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Bytes a compiled regular expression may take.
const REGEX_LIMIT: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    version: String,
    resource_modifier_rules: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleParts {
    conditions: Value,
    #[serde(default)]
    patches: Vec<Value>,
    #[serde(default)]
    merge_patches: Vec<Value>,
    #[serde(default)]
    strategic_patches: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConditionParts {
    group_resource: String,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    resource_name_regex: String,
    #[serde(default)]
    label_selector: Option<Selector>,
    #[serde(default)]
    matches: Vec<Match>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    path: String,
    #[serde(default = "empty")]
    value: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    operation: String,
    #[serde(default)]
    from: String,
    path: String,
    #[serde(default = "empty")]
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PatchData {
    patch_data: Value,
}

/// What Velero takes a missing value for.
fn empty() -> Value {
    Value::String(String::new())
}

pub(super) fn parse(text: &str) -> Result<Modifiers, String> {
    let value = yaml(text)?;
    let value =
        if value.get("kind").and_then(Value::as_str) == Some("ConfigMap") { of_config_map(&value)? } else { value };
    let file: File = part(value)?;
    if !file.version.eq_ignore_ascii_case("v1") {
        return Err(format!("`version`: `{}` is not known, `v1` is", file.version));
    }
    if file.resource_modifier_rules.is_empty() {
        return Err("`resourceModifierRules`: there are no rules".to_owned());
    }
    let rules = file.resource_modifier_rules.into_iter().enumerate();
    let rules = rules.map(|(at, value)| rule(value).map_err(|why| format!("rule {}: {why}", at + 1)));
    Ok(Modifiers(rules.collect::<Result<_, _>>()?))
}

/// Reads YAML, JSON included.
fn yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let text = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
        format!("it is not YAML that can be used: {text}")
    })
}

fn of_config_map(value: &Value) -> Result<Value, String> {
    let data = value.get("data").and_then(Value::as_object);
    match data.map(|data| data.values().collect::<Vec<_>>()).as_deref() {
        Some([Value::String(text)]) => yaml(text),
        _ => Err("`data`: a ConfigMap of rules has them under its only key".to_owned()),
    }
}

/// Reads a part; what serde says of it names the field.
fn part<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn rule(value: Value) -> Result<Rule, String> {
    let parts: RuleParts = part(value)?;
    let conditions = conditions(parts.conditions).map_err(|why| format!("`conditions`: {why}"))?;
    let at = |field: &str, number: usize, why: String| format!("`{field}[{number}]`: {why}");
    let data = |field: &'static str, patches: Vec<Value>| {
        let patches = patches.into_iter().enumerate();
        patches.map(|(number, patch)| patch_data(patch).map_err(|why| at(field, number, why))).collect::<Result<_, _>>()
    };
    let patches = match (parts.patches.is_empty(), parts.merge_patches.is_empty(), parts.strategic_patches.is_empty()) {
        (false, true, true) => {
            let operations = parts.patches.into_iter().enumerate();
            let read = operations.map(|(number, value)| operation(value).map_err(|why| at("patches", number, why)));
            Patches::Json(read.collect::<Result<_, _>>()?)
        }
        (true, false, true) => Patches::Merge(data("mergePatches", parts.merge_patches)?),
        (true, true, false) => Patches::Strategic(data("strategicPatches", parts.strategic_patches)?),
        (true, true, true) => return Err("it has none of `patches`, `mergePatches` and `strategicPatches`".to_owned()),
        _ => {
            return Err(
                "it has more than one of `patches`, `mergePatches` and `strategicPatches`: make rules of their own"
                    .to_owned(),
            );
        }
    };
    Ok(Rule { conditions, patches })
}

fn conditions(value: Value) -> Result<Conditions, String> {
    let parts: ConditionParts = part(value)?;
    if parts.group_resource.is_empty() {
        return Err("`groupResource` is empty".to_owned());
    }
    let namespaces = parts.namespaces.iter().map(|pattern| glob(pattern, None));
    let regex = |text: &str| {
        let regex = RegexBuilder::new(text).size_limit(REGEX_LIMIT).build();
        regex.map_err(|_| format!("`resourceNameRegex`: `{text}` is no regular expression that can be used"))
    };
    let name: Option<Regex> =
        Some(parts.resource_name_regex.as_str()).filter(|text| !text.is_empty()).map(regex).transpose()?;
    let matches = parts.matches.into_iter().map(|Match { path, value }| {
        let path = if path.starts_with('/') {
            Ok(path)
        } else {
            Err(format!("`matches`: `{path}` is no path, it begins with `/`"))
        };
        Ok((path?, meant(value).map_err(|why| format!("`matches`: {why}"))?))
    });
    Ok(Conditions {
        group_resource: glob(&parts.group_resource, Some('.')).map_err(|why| format!("`groupResource`: {why}"))?,
        namespaces: namespaces.collect::<Result<_, _>>().map_err(|why| format!("`namespaces`: {why}"))?,
        name,
        labels: parts.label_selector.map(requirements).transpose()?.unwrap_or_default(),
        matches: matches.collect::<Result<_, String>>()?,
    })
}

fn requirements(selector: Selector) -> Result<Vec<Requirement>, String> {
    let equal = |(key, value)| Requirement { key, operator: Operator::In, values: vec![value] };
    let mut requirements: Vec<Requirement> = selector.match_labels.into_iter().map(equal).collect();
    for Expression { key, operator, values } in selector.match_expressions {
        if matches!(operator, Operator::In | Operator::NotIn) == values.is_empty() {
            return Err(format!("`labelSelector`: `{operator:?}` of `{key}` has the wrong number of values"));
        }
        requirements.push(Requirement { key, operator, values });
    }
    Ok(requirements)
}

fn operation(value: Value) -> Result<PatchOperation, String> {
    let Operation { operation, from, path, value } = part(value)?;
    let word = operation.to_lowercase();
    if !["add", "remove", "replace", "move", "copy", "test"].contains(&word.as_str()) {
        return Err(format!("`operation`: `{operation}` is none of add, remove, replace, move, copy and test"));
    }
    for (field, text) in [("path", &path), ("from", &from)] {
        if !text.starts_with('/') && (field == "path" || matches!(word.as_str(), "move" | "copy")) {
            return Err(format!("`{field}`: `{text}` is no path, it begins with `/`"));
        }
    }
    let whole = match word.as_str() {
        "remove" => json!({"op": word, "path": path}),
        "move" | "copy" => json!({"op": word, "path": path, "from": from}),
        _ => json!({"op": word, "path": path, "value": meant(value)?}),
    };
    serde_json::from_value(whole).map_err(|_| format!("`path`: `{path}` is no JSON pointer"))
}

/// The value that a text stands for, as Velero reads it: null, booleans, numbers, maps and lists are themselves, a text in
/// quotes within the text is a text whatever it looks like. Values that are no texts in the YAML are taken as they are.
fn meant(value: Value) -> Result<Value, String> {
    let Value::String(text) = value else { return Ok(value) };
    if let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        return Ok(inner.into());
    }
    match text.to_lowercase().as_str() {
        "null" => Ok(Value::Null),
        "true" => Ok(true.into()),
        "false" => Ok(false.into()),
        _ if text.starts_with(['{', '[']) => serde_json::from_str(&text)
            .map_err(|error| format!("`value` begins like JSON and is none, at column {}", error.column())),
        _ => Ok(serde_json::from_str::<serde_json::Number>(&text).map_or_else(|_| Value::String(text), Value::Number)),
    }
}

/// The patch, which Velero has as a text of JSON or YAML.
fn patch_data(value: Value) -> Result<Value, String> {
    let PatchData { patch_data } = part(value)?;
    let patch = if let Value::String(text) = &patch_data {
        yaml(text).map_err(|why| format!("`patchData`: {why}"))?
    } else {
        patch_data
    };
    if patch.is_object() { Ok(patch) } else { Err("`patchData` is no map".to_owned()) }
}
