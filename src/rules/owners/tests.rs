use super::*;
use crate::rules::testing::kind;
use serde_json::json;

const OLD: &str = "0d4e6bc9-3b6a-4f2e-9d43-5f0c7e1f2a3b";
const NEW: &str = "11111111-2222-3333-4444-555555555555";

#[test]
fn uids_are_small_and_print_as_they_were() {
    assert_eq!(size_of::<Uid>(), 24);
    assert!(matches!(Uid::parse(OLD), Uid::Uuid(_)));
    let odd =
        ["", "not-a-uuid", &OLD.to_uppercase(), &OLD.replacen('-', "a", 1), &format!("{OLD}0"), &OLD.replace('d', "g")];
    for text in odd {
        assert_eq!(Uid::parse(text), Uid::Other(text.into()), "{text}");
    }
    for text in odd.into_iter().chain([OLD, NEW]) {
        assert_eq!(Uid::parse(text).to_string(), text);
    }
}

/// An object with one owner, and what becomes of it when the owner is where it says.
fn rewritten(owner: Option<Option<&str>>, namespace: Option<&str>) -> (Value, Vec<Stripped>) {
    let mut owners = Owners::default();
    owners.expect(&[Uid::parse(OLD)]);
    if let Some(at) = owner {
        owners.record(&Uid::parse(OLD), Uid::parse(NEW), at);
    }
    let reference =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": OLD, "controller": true});
    let mut object = json!({"metadata": {"name": "x", "ownerReferences": [reference]}});
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    let stripped = owners.rewrite(&kind("configmaps", "ConfigMap"), &mut object);
    (object["metadata"]["ownerReferences"].take(), stripped)
}

#[test]
fn references_get_the_new_uid_or_go() {
    let kept = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": NEW, "controller": true}]);
    for (owner, namespace, reason) in [
        (Some(Some("a")), Some("a"), None),
        (Some(None), Some("a"), None),
        (Some(None), None, None),
        (Some(Some("b")), Some("a"), Some("the owner is in another namespace")),
        (Some(Some("b")), None, Some("the owner is in a namespace, and the object in none")),
        (None, Some("a"), Some("the owner is neither restored nor there")),
    ] {
        let (references, stripped) = rewritten(owner, namespace);
        assert_eq!(stripped.first().map(|s| s.reason), reason, "{owner:?} {namespace:?}");
        assert_eq!(references, if reason.is_none() { kept.clone() } else { Value::Null });
        assert!(stripped.iter().all(|s| s.owner == "Widget w"));
    }
}

#[test]
fn one_of_two_references_stays() {
    let mut owners = Owners::default();
    owners.expect(&[Uid::parse("a"), Uid::parse("b")]);
    owners.record(&Uid::parse("b"), Uid::parse("c"), None);
    let mut object =
        json!({"metadata": {"ownerReferences": [{"uid": "a", "kind": "A", "name": "a"}, {"uid": "b"}, 7]}});
    let stripped = owners.rewrite(&kind("pods", "Pod"), &mut object);
    assert_eq!(object["metadata"]["ownerReferences"], json!([{"uid": "c"}]));
    assert_eq!(stripped.iter().map(|s| s.owner.as_str()).collect::<Vec<_>>(), ["A a", "? ?"]);
}

#[test]
fn statefulsets_take_their_claims_over() {
    let mut owners = Owners::default();
    owners.expect(&[Uid::parse(OLD)]);
    owners.record(&Uid::parse(OLD), Uid::parse(NEW), Some("a"));
    let reference = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": OLD});
    let mut claim = json!({"metadata": {"namespace": "a", "ownerReferences": [reference]}});
    let mut config = claim.clone();
    assert_eq!(owners.rewrite(&kind("persistentvolumeclaims", "X"), &mut claim).len(), 1);
    assert_eq!(owners.rewrite(&kind("configmaps", "X"), &mut config).len(), 0);
}

#[test]
fn only_awaited_owners_are_remembered() {
    let mut owners = Owners::default();
    owners.expect(&[Uid::parse("a"), Uid::parse("b")]);
    owners.record(&Uid::parse("nobody's"), Uid::parse("x"), None);
    owners.record(&Uid::parse("a"), Uid::parse("y"), None);
    owners.expect(&[Uid::parse("a")]);
    assert_eq!(owners.missing().collect::<Vec<_>>(), [&Uid::parse("b")]);
    assert_eq!(owners.0.len(), 2);
}

