//! `list --restores`: what was restored, and can be undone.

use super::{Args, outcome_color};
use crate::args::Format;
use crate::document;
use crate::run;
use crate::screen::{Color, print, tell};
use crate::session::{Session, Target};
use crate::table::{Cell, NONE, Table};
use crate::text::{age, safe};
use jiff::Timestamp;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::undo::{Listed, RestoresResult, Standing};
use kubectl_backup::report::ExitCode;

/// What stands for the outcome of a restore that has none.
fn unended(standing: Option<Standing>) -> Cell {
    match standing {
        Some(Standing::Running) => Cell::colored("Running", Color::Cyan),
        Some(Standing::Interrupted) => Cell::colored("Interrupted", Color::Yellow),
        Some(Standing::NotEnded) | None => Cell::colored("NotEnded", Color::Yellow),
    }
}

/// Lists the restores on record.
///
/// # Errors
/// What kept the list from being had.
pub(super) async fn run(session: &Session, target: &Target, args: &Args) -> anyhow::Result<ExitCode> {
    let answer = run::answer(session, target, "list", Verb::ListRestores, args.timeout.timeout).await?;
    let list: RestoresResult = answer.result()?;
    let now = Timestamp::now();
    print(&match args.output {
        Format::Json => document::json(&list)?,
        Format::Yaml => document::yaml(&list)?,
        Format::Name => list.restores.iter().map(|restore| format!("{}\n", restore.record.id)).collect(),
        Format::Table | Format::Wide if list.restores.is_empty() => String::new(),
        wide => table(&list, now, wide == Format::Wide).render(&session.screen, !args.no_headers),
    })?;
    if list.restores.is_empty() && list.problems.is_empty() {
        tell(&format!("no restores in {}", safe(&target.location.url())));
    }
    for problem in &list.problems {
        tell(&format!("problem: {}: {}", safe(&problem.subject), safe(&problem.message)));
    }
    Ok(if list.problems.is_empty() { ExitCode::Complete } else { ExitCode::Partial })
}

fn table(list: &RestoresResult, now: Timestamp, wide: bool) -> Table {
    let mut header = vec!["RESTORE", "AGE", "BACKUP", "CREATED", "UPDATED", "RECREATED", "OUTCOME", "UNDONE"];
    if wide {
        header.extend(["STARTED", "SAFETY BACKUP", "CLUSTER"]);
    }
    let mut table = Table::new(header);
    for Listed { record: restore, standing, undone_at } in &list.restores {
        let mut row: Vec<Cell> =
            vec![restore.id.as_str().into(), age(restore.started_at, now).into(), restore.backup.as_str().into()];
        match &restore.end {
            Some(end) => {
                row.extend([end.created, end.updated, end.recreated].map(|count| Cell::from(count.to_string())));
                row.push(Cell::colored(end.outcome.to_string(), outcome_color(end.outcome)));
            }
            None => row.extend([NONE.into(), NONE.into(), NONE.into(), unended(*standing)]),
        }
        row.push(undone_at.map_or_else(|| NONE.into(), |at| age(at, now).into()));
        if wide {
            row.push(restore.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
            let safety = restore.end.as_ref().and_then(|end| end.safety.as_ref());
            row.push(safety.map_or(NONE, |safety| safety.as_str()).into());
            row.push(restore.cluster.as_str().into());
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::{ColorChoice, Screen};
    use serde_json::json;

    #[test]
    fn a_line_for_each_restore() {
        let file = |name: &str| json!({"key": format!("data/r-1/a/{name}"), "size": 1, "sha256": kubectl_backup::id::Digest::of(b"")});
        let list: RestoresResult = serde_json::from_value(json!({
            "readAt": "2026-11-20T13:12:00Z", "problems": [], "restores": [{
                "format": "kubectl-backup/1", "id": "r-1", "attempt": "a", "cluster": "uid-1", "backup": "shop-1",
                "safety": "safety-r-1", "planDigest": kubectl_backup::id::Digest::of(b""), "startedAt": "2026-11-20T10:00:00Z",
                "endedAt": "2026-11-20T10:00:02Z", "outcome": "Complete", "created": 3, "updated": 2, "recreated": 1,
                "report": file("report.json"), "log": file("log.jsonl.zst"), "undoneAt": "2026-11-20T13:11:00Z",
            }, {
                "format": "kubectl-backup/1", "id": "r-2", "attempt": "a", "cluster": "uid-1", "backup": "shop-1",
                "planDigest": kubectl_backup::id::Digest::of(b""), "startedAt": "2026-11-20T13:00:00Z", "standing": "Running",
            }]
        }))
        .unwrap();
        let text = table(&list, list.read_at, true).render(&Screen::new(ColorChoice::Never), false);
        let fields: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(fields[..8], ["r-1", "3h12m", "shop-1", "3", "2", "1", "Complete", "60s"]);
        assert_eq!(fields[9..11], ["safety-r-1", "uid-1"]);
        assert_eq!(fields[11..19], ["r-2", "12m", "shop-1", NONE, NONE, NONE, "Running", NONE]);
        assert_eq!(fields[20..], [NONE, "uid-1"]);
    }
}
