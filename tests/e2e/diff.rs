//! `diff` as a user runs it, in a Job and on the laptop.

use crate::harness::{ClusterName::A, *};

/// Every way to compare, by a runner that is either a Job or this process.
fn all_ways(run: &dyn Fn(&[&str]) -> Ran, namespace: &TempNamespace) {
    let name = namespace.name.as_str();
    let kubectl = |args: &[&str]| kubectl(A, &[&["-n", name], args].concat()).exits(0);
    kubectl(&["create", "configmap", "settings", "--from-literal=colour=green"]);
    kubectl(&[
        "create",
        "secret",
        "generic",
        "db",
        "--from-literal=password=planted-before",
        "--from-literal=user=planted-same",
    ]);
    kubectl(&["create", "deployment", "web", "--image=localhost/bb:1", "--replicas=1"]);
    let id = run(&["ns", name, "-o", "json"]).exits(0).json()["id"].as_str().expect("an id").to_owned();
    let same = run(&["diff", &id]).exits(0);
    assert_eq!(same.stdout, "", "a Deployment's pods and its status are no difference");

    kubectl(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"colour":"red"}}"#]);
    kubectl(&["patch", "secret", "db", "--type=merge", "-p", r#"{"data":{"password":"cGxhbnRlZC1hZnRlcg=="}}"#]);
    kubectl(&["create", "configmap", "new", "--from-literal=a=b"]);
    let differs = run(&["diff", &id]).exits(1).stdout;
    for line in [
        "-  colour: green",
        "+  colour: red",
        "-  password: '*** (before)'",
        "+  password: '*** (after)'",
        "   user: '***'",
        "+  name: new",
    ] {
        let plain = line.replace('\'', "");
        assert!(differs.lines().any(|found| found.replace(['\'', '"'], "") == plain), "`{line}` is not in:\n{differs}");
    }
    assert!(!differs.contains("planted") && !differs.contains("cGxhbnRlZ"), "{differs}");
    let names = run(&["diff", &id, "-o", "name"]).exits(1).stdout;
    assert_eq!(names, format!("{name} configmaps/new\n{name} configmaps/settings\n{name} secrets/db\n"));
    run(&["diff", &id, "deploy/web", "-n", name]).exits(0);
    run(&["diff", &id, "cm/settings"]).exits(1);
    run(&["diff", &id, "cm/missing"]).exits(5).says(&["hint:"]);

    let second = run(&["ns", name, "-o", "json"]).exits(0).json()["id"].as_str().expect("an id").to_owned();
    let both = run(&["diff", &id, &second, "-o", "name"]).exits(1).stdout;
    assert_eq!(both, names);
    run(&["diff", &second]).exits(0);
    run(&["diff", &second, &second]).exits(0);
}

#[test]
fn a_backup_is_compared_in_a_job() {
    installed(A);
    let (location, namespace) = (location("diff"), TempNamespace::new(A, "diff"));
    all_ways(&|args| backup(A, &[args, &["--location", &location.url]].concat()), &namespace);
}

#[test]
fn a_backup_is_compared_on_the_laptop_and_with_other_programs() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", folder.path().display());
    let namespace = TempNamespace::new(A, "diff-local");
    all_ways(&|args| backup_local(A, &[args, &["--location", &url]].concat()), &namespace);
    let with = |program: &str| {
        let mut command = backup_command(A, &["diff", "latest", "--location", &url, "--local"]);
        Ran::of(command.env("KUBECTL_EXTERNAL_DIFF", program).output().expect("the binary runs"))
    };
    kubectl(A, &["-n", &namespace.name, "delete", "configmap", "new"]).exits(0);
    let listed = with("diff -rq").exits(1).stdout;
    assert!(listed.contains("Only in backup") && listed.contains(".new"), "{listed}");
    with("true").exits(0);
    with("no-such-program").exits(2).says(&["no-such-program", "hint:"]);
}
