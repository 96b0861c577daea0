//! What a person sees who makes a mistake: each answer names the thing and the way out, with the exit code of the contract.

use crate::harness::{ClusterName::A, *};

#[test]
fn a_namespace_that_is_not_there() {
    installed(A);
    let place = location("no-namespace");
    for args in [&["ns", "no-such-namespace"][..], &["ns", "default", "no-such-*"]] {
        backup(A, &[args, &["--location", &place.url]].concat())
            .exits(5)
            .says(&["there is no namespace `no-such-", "hint:"]);
    }
    assert_eq!(keys(&format!("{}/backups/", place.prefix)), [""; 0]);
}

#[test]
fn a_bucket_that_is_not_there() {
    let mut place = location("no-bucket");
    place.url = place.url.replace(bucket(), "kubectl-backup-test-nowhere");
    let name = add_location("no-bucket", &place);
    backup(A, &["ns", "default", "--location", &name])
        .exits(1)
        .says(&["bucket `kubectl-backup-test-nowhere`", "hint:"]);
}

#[test]
fn a_location_that_is_not_configured() {
    installed(A);
    backup(A, &["ns", "default", "--location", "elsewhere"]).exits(2).says(&[
        "`elsewhere` is not a location",
        "`main`",
        "hint:",
    ]);
}

#[test]
fn a_cluster_without_init() {
    backup(A, &["ns", "default", "--install-namespace", "never-made"])
        .exits(5)
        .says(&["never-made", "kubectl backup init"]);
}

#[test]
fn a_configuration_that_is_not_valid_names_line_and_field() {
    install(A, "kubectl-backup-typo", "");
    write_config(A, "kubectl-backup-typo", "locations:\n  main:\n    url: s3://bucket-a/x\n    rolArn: x\n");
    backup(A, &["ns", "default", "--install-namespace", "kubectl-backup-typo"]).exits(2).says(&["rolArn", "line 4"]);
    kubectl(A, &["delete", "namespace", "kubectl-backup-typo", "--wait=false"]).exits(0);
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_right() {
    backup(A, &["ns"]).exits(2).says(&["NAME", "--help"]);
    backup(A, &["ns", "a", "--no-such-flag"]).exits(2).says(&["--no-such-flag"]);
    backup(A, &["no-such-verb"]).exits(2).says(&["no-such-verb"]);
    backup(A, &["ns", "Not_A_Namespace", "--local", "--location", "file:///tmp/x"])
        .exits(2)
        .says(&["Not_A_Namespace", "hint:"]);
    backup(A, &["restore", "latest", "--map-namespace", "a"]).exits(2).says(&["'a'", "OLD=NEW"]);
}

#[test]
fn a_backup_or_object_that_is_not_there() {
    installed(A);
    let place = location("no-backup");
    let at = ["--location", &place.url];
    backup(A, &[&["describe", "latest"][..], &at].concat()).exits(5).says(&["there are no backups in s3://"]);
    let namespace = TempNamespace::new(A, "no-backup");
    let id = backup(A, &[&["ns", &namespace.name, "-o", "name"][..], &at].concat()).exits(0).stdout;
    let id = id.trim().rsplit('/').next().expect("an id").to_owned();
    backup(A, &[&["show", "latest", "deploy/nothing"][..], &at].concat())
        .exits(5)
        .says(&["holds no `deploy/nothing`", &id]);
    backup(A, &[&["show", "latest", "deplyoment/nothing"][..], &at].concat()).exits(5).says(&["deplyoment/nothing"]);
    backup(A, &[&["restore", "nothing-like-it", "--yes"][..], &at].concat())
        .exits(5)
        .says(&["`nothing-like-it` means no backup", "hint:"]);
}

#[test]
fn a_role_that_the_token_may_not_assume() {
    // MiniStack evaluates trust policies by subject: only kubectl-backup/kubectl-backup-reader may assume the role
    let namespace = "kubectl-backup-stranger";
    install(A, namespace, "");
    let env = ministack();
    let (endpoint, role, bucket) = (&env["S3_ENDPOINT"], &env["ROLE_ARN_A"], &env["S3_BUCKET"]);
    let image = std::env::var("KUBECTL_BACKUP_TEST_IMAGE").expect("an image");
    write_config(
        A,
        namespace,
        &format!(
            "locations:\n  main:\n    url: s3://{bucket}/x?region=us-east-1&endpoint={endpoint}\n    roleArn: {role}\njob:\n  image: {image}\n"
        ),
    );
    let ran = backup(A, &["ns", "default", "--install-namespace", namespace]).exits(6);
    let subject = format!("system:serviceaccount:{namespace}:kubectl-backup-reader");
    ran.says(&[role, &subject, "hint:"]);
    kubectl(A, &["delete", "namespace", namespace, "--wait=false"]).exits(0);
}

#[test]
fn a_token_of_the_wrong_audience_is_refused() {
    let namespace = "kubectl-backup-audience";
    install(A, namespace, "");
    let config = kubectl(
        A,
        &["get", "configmap", "-n", namespace, "kubectl-backup-config", "-o", "jsonpath={.data.config\\.yaml}"],
    )
    .exits(0)
    .stdout;
    write_config(A, namespace, &config.replace("audience: sts.amazonaws.com", "audience: somebody.else"));
    backup(A, &["ns", "default", "--install-namespace", namespace]).exits(6).says(&[
        "somebody.else",
        world().s3("ROLE_ARN_A"),
        "hint:",
    ]);
    kubectl(A, &["delete", "namespace", namespace, "--wait=false"]).exits(0);
}

#[test]
fn pods_that_cannot_start_are_diagnosed() {
    let namespace = "kubectl-backup-image";
    install(A, namespace, "");
    let config = kubectl(
        A,
        &["get", "configmap", "-n", namespace, "kubectl-backup-config", "-o", "jsonpath={.data.config\\.yaml}"],
    )
    .exits(0)
    .stdout;
    let image = std::env::var("KUBECTL_BACKUP_TEST_IMAGE").expect("an image");
    let with_image =
        |name: &str, more: &str| config.replace(&format!("image: {image}"), &format!("image: {name}\n{more}"));
    let run = |config: &str| {
        write_config(A, namespace, config);
        backup(A, &["ns", "default", "--install-namespace", namespace, "--timeout", "60s"])
    };
    run(&with_image("localhost/not-there:1", "  imagePullPolicy: Never"))
        .exits(1)
        .says(&["localhost/not-there:1", "hint:"]);
    run(&with_image(&image, "  resources: {requests: {cpu: '1000'}}")).says(&["Insufficient cpu"]);
    kubectl(A, &["delete", "serviceaccount", "-n", namespace, "kubectl-backup-reader"]).exits(0);
    run(&config).exits(1).says(&["kubectl-backup-reader", "kubectl backup init"]);
    kubectl(A, &["delete", "namespace", namespace, "--wait=false"]).exits(0);
}
