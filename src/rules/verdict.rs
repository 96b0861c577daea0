//! What happens to each object of a restore: its [`Verdict`] with the reason, and the [`digest`] by which the plan that runs is known to be the one that was shown.

use super::compare::{self, Change};
use super::restorable::{Facts, Protected, made_by_controller, never_restored};
use crate::id::{Digest, DigestBuilder};
use crate::resource::{Kind, ObjectName, check_namespace, check_object_name};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// `--existing`: what a restore does with objects that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// Leaves them alone.
    #[default]
    Skip,
    /// Replaces what differs by what the backup holds.
    Update,
    /// Deletes what differs, and creates it anew.
    Recreate,
    /// Restores nothing where one differs.
    Fail,
    /// Replaces what differs, and recreates it where it can't be replaced: no choice of a person's, but of `undo`.
    PutBack,
}

/// What happens to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It isn't there, and is created.
    Create,
    /// It is there and differs, and is replaced.
    Update,
    /// It is there and differs, and is deleted and created anew.
    Recreate,
    /// It is there as the backup has it.
    Unchanged,
    /// It is left out.
    Skip(Skip),
    /// The caller may not write it; says what the API server says.
    Forbidden(Box<str>),
    /// The target serves no such kind.
    NotServed,
    /// It can't be restored as it is; says why.
    Refused(Box<str>),
    /// A dry run can't tell; says why.
    Unverified(Box<str>),
}

/// Why an object is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It is there; nothing is overwritten unless asked for.
    Exists,
    /// A rule of `restorable::never_restored`.
    NeverRestored(&'static str),
    /// A rule of `restorable::made_by_controller`.
    MadeByController(&'static str),
}

impl Verdict {
    /// The verdict in a word, for tables, counts and the digest.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Recreate => "recreate",
            Self::Unchanged => "unchanged",
            Self::Skip(_) => "skip",
            Self::Forbidden(_) => "forbidden",
            Self::NotServed => "not served",
            Self::Refused(_) => "refused",
            Self::Unverified(_) => "unverified",
        }
    }

    /// Why, where that isn't plain from the word.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Create | Self::Update | Self::Recreate | Self::Unchanged => None,
            Self::Skip(Skip::Exists) => Some("it exists"),
            Self::Skip(Skip::NeverRestored(reason) | Skip::MadeByController(reason)) => Some(reason),
            Self::NotServed => Some("the cluster serves no such kind"),
            Self::Forbidden(reason) | Self::Refused(reason) | Self::Unverified(reason) => Some(reason),
        }
    }

    /// Whether something is written.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Recreate)
    }

    /// Whether the person asked for it and doesn't get it: that is never passed over in silence.
    pub fn is_problem(&self) -> bool {
        matches!(self, Self::Forbidden(_) | Self::NotServed | Self::Refused(_))
    }
}

/// Kinds that are never deleted to be created anew: what is in them would go along.
const SPARED: [&str; 4] =
    ["customresourcedefinitions.apiextensions.k8s.io", "namespaces", "persistentvolumes", "persistentvolumeclaims"];

/// Whether objects of this kind are deleted only when they are named one by one.
pub fn is_spared(kind: &Kind) -> bool {
    SPARED.iter().any(|key| kind.is(key))
}

/// Kinds whose dependents Kubernetes' own controllers make anew: they go along when their owner is recreated, since what
/// is left of the old one would run on beside the new. What other objects own stays, above all the claims and pods of a
/// StatefulSet.
const TAKE_DEPENDENTS: [&str; 6] = [
    "deployments.apps",
    "replicasets.apps",
    "daemonsets.apps",
    "replicationcontrollers",
    "jobs.batch",
    "cronjobs.batch",
];

/// Whether what an object of this kind owns is deleted with it when it is recreated.
pub fn takes_dependents(kind: &Kind) -> bool {
    TAKE_DEPENDENTS.iter().any(|key| kind.is(key))
}

