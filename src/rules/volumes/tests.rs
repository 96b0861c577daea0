use super::*;
use serde_json::json;

fn claim(class: &str) -> Claim {
    let labels = BTreeMap::from([("app".to_owned(), "db".to_owned())]);
    Claim { namespace: "shop".into(), name: "data-db-0".into(), volume: "pvc-1".into(), class: class.into(), labels }
}

fn source(volume: Value) -> Source {
    Source::of(volume.to_string().as_bytes()).unwrap()
}

#[test]
fn a_claim_without_a_volume_has_no_data() {
    let raw =
        json!({"metadata": {"labels": {"app": "db"}}, "spec": {"volumeName": "pvc-1", "storageClassName": "gp3"}});
    assert_eq!(Claim::of("shop", "data-db-0", &raw.to_string()), Ok(Some(claim("gp3"))));
    for unbound in [r#"{"spec":{"volumeName":""}}"#, r#"{"spec":{}}"#, "{}"] {
        assert_eq!(Claim::of("a", "b", unbound), Ok(None), "{unbound}");
    }
    assert!(Claim::of("a", "b", r#"{"spec":[]"#).is_err());
}

#[test]
fn ebs_is_found_in_all_its_shapes() {
    let csi = |driver: &str, handle: &str| {
        source(json!({"spec": {"capacity": {"storage": "4Gi"}, "csi": {"driver": driver, "volumeHandle": handle}}}))
    };
    let tree = |id: &str| source(json!({"spec": {"awsElasticBlockStore": {"volumeID": id, "fsType": "ext4"}}}));
    let cases = [
        (csi("ebs.csi.aws.com", "vol-0abc"), Some("vol-0abc")),
        (csi("ebs.csi.eks.amazonaws.com", "vol-0abc"), Some("vol-0abc")),
        (csi("ebs.csi.aws.com", "local-ebs://vol-0abc"), None),
        (csi("ebs.csi.aws.com", "vol-&Action=DeleteVolume"), None),
        (csi("efs.csi.aws.com", "vol-0abc"), None),
        (tree("aws://eu-central-1a/vol-0def"), Some("vol-0def")),
        (tree("vol-0def"), Some("vol-0def")),
    ];
    for (found, id) in cases {
        assert_eq!(found.ebs.as_deref(), id, "{found:?}");
    }
    let host = source(json!({"spec": {"accessModes": [], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}}));
    assert_eq!((host.driver.as_str(), host.bytes), ("hostPath", 1 << 30));
}

#[test]
fn the_first_matching_rule_decides_and_what_none_matches_is_saved() {
    let ebs = source(
        json!({"spec": {"capacity": {"storage": "50Gi"}, "csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}}}),
    );
    let saved = Method::EbsSnapshot("vol-1".into());
    let skipped = |n: u32| Method::Skip(format!("rule {n} of the volume policy: the data on the volume is not saved"));
    let cases = [
        (json!([]), saved.clone()),
        (json!([{"class": ["gp2"], "action": "skip"}]), saved.clone()),
        (json!([{"class": ["gp2", "gp3"], "action": "skip"}]), skipped(1)),
        (
            json!([{"claim": ["shop/data-*"], "action": "snapshot"}, {"class": ["gp3"], "action": "skip"}]),
            saved.clone(),
        ),
        (json!([{"claim": ["other/*"], "action": "snapshot"}, {"class": ["gp3"], "action": "skip"}]), skipped(2)),
        (json!([{"labels": {"app": "db"}, "size": "..50Gi", "action": "skip"}]), skipped(1)),
        (json!([{"labels": {"app": "web"}, "action": "skip"}]), saved.clone()),
        (json!([{"size": "51Gi..", "action": "skip"}]), saved.clone()),
        (json!([{"driver": ["ebs.csi.aws.com"], "size": "10Gi..100Gi", "action": "skip"}]), skipped(1)),
    ];
    for (rules, method) in cases {
        let policy: Policy = serde_json::from_value(json!({"rules": rules})).unwrap();
        policy.check().unwrap();
        assert_eq!(policy.choose(&claim("gp3"), &ebs), method, "{rules}");
    }
    let host = source(json!({"spec": {"hostPath": {"path": "/x"}}}));
    let why = Method::Unsaved("no method of this version saves a `hostPath` volume".into());
    assert_eq!(Policy::default().choose(&claim(""), &host), why);
}

#[test]
fn a_policy_that_cannot_be_meant_is_refused_by_its_rule() {
    let cases = [
        (json!({"action": "skip"}), "rule 1 of the volume policy: it has no condition"),
        (json!({"claim": ["db"], "action": "skip"}), "`claim: db` is not NAMESPACE/NAME"),
        (json!({"claim": ["a/[b"], "action": "skip"}), "`claim: a/[b` is not a glob"),
        (json!({"size": "10Gi", "action": "skip"}), "`size: 10Gi` is not a range"),
        (json!({"size": "2Gi..1Gi", "action": "skip"}), "`size: 2Gi..1Gi` is not a range"),
    ];
    for (rule, text) in cases {
        let policy: Policy = serde_json::from_value(json!({"rules": [rule]})).unwrap();
        let error = policy.check().unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    for unknown in [json!({"rules": [{"classes": ["a"], "action": "skip"}]}), json!({"rule": []})] {
        assert!(serde_json::from_value::<Policy>(unknown).is_err());
    }
}

#[test]
fn quantities_are_those_of_kubernetes() {
    let cases = [
        ("1", Some(1)),
        ("1Ki", Some(1024)),
        ("1.5Gi", Some(1_610_612_736)),
        ("5G", Some(5_000_000_000)),
        ("1e3", Some(1000)),
        ("1E3", Some(1000)),
        ("100m", Some(1)),
        ("", None),
        ("1Gx", None),
        ("-1Gi", None),
    ];
    for (text, bytes) in cases {
        assert_eq!(quantity(text), bytes, "{text}");
    }
}

#[test]
fn a_volume_goes_where_the_target_has_nodes() {
    let zone = |name: &str, id: &str| Zone { name: name.into(), id: id.into() };
    let source = zone("eu-1a", "e-az1");
    let none = BTreeMap::new();
    let chosen = |zones: &[Zone]| zone_for(&source, zones, &none).map(|(name, note)| (name, note.is_some()));
    // another account: the same place under another name
    assert_eq!(chosen(&[zone("eu-1a", "e-az2"), zone("eu-1c", "e-az1")]), Ok(("eu-1c".into(), false)));
    // ids that nobody tells
    assert_eq!(chosen(&[zone("eu-1a", ""), zone("eu-1b", "")]), Ok(("eu-1a".into(), false)));
    assert_eq!(chosen(&[zone("eu-1c", "e-az3"), zone("eu-1b", "e-az2")]), Ok(("eu-1b".into(), true)));
    assert!(chosen(&[]).unwrap_err().contains("hint: label its nodes"));
    let mapped = BTreeMap::from([("eu-1a".to_owned(), "us-1b".to_owned())]);
    assert_eq!(zone_for(&source, &[zone("us-1a", ""), zone("us-1b", "")], &mapped), Ok(("us-1b".into(), None)));
    let error = zone_for(&source, &[zone("us-1a", "")], &mapped).unwrap_err();
    assert!(error.contains("no node in zone `us-1b`\nhint: it has some in `us-1a`"), "{error}");
}
