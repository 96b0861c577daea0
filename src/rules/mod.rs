//! Pure decisions: what a backup takes and what a restore makes of it. No I/O and no clock, so that every rule has its
//! table test; objects arrive as the JSON the API server sent or as `serde_json::Value`, and leave as words.
//!
//! Defines the rules' data (what is left out, stripped, made anew, each with its reason), [`waves::Wave`],
//! [`verdict::Verdict`] and the plan's digest. Knows nothing of clients, archives or where a kind's list comes from:
//! what the API server serves is passed in as [`kinds::Served`].
//!
//! - `builtin`: what every Kubernetes has: its API groups and kubectl's short names
//! - `accounts`: what a service account lacks that is there already
//! - `claims`: what a backup says of volume data that nothing saves; volumes that wait for their claim to come back
//! - `compare`: an object of the target against what a restore would make of it, field by field
//! - `diff`: two states of an object side by side, Secret values masked
//! - `head`: the little of an object that rules read, in one pass
//! - `kinds`: kinds as people spell them, resolved against what is served
//! - `selection`: namespaces by name or glob, labels that exclude, what a backup leaves out by rule
//! - `selector`: label selectors, as the API server reads them
//! - `hooks`: the commands that pods' annotations ask for, ours and Velero's
//! - `needs`: the cluster-scoped objects that namespaced ones need
//! - `restorable`: facts of an object in few bytes; what is never restored, what a controller makes anew
//! - `since`: whether anybody wrote an object after a restore did
//! - `waves`: the order of a restore
//! - `owners`: owner references: who is created after whom, and the new uids
//! - `quota`: what objects need of quotas together
//! - `rights`: the rule that is missing where an API server refuses a write
//! - `adapt`: all that makes of a saved object what is written, in its order; what flags ask for
//! - `lists`: whether namespaces are listed one by one or all at once
//! - `mapping`: `--map-namespace`
//! - `modifiers`: a person's own rules, in Velero's format
//! - `gitops`: what Argo CD, Flux and Helm look after
//! - `survey`: what a plan says of objects beside their verdicts
//! - `marks`: the labels, annotations and tags of what is ours
//! - `mask`: hides Secret values from what people are shown
//! - `tidy`: what a restore strips (`tidy.json` is the list, `tidy.jq` the same for shell tests)
//! - `versions`: the version in which a kind is written that the target serves in others only
//! - `volumes`: how the data behind each claim is saved, and where a restored volume goes
//! - `verdict`: what happens to each object, and the digest of a plan

pub mod accounts;
pub mod adapt;
pub mod builtin;
pub mod claims;
pub mod compare;
pub mod diff;
pub mod gitops;
pub mod head;
pub mod hooks;
mod json;
pub mod kinds;
pub mod lists;
pub mod mapping;
pub mod marks;
pub mod mask;
pub mod modifiers;
pub mod needs;
mod nodeports;
pub mod owners;
pub mod quota;
pub mod restorable;
pub mod rights;
pub mod selection;
pub mod selector;
pub mod since;
mod spelling;
pub mod survey;
pub mod tidy;
pub mod verdict;
pub mod versions;
pub mod volumes;
mod walk;
pub mod waves;

pub use json::Labels;
pub use spelling::similar;

