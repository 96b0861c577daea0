//! `describe`: one backup, what it holds, what is missing and what was left out.

use crate::args::{Format, FromClusterArgs, PlaceArgs, TimeoutArgs};
use crate::document;
use crate::run;
use crate::screen::{Screen, print};
use crate::session::Session;
use crate::table::{Cell, NONE, Table};
use crate::text::{age, count, number, safe, size, took};
use crate::verbs::list::{namespaces, outcome_color, stored};
use jiff::Timestamp;
use kubectl_backup::archive::manifest::{Consistency, Scope};
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::hooks::{HookOutcome, HookReport};
use kubectl_backup::operations::read::DescribeResult;
use kubectl_backup::report::ExitCode;
use kubectl_backup::volumes::record::VolumeCopy;
use std::fmt::Write as _;
use std::time::Duration;

/// What stands where EC2 hasn't told something.
const UNKNOWN: &str = "unknown";

/// Show one backup: its contents, problems, and what was left out
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubectl backup describe latest
  kubectl backup describe shop-20261120 -o wide")]
pub(crate) struct Args {
    /// The backup: its id or the beginning of it, latest, latest:NAMESPACE, or @2026-11-20T10:00
    #[arg(value_name = "ID", value_parser = BackupQuery::parse)]
    pub(crate) backup: BackupQuery,
    /// Output format; for people where none is given, and wide tells more of each volume
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::among(["wide", "json", "yaml", "name"]))]
    pub(crate) output: Option<Format>,
    #[command(flatten)]
    pub(crate) from: FromClusterArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
}

/// Describes.
///
/// # Errors
/// What kept the description from being had.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let target = session.target(&args.place).await?;
    let query = args.from.query(&args.backup);
    let answer = run::answer(session, &target, "describe", Verb::Describe(query), args.timeout.timeout).await?;
    let described: DescribeResult = answer.result()?;
    print(&rendered(&described, args, &target.location.url(), &session.screen, Timestamp::now())?)?;
    Ok(answer.code)
}

/// The description as it goes to stdout.
fn rendered(
    described: &DescribeResult,
    args: &Args,
    place: &str,
    screen: &Screen,
    now: Timestamp,
) -> anyhow::Result<String> {
    match args.output {
        Some(Format::Json) => document::json(described),
        Some(Format::Yaml) => document::yaml(described),
        Some(Format::Name) => Ok(format!("{}\n", described.manifest.id)),
        _ => Ok(text(described, args.output == Some(Format::Wide), place, screen, now)),
    }
}

fn text(described: &DescribeResult, wide: bool, place: &str, screen: &Screen, now: Timestamp) -> String {
    let mut text = head(described, place, screen, now);
    let report = &described.report;
    if !report.kinds.is_empty() {
        let mut kinds = Table::new(["KIND", "VERSION", "OBJECTS", "SIZE"]);
        for kind in &report.kinds {
            kinds.row([
                kind.kind.as_str().into(),
                kind.api_version.as_str().into(),
                kind.objects.to_string().into(),
                size(kind.bytes).into(),
            ]);
        }
        section(&mut text, "Kinds", &kinds.render(screen, true));
    }
    section(&mut text, "Volumes", &volumes(&report.volumes, wide, screen));
    let problems = report.problems.iter().map(|p| format!("{}: {}\n", safe(&p.subject), safe(&p.message)));
    section(&mut text, "Problems", &problems.collect::<String>());
    section(&mut text, "Hooks", &hooks(&report.hooks, screen));
    let omissions = report.omissions.iter().map(|omission| {
        let objects = omission.objects.map_or_else(|| "not read".to_owned(), |objects| count(objects, "object"));
        format!("{} ({objects}): {}\n", safe(&omission.subject), safe(&omission.rule))
    });
    section(&mut text, "Left out", &omissions.collect::<String>());
    text
}

/// The volumes whose data is saved. `DATA` is what was ever written to a volume, and what a restore reads.
fn volumes(copies: &[VolumeCopy], wide: bool, screen: &Screen) -> String {
    if copies.is_empty() {
        return String::new();
    }
    let mut header = vec!["CLAIM", "VOLUME", "TYPE", "SIZE", "SNAPSHOT", "STATE", "DATA"];
    if wide {
        header.extend(["BEGUN", "REGION", "ACCOUNT", "ZONE", "IOPS", "KEY"]);
    }
    let mut table = Table::new(header);
    for copy in copies {
        let (source, snapshot) = (&copy.source, &copy.snapshot);
        let mut row: Vec<Cell> = vec![
            format!("{}/{}", copy.namespace, copy.claim).into(),
            source.id.as_str().into(),
            source.kind.as_str().into(),
            size(source.gib << 30).into(),
            snapshot.id.as_str().into(),
            snapshot.state.to_string().into(),
            snapshot.full_bytes.map_or_else(|| UNKNOWN.to_owned(), size).into(),
        ];
        if wide {
            row.extend([
                snapshot.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
                snapshot.region.as_str().into(),
                if snapshot.account.is_empty() { UNKNOWN } else { &snapshot.account }.into(),
                source.zone.as_str().into(),
                source.iops.map_or_else(|| NONE.to_owned(), |iops| iops.to_string()).into(),
                source.kms_key_id.as_deref().unwrap_or(NONE).into(),
            ]);
        }
        table.row(row);
    }
    table.render(screen, true)
}

