//! What a key may look like, the same in every store: what S3 servers, proxies and file systems all take as it is.

use super::Error;

/// S3 takes 1,024 bytes, of which a location's prefix uses up to 512.
const LIMIT: usize = 500;

/// Bytes of one segment, so that a file system takes it with what a temporary name adds.
const SEGMENT_LIMIT: usize = 200;

/// Checks a key.
pub(super) fn check(key: &str) -> Result<(), Error> {
    judge(key, key.split('/')).map_err(|why| Error::Key { key: key.to_owned(), why })
}

/// Checks what keys may begin with: like a key, but its last segment may be empty.
pub(super) fn check_prefix(prefix: &str) -> Result<(), Error> {
    let segments = prefix.strip_suffix('/').unwrap_or(prefix).split('/').filter(|_| !prefix.is_empty());
    judge(prefix, segments).map_err(|why| Error::Key { key: prefix.to_owned(), why })
}

fn judge<'a>(whole: &str, mut segments: impl Iterator<Item = &'a str>) -> Result<(), &'static str> {
    if whole.len() > LIMIT {
        return Err("it has more than 500 bytes");
    }
    if !whole.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err("it holds something else than printable ASCII, or `\\`");
    }
    segments.try_for_each(|segment| match segment {
        "" => Err("it holds an empty segment"),
        _ if segment.starts_with('.') => Err("one of its segments begins with `.`"),
        _ if segment.len() > SEGMENT_LIMIT => Err("one of its segments has more than 200 bytes"),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for key in ["a", "backups/shop-20261120-100000-abcd.json", "data/a/b/objects.tar.zst", "a:b=c"] {
            assert!(check(key).is_ok(), "{key}");
        }
        let long = "x".repeat(201);
        for key in ["", "/", "/a", "a/", "a//b", "..", "a/../b", ".", ".a", "a/.b", "a b", "a\0", "ä", "a\\b", &long] {
            assert!(matches!(check(key), Err(Error::Key { .. })), "{key}");
        }
    }

    #[test]
    fn prefixes() {
        for prefix in ["", "a", "backups/", "backups/shop", "data/a/b/"] {
            assert!(check_prefix(prefix).is_ok(), "{prefix}");
        }
        for prefix in ["/", "/a", "a//", "..", "../", "a/../", ".a", "a/.", "a b", "a//b"] {
            assert!(matches!(check_prefix(prefix), Err(Error::Key { .. })), "{prefix}");
        }
    }
}