#[test]
fn objects_without_owners_stay_as_they_are() {
    for mut object in [json!({"metadata": {"name": "a"}}), json!({}), json!({"metadata": {"ownerReferences": "odd"}})] {
        let before = object.clone();
        assert!(Owners::default().rewrite(&kind("pods", "Pod"), &mut object).is_empty());
        assert_eq!(object, before);
    }
}

/// The places of objects given as `name owner…` with their waves, as `wave pass` in words of numbers.
fn placed(objects: &[(&str, Wave)]) -> Vec<(Wave, u16)> {
    let uids: Vec<Vec<Uid>> = objects.iter().map(|(uids, _)| uids.split(' ').map(Uid::parse).collect()).collect();
    let member = |at: usize| Member { uid: &uids[at][0], owners: &uids[at][1..], wave: objects[at].1 };
    places(objects.len(), member).iter().map(|place| (place.wave, place.pass)).collect()
}

#[test]
fn children_come_after_their_owners() {
    use Wave::{Config, CustomResources as Custom, Secrets, Workloads};
    for (what, objects, expected) in [
        ("no owners", vec![("a", Config), ("b", Secrets)], vec![(Config, 0), (Secrets, 0)]),
        (
            "the owner's wave is earlier",
            vec![("child owner", Workloads), ("owner", Config)],
            vec![(Workloads, 0), (Config, 0)],
        ),
        ("the same wave", vec![("child owner", Config), ("owner", Config)], vec![(Config, 1), (Config, 0)]),
        (
            "the owner's wave is later",
            vec![("child owner", Secrets), ("owner", Custom)],
            vec![(Custom, 1), (Custom, 0)],
        ),
        (
            "a chain across waves",
            vec![("c b", Config), ("b a", Secrets), ("a", Custom), ("d c", Workloads)],
            vec![(Custom, 2), (Custom, 1), (Custom, 0), (Custom, 3)],
        ),
        (
            "the latest of several owners counts",
            vec![("x early late", Secrets), ("early", Config), ("late", Custom)],
            vec![(Custom, 1), (Config, 0), (Custom, 0)],
        ),
        ("an owner that isn't restored", vec![("x gone", Config)], vec![(Config, 0)]),
        ("itself", vec![("x x", Config)], vec![(Config, 0)]),
        ("a circle ends somewhere", vec![("a b", Config), ("b a", Config)], vec![(Config, 1), (Config, 0)]),
        (
            "one owner of many, met twice on the way",
            vec![("x a b", Config), ("a", Config), ("b a", Config)],
            vec![(Config, 2), (Config, 0), (Config, 1)],
        ),
    ] {
        assert_eq!(placed(&objects), expected, "{what}");
    }
}

#[test]
fn a_long_chain_needs_no_deep_stack() {
    let uids: Vec<[Uid; 2]> = (0..70_000).map(|n| [n, n + 1].map(|n| Uid::parse(&n.to_string()))).collect();
    let places = places(uids.len(), |at| Member { uid: &uids[at][0], owners: &uids[at][1..], wave: Wave::Config });
    assert_eq!((places[0].pass, places[69_999].pass, places[69_000].pass), (u16::MAX, 0, 999));
}

proptest::proptest! {
    /// Whatever owns whatever: with owners taken from earlier objects there is no circle, and every object comes after
    /// all of its owners, and not before its own wave.
    #[test]
    fn no_object_comes_before_its_owners(
        objects in proptest::collection::vec((0..13usize, proptest::collection::vec(0..40usize, 0..4)), 1..40)
    ) {
        let uid = |at: usize| Uid::parse(&at.to_string());
        let uids: Vec<Uid> = (0..objects.len()).map(uid).collect();
        let owners: Vec<Vec<Uid>> = objects
            .iter()
            .enumerate()
            .map(|(at, (_, owners))| owners.iter().filter(|_| at > 0).map(|owner| uid(owner % at.max(1))).collect())
            .collect();
        let member = |at: usize| Member { uid: &uids[at], owners: &owners[at], wave: Wave::ALL[objects[at].0] };
        let places = places(objects.len(), member);
        for at in 0..objects.len() {
            proptest::prop_assert!(places[at].wave >= member(at).wave);
            for owner in &owners[at] {
                let owner = uids.iter().position(|uid| uid == owner).unwrap();
                proptest::prop_assert!(places[at] > places[owner], "{:?} {:?}", places[at], places[owner]);
            }
        }
    }

    /// A uid is kept exactly, whatever it is.
    #[test]
    fn uids_round_trip(text in "[0-9a-f-]{34,37}|.{0,40}") {
        proptest::prop_assert_eq!(Uid::parse(&text).to_string(), text);
    }
}
