//! How a plan, or what became of it, looks: a table by kind or by object, and the fields that would change.

use super::Args;
use crate::args::Format;
use crate::document;
use crate::screen::{Color, Screen};
use crate::table::{Cell, NONE, Table};
use crate::text::{count, number, safe, safe_json};
use kubectl_backup::operations::restore::{ItemResult, RestoreResult};
use serde_json::Value;

/// Plan or result as it goes to stdout.
pub(super) fn rendered(result: &RestoreResult, args: &Args, screen: &Screen) -> anyhow::Result<String> {
    Ok(match args.output {
        Format::Json => document::json(result)?,
        Format::Yaml => document::yaml(result)?,
        _ => table(result, args, screen),
    })
}

/// Plan or result for people, whatever goes to stdout.
pub(super) fn table(result: &RestoreResult, args: &Args, screen: &Screen) -> String {
    items_table(&result.items, args.output == Format::Wide, !args.no_headers, screen)
}

/// Objects with their verdicts, and what would change in them.
pub(crate) fn items_table(items: &[ItemResult], wide: bool, headers: bool, screen: &Screen) -> String {
    let table = if wide { each(items) } else { summary(items) };
    table.render(screen, headers) + &differences(items, screen)
}

/// A line for each object.
fn each(items: &[ItemResult]) -> Table {
    let mut table = Table::new(["VERDICT", "NAMESPACE", "KIND", "NAME", "REASON"]);
    let mut items: Vec<&ItemResult> = items.iter().collect();
    items.sort_by_key(|item| (rank(&item.verdict), &item.verdict, &item.kind, &item.namespace, &item.name));
    for item in items {
        table.row([
            Cell::colored(item.verdict.as_str(), color(&item.verdict)),
            item.namespace.as_deref().unwrap_or(NONE).into(),
            item.kind.as_str().into(),
            item.name.as_str().into(),
            item.reason.as_str().into(),
        ]);
    }
    table
}

/// What would change in objects that are there: a line for each object, and below it one for each field.
fn differences(items: &[ItemResult], screen: &Screen) -> String {
    let mut text = String::new();
    for item in items.iter().filter(|item| !item.changes.is_empty()) {
        let name = item.namespace.as_ref().map_or_else(|| item.name.clone(), |n| format!("{n}/{}", item.name));
        text += &format!("\n{} {} {}\n", item.verdict, safe(&item.kind), safe(&name));
        for change in &item.changes {
            let value = |value: &Value| safe_json(&value.to_string()).into_owned();
            let path = safe(&change.path);
            let line = |sign: &str, color, at: &Option<Value>| {
                let line = at.as_ref().map(|at| format!("  {sign} {path}: {}", value(at)));
                line.map(|line| screen.out(color, &line) + "\n").unwrap_or_default()
            };
            if change.from == change.to {
                // a masked value says that it changes, not to what
                text += &(screen.out(Color::Yellow, &format!("  ~ {path}: changes")) + "\n");
                continue;
            }
            text += &line("-", Color::Red, &change.from);
            text += &line("+", Color::Green, &change.to);
        }
    }
    text
}

/// Objects of one kind that share a verdict.
struct Group<'a> {
    verdict: &'a str,
    kind: &'a str,
    objects: u64,
    reason: &'a str,
}

/// What stands for several reasons in the summary.
const SEVERAL: &str = "several; -o wide tells each";

/// The items by verdict, and within one by kind.
fn groups(items: &[ItemResult]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for item in items {
        match groups.iter_mut().find(|group| group.verdict == item.verdict && group.kind == item.kind) {
            Some(group) => {
                group.objects += 1;
                if group.reason != item.reason {
                    group.reason = SEVERAL;
                }
            }
            None => {
                let (verdict, kind, reason) = (item.verdict.as_str(), item.kind.as_str(), item.reason.as_str());
                groups.push(Group { verdict, kind, objects: 1, reason });
            }
        }
    }
    groups.sort_by_key(|group| (rank(group.verdict), group.verdict, group.kind));
    groups
}

fn summary(items: &[ItemResult]) -> Table {
    let mut table = Table::new(["VERDICT", "KIND", "OBJECTS", "REASON"]);
    for group in groups(items) {
        table.row([
            Cell::colored(group.verdict, color(group.verdict)),
            group.kind.into(),
            group.objects.to_string().into(),
            group.reason.into(),
        ]);
    }
    table
}

/// Verdicts in the order a person wants to see them: what happens, what doesn't, what can't.
fn rank(verdict: &str) -> u8 {
    match verdict {
        "create" | "created" => 0,
        "update" | "updated" => 1,
        "recreate" | "recreated" | "delete" | "deleted" => 2,
        "unchanged" => 3,
        "skip" => 4,
        "failed" => 6,
        _ => 5,
    }
}

fn color(verdict: &str) -> Color {
    match verdict {
        "create" | "created" => Color::Green,
        "failed" | "forbidden" | "refused" => Color::Red,
        "unchanged" | "skip" => Color::Dim,
        _ => Color::Yellow,
    }
}

