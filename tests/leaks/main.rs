//! No Secret value and no credential in anything that a run of `tests/e2e` left behind: the logs of all pods, also of those
//! that are gone, every Job, ConfigMap and event, what the commands printed, and what stands in the bucket, but for the
//! objects themselves. `tests/run.sh` starts this after the e2e tests, on the same clusters.
//!
//! Each of those tests has values in its namespace's Secrets that stand nowhere else (`tests/e2e/planted.rs`); they are
//! looked for as they are, in base64, and gzipped in base64. Of credentials, the keys that the tests use, and whatever
//! looks like a service account's token.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests say what went wrong by panicking")]

mod places;
#[path = "../e2e/planted.rs"]
mod planted;

use places::Found;
use planted::{helm_release, needles, planted_needles};

/// How a service account's token begins: the base64 of `{"alg":"`.
const TOKEN: &str = "eyJhbGciOi";

/// All that must not be found, with what it is.
fn unwanted() -> Vec<(String, String)> {
    let mut unwanted = planted_needles();
    for (name, value) in places::credentials() {
        unwanted.extend(needles(&value).into_iter().map(|(needle, form)| (needle, format!("{name} {form}"))));
    }
    unwanted.push((TOKEN.to_owned(), "a token".to_owned()));
    unwanted
}

/// What of it a text holds.
fn leaks<'a>(text: &str, unwanted: &'a [(String, String)]) -> Option<&'a str> {
    unwanted.iter().find(|(needle, _)| text.contains(needle)).map(|(_, what)| what.as_str())
}

fn check(places: &[Found], at_least: usize, of: &str) -> Vec<String> {
    let unwanted = unwanted();
    eprintln!("{} {of}", places.len());
    assert!(places.len() >= at_least, "only {} {of} were found: did the e2e tests run before?", places.len());
    // the value itself is not told, here either
    let leak = |found: &Found| leaks(&found.text, &unwanted).map(|what| format!("{} holds {what}", found.place));
    places.iter().filter_map(leak).collect()
}

#[test]
fn what_is_planted_is_found_in_every_form() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let unwanted = planted_needles();
    let found = |text: &str| leaks(text, &unwanted);
    let (value, release) = (planted::PLANTED, helm_release());
    for (text, what) in [
        (format!("the password is {value}."), "as it is"),
        (format!("{{\\\"stringData\\\":{{\\\"password\\\":\\\"{value}\\\"}}}}"), "as it is"),
        (STANDARD.encode(value), "in base64"),
        (STANDARD.encode(format!("a{value}b")), "in base64"),
        (STANDARD.encode(format!("ab{value}")), "in base64"),
        (release.clone(), "gzipped in base64, as it is"),
        (STANDARD.encode(&release), "gzipped in base64, in base64"),
    ] {
        assert_eq!(found(&text), Some(what), "{text}");
    }
    assert_eq!(found("nothing but planted names, `planted`, and values"), None);
}

#[test]
fn pods_logs() {
    let logs = places::pod_logs();
    let debug = logs.iter().filter(|log| log.text.contains(" DEBUG ")).count();
    assert!(debug >= 8, "only {debug} logs tell everything: one or more of each of eight verbs should");
    assert_eq!(check(&logs, 20, "logs of pods"), [""; 0]);
}

#[test]
fn logs_of_pods_that_are_gone_are_looked_at_too() {
    let logs = places::pod_logs();
    let missing: Vec<String> = places::started_pods()
        .into_iter()
        .filter(|(uid, _)| !logs.iter().any(|log| log.place.contains(uid.as_str())))
        .map(|(_, about)| about)
        .collect();
    assert_eq!(missing, [""; 0], "pods that ran and whose logs were not looked at");
}

#[test]
fn objects_of_the_runs() {
    assert_eq!(check(&places::cluster_objects(), 40, "Jobs, pods, ConfigMaps and events"), [""; 0]);
}

#[test]
fn what_people_saw() {
    assert_eq!(check(&places::told(), 40, "commands"), [""; 0]);
}

#[test]
fn the_bucket_but_for_the_objects() {
    assert_eq!(check(&places::bucket(), 40, "files of the bucket"), [""; 0]);
}
