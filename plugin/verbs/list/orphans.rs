//! `list --orphans`: what is left of backups that never were, or are gone.

use super::Args;
use crate::args::Format;
use crate::document;
use crate::run;
use crate::screen::{Color, print, tell};
use crate::session::{Session, Target};
use crate::table::{NONE, Table};
use crate::text::{age, safe, size};
use jiff::Timestamp;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::orphans::OrphansResult;
use kubectl_backup::report::ExitCode;
use std::collections::BTreeSet;

/// Lists what is left.
///
/// # Errors
/// What kept the list from being had.
pub(super) async fn run(session: &Session, target: &Target, args: &Args) -> anyhow::Result<ExitCode> {
    let answer = run::answer(session, target, "list", Verb::ListOrphans, args.timeout.timeout).await?;
    let list: OrphansResult = answer.result()?;
    print(&match args.output {
        Format::Json => document::json(&list)?,
        Format::Yaml => document::yaml(&list)?,
        Format::Name => list.orphans.iter().map(|orphan| format!("{}\n", orphan.id)).collect(),
        Format::Table | Format::Wide if list.orphans.is_empty() => String::new(),
        _ => table(&list, Timestamp::now()).render(&session.screen, !args.no_headers),
    })?;
    let label = session.screen.err(Color::Cyan, "hint:");
    match list.orphans.first() {
        Some(first) => tell(&format!("{label} `kubectl backup delete {} …` removes what is left", first.id)),
        None if list.problems.is_empty() => tell(&format!("nothing is left over in {}", safe(&target.location.url()))),
        None => (),
    }
    for note in &list.notes {
        tell(&format!("{} {}", session.screen.err(Color::Cyan, "note:"), safe(note)));
    }
    run::tell_problems(&list.problems, list.problems.len() as u64, &answer.id, &session.screen);
    Ok(answer.code)
}

fn table(list: &OrphansResult, now: Timestamp) -> Table {
    let mut table = Table::new(["ID", "AGE", "KEYS", "SIZE", "SNAPSHOTS", "IN"]);
    for orphan in &list.orphans {
        let snapshots = match orphan.snapshots.len() {
            0 => NONE.to_owned(),
            some => format!("{some} ({})", size(orphan.snapshot_gib << 30)),
        };
        let regions: BTreeSet<&str> = orphan.snapshots.iter().map(|snapshot| snapshot.region.as_str()).collect();
        let regions: Vec<&str> = regions.into_iter().collect();
        table.row([
            orphan.id.as_str().into(),
            age(orphan.newest, now).into(),
            orphan.keys.to_string().into(),
            size(orphan.bytes).into(),
            snapshots.into(),
            regions.join(",").into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::{ColorChoice, Screen};
    use serde_json::json;

    #[test]
    fn a_line_for_each_id() {
        let list: OrphansResult = serde_json::from_value(json!({
            "readAt": "2026-11-20T13:12:00Z", "problems": [], "orphans": [
                {"id": "shop-1", "newest": "2026-11-18T13:12:00Z", "keys": 3, "bytes": 2048,
                 "snapshots": [{"region": "r", "id": "snap-1"}], "snapshotGib": 4}]
        }))
        .unwrap();
        let text = table(&list, list.read_at).render(&Screen::new(ColorChoice::Never), false);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words.join(" "), "shop-1 2d 3 2.0 KiB 1 (4.0 GiB) r");
    }
}
