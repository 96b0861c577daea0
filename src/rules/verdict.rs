//! What happens to each object of a restore: its [`Verdict`] with the reason, the [`PlanItem`] that carries it, and the
//! [`digest`] by which the plan that runs is known to be the one that was shown.

use super::restorable::{Facts, Protected, made_by_controller, never_restored};
use super::waves::Wave;
use crate::id::{Digest, DigestBuilder};
use crate::resource::{Kind, ObjectName, check_namespace, check_object_name};
use std::fmt;
use std::sync::Arc;

/// What happens to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It isn't there, and is created.
    Create,
    /// It is left out.
    Skip(Skip),
    /// The target serves no such kind.
    NotServed,
    /// It can't be restored as it is; says why.
    Refused(Box<str>),
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
            Self::Skip(_) => "skip",
            Self::NotServed => "not served",
            Self::Refused(_) => "refused",
        }
    }

    /// Why, where that isn't plain from the word.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Create => None,
            Self::Skip(Skip::Exists) => Some("it exists"),
            Self::Skip(Skip::NeverRestored(reason) | Skip::MadeByController(reason)) => Some(reason),
            Self::NotServed => Some("the cluster serves no such kind"),
            Self::Refused(reason) => Some(reason),
        }
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

/// One object of a plan. Kept of every object of a restore, so it is small: namespaces are shared, and the kind is its
/// place in the plan's list of kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanItem {
    /// The kind's place in the plan's list.
    pub kind: u16,
    /// When it is its turn.
    pub wave: Wave,
    /// The namespace it had when it was backed up.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Box<str>,
    /// What happens to it.
    pub verdict: Verdict,
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
}

/// The digest of a plan, over its objects in order. Each field goes in with its length before it, so that no two plans
/// give the same bytes; what differs between runs of the same plan, such as the wording of reasons, doesn't go in.
pub fn digest<'a>(lines: impl IntoIterator<Item = Line<'a>>) -> Digest {
    let mut digest = DigestBuilder::default();
    let mut add = |field: Option<&str>| {
        let length = field.map_or(u64::MAX, |field| field.len() as u64); // no text is that long: it marks `None`
        digest.update(&length.to_le_bytes());
        digest.update(field.unwrap_or("").as_bytes());
    };
    for Line { kind, namespace, name, verdict, target } in lines {
        let fields = [Some(kind.group.as_str()), Some(&kind.version), Some(&kind.resource), namespace, Some(name)];
        fields.into_iter().chain([Some(verdict.word()), target]).for_each(&mut add);
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
    fn items_are_small() {
        assert!(size_of::<PlanItem>() <= 64, "{}", size_of::<PlanItem>());
    }

    #[test]
    fn whatever_differs_differs_in_the_digest() {
        let (pods, secrets) = (kind("pods", "Pod"), kind("secrets", "Secret"));
        let newer = Kind { version: "v2".into(), ..pods.clone() };
        let (create, skip) = (Verdict::Create, Verdict::Skip(Skip::Exists));
        let line = Line { kind: &pods, namespace: Some("a"), name: "x", verdict: &create, target: Some("a") };
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
            vec![line, Line { name: "y", ..line }],
            vec![Line { name: "y", ..line }, line],
        ];
        let digests: HashSet<Digest> = plans.iter().map(|plan| digest(plan.iter().copied())).collect();
        assert_eq!(digests.len(), plans.len());
        assert_eq!(digest([line, line]), digest([line, line]));
    }

    #[test]
    fn the_wording_of_a_reason_is_not_in_the_digest() {
        let pods = kind("pods", "Pod");
        let with =
            |verdict: &Verdict| digest([Line { kind: &pods, namespace: None, name: "x", verdict, target: None }]);
        let (one, other) = (Skip::NeverRestored("so"), Skip::NeverRestored("thus"));
        assert_eq!(with(&Verdict::Skip(one)), with(&Verdict::Skip(other)));
    }
}
