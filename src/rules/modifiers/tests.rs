use super::*;
use crate::rules::testing::kind;
use serde_json::json;

const PATCHES: &str = include_str!("../../../tests/fixtures/modifiers/velero-patches.yaml");
const MERGE: &str = include_str!("../../../tests/fixtures/modifiers/velero-merge.yaml");

const CLAIMS: &str = "persistentvolumeclaims";
const DEPLOYMENTS: &str = "deployments.apps";

fn modified(file: &str, key: &str, mut object: Value) -> (Value, Vec<u16>) {
    let text = |pointer: &str, object: &Value| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let (namespace, name) = (text("/metadata/namespace", &object), text("/metadata/name", &object).unwrap_or_default());
    let modifiers = Modifiers::parse(file).unwrap_or_else(|error| panic!("{error}"));
    let rules = modifiers.apply(&kind(key, "X"), namespace.as_deref(), &name, &mut object).unwrap();
    (object, rules)
}

fn claim(namespace: &str, name: &str, app: &str, class: &str) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name, "labels": {"app": app, "stage": "t"}}, "spec": {"storageClassName": class}})
}

#[test]
fn a_velero_files_patches_mean_the_same() {
    let (object, rules) = modified(PATCHES, CLAIMS, claim("shop", "pg-0", "db", "slow"));
    // conditions are judged once, a `test` as the rules before have left it
    assert_eq!((&object["spec"]["storageClassName"], rules), (&json!("fast-ssd"), vec![0]));
    assert_eq!(object["metadata"]["labels"], json!({"app": "db"}));
    for (namespace, name, app) in [("other", "pg-0", "db"), ("shop", "pg", "db"), ("shop", "pg-0", "web")] {
        let (object, rules) = modified(PATCHES, CLAIMS, claim(namespace, name, app, "slow"));
        assert_eq!(
            (&object["spec"]["storageClassName"], rules),
            (&json!("balanced"), vec![1]),
            "{namespace} {name} {app}"
        );
        let unlike = claim(namespace, name, app, "fast");
        assert_eq!(modified(PATCHES, CLAIMS, unlike.clone()), (unlike, vec![]));
    }
    let deployment = json!({"metadata": {"name": "canary-a", "namespace": "n"}, "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "old"}]}}}});
    let (object, rules) = modified(PATCHES, DEPLOYMENTS, deployment);
    let containers = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(
        (containers.len(), &containers[0]["ports"][0]["containerPort"], &containers[0]),
        (3, &json!(9901), &containers[1])
    );
    assert_eq!(
        (&object["spec"]["replicas"], &object["metadata"]["labels"]["two"], rules),
        (&json!(2), &json!("2"), vec![2])
    );
}

#[test]
fn a_velero_config_maps_merge_patches_mean_the_same() {
    let with = |annotations: Value| {
        json!({"metadata": {"name": "web", "namespace": "n", "annotations": annotations},
            "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "old", "env": []}, {"name": "side", "image": "kept"}]}}}})
    };
    let (object, rules) = modified(MERGE, DEPLOYMENTS, with(json!({"owner": "old", "a": "b"})));
    assert_eq!((&object["metadata"]["annotations"], rules), (&json!({"a": "b", "moved": "yes"}), vec![0, 1]));
    let containers =
        json!([{"name": "web", "image": "registry.example/web", "env": []}, {"name": "side", "image": "kept"}]);
    assert_eq!(object["spec"]["template"]["spec"]["containers"], containers);
    // `*.*` leaves the core group out, as Velero's glob does
    let secret = json!({"metadata": {"name": "s", "annotations": {"owner": "old"}}});
    assert_eq!(modified(MERGE, "secrets", secret.clone()), (secret, vec![]));
}

fn rules(patches: &str) -> String {
    format!(
        "version: v1\nresourceModifierRules:\n- conditions: {{groupResource: '{{pods,services,widgets.example.com}}'}}\n  {patches}\n"
    )
}

#[test]
fn values_are_read_as_velero_reads_them() {
    for (value, expected) in [
        ("premium", json!("premium")),
        ("'3'", json!(3)),
        ("3", json!(3)),
        (r#"'"3"'"#, json!("3")),
        ("'true'", json!(true)),
        ("'False'", json!(false)),
        (r#"'"true"'"#, json!("true")),
        ("'null'", Value::Null),
        ("null", Value::Null),
        ("'{\"a\": 1}'", json!({"a": 1})),
        ("'[1]'", json!([1])),
        ("{a: 1}", json!({"a": 1})),
        ("'01'", json!("01")),
        ("''", json!("")),
    ] {
        let file = rules(&format!("patches: [{{operation: Add, path: /x, value: {value}}}]"));
        let (object, _) = modified(&file, "pods", json!({"metadata": {"name": "p"}, "x": 0}));
        assert_eq!(object["x"], expected, "{value}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let with = |conditions: &str, patches: &str| {
        format!(
            "version: v1\nresourceModifierRules:\n- conditions: {{groupResource: pods}}\n  mergePatches: [{{patchData: '{{}}'}}]\n- conditions: {conditions}\n  {patches}\n"
        )
    };
    let good = "mergePatches: [{patchData: '{}'}]";
    for (file, says) in [
        ("a: [", "it is not YAML"),
        ("version: v1", "resourceModifierRules"),
        ("version: v2\nresourceModifierRules: [{}]", "`version`: `v2`"),
        ("version: v1\nresourceModifierRules: []", "there are no rules"),
        ("version: v1\nrules: []", "rules"),
        ("kind: ConfigMap\ndata: {a: b, c: d}", "`data`"),
        (&with("{}", good), "rule 2: `conditions`: missing field `groupResource`"),
        (&with("{groupKind: pods}", good), "rule 2: `conditions`: unknown field `groupKind`"),
        (&with("{groupResource: 'po[ds'}", good), "rule 2: `conditions`: `groupResource`"),
        (&with("{groupResource: pods, resourceNameRegex: '('}", good), "rule 2: `conditions`: `resourceNameRegex`"),
        (&with("{groupResource: pods, matches: [{path: a, value: b}]}", good), "rule 2: `conditions`: `matches`"),
        (
            &with("{groupResource: pods, labelSelector: {matchExpressions: [{key: a, operator: In}]}}", good),
            "`labelSelector`",
        ),
        (
            &with("{groupResource: pods, labelSelector: {matchExpressions: [{key: a, operator: Gt}]}}", good),
            "unknown variant `Gt`",
        ),
        (&with("{groupResource: pods}", ""), "rule 2: it has none of"),
        (
            &with(
                "{groupResource: pods}",
                "mergePatches: [{patchData: '{}'}]\n  patches: [{operation: remove, path: /a}]",
            ),
            "rule 2: it has more than one",
        ),
        (
            &with("{groupResource: pods}", "patches: [{operation: remove, path: /a}, {operation: drop, path: /a}]"),
            "rule 2: `patches[1]`: `operation`: `drop`",
        ),
        (&with("{groupResource: pods}", "patches: [{operation: remove, path: a}]"), "rule 2: `patches[0]`: `path`"),
        (&with("{groupResource: pods}", "patches: [{operation: copy, path: /a}]"), "rule 2: `patches[0]`: `from`"),
        (&with("{groupResource: pods}", "patches: [{operation: add, path: /a~2}]"), "rule 2: `patches[0]`: `path`"),
        (
            &with("{groupResource: pods}", "patches: [{operation: add, path: /a, value: '{b'}]"),
            "rule 2: `patches[0]`: `value`",
        ),
        (
            &with("{groupResource: pods}", "mergePatches: [{patchData: 'a'}]"),
            "rule 2: `mergePatches[0]`: `patchData` is no map",
        ),
        (
            &with("{groupResource: pods}", "strategicPatches: [{patchData: '{'}]"),
            "rule 2: `strategicPatches[0]`: `patchData`",
        ),
    ] {
        let error = Modifiers::parse(file).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("\nhint: "), "{says} is not in: {error}");
    }
}

#[test]
fn what_cannot_be_applied_is_named() {
    for (key, patches, says) in [
        (
            "pods",
            "patches: [{operation: remove, path: /spec/none}]",
            "`remove` finds nothing to work on at `/spec/none`",
        ),
        ("pods", "patches: [{operation: replace, path: /spec/none, value: a}]", "`replace` finds nothing"),
        ("pods", "patches: [{operation: add, path: /none/a, value: a}]", "`add` finds nothing"),
        (
            "pods",
            "patches: [{operation: replace, path: /metadata/name, value: a}]",
            "`/metadata/name` can't be changed",
        ),
        ("pods", "patches: [{operation: remove, path: /metadata/name}]", "`/metadata/name` can't be changed"),
        ("pods", "mergePatches: [{patchData: '{metadata: {namespace: b}}'}]", "`--map-namespace` does this"),
        ("pods", "mergePatches: [{patchData: '{kind: Job}'}]", "`/kind` can't be changed"),
        ("pods", "patches: [{operation: replace, path: '', value: '{}'}]", "`path`"),
        ("widgets.example.com", "strategicPatches: [{patchData: '{a: b}'}]", "use `mergePatches`"),
        (
            "pods",
            "strategicPatches: [{patchData: '{spec: {\"$setElementOrder/containers\": []}}'}]",
            "`$setElementOrder/containers` is not followed",
        ),
        (
            "pods",
            "strategicPatches: [{patchData: '{spec: {containers: [{image: a}]}}'}]",
            "an element of `containers` lacks `name`",
        ),
    ] {
        let mut object = json!({"kind": "X", "metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": []}});
        let before = object.clone();
        let applied = Modifiers::parse(&rules(patches))
            .and_then(|rules| rules.apply(&kind(key, "X"), Some("n"), "p", &mut object));
        let error = applied.unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("rule 1"), "{says} is not in: {error}");
        assert_eq!(object, before, "nothing is half changed");
    }
}

#[test]
fn a_test_that_fails_leaves_the_object_as_it_was() {
    for (test, changes) in [
        ("{operation: test, path: /spec/a, value: '1'}", true),
        ("{operation: test, path: /spec/a, value: '2'}", false),
        ("{operation: test, path: /spec/none, value: '1'}", false),
        ("{operation: test, path: /spec/none, value: 'null'}", true),
        ("{operation: test, path: /none/at/all, value: '1'}", false),
    ] {
        let file = rules(&format!("patches: [{{operation: add, path: /spec/b, value: b}}, {test}]"));
        let (object, rules) = modified(&file, "pods", json!({"metadata": {"name": "p"}, "spec": {"a": 1}}));
        assert_eq!((object["spec"].get("b").is_some(), rules.len()), (changes, usize::from(changes)), "{test}");
    }
}

#[test]
fn strategic_patches_merge_lists_by_their_keys() {
    let pod = || {
        json!({"metadata": {"name": "p", "finalizers": ["a/b"], "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "a", "image": "a", "args": ["1"], "ports": [{"containerPort": 80, "name": "http"}], "env": [{"name": "K", "value": "v"}]}, {"name": "b"}],
                "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "a"}], "nodeSelector": {"a": "b"}}})
    };
    for (patch, pointer, expected) in [
        (
            "{spec: {containers: [{name: a, env: [{name: K, value: w}, {name: L}]}]}}",
            "/spec/containers/0/env",
            json!([{"name": "K", "value": "w"}, {"name": "L"}]),
        ),
        ("{spec: {containers: [{name: a, args: ['2']}]}}", "/spec/containers/0/args", json!(["2"])),
        (
            "{spec: {containers: [{name: a, ports: [{containerPort: 81}]}]}}",
            "/spec/containers/0/ports",
            json!([{"containerPort": 80, "name": "http"}, {"containerPort": 81}]),
        ),
        (
            "{spec: {containers: [{name: b, $patch: delete}, {name: c, image: c}, {name: none, $patch: delete}]}}",
            "/spec/containers/1",
            json!({"name": "c", "image": "c"}),
        ),
        ("{spec: {containers: [{$patch: replace}, {name: z}]}}", "/spec/containers", json!([{"name": "z"}])),
        ("{spec: {tolerations: [{key: b}]}}", "/spec/tolerations", json!([{"key": "b"}])),
        ("{spec: {nodeSelector: {$patch: replace, c: d}}}", "/spec/nodeSelector", json!({"c": "d"})),
        ("{spec: {nodeSelector: {$patch: delete}}}", "/spec/nodeSelector", Value::Null),
        ("{spec: {nodeSelector: null}}", "/spec/nodeSelector", Value::Null),
        (
            "{spec: {volumes: [{name: v, $retainKeys: [name, hostPath], hostPath: {path: /x}}]}}",
            "/spec/volumes/0",
            json!({"name": "v", "hostPath": {"path": "/x"}}),
        ),
        ("{metadata: {finalizers: [c/d, a/b]}}", "/metadata/finalizers", json!(["a/b", "c/d"])),
        ("{metadata: {$deleteFromPrimitiveList/finalizers: [a/b]}}", "/metadata/finalizers", json!([])),
        ("{metadata: {labels: {c: d, a: null}}}", "/metadata/labels", json!({"c": "d"})),
        (
            "{spec: {affinity: {podAffinity: {$patch: merge, x: y, z: null}}}}",
            "/spec/affinity",
            json!({"podAffinity": {"x": "y"}}),
        ),
    ] {
        let (object, _) = modified(&rules(&format!("strategicPatches: [{{patchData: {patch}}}]")), "pods", pod());
        assert_eq!(object.pointer(pointer).unwrap_or(&Value::Null), &expected, "{patch}");
    }
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "name": "http"}, {"port": 81}]}});
    let (object, _) = modified(
        &rules("strategicPatches: [{patchData: {spec: {ports: [{port: 81, name: x}]}}}]"),
        "services",
        service,
    );
    assert_eq!(object["spec"]["ports"], json!([{"port": 80, "name": "http"}, {"port": 81, "name": "x"}]));
}
