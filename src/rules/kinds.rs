//! Kinds as people spell them. [`KindPattern`] is what they typed, [`Served`] a kind with the names discovery gives it,
//! [`resolve`] brings the two together as kubectl does, and [`KindRule`] is a rule about kinds with its reason.

use super::{Error, builtin, spelling};
use crate::resource::{Kind, check_object_name};
use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A kind with the other names it goes by and what can be done with it, as the API server's discovery states them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// The kind, in the version that is used.
    pub kind: Kind,
    /// Such as `deployment`; some aggregated APIs leave it empty.
    #[serde(default)]
    pub singular: String,
    /// Such as `deploy`.
    #[serde(default)]
    pub short_names: Vec<String>,
    /// Such as `list` and `create`.
    #[serde(default)]
    pub verbs: Vec<String>,
}

impl Served {
    /// A kind that is known from an archive only: with kubectl's short names where it is one of Kubernetes' own.
    pub fn of(kind: Kind) -> Self {
        let short_names = builtin::short_names(&kind).map(str::to_owned).collect();
        Self { singular: kind.kind.to_lowercase(), short_names, verbs: Vec::new(), kind }
    }

    /// Whether the API server takes this verb for it.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// A kind as a person spelled it: `deploy`, `Deployment`, `deployments.apps`, `deployments.v1.apps`, or with `*` and `?`
/// for a whole group (`*.cert-manager.io`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KindPattern {
    text: String,
    /// What stands before the first dot, in lower case.
    name: String,
    /// What stands after it: a group, the beginning of one, or a version and a group.
    group: Option<String>,
    glob: Option<GlobMatcher>,
}

/// How well a pattern fits a kind: by exact group before the beginning of one, then by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    group_begins: bool,
    name: Name,
}

/// Which of a kind's names was typed, in the order in which kubectl prefers them (its `shortcutExpander` leaves plurals
/// alone and expands short names before singulars are looked at).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Plural,
    Short,
    SingularOrKind,
}

impl KindPattern {
    /// Reads what a person typed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why| Error::KindPattern { text: text.to_owned(), why };
        let lower = text.to_lowercase();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '*' | '?');
        if !lower.chars().all(allowed) {
            return Err(invalid("letters, digits, `-` and `.` are allowed, and `*` and `?` as wildcards"));
        }
        let (name, group) = match lower.split_once('.') {
            Some((name, group)) => (name.to_owned(), Some(group.to_owned())),
            None => (lower.clone(), None),
        };
        if name.is_empty() {
            return Err(invalid("the name before the group is missing"));
        }
        let glob = if lower.contains(['*', '?']) {
            Some(Glob::new(&lower).map_err(|_| invalid("its wildcards can't be read"))?.compile_matcher())
        } else {
            None
        };
        Ok(Self { text: text.to_owned(), name, group, glob })
    }

    /// What was typed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it may mean several kinds.
    pub fn is_glob(&self) -> bool {
        self.glob.is_some()
    }

    /// Whether the kind can be meant. Where kinds share a spelling, [`resolve`] says which one is.
    pub fn matches(&self, served: &Served) -> bool {
        match &self.glob {
            Some(glob) => glob.is_match(served.kind.key()),
            None => self.fit(served).is_some(),
        }
    }

    fn fit(&self, served: &Served) -> Option<Fit> {
        let kind = &served.kind;
        let name = match self.name.as_str() {
            name if name == kind.resource => Name::Plural,
            name if served.short_names.iter().any(|short| short == name) => Name::Short,
            name if name == served.singular || name == kind.kind.to_ascii_lowercase() => Name::SingularOrKind,
            _ => return None,
        };
        let Some(group) = &self.group else { return Some(Fit { group_begins: false, name }) };
        let versioned = || group.split_once('.').is_some_and(|(v, g)| v == kind.version && g == kind.group);
        let exact = *group == kind.group || versioned();
        // kubectl takes the beginning of a group: `storageclasses.storage`
        let begins = !group.is_empty() && kind.group.starts_with(group.as_str());
        (exact || begins).then_some(Fit { group_begins: !exact, name })
    }

    /// The kinds that are meant: one, or with wildcards all that match.
    fn resolve<'a>(&self, served: &'a [Served]) -> Result<Vec<&'a Kind>, Error> {
        if self.glob.is_some() {
            let all: Vec<_> = served.iter().filter(|s| self.matches(s)).map(|s| &s.kind).collect();
            return if all.is_empty() { Err(self.unknown(served)) } else { Ok(all) };
        }
        let fits = |s: &'a Served| self.fit(s).map(|fit| (fit, &s.kind));
        let Some(best) = served.iter().filter_map(fits).map(|(fit, _)| fit).min() else {
            return Err(self.unknown(served));
        };
        let mut choices: BTreeMap<String, &Kind> = BTreeMap::new();
        for (_, kind) in served.iter().filter_map(fits).filter(|(fit, _)| *fit == best) {
            choices.entry(kind.key()).or_insert(kind); // the first version served is the preferred one
        }
        // as in kubectl, Kubernetes' own kinds go first, and among them the core group: it sorts first, having no dot
        let own = choices.values().find(|kind| builtin::is_built_in(&kind.group));
        match (own, choices.len()) {
            (Some(kind), _) => Ok(vec![kind]),
            (None, 1) => Ok(choices.into_values().collect()),
            _ => Err(Error::AmbiguousKind { text: self.text.clone(), choices: choices.into_keys().collect() }),
        }
    }

    fn unknown(&self, served: &[Served]) -> Error {
        let typed = self.text.to_lowercase();
        let distance = |s: &Served| {
            let names = [&s.kind.resource, &s.singular].into_iter().chain(&s.short_names);
            let by_name = names.filter_map(|name| spelling::distance_within(&self.name, name)).min();
            by_name.into_iter().chain(spelling::distance_within(&typed, &s.kind.key())).min()
        };
        let mut near: Vec<(usize, String)> =
            served.iter().filter_map(|s| distance(s).map(|far| (far, s.kind.key()))).collect();
        near.sort();
        near.dedup();
        let similar = near.into_iter().take(3).map(|(_, key)| key).collect();
        Error::UnknownKind { text: self.text.clone(), similar }
    }
}

