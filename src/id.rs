//! Words for backups: the [`BackupId`] that names one, the [`Attempt`] of a worker at it, the [`Digest`] of bytes, and
//! the [`BackupQuery`] by which a person names a backup. Knows nothing of where backups are kept.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Bytes an id may have, so that it is a Job's name, a label's value and a folder in the bucket.
pub const ID_LIMIT: usize = 63;

/// The name of one backup or restore: `<name>-<UTC yyyymmdd-hhmmss>-<4 random>`, an RFC 1123 label of at most 63
/// characters, so that ids of one name sort by time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct BackupId(String);

/// A string that can't be an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a backup id: lower case letters, digits and `-`, at most 63 characters")]
pub struct InvalidId(pub String);

impl BackupId {
    /// Makes an id from a name (cut with a hash where it is too long), the time, and 4 random letters or digits made of
    /// `random`.
    pub fn generate(name: &str, now: Timestamp, random: u32) -> Self {
        let time = now.strftime("%Y%m%d-%H%M%S").to_string();
        let tail = suffix(random);
        let room = ID_LIMIT - time.len() - tail.len() - 2;
        Self(format!("{}-{time}-{tail}", fit(&label(name), room)))
    }

    /// Reads an id that was made before.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if is_label(text, ID_LIMIT) { Ok(Self(text.to_owned())) } else { Err(InvalidId(text.to_owned())) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl BackupId {
    /// The name of the backup that a restore makes of what it is about to change: the same however often it is tried.
    pub fn safety(&self) -> Self {
        Self(format!("safety-{}", fit(&self.0, ID_LIMIT - "safety-".len())))
    }
}

/// Whether a text is an RFC 1123 label.
fn is_label(text: &str, limit: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = |b: Option<&u8>| b.is_some_and(|b| inner(*b));
    let bytes = text.as_bytes();
    ends(bytes.first()) && ends(bytes.last()) && bytes.len() <= limit && bytes.iter().all(|b| inner(*b) || *b == b'-')
}

/// Four characters of a-z and 0-9.
fn suffix(mut random: u32) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(4);
    for _ in 0..4 {
        text.push(char::from(LETTERS[(random % 36) as usize]));
        random /= 36;
    }
    text
}

/// What of a text can stand in a label, in lower case.
fn label(text: &str) -> String {
    let kept: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .collect();
    let kept = kept.trim_matches('-');
    if kept.is_empty() { "backup".to_owned() } else { kept.to_owned() }
}

/// Cuts a text to a number of bytes and marks what was cut with 6 hex digits of its hash, so that two long names that
/// begin alike stay apart.
fn fit(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let hash = Digest::of(text.as_bytes()).to_string();
    format!("{}-{}", text[..room - 7].trim_end_matches('-'), &hash[..6])
}

/// How the tries begin that are no pod's.
const LOCAL: &str = "local-";

/// One worker's try at a backup: the uid of its pod, or a random one with `--local`. It stands in the keys of all data,
/// so that two workers of one run never touch each other's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Attempt(String);

impl Attempt {
    /// Reads an attempt: 1 to 64 characters of `a-z`, `0-9` and `-`.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if is_label(text, 64) { Ok(Self(text.to_owned())) } else { Err(InvalidId(text.to_owned())) }
    }

    /// The try of a process that is no Job's pod, made of a number that nobody else draws.
    pub fn local(random: u64) -> Self {
        Self(format!("{LOCAL}{random:016x}"))
    }

    /// Whether it is the try of such a process, of which the cluster knows nothing.
    pub fn is_local(&self) -> bool {
        self.0.starts_with(LOCAL)
    }

    /// The attempt as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Attempt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A SHA-256. Written as 64 hex digits, as `sha256sum` does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut digest = [0u8; 32];
        for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let digit = |b: u8| char::from(b).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
        }
        Some(Self(digest))
    }
}

/// A digest of bytes that come piece by piece.
#[derive(Clone, Default)]
pub struct DigestBuilder(Sha256);

impl DigestBuilder {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for DigestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestBuilder")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a SHA-256 in hex")))
    }
}

/// How a person names a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackupQuery {
    /// An id, or the beginning of exactly one.
    Prefix(String),
    /// `latest`: the newest.
    Latest,
    /// `latest:NAMESPACE`: the newest that holds this namespace.
    LatestOf(String),
    /// `@TIME`: the newest at or before then.
    At(Timestamp),
}

/// A text that names no backup in any of the ways there are.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{text}` names no backup: {why}\nhint: give an id or its beginning, `latest`, `latest:NAMESPACE`, or `@2026-11-20T10:00`"
)]
pub struct InvalidQuery {
    text: String,
    why: &'static str,
}