/// What a rule can't work with: mostly what a person typed. Nothing here is worth a retry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A text that no namespace can match.
    #[error(
        "`{text}` is not a namespace nor a pattern for some: {why}\nhint: give names like `shop`, or globs like `shop-*`"
    )]
    NamespacePattern {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A text that can't be a kind in any spelling.
    #[error(
        "`{text}` is not a kind: {why}\nhint: spell it as kubectl takes it, like `deploy`, `deployments.apps` or `*.example.com`"
    )]
    KindPattern {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A kind that the API server or the backup doesn't have.
    #[error("there is no kind `{text}`{}", did_you_mean(similar))]
    UnknownKind {
        /// What was typed.
        text: String,
        /// Kinds spelled nearly so, the nearest first.
        similar: Vec<String>,
    },
    /// A spelling that several kinds share, none of them Kubernetes' own.
    #[error("`{text}` could be any of {}\nhint: add the group", list(choices))]
    AmbiguousKind {
        /// What was typed.
        text: String,
        /// The kinds it could be.
        choices: Vec<String>,
    },
    /// A text that isn't `KIND/NAME`.
    #[error("`{text}` names no object: {why}\nhint: give `KIND/NAME`, like `deploy/web`")]
    ObjectArgument {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A text that is no label selector.
    #[error(
        "`{text}` is not a label selector: {why}\nhint: give `KEY=VALUE`, `KEY!=VALUE`, `KEY in (A,B)`, `KEY` or `!KEY`, several with `,` between them"
    )]
    Selector {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A selection that can't be meant.
    #[error("{0}")]
    Selection(String),
    /// A mapping of namespaces that can't be meant.
    #[error("`{text}` maps no namespace: {why}\nhint: give `FROM=TO`, each namespace once on either side")]
    Mapping {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A pair of names that can't be meant.
    #[error("`{flag} {text}`: {why}\nhint: give `FROM=TO`, each FROM once")]
    Name {
        /// The flag.
        flag: &'static str,
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of rules that can't be used.
    #[error(
        "the modifiers can't be used: {why}\nhint: the format is that of Velero's resource modifiers; docs/adapt.md has examples"
    )]
    Modifiers {
        /// The rule and field, and what is wrong there.
        why: String,
    },
    /// A person's rule that can't be applied to an object that it is for.
    #[error("modifier rule {rule}: {why}\nhint: narrow the rule's conditions, or begin its patches with a `test`")]
    Modifier {
        /// The rule, from 1.
        rule: usize,
        /// Why.
        why: String,
    },
    /// Two restored namespaces that would land in one.
    #[error(
        "`{first}` and `{second}` would both be restored into `{target}`\nhint: map them to different namespaces, or leave one out"
    )]
    MappedTogether {
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// Where both would land.
        target: String,
    },
    /// An object that isn't shaped as its kind says. Only the place is kept: the parser's own text may quote a value,
    /// and the object may be a Secret.
    #[error("the object isn't shaped as its kind says, at line {line} column {column}")]
    Object {
        /// Line in the object's JSON, from 1.
        line: usize,
        /// Column in that line, from 1.
        column: usize,
    },
    /// A volume policy that can't be meant.
    #[error("rule {rule} of the volume policy: {why}")]
    VolumePolicy {
        /// Its number, from 1.
        rule: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A pattern for tags that isn't one.
    #[error("`snapshotTags` of the volume policy: `{0}` is not a glob")]
    SnapshotTags(String),
    /// The committed list of what a restore strips can't be read.
    #[error(
        "the list of what a restore strips is damaged at line {line}: {why}\nhint: this build is broken, install another"
    )]
    TidyList {
        /// Line in `tidy.json`.
        line: usize,
        /// What is wrong there.
        why: String,
    },
}

impl Error {
    /// An object that can't be read, without what the parser quotes of it.
    fn object(error: &serde_json::Error) -> Self {
        Self::Object { line: error.line(), column: error.column() }
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn did_you_mean(similar: &[String]) -> String {
    if similar.is_empty() { String::new() } else { format!("\nhint: did you mean {}?", list(similar)) }
}

#[cfg(test)]
mod testing {
    use crate::resource::Kind;

    /// A kind from its key and the name objects state: `("deployments.apps", "Deployment")`.
    pub(super) fn kind(key: &str, name: &str) -> Kind {
        let (resource, group) = key.split_once('.').unwrap_or((key, ""));
        let clustered = ["Namespace", "Node", "PersistentVolume", "StorageClass", "ClusterRole", "ClusterRoleBinding"];
        Kind {
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: name.to_owned(),
            resource: resource.to_owned(),
            namespaced: !clustered.contains(&name),
        }
    }

    #[test]
    fn an_error_about_an_object_never_quotes_it() {
        let error = serde_json::from_str::<u8>("\n \"hunter2\"").unwrap_err();
        assert!(error.to_string().contains("hunter2"), "the parser quotes values: {error}");
        let error = super::Error::object(&error);
        assert_eq!(error.to_string(), "the object isn't shaped as its kind says, at line 2 column 10");
    }

    #[test]
    fn errors_end_in_a_hint_that_names_near_spellings() {
        let unknown = |similar: &[&str]| super::Error::UnknownKind {
            text: "deplyo".to_owned(),
            similar: similar.iter().map(|&s| s.to_owned()).collect(),
        };
        assert_eq!(unknown(&[]).to_string(), "there is no kind `deplyo`");
        let text = "there is no kind `deplyo`\nhint: did you mean `deployments.apps`, `pods`?";
        assert_eq!(unknown(&["deployments.apps", "pods"]).to_string(), text);
    }
}
