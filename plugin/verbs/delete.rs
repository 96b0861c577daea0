//! `delete`: shows what would go, asks, and removes what was shown.

use crate::args::{Format, FromClusterArgs, PlaceArgs, WaitArgs};
use crate::ask;
use crate::document;
use crate::run::{self, Ended, Manner, Run};
use crate::screen::{Color, Screen, print, tell};
use crate::session::{Session, Target};
use crate::table::{Cell, NONE, Table};
use crate::text::{age, count, safe, size, took};
use crate::verbs::list::outcome_color;
use crate::verbs::restore::DryRun;
use anyhow::Context as _;
use jiff::Timestamp;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::delete::{DeleteResult, DeleteTask, Deletion, Verdict};
use kubectl_backup::operations::restore;
use kubectl_backup::report::ExitCode;

/// Delete backups with their snapshots
#[derive(Debug, clap::Args)]
#[command(after_help = "What would go is shown first, and nothing goes before you agree. Snapshots go only
where their tags say that they are the backup's; a backup whose snapshot is locked
or behind an image stays. A deletion that was interrupted goes on when it is said
again. What a versioned bucket keeps of deleted keys is up to its lifecycle rules.

Examples:
  kubectl backup delete shop-20261120-100000-k3fa
  kubectl backup delete shop-20261120-100000-k3fa --dry-run=client
  kubectl backup list -o name | grep ^test- | xargs kubectl backup delete --yes")]
pub(crate) struct Args {
    /// The backups: ids, or the beginnings of ids
    #[arg(value_name = "ID", required = true, value_parser = id)]
    pub(crate) backups: Vec<BackupQuery>,
    /// With client: show what would go; with server: also ask EC2 whether it would remove the snapshots
    #[arg(long, value_name = "none|client|server", value_enum, default_value_t, hide_possible_values = true)]
    pub(crate) dry_run: DryRun,
    /// Don't ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table",
          value_parser = Format::among(["table", "json", "yaml", "name"]))]
    pub(crate) output: Format,
    /// Leave the column headings out
    #[arg(long)]
    pub(crate) no_headers: bool,
    #[command(flatten)]
    pub(crate) from: FromClusterArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Reads an id, or the beginning of one: what means another backup each time is not deleted by that name.
