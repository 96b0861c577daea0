//! What is planted in the Secrets of every test, in every form in which a Secret comes, and how it is found again:
//! `tests/leaks` looks for it in all that a run leaves behind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;
use std::process::{Command, Stdio};

/// A value that stands nowhere but in Secrets. Its beginning and end are long enough to be found in base64 as well.
pub(crate) const PLANTED: &str = "planted~Qk7vXw2Zr9TjLm4BhS8d~value";

/// A release as Helm keeps it, but for the base64 that every Secret adds: gzipped, in base64.
pub(crate) fn helm_release() -> String {
    let release = format!("{{\"name\":\"shop\",\"config\":{{\"password\":\"{PLANTED}\"}}}}");
    let mut gzip = Command::new("gzip");
    let mut child = gzip.args(["-n", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip runs");
    child.stdin.take().expect("a pipe").write_all(release.as_bytes()).expect("gzip reads");
    STANDARD.encode(child.wait_with_output().expect("gzip ends").stdout)
}

/// What must not be found: a text, and what it is.
pub(crate) fn needles(value: &str) -> Vec<(String, String)> {
    let mut needles = vec![(value.to_owned(), "as it is".to_owned())];
    // what stands in the middle of something in base64 looks in three ways, by where it begins
    for shift in 0..3 {
        let whole = STANDARD.encode([&vec![b'x'; shift][..], value.as_bytes()].concat());
        let inner = whole[shift.div_ceil(3) * 4..].trim_end_matches('=');
        needles.push((inner[..inner.len() - 2].to_owned(), "in base64".to_owned()));
    }
    // the middle is enough of what is long, of which somebody may have cut an end
    let middle = |text: String| {
        let over = text.len().saturating_sub(48) / 2;
        text[over..text.len() - over].to_owned()
    };
    needles.into_iter().map(|(needle, form)| (middle(needle), form)).collect()
}

/// The same of all forms of what is planted.
pub(crate) fn planted_needles() -> Vec<(String, String)> {
    let mut all = needles(PLANTED);
    for (needle, form) in needles(&helm_release()) {
        all.push((needle, format!("gzipped in base64, {form}")));
    }
    all
}
