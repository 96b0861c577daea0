//! What names and values in the configuration may look like. Each check answers with what is wrong, as the second half
//! of a sentence that begins with the field; none knows where its value stands.

use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// What is wrong with a value, and the way out.
pub(super) type Check = Result<(), String>;

fn refuse(message: impl Into<String>) -> Check {
    Err(message.into())
}

fn alphanumeric_ends(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends(text.chars().next()) && ends(text.chars().next_back())
}

/// A general purpose bucket's name, as in "Bucket naming rules" of the S3 user guide.
pub(super) fn bucket(name: &str) -> Check {
    if name.is_empty() {
        return refuse("it names no bucket\nhint: write it as `s3://BUCKET/PREFIX`");
    }
    let wrong = |why: &str| refuse(format!("`{name}` is not a bucket name: {why}"));
    if !(3..=63).contains(&name.len()) {
        return wrong("it must have 3 to 63 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.') {
        return wrong("only lower case letters, digits, `-` and `.` are allowed");
    }
    if !alphanumeric_ends(name) || name.contains("..") {
        return wrong("it must begin and end with a letter or digit, and not hold `..`");
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return wrong("it looks like an IP address\nhint: the server's address goes into `?endpoint=`");
    }
    if name.ends_with("--x-s3") {
        return wrong("directory buckets (S3 Express) lack what backups need");
    }
    let reserved = ["xn--", "sthree-"].iter().any(|p| name.starts_with(p))
        || ["-s3alias", "--ol-s3", ".mrap", "--table-s3"].iter().any(|s| name.ends_with(s));
    if reserved { wrong("AWS reserves such names, for access points for instance") } else { Ok(()) }
}

/// What all keys of a location begin with: segments that every S3 server, proxy and shell takes as they are.
pub(super) fn prefix(prefix: &str) -> Check {
    let wrong = |why: &str| refuse(format!("`{prefix}` is not a prefix: {why}"));
    if prefix.len() > 512 {
        return wrong("it must have at most 512 characters");
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()=+@,:/".contains(&b);
    if !prefix.bytes().all(allowed) {
        return wrong("only letters, digits and `/ ! - _ . * ' ( ) = + @ , :` are allowed");
    }
    if prefix.split('/').any(|segment| segment.is_empty() || segment == "." || segment == "..") {
        return wrong("it holds an empty segment, `.` or `..`");
    }
    Ok(())
}

/// A region. AWS's have a shape; other servers call theirs what they like (`auto`, `garage`).
pub(super) fn region(region: &str, of_aws: bool) -> Check {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let wrong = |why: &str| refuse(format!("`{region}` is not a region: {why}"));
    if region.len() > 64 || !region.bytes().all(plain) || !alphanumeric_ends(region) {
        return wrong("lower case letters, digits and `-` are allowed, such as `eu-central-1`");
    }
    if !of_aws || is_aws_region(region) {
        return Ok(());
    }
    let zone_of = region.trim_end_matches(|c: char| c.is_ascii_lowercase());
    if zone_of != region && is_aws_region(zone_of) {
        return wrong(&format!("that is an availability zone\nhint: its region is `{zone_of}`"));
    }
    wrong("AWS's look like `eu-central-1`\nhint: other S3 servers need their URL in `?endpoint=`")
}

fn is_aws_region(region: &str) -> bool {
    let parts: Vec<&str> = region.split('-').collect();
    let letters = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    match parts.split_last() {
        Some((number, words)) => {
            words.len() >= 2
                && words.iter().all(letters)
                && !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
        }
        None => false,
    }
}

/// The URL of an S3-compatible server. Link-local addresses are refused: what answers there hands out credentials, and
/// a configuration must not be able to send our signed requests to it.
pub(super) fn endpoint(text: &str) -> Check {
    let shape = "an `http://` or `https://` URL is needed, such as `https://minio.example.com:9000`";
    let url = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url,
        _ => return refuse(format!("the endpoint is not a URL of a server: {shape}")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(format!("the endpoint holds a user name or password\n{CREDENTIALS_BELONG}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse(format!("`{text}` has a query or a fragment: {shape}"));
    }
    let address = match url.host() {
        None => return refuse(format!("the endpoint is not a URL of a server: {shape}")),
        Some(Host::Domain("metadata.google.internal")) => return refuse_metadata(text),
        Some(Host::Domain(_)) => return Ok(()),
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => address.to_canonical(),
    };
    if is_metadata(address) { refuse_metadata(text) } else { Ok(()) }
}

/// The way out for whoever put credentials where they don't belong.
pub(super) const CREDENTIALS_BELONG: &str = "hint: keys belong in a Secret that the location's `credentialsSecret` names; \
                                             with `--local` they come from the environment or an AWS profile";

fn refuse_metadata(text: &str) -> Check {
    refuse(format!("`{text}` is a metadata service's address, not an S3 server's"))
}

fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    }
}

/// An IAM role: `arn:aws:iam::123456789012:role/path/name` in any partition, or MinIO's `arn:minio:iam:::role/name`.
pub(super) fn role_arn(arn: &str) -> Check {
    let wrong = |why: &str| {
        refuse(format!(
            "`{arn}` is not the ARN of a role: {why}, such as `arn:aws:iam::123456789012:role/kubectl-backup`"
        ))
    };
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [arn_word, partition, service, region, account, resource] = parts[..] else {
        return wrong("it has six parts between colons");
    };
    let name_letter = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b);
    if arn_word != "arn" || service != "iam" || !region.is_empty() {
        return wrong("it begins with `arn:PARTITION:iam::`");
    }
    let of_aws = partition == "aws" || partition.starts_with("aws-");
    if !of_aws && partition != "minio" {
        return wrong("the partition is `aws`, `aws-cn`, `aws-us-gov` or the like, or `minio`");
    }
    if of_aws && (account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit())) {
        return wrong("the account has 12 digits");
    }
    match resource.strip_prefix("role/") {
        Some(name) if !name.is_empty() && !name.ends_with('/') && name.bytes().all(name_letter) => Ok(()),
        Some(_) => wrong("the role has a name of letters, digits and `+ = , . @ - _`"),
        None => wrong("it ends in `role/NAME`"),
    }
}