/// How much of the volumes holds data, where EC2 told it of any.
fn written(copies: &[VolumeCopy]) -> String {
    let known: Vec<u64> = copies.iter().filter_map(|copy| copy.snapshot.full_bytes).collect();
    match known.len() {
        0 => String::new(),
        all if all == copies.len() => format!(" with {} of data", size(known.iter().sum())),
        some => format!(" with {} of data in {some} of them", size(known.iter().sum())),
    }
}

/// The commands that ran in pods, in their order.
fn hooks(reports: &[HookReport], screen: &Screen) -> String {
    if reports.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["HOOK", "POD", "CONTAINER", "COMMAND", "OUTCOME", "TOOK"]);
    for one in reports {
        let outcome = match one.outcome {
            HookOutcome::Succeeded => "succeeded",
            HookOutcome::Failed => "failed",
            HookOutcome::TimedOut => "timed out",
            HookOutcome::Stopped => "stopped",
            HookOutcome::NotRun => "not run",
        };
        table.row([
            one.when.to_string().into(),
            format!("{}/{}", one.namespace, one.pod).into(),
            one.container.as_str().into(),
            one.command.as_str().into(),
            outcome.into(),
            took(Duration::try_from_secs_f64(one.seconds).unwrap_or_default()).into(),
        ]);
    }
    table.render(screen, true)
}

fn head(described: &DescribeResult, place: &str, screen: &Screen, now: Timestamp) -> String {
    let manifest = &described.manifest;
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(text, "{:<14}{value}", format!("{name}:")); // a String takes all that is written to it
    };
    let time = Duration::try_from(manifest.ended_at.duration_since(manifest.started_at)).unwrap_or_default();
    let started = manifest.started_at.strftime("%Y-%m-%dT%H:%M:%SZ");
    let counts = &manifest.counts;
    let outcome = screen.out(outcome_color(manifest.outcome), &manifest.outcome.to_string());
    let problems = match counts.problems {
        0 => String::new(),
        problems => format!(", {}", count(problems, "problem")),
    };
    field("ID", manifest.id.as_str());
    field("Outcome", &format!("{outcome}{problems}"));
    field("Location", &safe(place));
    field("Cluster", &format!("{} ({})", safe(&manifest.cluster.uid), safe(&manifest.cluster.version)));
    match manifest.scope {
        Scope::Cluster if manifest.selection.is_some() => field("Scope", "the cluster, in part"),
        Scope::Cluster => field("Scope", "the whole cluster"),
        Scope::Namespaces => field("Namespaces", &safe(&namespaces(manifest, usize::MAX)).replace(',', ", ")),
    }
    if let Some(selection) = &manifest.selection {
        field("Selection", &safe(selection));
    }
    if let Some(place) = &manifest.copied_from {
        field("Copied from", &safe(place));
    }
    field("Started", &format!("{started} ({} ago), took {}", age(manifest.started_at, now), took(time)));
    field("Consistency", &consistency(&manifest.consistency));
    let stored = size(stored(manifest));
    field("Objects", &format!("{}, {} of JSON, {stored} stored", number(counts.objects), size(counts.bytes)));
    if counts.volumes > 0 {
        let volumes = count(counts.volumes, "volume");
        let skew = manifest.consistency.skew_seconds;
        field(
            "Volumes",
            &format!(
                "{volumes} of {}{}, their snapshots within {skew:.1} s of the objects",
                size(counts.volume_bytes),
                written(&described.report.volumes)
            ),
        );
    }
    field("Made by", &safe(&manifest.tool));
    text
}

/// One instant, or what is not of it.
fn consistency(consistency: &Consistency) -> String {
    let Some(revision) = &consistency.revision else {
        return format!("no revision was pinned; read within {:.1} s", consistency.skew_seconds);
    };
    let revision = safe(revision);
    if consistency.unpinned.is_empty() {
        return format!("all kinds at revision {revision}");
    }
    let mut text = format!(
        "revision {revision}, except {} within {:.1} s:",
        count(consistency.unpinned.len() as u64, "kind"),
        consistency.skew_seconds
    );
    for unpinned in &consistency.unpinned {
        let _ = write!(text, "\n{:14}{}: {}", "", safe(&unpinned.kind), safe(&unpinned.reason));
    }
    text
}

