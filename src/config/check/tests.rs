use super::*;
use serde_json::json;

#[test]
fn role_arns() {
    let good = [
        "arn:aws:iam::123456789012:role/kubectl-backup",
        "arn:aws-cn:iam::123456789012:role/path/to/name",
        "arn:aws-us-gov:iam::123456789012:role/a@b=c,d.e_f+g",
        "arn:minio:iam:::role/idmp-kubectl-backup",
    ];
    for arn in good {
        assert_eq!(role_arn(arn), Ok(()), "{arn}");
    }
    let bad = [
        ("kubectl-backup", "six parts"),
        ("arn:aws:iam::123456789012:user/x", "it ends in `role/NAME`"),
        ("arn:aws:iam::123456789012:role/", "the role has a name"),
        ("arn:aws:iam::123456789012:role/a b", "the role has a name"),
        ("arn:aws:iam::1234:role/x", "12 digits"),
        ("arn:aws:iam:::role/x", "12 digits"),
        ("arn:gcp:iam::123456789012:role/x", "the partition"),
        ("arn:aws:sts::123456789012:assumed-role/x/y", "`arn:PARTITION:iam::`"),
        ("arn:aws:iam:eu-west-1:123456789012:role/x", "`arn:PARTITION:iam::`"),
    ];
    for (arn, part) in bad {
        let error = role_arn(arn).unwrap_err();
        assert!(error.contains(part), "{arn}: {error}");
    }
}

#[test]
fn names_and_keys() {
    for name in ["a", "s3-keys", "a.b.c", &"x".repeat(63)] {
        assert_eq!(subdomain(name), Ok(()), "{name}");
    }
    for name in ["", "A", "a_b", "a..b", "-a", ".a", "a/b"] {
        assert!(subdomain(name).is_err(), "{name}");
    }
    for key in ["app", "example.com/app", "kubernetes.io/os", "A_b.c"] {
        assert_eq!(qualified_key(key), Ok(()), "{key}");
    }
    for key in ["", "/x", "example.com/", "a/b/c", "a b", "EXAMPLE/x", &"x".repeat(64)] {
        assert!(qualified_key(key).is_err(), "{key}");
    }
    assert!(label_value("").is_ok() && label_value("a_B.1").is_ok());
    assert!(label_value("a b").is_err() && label_value("-a").is_err() && label_value(&"x".repeat(64)).is_err());
}

#[test]
fn environment_variables() {
    for name in ["HTTPS_PROXY", "no_proxy", "_X", "AWS_REGION"] {
        assert_eq!(env_name(name), Ok(()), "{name}");
    }
    for name in ["", "1X", "A-B", "A=B", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "KUBECTL_BACKUP_TASK"] {
        assert!(env_name(name).is_err(), "{name}");
    }
}

#[test]
fn resources_and_tolerations() {
    let good = json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": 1, "memory": "512Mi"}});
    assert_eq!(resources(&good), Ok(()));
    for (bad, part) in [
        (json!("1Gi"), "a map of `requests` and `limits`"),
        (json!({"request": {}}), "`request` is not known"),
        (json!({"limits": "1Gi"}), "`limits` must be a map"),
        (json!({"limits": {"memory": true}}), "`limits.memory` must be a quantity"),
    ] {
        assert!(resources(&bad).unwrap_err().contains(part), "{bad}");
    }
    assert_eq!(toleration(&json!({"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"})), Ok(()));
    assert!(toleration(&json!({"keys": "dedicated"})).unwrap_err().contains("`keys` is not known"));
    assert!(toleration(&json!("dedicated")).unwrap_err().contains("must be a map"));
}
