use super::*;
use serde_json::{Value, json};

fn pod(annotations: Value) -> Value {
    json!({
        "metadata": {"name": "db-0", "namespace": "shop", "annotations": annotations},
        "spec": {
            "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}],
            "containers": [{"name": "db"}, {"name": "exporter"}],
        },
        "status": {"phase": "Running"},
    })
}

fn chosen(annotations: Value) -> PodHooks {
    of_pod(&pod(annotations).to_string()).unwrap()
}

fn hook(annotation: &str, container: &str, command: &[&str], seconds: u64, on_error: OnError) -> Option<Hook> {
    let is = |keys: &&Keys| keys.command == annotation;
    let (when, keys) = match PRE.iter().find(is) {
        Some(keys) => (When::Pre, keys),
        None => (When::Post, POST.iter().find(is).unwrap()),
    };
    Some(Hook {
        when,
        annotation: keys.command,
        container: container.to_owned(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        timeout: Duration::from_secs(seconds),
        on_error,
    })
}

#[track_caller]
fn wrong(annotations: Value, annotation: &str, why: &str) {
    let PodHooks::Invalid(invalid) = chosen(annotations) else { panic!("it is valid") };
    assert!(invalid.iter().any(|one| one.annotation == annotation && one.why.contains(why)), "{invalid:#?}");
}

#[test]
fn ours_with_defaults_and_without() {
    let hooks = chosen(json!({"kubectl-backup/pre": "/freeze", "kubectl-backup/post": "[\"/thaw\", \"now\"]",
        "kubectl-backup/post-container": "exporter", "kubectl-backup/post-timeout": "1m30s",
        "kubectl-backup/post-on-error": "continue", "prometheus.io/scrape": "true"}));
    let pre = hook("kubectl-backup/pre", "db", &["/freeze"], 30, OnError::Fail);
    let post = hook("kubectl-backup/post", "exporter", &["/thaw", "now"], 90, OnError::Continue);
    assert_eq!(hooks, PodHooks::Run { pre, post, replaced: Vec::new() });
}

#[test]
fn veleros_as_they_are() {
    for (prefix, when) in [("pre.", When::Pre), ("", When::Pre), ("post.", When::Post)] {
        let key = |name: &str| format!("{prefix}hook.backup.velero.io/{name}");
        let hooks = chosen(json!({key("container"): "exporter", key("command"): "[\"/usr/bin/uname\", \"-a\"]",
            key("on-error"): "Continue", key("timeout"): "1h"}));
        let found = hook(&key("command"), "exporter", &["/usr/bin/uname", "-a"], 3600, OnError::Continue);
        let (pre, post) = if when == When::Pre { (found, None) } else { (None, found) };
        assert_eq!(hooks, PodHooks::Run { pre, post, replaced: Vec::new() }, "{prefix}");
        let short = chosen(json!({key("command"): "/thaw"}));
        let found = hook(&key("command"), "db", &["/thaw"], 30, OnError::Fail);
        let (pre, post) = if when == When::Pre { (found, None) } else { (None, found) };
        assert_eq!(short, PodHooks::Run { pre, post, replaced: Vec::new() }, "{prefix}");
    }
}

#[test]
fn one_command_runs_on_either_side_and_the_others_are_named() {
    let hooks = chosen(json!({"kubectl-backup/pre": "ours", "pre.hook.backup.velero.io/command": "theirs",
        "hook.backup.velero.io/command": "older", "post.hook.backup.velero.io/command": "theirs"}));
    let PodHooks::Run { pre, post, replaced } = hooks else { panic!("{hooks:?}") };
    assert_eq!((pre.unwrap().command, post.unwrap().command), (vec!["ours".to_owned()], vec!["theirs".to_owned()]));
    let by = "kubectl-backup/pre";
    let expected = ["pre.hook.backup.velero.io/command", "hook.backup.velero.io/command"];
    assert_eq!(replaced, expected.map(|annotation| Replaced { annotation, by }));
}

#[test]
fn a_sidecar_is_a_container_and_an_init_container_is_none() {
    let in_container = |name: &str| json!({"kubectl-backup/pre": "x", "kubectl-backup/pre-container": name});
    assert!(
        matches!(chosen(in_container("proxy")), PodHooks::Run { pre: Some(hook), .. } if hook.container == "proxy")
    );
    let key = "kubectl-backup/pre-container";
    wrong(in_container("setup"), key, "no container `setup`, it has `db`, `exporter`, `proxy`");
    wrong(in_container("web"), key, "no container `web`");
}

#[test]
fn what_cannot_be_meant_is_named() {
    let command = |text: &str| json!({"kubectl-backup/pre": text});
    wrong(command("pg_ctl stop"), "kubectl-backup/pre", "no shell");
    wrong(command("[\"a\""), "kubectl-backup/pre", "is none");
    wrong(command("[1]"), "kubectl-backup/pre", "is none");
    wrong(command("[]"), "kubectl-backup/pre", "no program");
    wrong(command("[\"\"]"), "kubectl-backup/pre", "no program");
    let timeout =
        |text: &str| json!({"post.hook.backup.velero.io/command": "x", "post.hook.backup.velero.io/timeout": text});
    let key = "post.hook.backup.velero.io/timeout";
    wrong(timeout("300"), key, "write `300s`");
    wrong(timeout("soon"), key, "`soon` is not a duration");
    wrong(timeout("0s"), key, "not longer than 0");
    wrong(timeout("-5s"), key, "not longer than 0");
    wrong(timeout("17h"), key, "longer than 16 hours");
    wrong(timeout("99999999999999999999h"), key, "not a duration");
    let on_error = json!({"kubectl-backup/post": "x", "kubectl-backup/post-on-error": "ignore"});
    wrong(on_error, "kubectl-backup/post-on-error", "`ignore` is neither `Fail` nor `Continue`");
    let near = "there is no such annotation, did you mean `kubectl-backup/pre-timeout`?";
    wrong(json!({"kubectl-backup/pre-timeuot": "5s"}), "kubectl-backup/pre-timeuot", near);
    wrong(json!({"pre.hook.backup.velero.io/cmd": "x"}), "pre.hook.backup.velero.io/cmd", "no such annotation");
    let lonely = json!({"kubectl-backup/pre-container": "db"});
    wrong(lonely, "kubectl-backup/pre-container", "no annotation `kubectl-backup/pre`");
}

#[test]
fn a_command_is_never_quoted() {
    let PodHooks::Invalid(invalid) =
        chosen(json!({"kubectl-backup/pre": "mysql -phunter2", "kubectl-backup/post": "[hunter2]"}))
    else {
        panic!("it is valid")
    };
    assert!(invalid.len() == 2 && !format!("{invalid:?}").contains("hunter2"), "{invalid:?}");
}

#[test]
fn one_wrong_annotation_keeps_all_hooks_of_the_pod_back() {
    let annotations =
        json!({"kubectl-backup/pre": "/freeze", "kubectl-backup/post": "/thaw", "kubectl-backup/post-timeout": "9"});
    assert!(matches!(chosen(annotations), PodHooks::Invalid(invalid) if invalid.len() == 1));
}

#[test]
fn empty_values_say_nothing() {
    let empty = json!({"kubectl-backup/pre": "", "pre.hook.backup.velero.io/command": " ",
        "pre.hook.backup.velero.io/timeout": "x", "kubectl-backup/post-container": ""});
    assert_eq!(chosen(empty), PodHooks::None);
    assert_eq!(chosen(json!({"app.kubernetes.io/pre": "x", "kubectl-backup/exclude": "true"})), PodHooks::None);
    assert_eq!(chosen(Value::Null), PodHooks::None);
}

#[test]
fn pods_in_which_nothing_runs() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut pod = pod(json!({"kubectl-backup/pre": "bad words"}));
        change(&mut pod);
        of_pod(&pod.to_string()).unwrap()
    };
    for phase in ["Pending", "Succeeded", "Failed", "Unknown"] {
        let left = with(&|pod| pod["status"]["phase"] = json!(phase));
        assert_eq!(left, PodHooks::LeftOut("hooks run in pods that are running"), "{phase}");
    }
    let left = with(&|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-11-20T10:00:00Z"));
    assert_eq!(left, PodHooks::LeftOut("hooks run in pods that are not terminating"));
    let left = with(&|pod| pod["metadata"]["labels"] = json!({"velero.io/exclude-from-backup": "true"}));
    assert_eq!(left, PodHooks::LeftOut("label velero.io/exclude-from-backup=true"));
}