/// A part with a title, indented; nothing where there is nothing to say.
fn section(text: &mut String, title: &str, body: &str) {
    if !body.is_empty() {
        let _ = writeln!(text, "\n{title}:");
        body.lines().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use crate::verbs::list::tests::manifest;
    use serde_json::json;

    fn described() -> DescribeResult {
        let report = json!({
            "selection": {"namespaces": ["shop"]}, "namespaces": ["shop"],
            "kinds": [{"kind": "secrets", "apiVersion": "v1", "objects": 3, "bytes": 2048, "revision": "4711"}],
            "problems": [{"subject": "secrets shop/db", "message": "can't be \u{1b}[2Jread"}],
            "omissions": [{"subject": "events", "rule": "events are never saved", "objects": 7}], "seconds": 2.0,
            "hooks": [{"namespace": "shop", "pod": "db-0", "container": "db", "when": "pre", "command": "psql",
                "outcome": "timedOut", "seconds": 30.0, "message": "x"}],
            "volumes": [{"namespace": "shop", "claim": "data-db-0", "volume": "pvc-1", "method": "ebs-snapshot",
                "source": {"id": "vol-0a", "type": "gp3", "gib": 100, "zone": "eu-central-1a"},
                "snapshot": {"id": "snap-0a", "region": "eu-central-1", "state": "completed",
                    "startedAt": "2026-11-20T10:00:01Z", "fullBytes": 1_610_612_736}}]
        });
        let mut manifest = manifest("shop-1", "namespaces", &["shop", "blog"], "Partial");
        (manifest.counts.volumes, manifest.counts.volume_bytes) = (1, 100 << 30);
        manifest.consistency.skew_seconds = 0.8;
        DescribeResult { manifest, report: serde_json::from_value(report).unwrap() }
    }

    #[test]
    fn a_page_for_people() {
        let now = "2026-11-20T10:05:00Z".parse().unwrap();
        let text = text(&described(), false, "s3://b/p", &Screen::new(ColorChoice::Never), now);
        for line in [
            "ID:           shop-1",
            "Outcome:      Partial, 2 problems",
            "Location:     s3://b/p",
            "Cluster:      uid-1 (v1.34.1)",
            "Namespaces:   shop, blog",
            "Started:      2026-11-20T10:00:00Z (5m ago), took 2.0s",
            "Consistency:  all kinds at revision 4711",
            "Objects:      12,345, 5.0 MiB of JSON, 1.0 MiB stored",
            "Volumes:      1 volume of 100.0 GiB with 1.5 GiB of data, their snapshots within 0.8 s of the objects",
            "Problems:",
            "  secrets shop/db: can't be \\u{1b}[2Jread",
            "Hooks:",
            "Left out:",
            "  events (7 objects): events are never saved",
        ] {
            assert!(text.lines().any(|have| have == line), "{line:?} is missing in\n{text}");
        }
        let hook: Vec<&str> = text.lines().find(|line| line.contains("psql")).unwrap().split_whitespace().collect();
        assert_eq!(hook, ["pre", "shop/db-0", "db", "psql", "timed", "out", "30.0s"]);
        let volume: Vec<&str> = text.lines().find(|line| line.contains("vol-0a")).unwrap().split_whitespace().collect();
        assert_eq!(volume.join(" "), "shop/data-db-0 vol-0a gp3 100.0 GiB snap-0a completed 1.5 GiB");
    }

    #[test]
    fn sizes_that_ec2_has_not_told_are_unknown_and_not_nothing() {
        let mut described = described();
        let mut other = described.report.volumes[0].clone();
        (other.snapshot.full_bytes, other.snapshot.account) = (None, "222222222222".into());
        (other.source.id, other.source.kms_key_id) = ("vol-0b".into(), Some("arn:aws:kms:r:2:key/1".into()));
        described.report.volumes.push(other);
        let now = "2026-11-20T10:05:00Z".parse().unwrap();
        let text = text(&described, true, "s3://b/p", &Screen::new(ColorChoice::Never), now);
        let line = |of: &str| {
            let line = text.lines().find(|line| line.contains(of)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(line("CLAIM").ends_with("STATE DATA BEGUN REGION ACCOUNT ZONE IOPS KEY"), "{text}");
        let known = "completed 1.5 GiB 2026-11-20T10:00:01Z eu-central-1 unknown eu-central-1a <none> <none>";
        assert!(line("vol-0a").ends_with(known), "{text}");
        let unknown = "completed unknown 2026-11-20T10:00:01Z eu-central-1 222222222222 eu-central-1a <none> arn:aws:kms:r:2:key/1";
        assert!(line("vol-0b").ends_with(unknown), "{text}");
        assert!(text.contains("with 1.5 GiB of data in 1 of them"), "{text}");
    }

    #[test]
    fn what_is_not_of_the_instant_is_named() {
        let mixed: Consistency = serde_json::from_value(json!({
            "revision": "5", "skewSeconds": 1.25, "unpinned": [{"kind": "events", "reason": "stored apart"}]
        }))
        .unwrap();
        assert_eq!(consistency(&mixed), "revision 5, except 1 kind within 1.2 s:\n              events: stored apart");
        assert!(consistency(&Consistency::default()).starts_with("no revision was pinned"));
    }
}
