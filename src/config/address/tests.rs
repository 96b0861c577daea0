use crate::config::{Location, Place, S3};

fn s3(bucket: &str, prefix: &str, region: Option<&str>, endpoint: Option<&str>, path_style: bool) -> Place {
    Place::S3(S3 {
        bucket: bucket.into(),
        prefix: prefix.into(),
        region: region.map(Into::into),
        endpoint: endpoint.map(Into::into),
        path_style,
    })
}

#[test]
fn urls_become_places_and_urls_again() {
    let minio = Some("http://127.0.0.1:9000");
    let table = [
        ("s3://bucket", s3("bucket", "", None, None, false), None),
        ("s3://bucket/", s3("bucket", "", None, None, false), Some("s3://bucket")),
        ("s3://bucket/a/b", s3("bucket", "a/b", None, None, false), None),
        ("s3://bucket/a/b/", s3("bucket", "a/b", None, None, false), Some("s3://bucket/a/b")),
        ("s3://my.bucket?region=eu-central-1", s3("my.bucket", "", Some("eu-central-1"), None, false), None),
        ("s3://bucket?region=us-gov-west-1", s3("bucket", "", Some("us-gov-west-1"), None, false), None),
        ("s3://bucket/p?endpoint=http://127.0.0.1:9000", s3("bucket", "p", None, minio, true), None),
        (
            "s3://bucket?endpoint=http%3A%2F%2F127.0.0.1%3A9000%2F",
            s3("bucket", "", None, minio, true),
            Some("s3://bucket?endpoint=http://127.0.0.1:9000"),
        ),
        (
            "s3://bucket?path-style=false&endpoint=https://s3.example.com&region=auto",
            s3("bucket", "", Some("auto"), Some("https://s3.example.com"), false),
            Some("s3://bucket?region=auto&endpoint=https://s3.example.com&path-style=false"),
        ),
        ("s3://bucket?path-style=true", s3("bucket", "", None, None, true), None),
        (
            "s3://bucket?path-style=true&endpoint=http://127.0.0.1:9000",
            s3("bucket", "", None, minio, true),
            Some("s3://bucket?endpoint=http://127.0.0.1:9000"),
        ),
        ("file:///var/backups", Place::Folder("/var/backups".into()), None),
        ("file:///my%20backups", Place::Folder("/my backups".into()), None),
        ("file:///a/../b", Place::Folder("/b".into()), Some("file:///b")),
    ];
    for (text, place, canonical) in table {
        let location = Location::parse_url(text).unwrap();
        assert_eq!(location.place, place, "{text}");
        assert_eq!(location.url(), canonical.unwrap_or(text));
        assert_eq!(Location::parse_url(&location.url()).unwrap(), location, "{text}");
    }
}

#[test]
fn what_is_no_location_says_why() {
    let table = [
        ("main", "`main`: it is not a location's URL"),
        ("gs://bucket", "`gs://bucket`: `gs` is not a kind of location"),
        ("https://bucket.s3.amazonaws.com", "a location's URL begins with `s3://`"),
        ("s3://", "`s3://`: it names no bucket"),
        ("s3:///prefix", "it names no bucket"),
        ("s3://My_Bucket", "`My_Bucket` is not a bucket name: only lower case letters"),
        ("s3://ab", "3 to 63 characters"),
        ("s3://192.168.0.1/x", "looks like an IP address"),
        ("s3://a..b", "not hold `..`"),
        ("s3://-bucket", "begin and end with a letter or digit"),
        ("s3://bucket--use1-az4--x-s3", "directory buckets"),
        ("s3://alias-s3alias", "AWS reserves such names"),
        ("s3://bucket:9000/x", "without port or credentials"),
        ("s3://bucket//x", "`/x` is not a prefix: it holds an empty segment"),
        ("s3://bucket/a//b", "it holds an empty segment"),
        ("s3://bucket/a/../b", "it holds an empty segment, `.` or `..`"),
        ("s3://bucket/ä", "only letters, digits"),
        ("s3://bucket/a%20b", "only letters, digits"),
        ("s3://bucket#x", "no `#`"),
        ("s3://bucket?regoin=eu-west-1", "`regoin` is not known; known: `region`, `endpoint`, `path-style`"),
        ("s3://bucket?region=eu-west-1&region=eu-west-2", "`region` is given twice"),
        ("s3://bucket?region=", "`region` has no value"),
        ("s3://bucket?region", "`region` has no value"),
        ("s3://bucket?region=eu-central-1a", "that is an availability zone\nhint: its region is `eu-central-1`"),
        ("s3://bucket?region=auto", "AWS's look like `eu-central-1`\nhint: other S3 servers need their URL"),
        ("s3://bucket?region=Frankfurt", "`Frankfurt` is not a region"),
        ("s3://bucket?path-style=yes", "`path-style` is `true` or `false`, not `yes`"),
        ("s3://bucket?endpoint=minio:9000", "the endpoint is not a URL of a server"),
        ("s3://bucket?endpoint=ftp://minio", "an `http://` or `https://` URL is needed"),
        ("s3://bucket?endpoint=http://minio/?x=1", "has a query or a fragment"),
        ("s3://bucket?endpoint=http://169.254.169.254", "a metadata service's address"),
        ("s3://bucket?endpoint=http://169.254.170.23/v1", "a metadata service's address"),
        ("s3://bucket?endpoint=http://0xA9FEA9FE/", "a metadata service's address"),
        ("s3://bucket?endpoint=http://2852039166", "a metadata service's address"),
        ("s3://bucket?endpoint=http://[::ffff:169.254.169.254]", "a metadata service's address"),
        ("s3://bucket?endpoint=http://[fe80::1]", "a metadata service's address"),
        ("s3://bucket?endpoint=http://[fd00:ec2::254]", "a metadata service's address"),
        ("s3://bucket?endpoint=http://metadata.google.internal", "a metadata service's address"),
        ("file://backups", "after three slashes\nhint: `file:///backups`"),
        ("file:///", "a folder of its own is needed"),
        ("file:///a?region=x", "no `?` or `#`"),
        ("file:///a%00b", "NUL"),
    ];
    for (text, part) in table {
        let error = Location::parse_url(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(error.starts_with(&format!("`{text}`: ")), "{error}");
    }
}

#[test]
fn credentials_in_a_url_are_refused_and_not_repeated() {
    for text in ["s3://AKIAEXAMPLE:hunter2@bucket/x", "s3://bucket?endpoint=https://AKIAEXAMPLE:hunter2@minio:9000"] {
        let error = Location::parse_url(text).unwrap_err().to_string();
        assert!(error.starts_with("`location`: "), "{error}");
        assert!(error.contains("credentialsSecret"), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("AKIAEXAMPLE"), "{error}");
    }
}