#[test]
fn metadata_alone_tells_who_is_annotated() {
    for (annotations, yes) in [
        (json!({"kubectl-backup/pre": ""}), true),
        (json!({"kubectl-backup/post-timeuot": ""}), true),
        (json!({"hook.backup.velero.io/command": "x"}), true),
        (json!({"kubectl-backup/present": "x", "post.hook.restore.velero.io/command": "x"}), false),
        (Value::Null, false),
    ] {
        let raw = json!({"metadata": {"name": "x", "annotations": annotations}}).to_string();
        assert_eq!(is_annotated(&raw).unwrap(), yes, "{raw}");
    }
    assert!(!is_annotated("{}").unwrap());
    assert!(is_annotated("[").is_err());
}

#[test]
fn last_lines_are_few_and_steer_nothing() {
    assert_eq!(last_lines(" \n\n"), "");
    assert_eq!(last_lines("one\r\n\n  two\n"), "one / two");
    assert_eq!(last_lines("\u{1b}[2Jx\u{202e}"), "\\u{1b}[2Jx\\u{202e}");
    let many: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(last_lines(&many.join("\n")), many[40..].join(" / "));
    let long = last_lines(&"ä\u{7}".repeat(4000));
    assert!(long.starts_with('…') && long.ends_with("\\u{7}") && long.len() <= TOLD_BYTES + 3, "{}", long.len());
}