/// The verdict of an object that is there, once it was compared: `changes` is what the backup's state would change in it.
pub fn compared(existing: Existing, kind: &Kind, live: &Value, changes: &[Change]) -> Verdict {
    let spared = is_spared(kind);
    let fixed = compare::immutable(kind, live, changes);
    match (existing, fixed) {
        (Existing::Skip, _) => Verdict::Skip(Skip::Exists),
        _ if changes.is_empty() => Verdict::Unchanged,
        (Existing::Fail, _) => Verdict::Refused("it exists and differs, and `--existing=fail` was asked for".into()),
        (Existing::Recreate, _) | (Existing::PutBack, Some(_)) if !spared => Verdict::Recreate,
        _ if live.pointer("/metadata/deletionTimestamp").is_some() => Verdict::Refused("it is being deleted".into()),
        (_, Some(path)) if spared => {
            let text = format!("`{path}` can't be changed, and a restore never recreates {}", kind.key());
            Verdict::Refused(text.into())
        }
        (_, Some(path)) => {
            let text =
                format!("`{path}` can't be changed; `--existing=recreate` deletes the object and creates it anew");
            Verdict::Refused(text.into())
        }
        (_, None) => Verdict::Update,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{}: {reason}", self.word()),
            None => f.write_str(self.word()),
        }
    }
}

/// What a verdict is made from.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The object's kind.
    pub kind: &'a Kind,
    /// Its name in the backup, before namespaces are mapped.
    pub name: &'a ObjectName,
    /// What is known of it.
    pub facts: &'a Facts,
    /// For Endpoints, what is known of the Service of the same name.
    pub service: Option<&'a Facts>,
    /// Whether it was asked for by kind and name: then it is restored though a controller might make it anew.
    pub named: bool,
    /// Whether the target serves its kind, or will when the backup's definitions are restored.
    pub served: bool,
    /// Whether the target has an object of its name (after namespaces are mapped).
    pub exists: bool,
}

/// The verdict where what is missing is created and what exists is left alone.
pub fn decide(case: &Case<'_>, protected: &Protected<'_>) -> Verdict {
    let Case { kind, name, facts, .. } = case;
    if let Some(reason) = impossible(kind, name) {
        return Verdict::Refused(reason.into());
    }
    if let Some(reason) = never_restored(kind, name, facts, protected) {
        return Verdict::Skip(Skip::NeverRestored(reason));
    }
    match made_by_controller(kind, facts, case.service) {
        Some(reason) if !case.named => Verdict::Skip(Skip::MadeByController(reason)),
        _ if !case.served => Verdict::NotServed,
        _ if case.exists => Verdict::Skip(Skip::Exists),
        _ => Verdict::Create,
    }
}

/// Why no API server can have given the object this name. Names come from an archive, and go into URLs.
fn impossible(kind: &Kind, name: &ObjectName) -> Option<String> {
    if let Err(error) = check_object_name(&name.name) {
        return Some(format!("`{}` can't be a name: {error}", name.name.escape_debug()));
    }
    match &name.namespace {
        Some(_) if !kind.namespaced => Some(format!("it is in a namespace, but `{kind}` are cluster-wide")),
        None if kind.namespaced => Some(format!("it is in no namespace, but `{kind}` are in one")),
        Some(namespace) => check_namespace(namespace)
            .err()
            .map(|error| format!("`{}` can't be a namespace: {error}", namespace.escape_debug())),
        None => None,
    }
}

/// What of an object the plan's digest covers.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The kind, in the version in which it is written.
    pub kind: &'a Kind,
    /// The namespace it had when it was backed up.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
    /// What happens to it.
    pub verdict: &'a Verdict,
    /// The namespace it is restored into.
    pub target: Option<&'a str>,
    /// Of an object that is changed, the digest of what is changed in it.
    pub change: Option<&'a Digest>,
}

