//! `list`: the backups of a location, at once from the list that the last worker left in the cluster, or from the bucket.

mod orphans;
mod restores;

use crate::args::{Format, PlaceArgs, TimeoutArgs};
use crate::document;
use crate::run;
use crate::screen::{Color, Screen, print, tell};
use crate::session::{Session, Target};
use crate::table::{Cell, NONE, Table};
use crate::text::{age, safe, size};
use jiff::Timestamp;
use kubectl_backup::archive::manifest::{Manifest, Scope};
use kubectl_backup::jobs;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::read::ListResult;
use kubectl_backup::report::{ExitCode, Outcome, Problem};

/// List the backups of a location
#[derive(Debug, clap::Args)]
#[command(after_help = "Answers at once from the list that the last worker left in the cluster, and says
how old it is. With --refresh, with --local, or where there is no such list, the
bucket is asked.

Examples:
  kubectl backup list
  kubectl backup list --refresh -o wide
  kubectl backup list --restores
  kubectl backup list --orphans -o name | xargs kubectl backup delete
  kubectl backup list -o json | jq '.backups[] | select(.outcome == \"Partial\").id'")]
pub(crate) struct Args {
    /// Ask the bucket
    #[arg(long)]
    pub(crate) refresh: bool,
    /// List the restores that were carried out, which `undo` can undo; always asks the bucket
    #[arg(long)]
    pub(crate) restores: bool,
    /// List what is left of backups that never were or are gone: data and snapshots; always asks the bucket, and EC2
    #[arg(long, conflicts_with = "restores")]
    pub(crate) orphans: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table",
          value_parser = Format::among(["table", "wide", "json", "yaml", "name"]))]
    pub(crate) output: Format,
    /// Leave the column headings out
    #[arg(long)]
    pub(crate) no_headers: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
}

/// Namespaces named in a line of the table.
const NAMED: usize = 3;

/// Lists.
///
/// # Errors
/// What kept the list from being had.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let target = session.target(&args.place).await?;
    if args.restores {
        return restores::run(session, &target, args).await;
    }
    if args.orphans {
        return orphans::run(session, &target, args).await;
    }
    let cached = if args.refresh || target.local { None } else { cached(session, &target).await };
    let is_cached = cached.is_some();
    let list = match cached {
        Some(list) => list,
        None => run::answer(session, &target, "list", Verb::List, args.timeout.timeout).await?.result()?,
    };
    let now = Timestamp::now();
    print(&rendered(&list, args, &session.screen, now)?)?;
    remarks(&list, &target.location.url(), is_cached, now).iter().for_each(|line| tell(line));
    Ok(if list.problems.is_empty() { ExitCode::Complete } else { ExitCode::Partial })
}

/// The list that the last worker left, if there is one that can be read.
async fn cached(session: &Session, target: &Target) -> Option<ListResult> {
    let (client, namespace) = (session.cluster.client(), &session.install_namespace);
    let found = jobs::list_cache::read::<Manifest>(client, namespace, &target.location).await;
    let mut cached = found.inspect_err(|error| tracing::debug!("no cached list: {error}")).ok()??;
    cached.backups.reverse();
    let problems = if cached.truncated {
        let message = "only the newest fit into the list in the cluster; `--refresh` gives all".to_owned();
        vec![Problem { subject: "older backups".to_owned(), message }]
    } else {
        Vec::new()
    };
    Some(ListResult { read_at: cached.at, backups: cached.backups, problems })
}

/// The list as it goes to stdout.
fn rendered(list: &ListResult, args: &Args, screen: &Screen, now: Timestamp) -> anyhow::Result<String> {
    Ok(match args.output {
        Format::Json => document::json(list)?,
        Format::Yaml => document::yaml(list)?,
        Format::Name => list.backups.iter().map(|backup| format!("{}\n", backup.id)).collect(),
        Format::Table | Format::Wide if list.backups.is_empty() => String::new(),
        Format::Table => table(list, now, false).render(screen, !args.no_headers),
        Format::Wide => table(list, now, true).render(screen, !args.no_headers),
    })
}