/// How many objects have a verdict.
pub(super) fn with_verdict(result: &RestoreResult, verdict: &str) -> u64 {
    result.items.iter().filter(|item| item.verdict == verdict).count() as u64
}

/// What is asked before anything is written.
pub(super) fn deed(result: &RestoreResult, context: &str) -> String {
    let deeds = ["create", "update", "recreate"].map(|verdict| (verdict, with_verdict(result, verdict)));
    let deeds: Vec<String> = match deeds {
        [(_, creates), (_, 0), (_, 0)] => {
            return format!("restore {} into cluster `{context}`", count(creates, "object"));
        }
        deeds => deeds.into_iter().filter(|(_, n)| *n > 0).map(|(verb, n)| format!("{verb} {}", number(n))).collect(),
    };
    let all = count(writes(&result.items), "object");
    format!("restore {all} into cluster `{context}` ({})", deeds.join(", "))
}

/// How many objects would be written.
pub(crate) fn writes(items: &[ItemResult]) -> u64 {
    let is_write = |item: &&ItemResult| matches!(item.verdict.as_str(), "create" | "update" | "recreate" | "delete");
    items.iter().filter(is_write).count() as u64
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use crate::verbs::list::tests::manifest;
    use crate::verbs::restore::tests::args;
    use kubectl_backup::id::Digest;
    use kubectl_backup::rules::compare::Change;

    fn item(verdict: &str, kind: &str, name: &str, reason: &str) -> ItemResult {
        let namespace = (kind != "namespaces").then(|| "shop".to_owned());
        let (kind, name) = (kind.into(), name.into());
        ItemResult { kind, namespace, name, verdict: verdict.into(), reason: reason.into(), ..ItemResult::default() }
    }

    pub(in crate::verbs::restore) fn plan() -> RestoreResult {
        RestoreResult {
            backup: manifest("shop-1", "namespaces", &["shop"], "Complete"),
            plan_digest: Digest::of(b""),
            dry_run: true,
            items: vec![
                item("skip", "namespaces", "shop", "it exists"),
                item("create", "secrets", "a", ""),
                item("not served", "widgets.example.com", "w", "no such kind here"),
                item("create", "deployments.apps", "web", ""),
                item("create", "secrets", "b", ""),
                item("skip", "secrets", "c", "it exists"),
                item("skip", "secrets", "d", "never restored"),
            ],
            problems: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn fields(text: &str) -> Vec<Vec<String>> {
        let split = |line: &str| line.split("   ").map(|f| f.trim().to_owned()).filter(|f| !f.is_empty()).collect();
        text.lines().map(split).collect()
    }

    #[test]
    fn the_summary_groups_by_verdict_and_kind() {
        let screen = Screen::new(ColorChoice::Never);
        let lines = fields(&rendered(&plan(), &args(&[]), &screen).unwrap());
        assert_eq!(lines[0], ["VERDICT", "KIND", "OBJECTS", "REASON"]);
        assert_eq!(lines[1], ["create", "deployments.apps", "1", "<none>"]);
        assert_eq!(lines[2], ["create", "secrets", "2", "<none>"]);
        assert_eq!(lines[3], ["skip", "namespaces", "1", "it exists"]);
        assert_eq!(lines[4], ["skip", "secrets", "2", SEVERAL]);
        assert_eq!(lines[5], ["not served", "widgets.example.com", "1", "no such kind here"]);
        let wide = fields(&rendered(&plan(), &args(&["-o", "wide"]), &screen).unwrap());
        assert_eq!((wide.len(), &wide[4][..3]), (8, &["skip".into(), "<none>".into(), "namespaces".into()][..]));
        let json: serde_json::Value =
            serde_json::from_str(&rendered(&plan(), &args(&["-o", "json"]), &screen).unwrap()).unwrap();
        assert_eq!(json["items"][2]["verdict"], "not served");
    }

    #[test]
    fn the_question_names_how_many_and_where() {
        assert_eq!(deed(&plan(), "prod"), "restore 3 objects into cluster `prod`");
        let mut plan = plan();
        plan.items.push(item("recreate", "jobs.batch", "j", ""));
        assert_eq!(deed(&plan, "prod"), "restore 4 objects into cluster `prod` (create 3, recreate 1)");
    }

    #[test]
    fn fields_that_would_change_stand_below_the_table() {
        let mut plan = plan();
        let change = |path: &str, from: Option<&str>, to: Option<&str>| Change {
            path: path.into(),
            from: from.map(Value::from),
            to: to.map(Value::from),
        };
        let changes = vec![
            change("data.a", Some("1"), Some("\u{1b}2")),
            change("data.gone", Some("x"), None),
            change("data.p", Some("***"), Some("***")),
        ];
        plan.items.push(ItemResult { changes, ..item("update", "configmaps", "settings", "") });
        let text = rendered(&plan, &args(&[]), &Screen::new(ColorChoice::Never)).unwrap();
        let below = text.split_once("\n\n").unwrap().1;
        let expected = "update configmaps shop/settings\n  - data.a: \"1\"\n  + data.a: \"\\u001b2\"\n  - data.gone: \"x\"\n  ~ data.p: changes\n";
        assert_eq!(below, expected);
    }
}