/// The digest of a plan, over its objects in order. Each field goes in with its length before it, so that no two plans
/// give the same bytes; what differs between runs of the same plan, such as the wording of reasons, doesn't go in.
/// `seal` stands for all that isn't an object of the plan: which backup, which cluster, which options.
pub fn digest<'a>(seal: &[u8], lines: impl IntoIterator<Item = Line<'a>>) -> Digest {
    let mut digest = DigestBuilder::default();
    digest.update(&(seal.len() as u64).to_le_bytes());
    digest.update(seal);
    let mut add = |field: Option<&str>| {
        let length = field.map_or(u64::MAX, |field| field.len() as u64); // no text is that long: it marks `None`
        digest.update(&length.to_le_bytes());
        digest.update(field.unwrap_or("").as_bytes());
    };
    for Line { kind, namespace, name, verdict, target, change } in lines {
        let change = change.map(ToString::to_string);
        let fields = [Some(kind.group.as_str()), Some(&kind.version), Some(&kind.resource), namespace, Some(name)];
        fields.into_iter().chain([Some(verdict.word()), target, change.as_deref()]).for_each(&mut add);
    }
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::selection::Namespaces;
    use crate::rules::testing::kind;
    use std::collections::HashSet;

    fn facts(key: &str, raw: &str) -> Facts {
        Facts::of(&kind(key, "X"), raw).unwrap()
    }

    #[test]
    fn one_verdict_for_each_case() {
        let plain = Facts::default();
        let made = r#"{"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","uid":"u","controller":true}]}}"#;
        let made = facts("pods", made);
        let service = facts("services", r#"{"spec":{"selector":{"a":"b"}}}"#);
        let asked = Namespaces::all();
        let protected = Protected { install_namespace: Some("kubectl-backup"), asked: &asked };
        let (no, yes) = (false, true);
        for (key, name, facts, service, named, served, exists, expected) in [
            ("secrets", "a/x", &plain, None, no, yes, no, "create"),
            ("secrets", "a/x", &plain, None, no, yes, yes, "skip: it exists"),
            ("secrets", "a/x", &plain, None, no, no, no, "not served: the cluster serves no such kind"),
            ("events", "a/x", &plain, None, no, yes, no, "skip: it tells what happened in the old cluster"),
            ("events", "a/x", &plain, None, yes, no, yes, "skip: it tells what happened in the old cluster"),
            ("secrets", "kubectl-backup/x", &plain, None, yes, yes, no, "skip: kubectl-backup itself runs there"),
            ("pods", "a/x", &made, None, no, yes, no, "skip: its ReplicaSet makes it anew"),
            ("pods", "a/x", &made, None, no, no, yes, "skip: its ReplicaSet makes it anew"),
            ("pods", "a/x", &made, None, yes, yes, no, "create"),
            ("pods", "a/x", &made, None, yes, yes, yes, "skip: it exists"),
            ("endpoints", "a/x", &plain, Some(&service), no, yes, no, "skip: it follows its Service"),
            ("endpoints", "a/x", &plain, None, no, yes, no, "create"),
        ] {
            let (namespace, name) = name.split_once('/').unwrap();
            let case = Case {
                kind: &kind(key, "X"),
                name: &ObjectName::new(Some(namespace), name),
                facts,
                service,
                named,
                served,
                exists,
            };
            assert_eq!(decide(&case, &protected).to_string(), expected, "{key} {name} {named} {served} {exists}");
        }
    }

    #[test]
    fn one_verdict_for_each_policy() {
        use Existing::{Fail, Recreate, Skip, Update};
        let (plain, fixed) = ("data.a", "spec.selector.matchLabels");
        let going = serde_json::json!({"metadata": {"deletionTimestamp": "2026-11-20T10:00:00Z"}});
        let there = serde_json::json!({});
        for (existing, key, live, path, expected) in [
            (Skip, "deployments.apps", &there, plain, "skip: it exists"),
            (Update, "deployments.apps", &there, "", "unchanged"),
            (Fail, "deployments.apps", &there, "", "unchanged"),
            (Update, "deployments.apps", &there, plain, "update"),
            (
                Update,
                "deployments.apps",
                &there,
                fixed,
                "refused: `spec.selector.matchLabels` can't be changed; `--existing=recreate` deletes the object and creates it anew",
            ),
            (Update, "deployments.apps", &going, plain, "refused: it is being deleted"),
            (Recreate, "deployments.apps", &going, plain, "recreate"),
            (Recreate, "deployments.apps", &there, plain, "recreate"),
            (Recreate, "namespaces", &there, plain, "update"),
            (
                Recreate,
                "persistentvolumeclaims",
                &there,
                "spec.accessModes",
                "refused: `spec.accessModes` can't be changed, and a restore never recreates persistentvolumeclaims",
            ),
            (
                Fail,
                "deployments.apps",
                &there,
                plain,
                "refused: it exists and differs, and `--existing=fail` was asked for",
            ),
        ] {
            let change = Change { path: path.to_owned(), from: None, to: None };
            let changes = if path.is_empty() { vec![] } else { vec![change] };
            assert_eq!(
                compared(existing, &kind(key, "X"), live, &changes).to_string(),
                expected,
                "{existing:?} {key} {path}"
            );
        }
    }

    #[test]
    fn names_that_no_api_server_gave_are_refused() {
        let (pods, nodes) = (kind("pods", "Pod"), kind("namespaces", "Namespace"));
        for (kind, namespace, name, refused) in [
            (&pods, Some("a"), "x", false),
            (&pods, Some("a"), "..", true),
            (&pods, Some("a"), "x/../../secrets", true),
            (&pods, Some("a"), "x\n", true),
            (&pods, Some("../b"), "x", true),
            (&pods, None, "x", true),
            (&nodes, None, "a", false),
            (&nodes, Some("a"), "a", true),
        ] {
            let asked = Namespaces::all();
            let protected = Protected { install_namespace: None, asked: &asked };
            let (name, facts) = (ObjectName::new(namespace, name), Facts::default());
            let case =
                Case { kind, name: &name, facts: &facts, service: None, named: false, served: true, exists: false };
            let verdict = decide(&case, &protected);
            assert_eq!(verdict.word() == "refused", refused, "{name:?}");
            assert!(!verdict.to_string().contains('\n'), "{verdict}");
        }
    }

    #[test]
    fn whatever_differs_differs_in_the_digest() {
        let (pods, secrets) = (kind("pods", "Pod"), kind("secrets", "Secret"));
        let newer = Kind { version: "v2".into(), ..pods.clone() };
        let (change, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let (create, skip) = (Verdict::Create, Verdict::Skip(Skip::Exists));
        let line =
            Line { kind: &pods, namespace: Some("a"), name: "x", verdict: &create, target: Some("a"), change: None };
        let plans: Vec<Vec<Line<'_>>> = vec![
            vec![],
            vec![line],
            vec![line, line],
            vec![Line { kind: &secrets, ..line }],
            vec![Line { kind: &newer, ..line }],
            vec![Line { namespace: Some("b"), ..line }],
            vec![Line { namespace: None, ..line }],
            vec![Line { namespace: Some(""), ..line }],
            vec![Line { namespace: Some("ax"), name: "", ..line }],
            vec![Line { name: "y", ..line }],
            vec![Line { verdict: &skip, ..line }],
            vec![Line { target: Some("b"), ..line }],
            vec![Line { target: None, ..line }],
            vec![Line { change: Some(&change), ..line }],
            vec![Line { change: Some(&other), ..line }],
            vec![line, Line { name: "y", ..line }],
            vec![Line { name: "y", ..line }, line],
        ];
        let digests: HashSet<Digest> = plans.iter().map(|plan| digest(b"seal", plan.iter().copied())).collect();
        assert_eq!(digests.len(), plans.len());
        assert_eq!(digest(b"seal", [line, line]), digest(b"seal", [line, line]));
        assert_ne!(digest(b"seal", [line, line]), digest(b"other", [line, line]));
    }

    #[test]
    fn the_wording_of_a_reason_is_not_in_the_digest() {
        let pods = kind("pods", "Pod");
        let with = |verdict: &Verdict| {
            digest(b"", [Line { kind: &pods, namespace: None, name: "x", verdict, target: None, change: None }])
        };
        let (one, other) = (Skip::NeverRestored("so"), Skip::NeverRestored("thus"));
        assert_eq!(with(&Verdict::Skip(one)), with(&Verdict::Skip(other)));
    }
}
