use super::super::fake::{Fake, failure};
use super::*;
use crate::report::ExitCode;

const NAMESPACE: &str = "/api/v1/namespaces/kb";
const CONFIG: &str = "/api/v1/namespaces/kb/configmaps/kubectl-backup-config";
const READER_ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/kubectl-backup-reader";

fn options() -> InstallOptions {
    InstallOptions { namespace: "kb".into(), ..InstallOptions::default() }
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap()
}

fn rules(objects: &[Value], kind: &str, name: &str) -> Vec<(String, String, Vec<String>)> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let rules = find(objects, kind, name)["rules"].as_array().unwrap();
    rules
        .iter()
        .map(|r| (list(&r["apiGroups"]).join(","), list(&r["resources"]).join(","), list(&r["verbs"])))
        .collect()
}

#[test]
fn the_objects_come_in_order_and_carry_the_installations_name() {
    let objects = objects(&options()).unwrap();
    let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "Namespace",
            "ServiceAccount",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
            "ClusterRole"
        ]
    );
    let namespace = find(&objects, "Namespace", "kb");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    for object in &objects {
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/name"], "kubectl-backup");
        let spaces = [&object["metadata"]["namespace"], &object["subjects"][0]["namespace"]];
        assert!(spaces.into_iter().all(|space| space.is_null() || space == "kb"), "{object}");
    }
    // names of roles and accounts stay; a second installation doesn't take the first one's binding
    let binding = find(&objects, "ClusterRoleBinding", "kubectl-backup-reader-kb");
    assert_eq!((&binding["subjects"][0]["name"], &binding["roleRef"]["name"]), (&json!(READER), &json!(READER)));
    let default = super::objects(&InstallOptions::default()).unwrap();
    find(&default, "ClusterRoleBinding", "kubectl-backup-reader");
}

#[test]
fn rights_are_the_least_that_do() {
    let objects = objects(&options()).unwrap();
    let verbs = |list: &[&str]| list.iter().map(|verb| (*verb).to_owned()).collect::<Vec<_>>();
    let all = || ("*".to_owned(), "*".to_owned());
    let rule = |(groups, resources), list: &[&str]| (groups, resources, verbs(list));
    assert_eq!(rules(&objects, "ClusterRole", "kubectl-backup-reader"), [rule(all(), &["get", "list"])]);
    let maps = || (String::new(), "configmaps".to_owned());
    assert_eq!(rules(&objects, "Role", "kubectl-backup-worker"), [rule(maps(), &["create", "get", "patch"])]);
    let rbac = || ("rbac.authorization.k8s.io".to_owned(), "roles,clusterroles".to_owned());
    assert_eq!(
        rules(&objects, "ClusterRole", "kubectl-backup-restore"),
        [
            rule(all(), &["get", "list", "create", "update", "patch", "delete"]),
            rule(rbac(), &["escalate"]),
            rule(rbac(), &["bind"]),
        ]
    );
    let bindings: Vec<&Value> = objects.iter().filter(|object| object.get("roleRef").is_some()).collect();
    assert!(bindings.iter().all(|binding| binding["roleRef"]["name"] != "kubectl-backup-restore"), "bound to nobody");
    let bound_to_writer: Vec<&&Value> =
        bindings.iter().filter(|b| b["subjects"].as_array().unwrap().iter().any(|s| s["name"] == WRITER)).collect();
    assert_eq!(bound_to_writer.len(), 1);
    assert_eq!(bound_to_writer[0]["roleRef"]["name"], "kubectl-backup-worker");
}

