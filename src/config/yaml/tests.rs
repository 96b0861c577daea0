use crate::config::{Config, Place};

const FULL: &str = include_str!("../../../tests/fixtures/config/full.yaml");

fn refused(yaml: &str) -> String {
    Config::parse(yaml).unwrap_err().to_string()
}

fn with_job(line: &str) -> String {
    format!("locations: {{}}\njob:\n  {line}\n")
}

#[test]
fn the_whole_configuration_is_read_and_written_again() {
    let config = Config::parse(FULL).unwrap();
    assert_eq!(config.default_location.as_deref(), Some("main"));
    let main = &config.locations["main"];
    assert_eq!(main.name.as_deref(), Some("main"));
    assert_eq!(main.url(), "s3://my-bucket/prefix?region=eu-central-1");
    assert_eq!(main.role_arn.as_deref(), Some("arn:aws:iam::123456789012:role/kubectl-backup"));
    assert!(!main.read_only && config.locations["office"].read_only);
    assert_eq!(config.locations["office"].credentials_secret.as_deref(), Some("s3-keys"));
    assert!(matches!(&config.locations["office"].place, Place::S3(s3) if s3.path_style));
    assert_eq!(config.job.image.as_deref(), Some("registry.example.com/kubectl-backup:v0.1.0"));
    assert_eq!(config.job.annotations["sidecar.istio.io/inject"], "false");
    assert_eq!(config.job.env["NO_PROXY"], "169.254.170.23,.svc");
    assert_eq!(config.job.resources.as_ref().unwrap()["limits"]["memory"], "512Mi");
    assert_eq!(config.job.ttl_seconds_after_finished, Some(3600));

    let written = config.to_yaml().unwrap();
    assert_eq!(Config::parse(&written).unwrap(), config, "{written}");
}

#[test]
fn nothing_at_all_is_a_configuration_without_locations() {
    for yaml in ["", "# to be filled\n", "locations: {}\n", "{}"] {
        assert_eq!(Config::parse(yaml).unwrap(), Config::default(), "{yaml:?}");
    }
    let written = Config::default().to_yaml().unwrap();
    assert_eq!(Config::parse(&written).unwrap(), Config::default(), "{written}");
}

