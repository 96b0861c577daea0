//! `verify`: whether backups are still what was saved.

use crate::args::{Format, FromClusterArgs, PlaceArgs, TimeoutArgs};
use crate::document;
use crate::run;
use crate::screen::{Color, Screen, print};
use crate::session::Session;
use crate::table::{Cell, NONE, Table};
use crate::text::size;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::verify::{Level, Verdict, Verified, VerifyResult, VerifyTask};
use kubectl_backup::report::ExitCode;

/// Verify that backups are still what was saved
#[derive(Debug, clap::Args)]
#[command(after_help = "Levels: 1 compares the keys and sizes of a backup's files with its manifest; 2 reads
them and compares every byte's digest. Both ask EC2 for each snapshot.
Exit codes: 0 intact, 3 something can't be told or is still pending, 7 damaged.

Examples:
  kubectl backup verify latest
  kubectl backup verify latest:shop latest:blog --level 1
  kubectl backup list -o name | xargs kubectl backup verify -o json")]
pub(crate) struct Args {
    /// The backups: ids or the beginnings of them, latest, latest:NAMESPACE, or @2026-11-20T10:00
    #[arg(value_name = "ID", required = true, value_parser = BackupQuery::parse)]
    pub(crate) backups: Vec<BackupQuery>,
    /// How closely to look
    #[arg(long, value_name = "1|2", default_value = "2", value_parser = level(), hide_possible_values = true)]
    pub(crate) level: Level,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table",
          value_parser = Format::among(["table", "wide", "json", "yaml"]))]
    pub(crate) output: Format,
    /// Leave the column headings out
    #[arg(long)]
    pub(crate) no_headers: bool,
    #[command(flatten)]
    pub(crate) from: FromClusterArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
}

fn level() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(["1", "2"]).map(|text| if text == "1" { Level::Keys } else { Level::Bytes })
}

/// Verifies.
///
/// # Errors
/// What kept the answer from being had. Damage is an answer.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let target = session.target(&args.place).await?;
    let (backups, from_cluster) = (args.backups.clone(), args.from.from_cluster.clone());
    let verb = Verb::Verify(VerifyTask { backups, from_cluster, level: args.level });
    let answer = run::answer(session, &target, "verify", verb, args.timeout.timeout).await?;
    let result: VerifyResult = answer.result()?;
    print(&match args.output {
        Format::Json => document::json(&result)?,
        Format::Yaml => document::yaml(&result)?,
        Format::Wide => snapshots(&result, &session.screen, !args.no_headers),
        _ => table(&result, &session.screen, !args.no_headers),
    })?;
    run::tell_problems(&result.problems, result.problems.len() as u64, &answer.id, &session.screen);
    Ok(answer.code)
}

fn verdict(one: &Verified) -> Cell {
    let color = match one.verdict {
        Verdict::Intact => Color::Green,
        Verdict::Unsure => Color::Yellow,
        Verdict::Damaged => Color::Red,
    };
    Cell::colored(one.verdict.to_string(), color)
}

fn table(result: &VerifyResult, screen: &Screen, headers: bool) -> String {
    if result.backups.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["ID", "READ", "SNAPSHOTS", "VERDICT"]);
    for one in &result.backups {
        let completed = one.snapshots.iter().filter(|snapshot| snapshot.state == "completed").count();
        let snapshots = match one.snapshots.len() {
            0 => NONE.to_owned(),
            all => format!("{completed}/{all}"),
        };
        table.row([one.id.as_str().into(), size(one.bytes).into(), snapshots.into(), verdict(one)]);
    }
    table.render(screen, headers)
}

/// A line for each snapshot; one for a backup without any.
fn snapshots(result: &VerifyResult, screen: &Screen, headers: bool) -> String {
    let mut table = Table::new(["ID", "READ", "CLAIM", "SNAPSHOT", "REGION", "STATE", "VERDICT"]);
    for one in &result.backups {
        let mut row = |fields: [&str; 4]| {
            let [claim, id, region, state] = fields;
            let read = size(one.bytes);
            table.row([
                one.id.as_str().into(),
                read.into(),
                claim.into(),
                id.into(),
                region.into(),
                state.into(),
                verdict(one),
            ]);
        };
        one.snapshots.iter().for_each(|it| row([&it.claim, &it.id, &it.region, &it.state]));
        if one.snapshots.is_empty() {
            row([NONE; 4]);
        }
    }
    table.render(screen, headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use serde_json::json;

    #[test]
    fn a_line_for_each_backup_or_each_snapshot() {
        let snapshot =
            |id: &str, state: &str| json!({"id": id, "region": "r", "claim": format!("shop/{id}"), "state": state});
        let result: VerifyResult = serde_json::from_value(json!({"level": "bytes", "problems": [], "backups": [
            {"id": "shop-1", "verdict": "unsure", "bytes": 2048,
             "snapshots": [snapshot("s1", "completed"), snapshot("s2", "pending 37%")]},
            {"id": "blog-1", "verdict": "intact", "bytes": 1024}
        ]}))
        .unwrap();
        let screen = Screen::new(ColorChoice::Never);
        let words =
            |text: &str| text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        let lines = words(&table(&result, &screen, true));
        assert_eq!(lines[1..], ["shop-1 2.0 KiB 1/2 unsure", "blog-1 1.0 KiB <none> intact"]);
        let lines = words(&snapshots(&result, &screen, false));
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1], "shop-1 2.0 KiB shop/s2 s2 r pending 37% unsure");
    }

    #[test]
    fn only_levels_that_there_are() {
        let level = |words: &[&str]| {
            let words = ["kubectl-backup", "verify", "latest"].iter().chain(words).map(Into::into);
            crate::args::parse(words).map(|cli| match cli.verb {
                crate::args::Verb::Verify(args) => args.level,
                _ => panic!("not `verify`"),
            })
        };
        assert_eq!((level(&[]).unwrap(), level(&["--level=1"]).unwrap()), (Level::Bytes, Level::Keys));
        assert_eq!(level(&["--level=3"]).unwrap_err().exit_code(), 2);
    }
}
