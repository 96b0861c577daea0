//! The little of an object that rules read, taken from its JSON in one pass for all of them: a plan goes through tens of
//! thousands of objects, and reading their text is most of its work.

use super::json::{Text, parse};
use super::{Error, Labels};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// An object's metadata, and the rest of it unread.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head<'a> {
    #[serde(skip)]
    raw: &'a str,
    #[serde(borrow, default)]
    api_version: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    pub(super) metadata: Metadata<'a>,
    // shapes that only some kinds have; custom ones may hold anything here
    #[serde(borrow, default)]
    pub(super) spec: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) status: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    pub(super) of_type: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) namespace: Text<'a>,
    #[serde(borrow)]
    pub(super) labels: Labels<'a>,
    #[serde(borrow)]
    pub(super) annotations: Labels<'a>,
    #[serde(borrow)]
    pub(super) owner_references: Option<Vec<Reference<'a>>>,
    #[serde(borrow)]
    pub(super) finalizers: Option<Vec<Text<'a>>>,
    pub(super) deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Reference<'a> {
    #[serde(borrow)]
    pub(super) api_version: Text<'a>,
    #[serde(borrow)]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) uid: Text<'a>,
    pub(super) controller: Option<bool>,
}

impl<'a> Head<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// When the text isn't shaped as an object.
    pub fn of(raw: &'a str) -> Result<Self, Error> {
        Ok(Self { raw, ..parse(raw)? })
    }

    /// The object's whole JSON.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// `apiVersion`; empty where there is none.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// `kind`; empty where there is none.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// `metadata.name`; empty where there is none.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// `metadata.namespace`; `None` where there is none.
    pub fn namespace(&self) -> Option<&str> {
        Some(&*self.metadata.namespace).filter(|namespace| !namespace.is_empty())
    }
}
