//! The house keeps its floors: a room of `src/` imports rooms on lower floors only, and crates that reach the outside
//! world are named only in the rooms that exist for it. `docs/architecture.md` has the same table for people.

#![allow(clippy::expect_used, reason = "tests say what went wrong by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Room, floor, and the guarded crates it may name.
const ROOMS: &[(&str, u8, &[&str])] = &[
    ("resource", 0, &[]),
    ("id", 0, &["sha2"]),
    ("runtime", 0, &[]),
    ("config", 1, &["serde_saphyr"]),
    ("report", 1, &[]),
    ("rules", 1, &["json_patch", "regex", "serde_saphyr"]),
    ("archive", 2, &["tar", "zstd", "sha2"]),
    (
        "aws",
        2,
        &[
            "aws_config",
            "aws_credential_types",
            "aws_sdk_sts",
            "aws_smithy_http_client",
            "aws_smithy_runtime_api",
            "aws_smithy_types",
            "aws_types",
        ],
    ),
    ("cluster", 3, &["kube", "k8s_openapi", "http", "http_body_util"]),
    (
        "store",
        3,
        &[
            "aws_config",
            "aws_sdk_s3",
            "aws_sdk_sts",
            "http",
            "aws_smithy_types",
            "aws_smithy_runtime_api",
            "aws_credential_types",
            "aws_types",
        ],
    ),
    ("jobs", 4, &["kube", "k8s_openapi", "http", "serde_saphyr"]),
    ("pipeline", 4, &[]),
    ("volumes", 4, &["aws_config", "aws_sdk_ec2", "kube"]),
    ("operations", 5, &["anyhow"]),
    ("worker", 6, &["anyhow"]),
];

/// Crates that are named only where the table says so.
const GUARDED: &[&str] = &[
    "anyhow",
    "aws_config",
    "aws_credential_types",
    "aws_sdk_ec2",
    "aws_sdk_s3",
    "aws_sdk_sts",
    "aws_smithy_http_client",
    "aws_smithy_runtime_api",
    "aws_smithy_types",
    "aws_types",
    "clap",
    "comfy_table",
    "http",
    "http_body_util",
    "indicatif",
    "json_patch",
    "k8s_openapi",
    "kube",
    "regex",
    "serde_saphyr",
    "sha2",
    "tar",
    "zstd",
];

/// A use of a room or crate, with where it stands.
#[derive(Debug)]
struct Use {
    file: PathBuf,
    line: usize,
    name: String,
}

fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The room that a file belongs to: the first part of its path below `src/`.
fn room_of(root: &Path, file: &Path) -> String {
    let below = file.strip_prefix(root).expect("a file below src");
    let first = below.components().next().expect("a path").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The identifiers that stand before `::` where no path leads to them, and those after `crate::`.
fn uses(file: &Path, prefix: &str) -> Vec<Use> {
    let text = std::fs::read_to_string(file).expect("a readable file");
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (position, _) in code.match_indices(prefix) {
            let before = code[..position].chars().next_back();
            if prefix.is_empty() || before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[position + prefix.len()..];
            let names: Vec<String> = match rest.strip_prefix('{') {
                Some(group) => group.split([',', '}']).map(identifier).collect(),
                None => vec![identifier(rest)],
            };
            let name_of = |name: String| Use { file: file.to_owned(), line: number + 1, name };
            found.extend(names.into_iter().filter(|name| !name.is_empty()).map(name_of));
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Crates named in a file: `name::` where nothing leads to it.
fn crates_named(file: &Path) -> Vec<Use> {
    let text = std::fs::read_to_string(file).expect("a readable file");
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for guarded in GUARDED {
            let pattern = format!("{guarded}::");
            for (position, _) in code.match_indices(&pattern) {
                let before = code[..position].chars().next_back();
                if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    found.push(Use { file: file.to_owned(), line: number + 1, name: (*guarded).to_owned() });
                }
            }
        }
    }
    found
}

fn violations(root: &Path) -> Vec<String> {
    let rooms: BTreeMap<&str, (u8, &[&str])> =
        ROOMS.iter().map(|(room, floor, crates)| (*room, (*floor, *crates))).collect();
    let mut files = Vec::new();
    source_files(root, &mut files);
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| **file != root.join("lib.rs")) {
        let room = room_of(root, file);
        let Some((floor, allowed)) = rooms.get(room.as_str()) else {
            wrong.push(format!("{}: the room `{room}` is not in the table", file.display()));
            continue;
        };
        for usage in uses(file, "crate::") {
            let Some((other, _)) = rooms.get(usage.name.as_str()) else { continue };
            if usage.name != room && other >= floor {
                wrong.push(format!(
                    "{}:{}: `{room}` (floor {floor}) uses `{}` (floor {other})",
                    usage.file.display(),
                    usage.line,
                    usage.name
                ));
            }
        }
        for usage in crates_named(file).iter().filter(|usage| !allowed.contains(&usage.name.as_str())) {
            wrong.push(format!("{}:{}: `{room}` names the crate `{}`", usage.file.display(), usage.line, usage.name));
        }
    }
    wrong
}

#[test]
fn rooms_use_lower_floors_and_their_own_crates_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let wrong = violations(&root);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn a_violation_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write("id.rs", "use crate::report::Event;\n");
    write("rules.rs", "use crate::{archive, id};\nfn f() { let _ = kube::Client; }\n");
    write("store.rs", "use crate::cluster::Cluster; // use crate::worker\n/// kube::Client\nuse aws_sdk_s3::Client;\n");
    write("attic.rs", "");
    let mut wrong = violations(folder.path());
    wrong.sort();
    let said = |text: &str| wrong.iter().any(|line| line.contains(text));
    assert_eq!(wrong.len(), 5, "{wrong:#?}");
    assert!(said("id.rs:1: `id` (floor 0) uses `report` (floor 1)"), "{wrong:#?}");
    assert!(said("rules.rs:1: `rules` (floor 1) uses `archive` (floor 2)"), "{wrong:#?}");
    assert!(said("rules.rs:2: `rules` names the crate `kube`"), "{wrong:#?}");
    assert!(said("store.rs:1: `store` (floor 3) uses `cluster` (floor 3)"), "{wrong:#?}");
    assert!(said("the room `attic` is not in the table"), "{wrong:#?}");
}
