//! What a backup takes: [`Namespaces`] by name or glob, what flags narrow ([`Selection`]), labels by which an object stays
//! out, and the rules by which kinds and objects do. A backup holds everything that the API server lists but for what these rules name, and each
//! rule has its reason, for the report's omissions.

mod chosen;
mod places;

pub use chosen::{Chosen, Reach, Selection};
pub use places::{Meant, Place};

use super::kinds::{KindRule, Served};
use super::{Error, Labels, marks};
use crate::resource::{Kind, check_namespace};
use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

/// Namespaces as a person names them: names, and globs with `*`, `?` and `[a-z]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Namespaces(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    /// `None` for a name.
    glob: Option<GlobMatcher>,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why: String| Error::NamespacePattern { text: text.to_owned(), why };
        if !text.contains(['*', '?', '[']) {
            check_namespace(text).map_err(|error| invalid(error.to_string()))?;
            return Ok(Self { text: text.to_owned(), glob: None });
        }
        check_glob(text).map_err(|why| invalid(why.to_owned()))?;
        let glob = Glob::new(text).map_err(|error| invalid(error.kind().to_string()))?;
        Ok(Self { text: text.to_owned(), glob: Some(glob.compile_matcher()) })
    }

    fn matches(&self, namespace: &str) -> bool {
        match &self.glob {
            Some(glob) => glob.is_match(namespace),
            None => self.text == namespace,
        }
    }
}

/// Checks that some namespace can match: a pattern that never matches is a typing error, and so is `**`.
fn check_glob(text: &str) -> Result<(), &'static str> {
    if text.contains("**") {
        return Err("`**` is not a pattern here, `*` stands for any letters");
    }
    let mut in_class = false;
    let mut fixed = 0;
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | '0'..='9' | '-' => fixed += usize::from(!in_class),
            '*' | '?' if !in_class => (),
            '[' if !in_class => in_class = true,
            ']' if in_class => (in_class, fixed) = (false, fixed + 1),
            '!' | '^' if in_class && text[..at].ends_with('[') => (),
            _ => return Err("namespaces hold lower case letters, digits and `-`"),
        }
    }
    match () {
        () if in_class => Err("a `[` is not closed"),
        () if text.starts_with('-') || text.ends_with('-') => Err("namespaces start and end with a letter or digit"),
        () if fixed > 63 => Err("namespaces have at most 63 letters"),
        () => Ok(()),
    }
}

impl Namespaces {
    /// Every namespace.
    pub fn all() -> Self {
        Self(Pattern::parse("*").into_iter().collect())
    }

    /// Reads what a person typed; at least one.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, Error> {
        if texts.is_empty() {
            return Err(Error::NamespacePattern { text: String::new(), why: "no namespace is given".to_owned() });
        }
        Ok(Self(texts.iter().map(|text| Pattern::parse(text.as_ref())).collect::<Result<_, _>>()?))
    }

    /// Whether the namespace is one of them.
    pub fn matches(&self, namespace: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(namespace))
    }

    /// Whether the namespace is given by its name, not only caught by a glob.
    pub fn names(&self, namespace: &str) -> bool {
        self.literal_names().any(|name| name == namespace)
    }

    /// Whether only names are given, so that the set is known without asking the API server.
    pub fn is_literal(&self) -> bool {
        self.0.iter().all(|pattern| pattern.glob.is_none())
    }

    /// The names given.
    pub fn literal_names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|pattern| pattern.glob.is_none()).map(|pattern| pattern.text.as_str())
    }

    /// What was typed and matches none of the namespaces there are.
    pub fn unmatched<'a>(&'a self, existing: &[&str]) -> Vec<&'a str> {
        let matched = |pattern: &&Pattern| !existing.iter().any(|namespace| pattern.matches(namespace));
        self.0.iter().filter(matched).map(|pattern| pattern.text.as_str()).collect()
    }
}

impl TryFrom<Vec<String>> for Namespaces {
    type Error = Error;

    fn try_from(texts: Vec<String>) -> Result<Self, Error> {
        Self::parse(&texts)
    }
}

impl From<Namespaces> for Vec<String> {
    fn from(namespaces: Namespaces) -> Self {
        namespaces.0.into_iter().map(|pattern| pattern.text).collect()
    }
}