/// An RFC 1123 subdomain: the name of a Secret or a priority class.
pub(super) fn subdomain(name: &str) -> Check {
    let label = |part: &str| crate::resource::check_label(part, 63).is_ok();
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(());
    }
    refuse(format!("`{name}` is not a name: lower case letters, digits, `-` and `.` are allowed, at most 253"))
}

/// The name of a location.
pub(super) fn location_name(name: &str) -> Check {
    crate::resource::check_label(name, 63).map_err(|why| format!("`{name}` can't name a location: {why}"))
}

/// The key of a label, an annotation or a node's label: `name` or `example.com/name`.
pub(super) fn qualified_key(key: &str) -> Check {
    let (domain, name) = match key.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, key),
    };
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let good_name = name.len() <= 63 && alphanumeric_ends(name) && name.bytes().all(inner);
    if good_name && domain.is_none_or(|domain| subdomain(domain).is_ok()) {
        return Ok(());
    }
    refuse(format!(
        "`{key}` can't be a key: it is a name of at most 63 letters, digits, `-`, `_` and `.`, with a domain and `/` in front where need be"
    ))
}

/// The value of a label.
pub(super) fn label_value(value: &str) -> Check {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || (value.len() <= 63 && alphanumeric_ends(value) && value.bytes().all(inner)) {
        return Ok(());
    }
    refuse(format!("`{value}` can't be a label's value: at most 63 letters, digits, `-`, `_` and `.`"))
}

/// The name of an environment variable that the configuration may set. What the Job sets itself is refused, and so are
/// credentials: a ConfigMap is no place for them.
pub(super) fn env_name(name: &str) -> Check {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(inner) {
        return refuse(format!("`{name}` can't name an environment variable: letters, digits and `_` are allowed"));
    }
    if ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].contains(&name) {
        return refuse(format!("`{name}` must not be in a ConfigMap\n{CREDENTIALS_BELONG}"));
    }
    if name.starts_with("KUBECTL_BACKUP_") {
        return refuse(format!("`{name}` is set by kubectl-backup itself"));
    }
    Ok(())
}

/// An image, or a token's audience: anything without blanks.
pub(super) fn word(text: &str) -> Check {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return refuse(format!("`{text}` is empty or holds blanks\nhint: leave the field out for the default"));
    }
    Ok(())
}

/// A pod's image pull policy.
pub(super) fn pull_policy(policy: &str) -> Check {
    match policy {
        "Always" | "IfNotPresent" | "Never" => Ok(()),
        _ => refuse(format!("`{policy}` is not one of `Always`, `IfNotPresent`, `Never`")),
    }
}

/// A container's resources: `requests` and `limits`, each a map of quantities. The API server judges the quantities.
pub(super) fn resources(resources: &Value) -> Check {
    let Some(parts) = resources.as_object() else {
        return refuse("a map of `requests` and `limits` is needed");
    };
    for (part, amounts) in parts {
        if part != "requests" && part != "limits" {
            return refuse(format!("`{part}` is not known; known: `requests`, `limits`"));
        }
        let Some(amounts) = amounts.as_object() else {
            return refuse(format!("`{part}` must be a map, such as `memory: 256Mi`"));
        };
        if let Some((name, _)) = amounts.iter().find(|(_, amount)| !amount.is_string() && !amount.is_number()) {
            return refuse(format!("`{part}.{name}` must be a quantity, such as `256Mi` or `100m`"));
        }
    }
    Ok(())
}

/// A pod's toleration.
pub(super) fn toleration(toleration: &Value) -> Check {
    const KNOWN: [&str; 5] = ["key", "operator", "value", "effect", "tolerationSeconds"];
    let Some(fields) = toleration.as_object() else {
        return refuse("each must be a map, such as `{key: dedicated, operator: Exists}`");
    };
    match fields.keys().find(|field| !KNOWN.contains(&field.as_str())) {
        None => Ok(()),
        Some(field) => refuse(format!("`{field}` is not known; known: `{}`", KNOWN.join("`, `"))),
    }
}

/// A number of seconds.
pub(super) fn seconds(seconds: Option<i64>, least: i64, most: i64) -> Check {
    match seconds {
        Some(seconds) if seconds < least => refuse(format!("`{seconds}` is too small: at least {least}")),
        Some(seconds) if seconds > most => refuse(format!(
            "`{seconds}` is too large: at most {most}, as what a run stored is swept after a day if it never became a backup"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