impl BackupQuery {
    /// Reads what a person typed. A time without an offset is in UTC, as ids are.
    pub fn parse(text: &str) -> Result<Self, InvalidQuery> {
        let invalid = |why| InvalidQuery { text: text.to_owned(), why };
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(namespace) = text.strip_prefix("latest:") {
            return match is_label(namespace, ID_LIMIT) {
                true => Ok(Self::LatestOf(namespace.to_owned())),
                false => Err(invalid("what follows `latest:` is not a namespace")),
            };
        }
        if let Some(time) = text.strip_prefix('@') {
            return time_of(time).map(Self::At).ok_or_else(|| invalid("what follows `@` is not a time"));
        }
        if !is_label(text.trim_end_matches('-'), ID_LIMIT) {
            return Err(invalid("it can't be the beginning of an id"));
        }
        Ok(Self::Prefix(text.to_owned()))
    }
}

/// A time as people write it: a date, a date with hours and minutes, or all of RFC 3339.
fn time_of(text: &str) -> Option<Timestamp> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    let time = text.parse::<jiff::civil::DateTime>().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

impl fmt::Display for BackupQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => f.write_str(prefix),
            Self::Latest => f.write_str("latest"),
            Self::LatestOf(namespace) => write!(f, "latest:{namespace}"),
            Self::At(time) => write!(f, "@{time}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn ids_are_labels_that_sort_by_time() {
        let early = BackupId::generate("shop", time("2026-11-20T10:00:00Z"), 7);
        let late = BackupId::generate("shop", time("2026-11-20T10:00:01Z"), 3);
        assert_eq!(early.as_str(), "shop-20261120-100000-haaa");
        assert!(early < late);
    }

    #[test]
    fn long_and_odd_names_make_ids_of_63_characters_that_stay_apart() {
        let now = time("2026-11-20T10:00:00Z");
        let (a, b) = (format!("{}a", "x".repeat(70)), format!("{}b", "x".repeat(70)));
        let (a, b) = (BackupId::generate(&a, now, 0), BackupId::generate(&b, now, 0));
        assert_eq!(a.as_str().len(), ID_LIMIT);
        assert_ne!(a, b);
        assert_eq!(BackupId::generate("Team A/*", now, 0).as_str(), "team-a-20261120-100000-aaaa");
        assert_eq!(BackupId::generate("***", now, 0).as_str(), "backup-20261120-100000-aaaa");
        assert!(BackupId::parse(b.as_str()).is_ok());
    }

    #[test]
    fn a_restore_has_one_safety_backup() {
        let id = BackupId::parse("restore-shop-1").unwrap();
        assert_eq!(id.safety().as_str(), "safety-restore-shop-1");
        let (a, b) = (format!("{}a", "x".repeat(62)), format!("{}b", "x".repeat(62)));
        let (a, b) = (BackupId::parse(&a).unwrap().safety(), BackupId::parse(&b).unwrap().safety());
        assert!(a != b && BackupId::parse(a.as_str()).is_ok());
    }

    #[test]
    fn ids_from_outside_are_checked() {
        for bad in ["", "../x", "a/b", "A", "-a", &"x".repeat(64)] {
            assert!(BackupId::parse(bad).is_err(), "{bad}");
            assert!(serde_json::from_value::<BackupId>(serde_json::json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_are_hex() {
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), text);
        assert_eq!(Digest::parse(text), Some(Digest::of(b"")));
        assert_eq!(Digest::parse(&text[1..]), None);
        assert_eq!(Digest::parse(&text.replace('e', "g")), None);
    }

    #[test]
    fn queries() {
        let at = |text: &str| Ok(BackupQuery::At(time(text)));
        assert_eq!(BackupQuery::parse("latest"), Ok(BackupQuery::Latest));
        assert_eq!(BackupQuery::parse("latest:shop"), Ok(BackupQuery::LatestOf("shop".into())));
        assert_eq!(BackupQuery::parse("@2026-11-20T10:00"), at("2026-11-20T10:00:00Z"));
        assert_eq!(BackupQuery::parse("@2026-11-20T10:00:00+02:00"), at("2026-11-20T08:00:00Z"));
        assert_eq!(BackupQuery::parse("shop-2026"), Ok(BackupQuery::Prefix("shop-2026".into())));
        assert_eq!(BackupQuery::parse("shop-"), Ok(BackupQuery::Prefix("shop-".into())));
        for bad in ["", "latest:", "latest:A", "@yesterday", "a/b", "-x"] {
            assert!(BackupQuery::parse(bad).is_err(), "{bad}");
        }
    }
}