/// The labels by which an object stays out of every backup: ours, and Velero's as it is. The value must be `true`.
pub const EXCLUDE_LABELS: [&str; 2] = ["kubectl-backup/exclude", "velero.io/exclude-from-backup"];

/// Why an object's labels keep it out of a backup, if they do.
pub fn excluded_by_label(labels: &Labels<'_>) -> Option<&'static str> {
    const RULES: [&str; 2] = ["label kubectl-backup/exclude=true", "label velero.io/exclude-from-backup=true"];
    EXCLUDE_LABELS.iter().zip(RULES).find(|(label, _)| labels.has(label, "true")).map(|(_, rule)| rule)
}

/// The kinds that no backup holds.
pub const NEVER_BACKED_UP: &[KindRule] = &[
    KindRule { kinds: "events", reason: "events tell what happened, expire within hours and are never restored" },
    KindRule {
        kinds: "*.events.k8s.io",
        reason: "events tell what happened, expire within hours and are never restored",
    },
    KindRule { kinds: "componentstatuses", reason: "computed when asked for; nothing is stored" },
    KindRule { kinds: "*.metrics.k8s.io", reason: "measured when asked for; nothing is stored" },
    KindRule { kinds: "*.custom.metrics.k8s.io", reason: "measured when asked for; nothing is stored" },
    KindRule { kinds: "*.external.metrics.k8s.io", reason: "measured when asked for; nothing is stored" },
];

/// Why no backup holds this kind, if none does. Kinds without `list` (reviews, bindings, tokens) can't be read at all.
pub fn never_backed_up(served: &Served) -> Option<&'static str> {
    let unlistable = || (!served.can("list")).then_some("the API server doesn't list it; it is asked, not stored");
    KindRule::first(NEVER_BACKED_UP, &served.kind).or_else(unlistable)
}