#[test]
fn the_right_to_run_commands_comes_only_when_asked_for() {
    let exec = |objects: &[Value]| objects.iter().any(|object| object.to_string().contains("pods/exec"));
    assert!(!exec(&objects(&options()).unwrap()));
    let objects = objects(&InstallOptions { hooks: true, ..options() }).unwrap();
    let expected = (String::new(), "pods/exec".to_owned(), vec!["get".to_owned(), "create".to_owned()]);
    assert_eq!(rules(&objects, "ClusterRole", "kubectl-backup-hooks"), [expected]);
    let binding = find(&objects, "ClusterRoleBinding", "kubectl-backup-hooks-kb");
    let subjects = json!([{ "kind": "ServiceAccount", "name": READER, "namespace": "kb" }]);
    assert_eq!((&binding["subjects"], &binding["roleRef"]["name"]), (&subjects, &json!("kubectl-backup-hooks")));
}

#[test]
fn roles_and_configuration_are_put_in() {
    let given = InstallOptions {
        reader_role_arn: Some("arn:r".into()),
        writer_role_arn: Some("arn:w".into()),
        config_yaml: Some("locations:\n  a: {}\n".into()),
        ..options()
    };
    let objects = objects(&given).unwrap();
    let arn =
        |name| find(&objects, "ServiceAccount", name)["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].clone();
    assert_eq!((arn(READER), arn(WRITER)), (json!("arn:r"), json!("arn:w")));
    assert_eq!(find(&objects, "ConfigMap", CONFIG_MAP)["data"][CONFIG_KEY], "locations:\n  a: {}\n");
    assert_eq!(objects.last().unwrap()["metadata"]["namespace"], "kb");
}

#[test]
fn printed_yaml_is_the_same_objects() {
    let given = InstallOptions { config_yaml: Some("locations:\n  a: {x: \"yes\"}\n".into()), ..options() };
    let objects = objects(&given).unwrap();
    let text = to_yaml(&objects).unwrap();
    let again: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!(again, objects);
    assert!(text.starts_with("---\napiVersion: v1\nkind: Namespace\n"), "{text:.80}");
}

#[tokio::test]
async fn applying_twice_changes_nothing_and_what_differs_is_set_right() {
    let fake = Fake::default();
    let applied = apply(&fake.client(), &options(), false).await.unwrap();
    assert_eq!(applied.len(), 9);
    assert!(applied.iter().all(|object| object.change == Change::Created), "{applied:?}");
    assert!(fake.get(CONFIG).unwrap()["data"][CONFIG_KEY].as_str().unwrap().contains("locations: {}"));
    let query = &fake.calls("PATCH", NAMESPACE)[0].query;
    assert_eq!(query, "&force=true&fieldManager=kubectl-backup&fieldValidation=Strict");

    let applied = apply(&fake.client(), &options(), false).await.unwrap();
    assert!(applied.iter().all(|object| object.change == Change::Unchanged), "{applied:?}");

    let mut role = fake.get(READER_ROLE).unwrap();
    role["rules"] = json!([]);
    fake.put(READER_ROLE, role);
    let applied = apply(&fake.client(), &options(), false).await.unwrap();
    let changed: Vec<&Applied> = applied.iter().filter(|object| object.change != Change::Unchanged).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].kind.as_str(), changed[0].change), ("ClusterRole", Change::Configured));
    assert_eq!(fake.get(READER_ROLE).unwrap()["rules"][0]["verbs"], json!(["get", "list"]));
}

#[tokio::test]
async fn a_configuration_is_never_overwritten_with_an_empty_one() {
    let fake = Fake::default();
    let given = InstallOptions { config_yaml: Some("locations: {a: {}}".into()), ..options() };
    apply(&fake.client(), &given, false).await.unwrap();
    let applied = apply(&fake.client(), &options(), false).await.unwrap();
    assert_eq!(applied.last().unwrap().change, Change::Unchanged);
    assert_eq!(read_config(&fake.client(), "kb").await.unwrap().as_deref(), Some("locations: {a: {}}"));
    assert_eq!(read_config(&fake.client(), "elsewhere").await.unwrap(), None);
}

