use super::*;
use crate::rules::testing::kind;
use serde_json::json;

fn adapt(options: AdaptOptions, mapping: &[&str]) -> Adapt {
    Adapt::new(&options, NamespaceMapping::parse(mapping).unwrap()).unwrap()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

const RULES: &str = "version: v1
resourceModifierRules:
- conditions: {groupResource: deployments.apps, namespaces: [shop], resourceNameRegex: '^web$'}
  patches:
  - {operation: test, path: /spec/replicas, value: 0}
  - {operation: replace, path: /spec/template/spec/containers/0/image, value: last/word}
- conditions: {groupResource: secrets}
  patches: [{operation: remove, path: /data/gone}]
";

#[test]
fn everything_is_done_in_its_order() {
    let options = AdaptOptions {
        map_image: texts(&["old=new"]),
        scale_to_zero: true,
        modifiers: Some(RULES.to_owned()),
        ..AdaptOptions::default()
    };
    let adapt = adapt(options, &["shop=test"]);
    let mut web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {"replicas": 2},
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "annotations": {"argocd.argoproj.io/tracking-id": "a"}},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"image": "old/a"}, {"image": "old/b"}]}}}});
    let changes = adapt.apply(&kind("deployments.apps", "Deployment"), &mut web).unwrap();
    // the rule is for the namespace in the backup, sees no replicas any more, and has the last word
    let expected = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "test", "annotations": {pause::REPLICAS: "2"}},
        "spec": {"replicas": 0, "template": {"spec": {"containers": [{"image": "last/word"}, {"image": "new/b"}]}}}});
    assert_eq!(web, expected);
    assert_eq!(changes, [Change::Image(0), Change::Image(0), Change::Scaled, Change::Rule(0)]);
    let mut secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"other": "aHVudGVyMg=="}});
    let error = adapt.apply(&kind("secrets", "Secret"), &mut secret).unwrap_err().to_string();
    assert!(error.contains("rule 2") && !error.contains("aHVudGVyMg"), "{error}");
}

#[test]
fn tracking_marks_come_off_where_the_namespace_changes() {
    let adapt = adapt(AdaptOptions::default(), &["shop=test"]);
    let of = |namespace: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": namespace,
        "labels": {"argocd.argoproj.io/instance": "a", "x": "y"}, "annotations": {"meta.helm.sh/release-name": "r", "meta.helm.sh/release-namespace": namespace}}})
    };
    for (from, to, tracked) in [("shop", "test", false), ("other", "other", true)] {
        let mut object = of(from);
        adapt.apply(&kind("configmaps", "ConfigMap"), &mut object).unwrap();
        let metadata = &object["metadata"];
        assert_eq!(
            (metadata["namespace"].as_str(), metadata["labels"].get("argocd.argoproj.io/instance").is_some()),
            (Some(to), tracked)
        );
        assert_eq!(metadata["annotations"]["meta.helm.sh/release-namespace"], to);
    }
    let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"argocd.argoproj.io/instance": "a"}}});
    adapt.apply(&kind("namespaces", "Namespace"), &mut namespace).unwrap();
    assert_eq!(namespace["metadata"], json!({"name": "test"}));
}

#[test]
fn the_record_of_a_release_stays_behind() {
    let adapt = adapt(AdaptOptions::default(), &["shop=test"]);
    let secret = Facts::of(&kind("secrets", "Secret"), r#"{"type":"helm.sh/release.v1"}"#).unwrap();
    let map = r#"{"metadata":{"name":"sh.helm.release.v1.a.v1","labels":{"owner":"helm"}}}"#;
    let map = Facts::of(&kind("configmaps", "ConfigMap"), map).unwrap();
    for facts in [&secret, &map] {
        assert!(adapt.left_behind(Some("shop"), facts).is_some());
        assert_eq!(adapt.left_behind(Some("other"), facts), None);
    }
    assert_eq!(adapt.left_behind(Some("shop"), &Facts::default()), None);
}

#[test]
fn the_status_of_custom_resources_stays_where_it_must() {
    let status = |adapt: &Adapt, key: &str| {
        let mut object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "w"}, "status": {"a": 1}});
        adapt.apply(&kind(key, "X"), &mut object).unwrap();
        (object.get("status").is_some(), adapt.writes_status(&kind(key, "X")))
    };
    let (widgets, gadgets) = ("widgets.example.com", "gadgets.example.com");
    for (with_status, key, expected) in [
        (false, widgets, (true, false)), // a field like any other
        (false, gadgets, (false, false)),
        (false, "deployments.apps", (false, false)),
        (true, widgets, (true, false)),
        (true, gadgets, (true, true)),
        (true, "deployments.apps", (false, false)),
    ] {
        let adapt = adapt(AdaptOptions { with_status, ..AdaptOptions::default() }, &[]);
        let plain_status = ["widgets.example.com", "deployments.apps"].map(str::to_owned).into();
        adapt.aim(Target { plain_status, ..Target::default() });
        assert_eq!(status(&adapt, key), expected, "{with_status} {key}");
    }
}

#[test]
fn what_is_asked_for_is_known_and_in_the_digest() {
    let none = adapt(AdaptOptions::default(), &["a=b"]);
    let plan = Digest::of(b"plan");
    assert!(!none.is_asked() && none.digest(plan) == plan);
    let options = AdaptOptions {
        map_storage_class: texts(&["a=b"]),
        map_image: texts(&["a=b", "c=d"]),
        map_host: texts(&["a=b"]),
        suspend_cronjobs: true,
        scale_to_zero: true,
        modifiers: Some(RULES.to_owned()),
        ..AdaptOptions::default()
    };
    let json = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<AdaptOptions>(&json).unwrap(), options);
    let all = adapt(options, &[]);
    let asked: Vec<String> = all.wanted().into_iter().map(|change| all.asked_by(change)).collect();
    let expected = [
        "--map-storage-class a=b",
        "--map-image a=b",
        "--map-image c=d",
        "--map-host a=b",
        "--suspend-cronjobs",
        "--scale-to-zero",
        "--modifiers, rule 1",
        "--modifiers, rule 2",
    ];
    assert_eq!(asked, expected);
    assert_ne!(all.digest(plan), plan);
    let wrong = AdaptOptions { map_image: texts(&["a"]), ..AdaptOptions::default() };
    assert!(Adapt::new(&wrong, NamespaceMapping::default()).is_err());
}