#[test]
fn yaml_that_is_wrong_gives_line_column_and_field() {
    let table = [
        (
            "locations:\n  main:\n    url: s3://bucket\n    rolearn: x\n",
            "line 4, column 5, `rolearn`: unknown field `rolearn`, expected one of url, roleArn, credentialsSecret, readOnly",
        ),
        (
            "locations:\n  main:\n    url: s3://bucket\n    url: s3://other\n",
            "line 4, column 5, `url`: duplicate mapping key `url` is not allowed here",
        ),
        (
            "locations:\n  main: {url: s3://bucket}\n  main: {url: s3://other}\n",
            "line 3, column 3, `main`: duplicate mapping key `main` is not allowed here",
        ),
        ("locations:\n  main:\n    readOnly: false\n", "line 3, column 5, `readOnly`: missing field `url`"),
        (
            "locations:\n  main:\n    url: s3://bucket\n    readOnly: yes\n",
            "line 4, column 15, `readOnly`: invalid boolean",
        ),
        ("location: {}\n", "line 1, column 1, `location`: unknown field `location`"),
        ("locations:\n  main:\n    url: [s3]\n", "line 3, column 10, `url`: expected string scalar"),
        ("job:\n  ttlSecondsAfterFinished: soon\n", "line 2, column 28, `ttlSecondsAfterFinished`: invalid i32"),
        ("job:\n", "line 1, column 4, `job`: expected mapping start"),
        ("job:\n  env: {A: 1\n", "line 2, column 8, `env`: unclosed bracket"),
        ("job:\n  imagePullSecrets:\n    - [http://a: b]\n", "line 3, column 7: expected string scalar"),
        ("locations:\n\tmain: {}\n", "line 2, column 2, `main`: tabs disallowed"),
    ];
    for (yaml, beginning) in table {
        let error = refused(yaml);
        let told = error.strip_prefix("`kubectl-backup-config`: ").unwrap();
        assert!(told.starts_with(beginning), "{yaml}\n{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn values_that_are_wrong_name_their_field() {
    let main = |lines: &str| format!("locations:\n  main:\n    url: s3://bucket\n    {lines}\n");
    let table = [
        (main("roleArn: kubectl-backup"), "`locations.main.roleArn`: `kubectl-backup` is not the ARN of a role"),
        (main("credentialsSecret: S3"), "`locations.main.credentialsSecret`: `S3` is not a name"),
        (
            main("roleArn: arn:aws:iam::123456789012:role/x\n    credentialsSecret: x"),
            "`locations.main`: `roleArn` and `credentialsSecret` exclude each other",
        ),
        ("locations: {Main: {url: s3://bucket}}".into(), "`locations`: `Main` can't name a location"),
        ("locations: {main: {url: s3://B}}".into(), "`locations.main.url`: `B` is not a bucket name"),
        ("locations: {main: {url: file:///x}}".into(), "`locations.main.url`: a folder can't be configured"),
        (
            "defaultLocation: x\nlocations: {a: {url: s3://bucket}}".into(),
            "`defaultLocation`: `x` is not a location: configured: `a`",
        ),
        ("defaultLocation: x".into(), "`defaultLocation`: `x` is not a location: none is configured"),
        (with_job("image: ''"), "`job.image`: `` is empty or holds blanks"),
        (with_job("imagePullPolicy: Sometimes"), "`job.imagePullPolicy`: `Sometimes` is not one of"),
        (with_job("imagePullSecrets: [Reg]"), "`job.imagePullSecrets`: `Reg` is not a name"),
        (with_job("resources: {memory: 1Gi}"), "`job.resources`: `memory` is not known"),
        (with_job("tolerations: [{keys: x}]"), "`job.tolerations`: `keys` is not known"),
        (with_job("labels: {a b: c}"), "`job.labels`: `a b` can't be a key"),
        (with_job("nodeSelector: {a: b c}"), "`job.nodeSelector`: `b c` can't be a label's value"),
        (with_job("annotations: {a b: c}"), "`job.annotations`: `a b` can't be a key"),
        (with_job("env: {AWS_ACCESS_KEY_ID: AKIAX}"), "`job.env`: `AWS_ACCESS_KEY_ID` must not be in a ConfigMap"),
        (with_job("priorityClassName: X"), "`job.priorityClassName`: `X` is not a name"),
        (with_job("ttlSecondsAfterFinished: -1"), "`job.ttlSecondsAfterFinished`: `-1` is too small"),
        (with_job("activeDeadlineSeconds: 0"), "`job.activeDeadlineSeconds`: `0` is too small"),
        (with_job("activeDeadlineSeconds: 72001"), "`job.activeDeadlineSeconds`: `72001` is too large: at most 72000"),
    ];
    for (yaml, beginning) in table {
        let error = refused(&yaml);
        assert!(error.starts_with(beginning), "{yaml}\n{error}");
        assert!(!error.contains("AKIAX"), "{error}");
    }
}

#[test]
fn values_that_look_like_other_types_survive() {
    let yaml = "job:\n  annotations: {a: 'true', b: '1', c: 'null', d: ''}\n  env: {X: '0x10', Y: \"a: b # c\\n\"}\n";
    let config = Config::parse(yaml).unwrap();
    assert_eq!(Config::parse(&config.to_yaml().unwrap()).unwrap(), config);
    assert_eq!(config.job.env["Y"], "a: b # c\n");
}

#[test]
fn what_cannot_be_read_again_is_not_written() {
    let mut config = Config::parse(FULL).unwrap();
    if let Place::S3(s3) = &mut config.locations.get_mut("main").unwrap().place {
        s3.prefix = "a?region=eu-west-1".into();
    }
    let error = config.to_yaml().unwrap_err().to_string();
    assert!(error.starts_with("`locations.main.url`: "), "{error}");
}

#[test]
fn a_location_is_named_given_by_url_or_the_default() {
    let two = Config::parse("locations: {a: {url: s3://aaa}, b: {url: s3://bbb}}").unwrap();
    assert_eq!(two.location(Some("b")).unwrap().to_string(), "s3://bbb");
    assert_eq!(two.location(Some("s3://ccc/x?region=eu-west-1")).unwrap().to_string(), "s3://ccc/x");
    let error = two.location(None).unwrap_err().to_string();
    assert_eq!(
        error,
        "no location was named and none is the default: configured: `a`, `b`\n\
         hint: say `--location a`, or for good: `defaultLocation: a` in the configuration"
    );
    let error = two.location(Some("c")).unwrap_err().to_string();
    assert!(error.starts_with("`c` is not a location: configured: `a`, `b`\nhint: add one with"), "{error}");

    let with_default = Config { default_location: Some("b".into()), ..two };
    assert_eq!(with_default.location(None).unwrap().name.as_deref(), Some("b"));

    let one = Config::parse("locations: {a: {url: s3://aaa}}").unwrap();
    assert_eq!(one.location(None).unwrap().name.as_deref(), Some("a"));

    let error = Config::default().location(None).unwrap_err().to_string();
    assert!(error.contains("none is configured\nhint: add one with `kubectl backup init --location s3:"), "{error}");
}

#[test]
fn another_prefix_of_a_configured_bucket_is_entered_in_the_same_way() {
    let role = "arn:aws:iam::123456789012:role/backup";
    let yaml = format!("locations:\n  a:\n    url: s3://bucket-a/x?region=eu-central-1\n    roleArn: {role}\n");
    let config = Config::parse(&yaml).unwrap();
    let role_of = |url: &str| config.location(Some(url)).unwrap().role_arn;
    assert_eq!(role_of("s3://bucket-a/other/prefix").as_deref(), Some(role));
    assert_eq!(role_of("s3://bucket-b/x"), None);
    assert_eq!(
        role_of("s3://bucket-a/x?endpoint=https://elsewhere.example"),
        None,
        "no role is shown to another server"
    );
}