impl PartialEq for KindPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for KindPattern {}

impl TryFrom<String> for KindPattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<KindPattern> for String {
    fn from(pattern: KindPattern) -> Self {
        pattern.text
    }
}

/// The kinds that the patterns mean among those served, each once, in the order of the patterns. The kinds served are
/// in the order of discovery: the preferred version of a kind first.
pub fn resolve(patterns: &[KindPattern], served: &[Served]) -> Result<Vec<Kind>, Error> {
    let mut kinds: Vec<Kind> = Vec::new();
    for pattern in patterns {
        for kind in pattern.resolve(served)? {
            if !kinds.contains(kind) {
                kinds.push(kind.clone());
            }
        }
    }
    Ok(kinds)
}

/// One object as a person names it: `deploy/web`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectArg {
    /// Its kind.
    pub kind: KindPattern,
    /// Its name.
    pub name: String,
}

impl ObjectArg {
    /// Reads `KIND/NAME`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why: String| Error::ObjectArgument { text: text.to_owned(), why };
        let (kind, name) = text.split_once('/').ok_or_else(|| invalid("there is no `/` in it".to_owned()))?;
        check_object_name(name).map_err(|error| invalid(format!("`{name}` can't be a name: {error}")))?;
        Ok(Self { kind: KindPattern::parse(kind)?, name: name.to_owned() })
    }
}

impl TryFrom<String> for ObjectArg {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<ObjectArg> for String {
    fn from(arg: ObjectArg) -> Self {
        arg.to_string()
    }
}

impl fmt::Display for ObjectArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.text, self.name)
    }
}

/// A rule about kinds, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindRule {
    /// A kind's key such as `pods.metrics.k8s.io`, or `*.` and a group for all kinds of it.
    pub kinds: &'static str,
    /// Why; completes "it is left out, because …".
    pub reason: &'static str,
}

impl KindRule {
    /// Whether the rule is about this kind.
    pub fn covers(&self, kind: &Kind) -> bool {
        match self.kinds.strip_prefix("*.") {
            Some(group) => kind.group == group,
            None => kind.is(self.kinds),
        }
    }