fn table(list: &ListResult, now: Timestamp, wide: bool) -> Table {
    let mut header = vec!["ID", "AGE", "NAMESPACES", "OBJECTS", "SIZE", "OUTCOME"];
    if wide {
        header.extend(["PROBLEMS", "VOLUMES", "STARTED", "REVISION", "CLUSTER", "SAFETY OF"]);
    }
    let mut table = Table::new(header);
    for backup in &list.backups {
        let part = match (&backup.safety_of, &backup.selection) {
            (Some(_), _) => "(safety)",
            (None, Some(_)) => "(part)",
            (None, None) => "",
        };
        let mut row: Vec<Cell> = vec![
            backup.id.as_str().into(),
            age(backup.started_at, now).into(),
            format!("{}{part}", namespaces(backup, if wide { usize::MAX } else { NAMED })).into(),
            backup.counts.objects.to_string().into(),
            size(stored(backup)).into(),
            Cell::colored(backup.outcome.to_string(), outcome_color(backup.outcome)),
        ];
        if wide {
            row.push(backup.counts.problems.to_string().into());
            row.push(match backup.counts.volumes {
                0 => NONE.into(),
                volumes => format!("{volumes} ({})", size(backup.counts.volume_bytes)).into(),
            });
            row.push(backup.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
            row.push(backup.consistency.revision.clone().unwrap_or_default().into());
            row.push(backup.cluster.uid.as_str().into());
            row.push(backup.safety_of.as_ref().map_or(NONE, |restore| restore.as_str()).into());
        }
        table.row(row);
    }
    table
}

/// The colour of an outcome.
pub(crate) fn outcome_color(outcome: Outcome) -> Color {
    match outcome {
        Outcome::Complete => Color::Green,
        Outcome::Partial | Outcome::Cancelled => Color::Yellow,
        Outcome::Failed => Color::Red,
    }
}

/// The namespaces of a backup in one field: `shop`, `a,b,c+4`, `*`.
pub(crate) fn namespaces(backup: &Manifest, named: usize) -> String {
    if backup.scope == Scope::Cluster {
        return "*".to_owned();
    }
    let first = backup.namespaces.iter().take(named).map(String::as_str).collect::<Vec<_>>().join(",");
    match backup.namespaces.len().saturating_sub(named) {
        0 => first,
        more => format!("{first}+{more}"),
    }
}

/// Bytes of a backup in the bucket, the manifest excepted.
pub(crate) fn stored(backup: &Manifest) -> u64 {
    let files = &backup.files;
    [&files.objects, &files.index, &files.report, &files.log].iter().map(|file| file.size).sum()
}

/// What a person should know about a list besides the list, for stderr.
fn remarks(list: &ListResult, place: &str, cached: bool, now: Timestamp) -> Vec<String> {
    let mut remarks = Vec::new();
    if list.backups.is_empty() && list.problems.is_empty() {
        remarks.push(format!("no backups in {}", safe(place)));
    }
    if cached {
        remarks.push(format!("as of {} ago; `--refresh` asks the bucket", age(list.read_at, now)));
    }
    remarks.extend(list.problems.iter().map(|p| format!("problem: {}: {}", safe(&p.subject), safe(&p.message))));
    remarks
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use serde_json::json;

    /// A manifest as it could stand in a bucket.
    pub(crate) fn manifest(id: &str, scope: &str, namespaces: &[&str], outcome: &str) -> Manifest {
        let file = json!({"key": "k", "size": 256 * 1024, "sha256": kubectl_backup::id::Digest::of(b"")});
        serde_json::from_value(json!({
            "format": "kubectl-backup/1", "id": id, "attempt": "a", "cluster": {"uid": "uid-1", "version": "v1.34.1"},
            "scope": scope, "namespaces": namespaces, "startedAt": "2026-11-20T10:00:00Z",
            "endedAt": "2026-11-20T10:00:02Z", "outcome": outcome,
            "consistency": {"revision": "4711", "skewSeconds": 0.0},
            "counts": {"objects": 12345, "bytes": 5 << 20, "problems": 2, "omissions": 1},
            "files": {"objects": file, "index": file, "report": file, "log": file}, "tool": "kubectl-backup 0.1.0"
        }))
        .unwrap()
    }

    fn list() -> ListResult {
        let backups = vec![
            manifest("shop-1", "namespaces", &["shop"], "Complete"),
            manifest("many-1", "namespaces", &["a", "b", "c", "d", "e"], "Partial"),
            manifest("cluster-1", "cluster", &[], "Complete"),
        ];
        ListResult { read_at: now(), backups, problems: Vec::new() }
    }

    fn now() -> Timestamp {
        "2026-11-20T13:12:00Z".parse().unwrap()
    }

    fn shown(words: &[&str]) -> String {
        let words = ["kubectl-backup", "list"].iter().chain(words).map(Into::into);
        let crate::args::Verb::List(args) = crate::args::parse(words).unwrap().verb else { panic!("not `list`") };
        rendered(&list(), &args, &Screen::new(ColorChoice::Never), now()).unwrap()
    }

    #[test]
    fn a_line_for_each_backup() {
        let fields: Vec<Vec<String>> = shown(&[])
            .lines()
            .map(|line| line.split("   ").map(|field| field.trim().to_owned()).filter(|f| !f.is_empty()).collect())
            .collect();
        assert_eq!(fields[0], ["ID", "AGE", "NAMESPACES", "OBJECTS", "SIZE", "OUTCOME"]);
        assert_eq!(fields[1], ["shop-1", "3h12m", "shop", "12345", "1.0 MiB", "Complete"]);
        assert_eq!(fields[2], ["many-1", "3h12m", "a,b,c+2", "12345", "1.0 MiB", "Partial"]);
        assert_eq!(fields[3], ["cluster-1", "3h12m", "*", "12345", "1.0 MiB", "Complete"]);
    }

    #[test]
    fn a_safety_backup_says_whose_it_is() {
        let mut list = list();
        list.backups[0].safety_of = Some(kubectl_backup::id::BackupId::parse("restore-1").unwrap());
        let text = table(&list, now(), true).render(&Screen::new(ColorChoice::Never), false);
        let line = text.lines().next().unwrap();
        assert!(line.contains("shop(safety)") && line.trim_end().ends_with("restore-1"), "{text}");
    }

    #[test]
    fn other_formats() {
        assert_eq!(shown(&["-o", "name"]), "shop-1\nmany-1\ncluster-1\n");
        assert_eq!(shown(&["--no-headers"]).lines().count(), 3);
        let wide = shown(&["-owide"]);
        assert!(wide.contains("CLUSTER") && wide.contains("uid-1") && wide.contains("a,b,c,d,e"), "{wide}");
        let json: ListResult = serde_json::from_str(&shown(&["-o=json"])).unwrap();
        assert_eq!(json.backups, list().backups);
        let yaml: ListResult = serde_saphyr::from_str(&shown(&["--output", "yaml"])).unwrap();
        assert_eq!(yaml.backups, list().backups);
    }

    #[test]
    fn an_empty_list_is_said_and_damage_is_named() {
        let mut list = ListResult { read_at: now(), backups: Vec::new(), problems: Vec::new() };
        assert_eq!(remarks(&list, "s3://b", false, now()), ["no backups in s3://b"]);
        list.problems.push(Problem { subject: "x".into(), message: "cut\u{7}".into() });
        let remarks = remarks(&list, "s3://b", true, now());
        assert_eq!(remarks[0], "as of 0s ago; `--refresh` asks the bucket");
        assert_eq!(remarks[1], "problem: x: cut\\u{7}");
    }
}