fn id(text: &str) -> Result<BackupQuery, String> {
    match BackupQuery::parse(text) {
        Ok(query @ BackupQuery::Prefix(_)) => Ok(query),
        Ok(_) => Err("it means another backup each time; name the id: `kubectl backup list -o name`".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Args {
    /// The task that these arguments mean.
    fn task(&self, dry_run: restore::DryRun) -> DeleteTask {
        DeleteTask { backups: self.backups.clone(), from_cluster: self.from.from_cluster.clone(), dry_run }
    }
}

/// Deletes: plan, question, work.
///
/// # Errors
/// What kept it from being done.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let target = session.target(&args.place).await?;
    if args.dry_run != DryRun::None {
        let (ended, plan) = planned(session, &target, args, args.dry_run.into()).await?;
        print(&rendered(&plan, args, &session.screen)?)?;
        tell_problems(&ended, &plan, &session.screen);
        return Ok(ended.code);
    }
    let mut task = args.task(restore::DryRun::None);
    if !args.yes {
        let (ended, plan) = planned(session, &target, args, restore::DryRun::Client).await?;
        tell_problems(&ended, &plan, &session.screen);
        tell(table(&plan, args, &session.screen).trim_end());
        let going: Vec<&Deletion> = plan.backups.iter().filter(|one| one.verdict == Verdict::Delete).collect();
        if going.is_empty() {
            tell("nothing can be deleted");
            return Ok(ended.code);
        }
        if !ask::agreed(&deed(&going, &target.location.url()), &session.screen).await? {
            tell("nothing was deleted");
            return Ok(ExitCode::Failed);
        }
        // those that stay too: that they do is told in the end as well, and in the exit code
        task.backups = plan.backups.iter().map(|one| BackupQuery::Prefix(one.id.to_string())).collect();
    }
    carry_out(session, &target, args, task).await
}

async fn planned(
    session: &Session,
    target: &Target,
    args: &Args,
    dry_run: restore::DryRun,
) -> anyhow::Result<(Ended, DeleteResult)> {
    let verb = Verb::Delete(args.task(dry_run));
    let ended = run::answer(session, target, "delete", verb, args.wait.timeout.timeout).await?;
    let plan = ended.result()?;
    Ok((ended, plan))
}

async fn carry_out(session: &Session, target: &Target, args: &Args, task: DeleteTask) -> anyhow::Result<ExitCode> {
    match run::run(session, target, run::new_id("delete"), Verb::Delete(task), Manner::work(args.wait)).await? {
        Run::Left { id, code } => run::left(&id, code),
        Run::Ended(ended) => {
            let result: DeleteResult = ended.result().context("what was to be deleted is deleted")?;
            print(&rendered(&result, args, &session.screen)?)?;
            tell_problems(&ended, &result, &session.screen);
            tell(&line(&ended, &result, &session.screen));
            Ok(ended.code)
        }
    }
}

fn rendered(result: &DeleteResult, args: &Args, screen: &Screen) -> anyhow::Result<String> {
    Ok(match args.output {
        Format::Json => document::json(result)?,
        Format::Yaml => document::yaml(result)?,
        Format::Name => {
            let goes = |one: &&Deletion| matches!(one.verdict, Verdict::Delete | Verdict::Deleted);
            result.backups.iter().filter(goes).map(|one| format!("{}\n", one.id)).collect()
        }
        _ => table(result, args, screen),
    })
}

fn table(result: &DeleteResult, args: &Args, screen: &Screen) -> String {
    if result.backups.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["ID", "AGE", "SIZE", "SNAPSHOTS", "VERDICT"]);
    let now = Timestamp::now();
    for one in &result.backups {
        let color = match one.verdict {
            Verdict::Deleted => Color::Green,
            Verdict::Delete => Color::Plain,
            Verdict::Kept | Verdict::Unfinished => Color::Yellow,
        };
        table.row([
            one.id.as_str().into(),
            one.started_at.map_or_else(|| NONE.to_owned(), |at| age(at, now)).into(),
            size(one.bytes).into(),
            snapshots(one).into(),
            Cell::colored(one.verdict.to_string(), color),
        ]);
    }
    table.render(screen, !args.no_headers)
}

/// `2 (40.0 GiB)`: how many, and of what.
fn snapshots(one: &Deletion) -> String {
    match one.snapshots.len() {
        0 => NONE.to_owned(),
        some => format!("{some} ({})", size(one.snapshot_gib << 30)),
    }
}

fn tell_problems(ended: &Ended, result: &DeleteResult, screen: &Screen) {
    run::tell_problems(&result.problems, result.problems.len() as u64, &ended.id, screen);
    for one in result.backups.iter().filter(|one| one.verdict == Verdict::Delete) {
        if let Some(restore) = &one.safety_of {
            let text = format!("without `{}` the restore `{restore}` can't be undone", one.id);
            tell(&format!("{} {}", screen.err(Color::Cyan, "note:"), safe(&text)));
        }
    }
}

/// What is asked before anything goes.
fn deed(going: &[&Deletion], place: &str) -> String {
    let bytes: u64 = going.iter().map(|one| one.bytes).sum();
    let snapshots: u64 = going.iter().map(|one| one.snapshots.len() as u64).sum();
    let with = if snapshots == 0 { String::new() } else { format!(" and {}", count(snapshots, "snapshot")) };
    format!("delete {} ({}){with} in {} for good", count(going.len() as u64, "backup"), size(bytes), safe(place))
}

/// `delete delete-… Complete: 2 backups deleted with 3 snapshots, 1.2s`.
fn line(ended: &Ended, result: &DeleteResult, screen: &Screen) -> String {
    let outcome = screen.err(outcome_color(ended.outcome), &ended.outcome.to_string());
    let gone: Vec<&Deletion> = result.backups.iter().filter(|one| one.verdict == Verdict::Deleted).collect();
    let snapshots = count(gone.iter().map(|one| one.snapshots.len() as u64).sum(), "snapshot");
    let (id, took) = (&ended.id, took(ended.took));
    format!("delete {id} {outcome}: {} deleted with {snapshots}, {took}", count(gone.len() as u64, "backup"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use serde_json::json;

    fn args(words: &[&str]) -> Result<Args, clap::Error> {
        let words = ["kubectl-backup", "delete"].iter().chain(words).map(Into::into);
        crate::args::parse(words).map(|cli| match cli.verb {
            crate::args::Verb::Delete(args) => args,
            _ => panic!("not `delete`"),
        })
    }

    #[test]
    fn only_what_means_the_same_backup_again_is_deleted() {
        let task = args(&["shop-1", "blog-2"]).unwrap().task(restore::DryRun::None);
        assert_eq!(task.backups.len(), 2);
        for bad in [&[][..], &["latest"], &["latest:shop"], &["@2026-11-20T10:00"], &["shop-1", "latest"], &["a/b"]] {
            assert_eq!(args(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn what_goes_is_told_with_its_sizes() {
        let result: DeleteResult = serde_json::from_value(json!({
            "dryRun": "client", "problems": [],
            "backups": [
                {"id": "shop-1", "verdict": "delete", "startedAt": "2026-11-20T10:00:00Z", "keys": 5, "bytes": 2048,
                 "snapshots": [{"region": "r", "id": "snap-1"}, {"region": "r", "id": "snap-2"}], "snapshotGib": 24},
                {"id": "shop-2", "verdict": "kept", "keys": 1, "bytes": 1024}
            ]
        }))
        .unwrap();
        let text = table(&result, &args(&["x"]).unwrap(), &Screen::new(ColorChoice::Never));
        let fields =
            |line: usize| text.lines().nth(line).unwrap().split("   ").map(str::trim).filter(|f| !f.is_empty());
        assert_eq!(fields(1).skip(2).collect::<Vec<_>>(), ["2.0 KiB", "2 (24.0 GiB)", "delete"]);
        assert_eq!(fields(2).collect::<Vec<_>>(), ["shop-2", "<none>", "1.0 KiB", "<none>", "kept"]);
        let deed = deed(&[&result.backups[0]], "s3://b");
        assert_eq!(deed, "delete 1 backup (2.0 KiB) and 2 snapshots in s3://b for good");
    }
}
