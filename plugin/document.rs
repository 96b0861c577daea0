//! JSON and YAML on stdout. YAML is written so that YAML 1.1 readers (kubectl) and 1.2 readers read the same: `yes`,
//! `0123`, `1:30` and their like are quoted when they are strings.

use crate::text::safe_json;
use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

/// A value as JSON, as kubectl indents it.
///
/// # Errors
/// None that JSON values can cause.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, indent)).context("writing JSON")?;
    bytes.push(b'\n');
    Ok(safe_json(&String::from_utf8(bytes).context("writing JSON")?).into_owned())
}

/// A value as one YAML document.
///
/// # Errors
/// None that JSON values can cause.
pub(crate) fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    let value = serde_json::to_value(value).context("writing YAML")?;
    let text = serde_saphyr::to_string_with_options(&value, options).context("writing YAML")?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// Values as YAML documents with `---` between them.
///
/// # Errors
/// As [`yaml`].
pub(crate) fn yaml_documents(values: &[Value]) -> anyhow::Result<String> {
    let documents: Vec<String> = values.iter().map(yaml).collect::<anyhow::Result<_>>()?;
    Ok(documents.join("---\n"))
}

/// Several objects as kubectl gives them with `-o json`: one as it is, more in a `List`.
pub(crate) fn list(mut objects: Vec<Value>) -> Value {
    match objects.pop() {
        Some(only) if objects.is_empty() => only,
        last => {
            objects.extend(last);
            serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects })
        }
    }
}
