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
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let value = serde_json::to_value(value).context("writing YAML")?;
    let text = serde_saphyr::to_string_with_options(&Yaml(&value), options).context("writing YAML")?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// A value of which texts with several lines are written as such where every reader takes them as they are.
struct Yaml<'a>(&'a Value);

impl Serialize for Yaml<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if is_block(text) => serde_saphyr::LitStr(text).serialize(serializer),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Yaml)),
            Value::Object(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (name, Yaml(value)))),
            plain => plain.serialize(serializer),
        }
    }
}

/// Whether a text can stand as a block. One that begins with white space can't: the block's indentation is found out by its
/// first line, where libyaml and kubectl's reader refuse a tab.
fn is_block(text: &str) -> bool {
    text.contains('\n') && !text.starts_with(char::is_whitespace)
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Strings that a YAML 1.1 or 1.2 reader could take for something else, or that break a block scalar.
    fn traps() -> Value {
        let strings = [
            "yes",
            "NO",
            "on",
            "y",
            "n",
            "true",
            "null",
            "~",
            "",
            " ",
            "0123",
            "0o17",
            "0x1F",
            "1_000",
            "1:30",
            "12e3",
            "1.",
            ".5",
            ".inf",
            ".NaN",
            "2026-11-20",
            "-",
            "--- x",
            "...",
            "- a",
            "a: b",
            "a #b",
            "#x",
            "&a",
            "*a",
            "!t",
            "%x",
            "@x",
            "`x`",
            "[a",
            "{a",
            "a]",
            ", ",
            "? x",
            "|",
            ">",
            "'",
            "\"",
            "=",
            "<<",
            "a\n",
            "\na",
            "a\n\n",
            " a\nb",
            "a \nb ",
            "\ta",
            "a\tb",
            "a\r\nb",
            "\u{7}\u{1b}[2J",
            "\u{85}",
            "\u{2028}x",
            "\u{feff}",
            "ünï",
            "漢字",
            "🦀",
        ];
        let long = "word ".repeat(60);
        json!({ "strings": strings.as_slice(), "long": long, "lines": format!("{long}\n{long}"), "yes": 1, "1": "x", "null": null,
            "empty": {}, "none": [], "nested": [[1, [2]], [{}], {"a": [{"b": {"c": null}}]}],
            "numbers": [0, -1, 1.5, 1e300, u64::MAX, i64::MIN, 0.1], "bools": [true, false] })
    }

    #[test]
    fn yaml_means_what_the_json_means() {
        let text = yaml(&traps()).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, traps(), "{text}");
    }

    #[test]
    fn yaml_of_an_object_looks_as_kubectl_prints_it() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "finalizers": ["x/y"]},
            "data": {"on": "yes", "port": "8080", "file": "a\nb\n"}});
        let expected = "apiVersion: v1\ndata:\n  file: |\n    a\n    b\n  \"on\": \"yes\"\n  port: \"8080\"\n\
                        kind: ConfigMap\nmetadata:\n  finalizers:\n  - x/y\n  name: a\n";
        assert_eq!(yaml(&object).unwrap(), expected);
        assert_eq!(yaml_documents(&[json!({"a": 1}), json!({"b": 2})]).unwrap(), "a: 1\n---\nb: 2\n");
    }

    #[test]
    fn documents_steer_no_terminal() {
        let evil = json!({"a": "\u{1b}[2J\u{9b}\u{202e}\u{7f}", "b": "x\n\u{1b}[2J\ny"});
        for text in [yaml(&evil).unwrap(), json(&evil).unwrap()] {
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        }
        assert!(!json(&evil).unwrap().contains('\u{202e}'));
    }

    #[test]
    fn one_object_is_itself_and_more_are_a_list() {
        assert_eq!(list(vec![json!(1)]), json!(1));
        assert_eq!(list(vec![json!(1), json!(2)])["items"], json!([1, 2]));
        assert_eq!(list(Vec::new())["items"], json!([]));
    }
}