    /// The reason of the first rule that is about this kind.
    pub fn first(rules: &[Self], kind: &Kind) -> Option<&'static str> {
        rules.iter().find(|rule| rule.covers(kind)).map(|rule| rule.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;

    fn served() -> Vec<Served> {
        [
            ("pods", "Pod"),
            ("services", "Service"),
            ("events", "Event"),
            ("deployments.apps", "Deployment"),
            ("events.events.k8s.io", "Event"),
            ("storageclasses.storage.k8s.io", "StorageClass"),
            ("pods.metrics.k8s.io", "PodMetrics"),
            ("services.serving.knative.dev", "Service"),
            ("certificates.cert-manager.io", "Certificate"),
            ("issuers.cert-manager.io", "Issuer"),
            ("clusters.cluster.x-k8s.io", "Cluster"),
            ("clusters.postgresql.cnpg.io", "Cluster"),
        ]
        .into_iter()
        .map(|(key, name)| Served::of(kind(key, name)))
        .chain([Served { short_names: vec!["svc".into()], ..Served::of(kind("svcs.example.com", "Svc")) }])
        .collect()
    }

    fn resolved(text: &str) -> Result<Vec<String>, Error> {
        Ok(resolve(&[KindPattern::parse(text)?], &served())?.iter().map(Kind::key).collect())
    }

    #[test]
    fn spellings_that_kubectl_takes() {
        for (text, keys) in [
            ("po", "pods"),
            ("pod", "pods"),
            ("Pods", "pods"),
            ("pods.", "pods"),
            ("pods.v1.", "pods"),
            ("deploy", "deployments.apps"),
            ("deployment", "deployments.apps"),
            ("Deployment", "deployments.apps"),
            ("deployments.apps", "deployments.apps"),
            ("deployments.v1.apps", "deployments.apps"),
            ("Deployment.apps", "deployments.apps"),
            ("sc.storage", "storageclasses.storage.k8s.io"),
            ("storageclasses.storage", "storageclasses.storage.k8s.io"),
            ("certificates.cert-manager.io", "certificates.cert-manager.io"),
            ("certificates.cert-manager", "certificates.cert-manager.io"),
            ("certificates.v1.cert-manager.io", "certificates.cert-manager.io"),
            ("services", "services"),
            ("svc", "services"),
            ("services.serving.knative.dev", "services.serving.knative.dev"),
            ("events", "events"),
            ("events.events.k8s.io", "events.events.k8s.io"),
            ("podmetrics", "pods.metrics.k8s.io"),
            ("clusters.postgresql.cnpg.io", "clusters.postgresql.cnpg.io"),
            ("*.cert-manager.io", "certificates.cert-manager.io issuers.cert-manager.io"),
            ("event*", "events events.events.k8s.io"),
        ] {
            assert_eq!(resolved(text).unwrap().join(" "), keys, "{text}");
        }
    }

    #[test]
    fn unknown_kinds_come_with_near_spellings() {
        for (text, near) in [
            ("deploymnets", "deployments.apps"),
            ("deploymnets.apps", "deployments.apps"),
            ("deployments.app.k8s.io", "deployments.apps"),
            ("deployments.v1beta1.apps", "deployments.apps"),
            ("certificate.certmanager.io", "certificates.cert-manager.io"),
            ("pots", "pods pods.metrics.k8s.io"),
            ("frobnicators", ""),
            ("*.example.org", ""),
        ] {
            let Err(Error::UnknownKind { text: named, similar }) = resolved(text) else { panic!("{text} is known") };
            assert_eq!((named.as_str(), similar.join(" ").as_str()), (text, near));
        }
    }

    #[test]
    fn spellings_shared_by_strangers_are_refused() {
        let choices = vec!["clusters.cluster.x-k8s.io".to_owned(), "clusters.postgresql.cnpg.io".to_owned()];
        assert_eq!(resolved("clusters"), Err(Error::AmbiguousKind { text: "clusters".into(), choices }));
    }

    #[test]
    fn each_kind_once_in_the_order_asked() {
        let patterns = ["svc", "po", "services"].map(|text| KindPattern::parse(text).unwrap());
        let keys: Vec<_> = resolve(&patterns, &served()).unwrap().iter().map(Kind::key).collect();
        assert_eq!(keys, ["services", "pods"]);
    }

    #[test]
    fn the_preferred_version_is_taken_unless_another_is_named() {
        let at = |version: &str| Served::of(Kind { version: version.into(), ..kind("widgets.example.com", "Widget") });
        let both = [at("v2"), at("v1")];
        let version = |text| resolve(&[KindPattern::parse(text).unwrap()], &both).unwrap()[0].version.clone();
        assert_eq!((version("widgets").as_str(), version("widget.v1.example.com").as_str()), ("v2", "v1"));
    }

    #[test]
    fn texts_that_are_no_kinds() {
        for text in ["", ".apps", "a/b", "a b", "pods,services", "{a,b}", "[ab]"] {
            assert!(matches!(KindPattern::parse(text), Err(Error::KindPattern { .. })), "{text:?}");
        }
    }

    #[test]
    fn object_arguments() {
        let arg = ObjectArg::parse("deploy/web").unwrap();
        assert_eq!((arg.kind.as_str(), arg.name.as_str()), ("deploy", "web"));
        assert_eq!(ObjectArg::parse("clusterroles.rbac/system:node").unwrap().name, "system:node");
        for text in ["web", "deploy/", "/web", "deploy/a/b", "deploy/..", "de ploy/web"] {
            assert!(ObjectArg::parse(text).is_err(), "{text}");
        }
        let through: ObjectArg = serde_json::from_str(&serde_json::to_string(&arg).unwrap()).unwrap();
        assert_eq!(through, arg);
        assert!(serde_json::from_str::<ObjectArg>("\"web\"").is_err());
    }

    #[test]
    fn rules_cover_kinds_and_groups() {
        let rule = |kinds| KindRule { kinds, reason: "" };
        assert!(
            rule("pods").covers(&kind("pods", "Pod"))
                && !rule("pods").covers(&kind("pods.metrics.k8s.io", "PodMetrics"))
        );
        assert!(rule("*.metrics.k8s.io").covers(&kind("pods.metrics.k8s.io", "PodMetrics")));
        assert!(!rule("*.metrics.k8s.io").covers(&kind("x.custom.metrics.k8s.io", "X")));
    }
}
