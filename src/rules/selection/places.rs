//! Which namespaces a selection means among those that are there at one moment.

use super::{Chosen, excluded_by_label};
use crate::rules::Labels;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};

/// A namespace that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// The label that keeps it out of every backup that doesn't name it.
    pub excluded: Option<&'static str>,
    /// Whether it is being deleted.
    pub is_ending: bool,
}

impl Place {
    /// Reads an object of which at least the metadata is there.
    ///
    /// # Errors
    /// What is no object's JSON.
    pub fn read(json: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            metadata: Meta<'a>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta<'a> {
            name: String,
            #[serde(borrow, default)]
            labels: Labels<'a>,
            deletion_timestamp: Option<IgnoredAny>,
        }
        let Meta { name, labels, deletion_timestamp } = serde_json::from_str::<Object<'_>>(json)?.metadata;
        Ok(Self { name, excluded: excluded_by_label(&labels), is_ending: deletion_timestamp.is_some() })
    }
}

/// What a selection comes to among the namespaces that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// The namespaces that are saved; of a backup of the cluster all that nothing leaves out.
    pub wanted: BTreeSet<String>,
    /// Those of them that are being deleted.
    pub ending: BTreeSet<String>,
    /// Those that `--exclude-namespace` leaves out.
    pub by_flag: BTreeSet<String>,
    /// Those that a label leaves out, with the rule.
    pub by_label: BTreeMap<String, &'static str>,
    /// What was typed and means none of those that are there.
    pub unmatched: Vec<String>,
}

impl Chosen {
    /// What is meant among these. A namespace whose label excludes it is left out as a whole, unless it is named: who
    /// names it means it.
    pub fn among(&self, there: &[Place]) -> Meant {
        let mut meant = Meant::default();
        for Place { name, excluded, is_ending } in there {
            if self.patterns.as_ref().is_some_and(|patterns| !patterns.matches(name)) {
                continue;
            }
            if self.excludes_namespace(name) {
                meant.by_flag.insert(name.clone());
                continue;
            }
            match excluded {
                Some(rule) if !self.names_namespace(name) => _ = meant.by_label.insert(name.clone(), rule),
                _ => {
                    meant.wanted.insert(name.clone());
                    meant.ending.extend(is_ending.then(|| name.clone()));
                }
            }
        }
        let existing: Vec<&str> = there.iter().map(|place| place.name.as_str()).collect();
        let unmatched = self.patterns.iter().flat_map(|patterns| patterns.unmatched(&existing));
        meant.unmatched = unmatched.map(str::to_owned).collect();
        meant
    }

    /// Whether a namespace is given by its name.
    pub fn names_namespace(&self, name: &str) -> bool {
        let by_pattern = self.patterns.as_ref().is_some_and(|patterns| patterns.names(name));
        by_pattern || self.named.get("namespaces").is_some_and(|names| names.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::kinds::{ObjectArg, Served};
    use crate::rules::selection::Selection;

    fn chosen(namespaces: &[&str], without: &[&str], objects: &[&str]) -> Chosen {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let kind = crate::rules::testing::kind("namespaces", "Namespace");
        let selection = Selection {
            namespaces: (!namespaces.is_empty()).then(|| texts(namespaces)),
            exclude_namespaces: texts(without),
            objects: objects.iter().map(|text| ObjectArg::parse(text).unwrap()).collect(),
            ..Selection::default()
        };
        Chosen::resolve(&selection, &[Served::of(kind)]).unwrap()
    }

    const RULE: &str = "label kubectl-backup/exclude=true";

    fn there() -> Vec<Place> {
        let place = |name: &str, excluded, is_ending| Place { name: name.to_owned(), excluded, is_ending };
        vec![
            place("shop", None, false),
            place("team-a", None, true),
            place("team-b", Some(RULE), false),
            place("team-c", Some(RULE), true),
        ]
    }

    #[test]
    fn namespaces_that_labels_exclude_are_left_out_unless_they_are_named() {
        // what was asked for, what is wanted, what the flag and what labels leave out, what is not there
        type Case<'a> = ([&'a [&'a str]; 3], &'a [&'a str], [&'a [&'a str]; 3]);
        let cases: &[Case<'_>] = &[
            ([&[], &[], &[]], &["shop", "team-a"], [&[], &["team-b", "team-c"], &[]]),
            ([&[], &["team-[ab]"], &[]], &["shop"], [&["team-a", "team-b"], &["team-c"], &[]]),
            ([&["*"], &[], &[]], &["shop", "team-a"], [&[], &["team-b", "team-c"], &[]]),
            ([&["team-*"], &[], &[]], &["team-a"], [&[], &["team-b", "team-c"], &[]]),
            ([&["team-b"], &[], &[]], &["team-b"], [&[], &[], &[]]),
            ([&["team-*", "team-b"], &[], &[]], &["team-a", "team-b"], [&[], &["team-c"], &[]]),
            ([&["team-*"], &[], &["ns/team-b"]], &["team-a", "team-b"], [&[], &["team-c"], &[]]),
            ([&["team-b", "gone", "g*"], &[], &[]], &["team-b"], [&[], &[], &["gone", "g*"]]),
            ([&["team-b"], &["*"], &[]], &[], [&["team-b"], &[], &[]]),
        ];
        for ([namespaces, without, objects], wanted, [by_flag, by_label, unmatched]) in cases {
            let meant = chosen(namespaces, without, objects).among(&there());
            let about = format!("{namespaces:?} {without:?} {objects:?}");
            assert_eq!(meant.wanted.iter().collect::<Vec<_>>(), *wanted, "{about}");
            assert_eq!(meant.by_flag.iter().collect::<Vec<_>>(), *by_flag, "{about}");
            assert_eq!(meant.by_label.keys().collect::<Vec<_>>(), *by_label, "{about}");
            assert_eq!(meant.unmatched, *unmatched, "{about}");
            let ending: BTreeSet<String> = meant.wanted.iter().filter(|name| *name == "team-a").cloned().collect();
            assert_eq!(meant.ending, ending, "{about}");
        }
    }

    #[test]
    fn what_labels_leave_out_is_left_out_everywhere() {
        let all = chosen(&[], &[], &[]);
        let without = all.without(["team-b".to_owned()]);
        assert!(without.leaves_out("team-b") && !without.leaves_out("team-a") && !all.leaves_out("team-b"));
        assert_eq!(without.among(&there()), all.among(&there()), "what is meant is found out anew each time");
    }

    #[test]
    fn namespaces_are_read_from_their_metadata() {
        for (json, name, excluded, is_ending) in [
            (r#"{"metadata":{"name":"a"}}"#, "a", None, false),
            (r#"{"metadata":{"name":"a","labels":null,"deletionTimestamp":null}}"#, "a", None, false),
            (r#"{"metadata":{"name":"b","labels":{"kubectl-backup/exclude":"true"}}}"#, "b", Some(RULE), false),
            (r#"{"metadata":{"name":"b","labels":{"kubectl-backup/exclude":"false"}}}"#, "b", None, false),
            (r#"{"metadata":{"name":"c","deletionTimestamp":"2026-11-20T10:00:00Z"}}"#, "c", None, true),
        ] {
            let place = Place { name: name.to_owned(), excluded, is_ending };
            assert_eq!(Place::read(json).unwrap(), place, "{json}");
        }
        assert!(Place::read("{}").is_err());
    }
}