/// Why no backup holds this object though it does hold others of its kind.
///
/// What our own runs leave behind is known by its label; the ConfigMaps, Jobs and pods of a run must besides be in our
/// namespace, for a restored copy of a labelled object elsewhere is somebody's object again. VolumeSnapshots, which are never
/// restored, are a restore's own wherever they are.
pub fn never_backed_up_object(
    kind: &Kind,
    namespace: Option<&str>,
    labels: &Labels<'_>,
    install_namespace: &str,
) -> Option<&'static str> {
    let is_of_run = match namespace {
        _ if kind.group == "snapshot.storage.k8s.io" => true,
        Some(namespace) => {
            namespace == install_namespace && ["jobs.batch", "pods", "configmaps"].iter().any(|key| kind.is(key))
        }
        None => kind.is("clusterrolebindings.rbac.authorization.k8s.io"),
    };
    match namespace {
        _ if is_of_run && labels.get(marks::ID).is_some() => Some("it belongs to a run of kubectl-backup"),
        Some("kube-node-lease") if kind.is("leases.coordination.k8s.io") => Some("it is a node's heartbeat"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;

    fn namespaces(texts: &[&str]) -> Namespaces {
        Namespaces::parse(texts).unwrap()
    }

    #[test]
    fn names_and_globs() {
        for (pattern, yes, no) in [
            ("shop", "shop", "shop-dev"),
            ("shop-*", "shop-dev", "shop"),
            ("*", "a", ""),
            ("team-?", "team-a", "team-ab"),
            ("team-[abc]", "team-b", "team-d"),
            ("team-[!abc]", "team-d", "team-b"),
            ("team-[^a-c]", "team-d", "team-b"),
            ("*-[0-9]", "x-1", "x-a"),
        ] {
            let namespaces = namespaces(&[pattern]);
            assert!(namespaces.matches(yes), "{pattern} {yes}");
            assert!(no.is_empty() || !namespaces.matches(no), "{pattern} {no}");
        }
        let all = Namespaces::all();
        assert!(all.matches("kube-system") && !all.is_literal() && !all.names("kube-system"));
    }

    #[test]
    fn patterns_that_match_nothing_are_refused() {
        for bad in
            ["", "Shop", "shop_1", "a/b", "-a*", "a*-", "**", "a**", "{a,b}*", "a\\*", "[a", "a]*", "[z-a]", "[]"]
        {
            assert!(matches!(Namespaces::parse(&[bad]), Err(Error::NamespacePattern { .. })), "{bad:?}");
        }
        assert!(Namespaces::parse(&[format!("{}*", "x".repeat(64))]).is_err());
        assert!(Namespaces::parse(&[format!("{}*", "x".repeat(63))]).is_ok());
        assert!(Namespaces::parse::<&str>(&[]).is_err());
    }

    #[test]
    fn names_are_known_without_asking() {
        let mixed = namespaces(&["shop", "team-*", "bank"]);
        assert_eq!(mixed.literal_names().collect::<Vec<_>>(), ["shop", "bank"]);
        assert!(!mixed.is_literal() && namespaces(&["a", "b"]).is_literal());
        assert!(mixed.names("shop") && !mixed.names("team-a") && mixed.matches("team-a"));
        assert_eq!(mixed.unmatched(&["shop", "kube-system"]), ["team-*", "bank"]);
    }

    #[test]
    fn they_travel_as_texts_and_are_checked_on_arrival() {
        let json = serde_json::to_string(&namespaces(&["shop", "team-*"])).unwrap();
        assert_eq!(json, r#"["shop","team-*"]"#);
        assert!(serde_json::from_str::<Namespaces>(&json).unwrap().matches("team-a"));
        assert!(serde_json::from_str::<Namespaces>(r#"["../x"]"#).is_err());
    }

    #[test]
    fn labels_that_exclude() {
        for (labels, rule) in [
            (r#"{"kubectl-backup/exclude":"true"}"#, Some("label kubectl-backup/exclude=true")),
            (r#"{"a":"b","velero.io/exclude-from-backup":"true"}"#, Some("label velero.io/exclude-from-backup=true")),
            (r#"{"kubectl-backup/exclude":"false"}"#, None),
            (r#"{"velero.io/exclude-from-backup":"false"}"#, None),
            (r#"{"kubectl-backup/exclude":""}"#, None),
            (r#"{"app":"true"}"#, None),
            ("null", None),
        ] {
            assert_eq!(excluded_by_label(&serde_json::from_str(labels).unwrap()), rule, "{labels}");
        }
    }

    #[test]
    fn kinds_left_out() {
        let served = |key, verbs: &[&str]| Served {
            verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
            ..Served::of(kind(key, "X"))
        };
        for key in
            ["events", "events.events.k8s.io", "componentstatuses", "pods.metrics.k8s.io", "x.custom.metrics.k8s.io"]
        {
            assert!(never_backed_up(&served(key, &["list", "get"])).is_some(), "{key}");
        }
        for key in
            ["pods", "nodes", "leases.coordination.k8s.io", "widgets.example.com", "endpointslices.discovery.k8s.io"]
        {
            assert_eq!(never_backed_up(&served(key, &["list"])), None, "{key}");
        }
        let review = served("tokenreviews.authentication.k8s.io", &["create"]);
        assert_eq!(never_backed_up(&review), Some("the API server doesn't list it; it is asked, not stored"));
    }

    #[test]
    fn objects_left_out() {
        let run: Labels<'_> = serde_json::from_str(r#"{"kubectl-backup/id":"shop-1"}"#).unwrap();
        let none = Labels::default();
        let crb = "clusterrolebindings.rbac.authorization.k8s.io";
        for (key, namespace, labels, out) in [
            ("jobs.batch", Some("kubectl-backup"), &run, true),
            ("pods", Some("kubectl-backup"), &run, true),
            ("configmaps", Some("kubectl-backup"), &run, true),
            (crb, None, &run, true),
            ("configmaps", Some("kubectl-backup"), &none, false),
            ("configmaps", Some("shop"), &run, false),
            ("secrets", Some("kubectl-backup"), &run, false),
            (crb, None, &none, false),
            ("volumesnapshots.snapshot.storage.k8s.io", Some("shop"), &run, true),
            ("volumesnapshots.snapshot.storage.k8s.io", Some("shop"), &none, false),
            ("volumesnapshotcontents.snapshot.storage.k8s.io", None, &run, true),
            ("leases.coordination.k8s.io", Some("kube-node-lease"), &none, true),
            ("leases.coordination.k8s.io", Some("shop"), &none, false),
            ("configmaps", Some("kube-node-lease"), &none, false),
        ] {
            let reason = never_backed_up_object(&kind(key, "X"), namespace, labels, "kubectl-backup");
            assert_eq!(reason.is_some(), out, "{key} in {namespace:?}");
        }
    }
}
