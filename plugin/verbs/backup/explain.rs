//! `--explain`: what a backup would hold and leave out, and why.

use super::{SharedArgs, name};
use crate::args::Format;
use crate::document;
use crate::failure::Failure;
use crate::run;
use crate::screen::{Screen, print};
use crate::session::{Session, Target};
use crate::table::{Cell, Table};
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::operations::explain::{Explanation, Taken};
use kubectl_backup::report::ExitCode;

/// Names that are told in a line.
const TOLD: usize = 3;

/// Explains.
///
/// # Errors
/// What kept the lists from being made.
pub(super) async fn run(
    session: &Session,
    target: &Target,
    task: BackupTask,
    args: &SharedArgs,
) -> anyhow::Result<ExitCode> {
    if args.output == Some(Format::Name) {
        let text = "`--explain` is printed as a table, `json` or `yaml`\nhint: leave `-o name` out";
        return Err(Failure::usage(text).into());
    }
    let called = name(&task);
    let timeout = args.wait.timeout.timeout;
    let ended = run::answer(session, target, &called, Verb::Explain(task), timeout).await?;
    let explained: Explanation = ended.result()?;
    print(&rendered(&explained, args.output, &session.screen)?)?;
    run::tell_problems(&explained.problems, explained.problems.len() as u64, &ended.id, &session.screen);
    Ok(ended.code)
}

/// The explanation as it goes to stdout.
fn rendered(explained: &Explanation, format: Option<Format>, screen: &Screen) -> anyhow::Result<String> {
    Ok(match format {
        Some(Format::Json) => document::json(explained)?,
        Some(Format::Yaml) => document::yaml(explained)?,
        _ if explained.hooks.is_empty() => table(explained).render(screen, true),
        _ => format!("{}\n{}", table(explained).render(screen, true), hooks(explained).render(screen, true)),
    })
}

fn table(explained: &Explanation) -> Table {
    let mut table = Table::new(["SAVED", "WHAT", "OBJECTS", "WHY"]);
    for taken in &explained.taken {
        let row: [Cell; 4] =
            ["yes".into(), taken.kind.as_str().into(), taken.objects.to_string().into(), why(taken).into()];
        table.row(row);
    }
    for omission in &explained.omissions {
        let objects = omission.objects.map_or_else(|| "not read".to_owned(), |objects| objects.to_string());
        let row: [Cell; 4] =
            ["no".into(), omission.subject.as_str().into(), objects.into(), omission.rule.as_str().into()];
        table.row(row);
    }
    table
}

/// The commands that would run.
fn hooks(explained: &Explanation) -> Table {
    let mut table = Table::new(["HOOK", "POD", "CONTAINER", "COMMAND", "ANNOTATION"]);
    for hook in &explained.hooks {
        table.row([
            hook.when.to_string().into(),
            format!("{}/{}", hook.namespace, hook.pod).into(),
            hook.container.as_str().into(),
            hook.command.as_str().into(),
            hook.annotation.as_str().into(),
        ]);
    }
    table
}

/// The reason, with the first names where others need the objects.
fn why(taken: &Taken) -> String {
    if taken.names.is_empty() {
        return taken.why.clone();
    }
    let told = taken.names.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = taken.objects.saturating_sub(TOLD as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}: {told}{more}", taken.why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use serde_json::json;

    #[test]
    fn what_is_in_comes_before_what_is_out() {
        let explained: Explanation = serde_json::from_value(json!({
            "selection": {"namespaces": ["shop"], "include": ["cm"]}, "namespaces": ["shop"],
            "taken": [
                {"kind": "configmaps", "objects": 3, "why": "--include cm"},
                {"kind": "clusterroles", "objects": 5, "why": "needed by what is taken", "names": ["a", "b", "c", "d", "e"]}
            ],
            "omissions": [
                {"subject": "all other kinds", "rule": "--include cm"},
                {"subject": "configmaps", "rule": "label kubectl-backup/exclude=true", "objects": 1}
            ],
            "problems": [],
            "hooks": [{"namespace": "shop", "pod": "db", "container": "main", "when": "pre", "command": "psql", "annotation": "kubectl-backup/pre"}]
        }))
        .unwrap();
        let shown = rendered(&explained, None, &Screen::new(ColorChoice::Never)).unwrap();
        let lines: Vec<String> =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "SAVED WHAT OBJECTS WHY",
                "yes configmaps 3 --include cm",
                "yes clusterroles 5 needed by what is taken: a, b, c and 2 more",
                "no all other kinds not read --include cm",
                "no configmaps 1 label kubectl-backup/exclude=true",
                "",
                "HOOK POD CONTAINER COMMAND ANNOTATION",
                "pre shop/db main psql kubectl-backup/pre",
            ]
        );
        let json: serde_json::Value =
            serde_json::from_str(&rendered(&explained, Some(Format::Json), &Screen::new(ColorChoice::Never)).unwrap())
                .unwrap();
        assert_eq!(
            (&json["taken"][0]["objects"], &json["omissions"][0]["subject"]),
            (&3.into(), &"all other kinds".into())
        );
    }
}
