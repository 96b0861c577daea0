//! `--modifiers`: a person's own rules for what is restored, in the format of Velero's resource modifiers, so that a file
//! written for Velero means the same here: JSON patches, merge patches and strategic merge patches under conditions.
//!
//! Conditions are judged by the object as it was before the first rule, by its name and namespace in the backup. A patch
//! whose `test` fails changes nothing, and is no error. A rule may not make another object of it: kind, name and namespace
//! stay.

mod conditions;
mod file;
mod strategic;

use super::Error;
use crate::resource::Kind;
use conditions::Conditions;
use json_patch::PatchOperation;
use serde_json::Value;

/// The rules of a file, in their order.
#[derive(Debug, Default)]
pub struct Modifiers(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    conditions: Conditions,
    patches: Patches,
}

/// A rule has patches of one sort.
#[derive(Debug)]
enum Patches {
    Json(Vec<PatchOperation>),
    Merge(Vec<Value>),
    Strategic(Vec<Value>),
}

/// What no rule may change, with the way to do it instead.
const IDENTITY: [(&str, &str); 4] = [
    ("/apiVersion", "it says what the object is"),
    ("/kind", "it says what the object is"),
    ("/metadata/name", "an object keeps its name"),
    ("/metadata/namespace", "`--map-namespace` does this"),
];

impl Modifiers {
    /// Reads a file: the rules themselves, or a ConfigMap that has them under its only key.
    ///
    /// # Errors
    /// [`Error::Modifiers`] with the rule and field.
    pub fn parse(text: &str) -> Result<Self, Error> {
        file::parse(text).map_err(|why| Error::Modifiers { why })
    }

    /// The numbers of the rules, from 0.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).take(self.0.len())
    }

    /// Applies the rules whose conditions hold; tells which of them changed something. `namespace` and `name` are those that
    /// the object has in the backup.
    ///
    /// # Errors
    /// [`Error::Modifier`] when a patch can't be applied, or would change what the object is.
    pub fn apply(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
        object: &mut Value,
    ) -> Result<Vec<u16>, Error> {
        let holds = |(_, rule): &(u16, &Rule)| rule.conditions.hold(kind, namespace, name, object);
        let chosen: Vec<(u16, &Rule)> = self.numbers().zip(&self.0).filter(holds).collect();
        let mut changed = Vec::new();
        for (at, rule) in chosen {
            let fail = |why: String| Error::Modifier { rule: usize::from(at) + 1, why };
            let mut patched = object.clone();
            if rule.patches.apply(kind, &mut patched).map_err(fail)? && patched != *object {
                check_identity(object, &patched).map_err(fail)?;
                *object = patched;
                changed.push(at);
            }
        }
        Ok(changed)
    }
}

fn check_identity(before: &Value, after: &Value) -> Result<(), String> {
    match IDENTITY.iter().find(|(pointer, _)| before.pointer(pointer) != after.pointer(pointer)) {
        Some((pointer, why)) => Err(format!("`{pointer}` can't be changed: {why}")),
        None => Ok(()),
    }
}

impl Patches {
    /// Whether the patches are to be taken; not so when a `test` among them failed.
    fn apply(&self, kind: &Kind, object: &mut Value) -> Result<bool, String> {
        match self {
            Self::Json(operations) => return apply_json(operations, object),
            Self::Merge(patches) => patches.iter().for_each(|patch| json_patch::merge(object, patch)),
            Self::Strategic(patches) => {
                for patch in patches {
                    strategic::apply(kind, object, patch)?;
                }
            }
        }
        Ok(true)
    }
}

fn apply_json(operations: &[PatchOperation], object: &mut Value) -> Result<bool, String> {
    for operation in operations {
        if let PatchOperation::Test(test) = operation {
            if !is_there(object, test.path.as_str(), &test.value) {
                return Ok(false);
            }
        } else if json_patch::patch(object, std::slice::from_ref(operation)).is_err() {
            // the crate's own words may hold values
            let (word, path) = (word(operation), operation.path());
            return Err(format!("`{word}` finds nothing to work on at `{path}`"));
        }
    }
    Ok(true)
}

/// What `test` asks. A missing value is as good as `null`.
fn is_there(object: &Value, path: &str, value: &Value) -> bool {
    object.pointer(path).unwrap_or(&Value::Null) == value
}

fn word(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

#[cfg(test)]
mod tests;