#[tokio::test]
async fn a_dry_run_leaves_everything_and_says_what_it_would_do() {
    let fake = Fake::default();
    let applied = apply(&fake.client(), &options(), true).await.unwrap();
    assert_eq!(applied.len(), 9);
    assert!(applied.iter().all(|object| object.change == Change::Created), "{applied:?}");
    assert_eq!(fake.get(NAMESPACE), None);
    // what goes into a namespace that isn't there can't be asked about
    assert!(fake.all_calls().iter().all(|call| !call.contains("/namespaces/kb/")), "{:?}", fake.all_calls());

    apply(&fake.client(), &options(), false).await.unwrap();
    let applied = apply(&fake.client(), &options(), true).await.unwrap();
    assert!(applied.iter().all(|object| object.change == Change::Unchanged), "{applied:?}");
}

#[tokio::test]
async fn a_namespace_of_others_is_used_and_not_changed() {
    let fake = Fake::default();
    let theirs =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "kb", "labels": { "team": "a" } } });
    fake.put(NAMESPACE, theirs);
    let applied = apply(&fake.client(), &options(), false).await.unwrap();
    assert_eq!((applied[0].change, applied[1].change), (Change::Left, Change::Created));
    assert_eq!(fake.get(NAMESPACE).unwrap()["metadata"]["labels"], json!({ "team": "a" }));
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let fake = Fake::default();
    let text = r#"clusterroles.rbac.authorization.k8s.io "kubectl-backup-reader" is forbidden: User "ann" cannot patch resource "clusterroles" in API group "rbac.authorization.k8s.io" at the cluster scope"#;
    fake.answer("PATCH", READER_ROLE, 403, failure(403, "Forbidden", text));
    let error = apply(&fake.client(), &options(), false).await.unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Forbidden);
    let hint = "hint: needs `patch` on `clusterroles.rbac.authorization.k8s.io` in the whole cluster";
    assert!(error.to_string().ends_with(hint), "{error}");
}

#[test]
fn configurations_that_we_hand_out_can_be_read() {
    let empty = crate::config::Config::parse(NO_LOCATIONS).unwrap();
    assert!(empty.locations.is_empty());
    let text = include_str!("../../../manifests/overlays/minio/config.yaml");
    let map: Value = serde_saphyr::from_str(text).unwrap();
    assert_eq!(map["metadata"]["name"], CONFIG_MAP);
    let config = crate::config::Config::parse(map["data"][CONFIG_KEY].as_str().unwrap()).unwrap();
    let location = config.location(None).unwrap();
    assert_eq!(location.credentials_secret.as_deref(), Some("kubectl-backup-s3"));
}

#[test]
fn the_overlays_and_policies_are_whole() {
    let text = include_str!("../../../manifests/overlays/single-namespace/rbac.yaml");
    let single: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let ours = objects(&options()).unwrap();
    assert_eq!(rules(&single, "Role", "kubectl-backup-worker"), rules(&ours, "Role", "kubectl-backup-worker"));
    assert!(single.iter().all(|object| !object["kind"].as_str().unwrap().starts_with("Cluster")));
    for policy in [
        include_str!("../../../manifests/iam/backup-policy.json"),
        include_str!("../../../manifests/iam/restore-policy.json"),
        include_str!("../../../manifests/iam/driver-policy.json"),
        include_str!("../../../manifests/iam/trust-irsa.json"),
        include_str!("../../../manifests/iam/trust-pod-identity.json"),
    ] {
        let policy: Value = serde_json::from_str(policy).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        let narrow = |s: &Value| s["Resource"] != "*" || only_describes(s);
        assert!(statements.iter().all(|s| s["Effect"] == "Allow" && narrow(s) && s["Action"] != "s3:*"));
    }
    let restore = include_str!("../../../manifests/iam/restore-policy.json");
    assert!(!restore.contains("s3:DeleteObject"), "a restore deletes nothing in the bucket");
}

/// Whether a statement is about EC2's Describe calls, which know no narrower resource than all.
fn only_describes(statement: &Value) -> bool {
    let actions = statement["Action"].as_array().into_iter().flatten();
    actions.map(|action| action.as_str().unwrap()).all(|action| action.starts_with("ec2:Describe"))
}
