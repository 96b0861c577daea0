//! `undo`: shows what would be put back and removed, asks, and carries out what was shown.

use crate::args::{Format, PlaceArgs, WaitArgs};
use crate::ask;
use crate::document;
use crate::run::{self, Ended, Manner, Run};
use crate::screen::{Color, Screen, print, tell};
use crate::session::{Session, Target};
use crate::text::{count, number, safe, took};
use crate::verbs::list::outcome_color;
use crate::verbs::restore::{bound, shown};
use anyhow::Context as _;
use clap::ValueEnum;
use kubectl_backup::id::BackupId;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::restore::ItemResult;
use kubectl_backup::operations::undo::{EBS_VOLUMES, UndoResult, UndoTask};
use kubectl_backup::report::ExitCode;

/// Undo a restore: put back what it changed, remove what it created
#[derive(Debug, clap::Args)]
#[command(after_help = "What the restore changed comes back from the safety backup that it made; what it
created is removed, by uid. The plan is shown first, and nothing is written before
you agree. Left alone are CRDs, namespaces, volumes and claims that it created,
and objects that somebody wrote since: name them to undo them all the same.

Examples:
  kubectl backup list --restores
  kubectl backup undo
  kubectl backup undo --dry-run=client -o wide
  kubectl backup undo restore-latest-20261120-100000-k3fa
  kubectl backup undo restore-latest-20261120-100000-k3fa namespace/shop pvc/data")]
pub(crate) struct Args {
    /// The restore: its id or the beginning of it [default: the last one into this cluster]
    #[arg(value_name = "RESTORE", value_parser = restore)]
    pub(crate) restore: Option<String>,
    /// Undo only these objects, in any spelling kubectl takes: deploy/web, secret/db
    #[arg(value_name = "KIND/NAME")]
    pub(crate) objects: Vec<String>,
    /// With client: show the plan and write nothing
    #[arg(long, value_name = "none|client", value_enum, default_value_t, hide_possible_values = true)]
    pub(crate) dry_run: DryRun,
    /// Don't ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table",
          value_parser = Format::among(["table", "wide", "json", "yaml"]))]
    pub(crate) output: Format,
    /// Leave the column headings out
    #[arg(long)]
    pub(crate) no_headers: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `--dry-run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Write.
    #[default]
    None,
    /// Compare with what is there, write nothing.
    Client,
}

/// Reads a restore's name, or the beginning of one.
fn restore(text: &str) -> Result<String, String> {
    match BackupId::parse(text.trim_end_matches('-')) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if text.contains('/') => Err(format!(
            "it is an object, and the restore comes first: `undo RESTORE {text}`; `kubectl backup list --restores` shows them"
        )),
        Err(_) => Err("it can't be a restore's id; `kubectl backup list --restores` shows them".to_owned()),
    }
}

impl Args {
    /// The task that these arguments mean.
    fn task(&self, dry_run: bool) -> UndoTask {
        UndoTask { restore: self.restore.clone(), objects: self.objects.clone(), dry_run, approved: None }
    }
}

/// Undoes: plan, question, work.
///
/// # Errors
/// What kept it from being done.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let target = session.target(&args.place).await?;
    if args.dry_run == DryRun::Client {
        let (ended, plan) = planned(session, &target, args).await?;
        print(&rendered(&plan, args, &session.screen)?)?;
        tell_rest(&ended, &plan, &session.screen);
        tell(&match shown::writes(&plan.items) {
            0 => nothing_left(&plan),
            _ => format!("would {}; nothing was changed", deed(&plan, &session.context)),
        });
        return Ok(ended.code);
    }
    let mut task = args.task(false);
    if !args.yes {
        let (ended, plan) = planned(session, &target, args).await?;
        tell_rest(&ended, &plan, &session.screen);
        tell(table(&plan, args, &session.screen).trim_end());
        if shown::writes(&plan.items) == 0 {
            tell(&nothing_left(&plan));
            return Ok(ended.code);
        }
        if !ask::agreed(&deed(&plan, &session.context), &session.screen).await? {
            tell("nothing was changed");
            return Ok(ExitCode::Failed);
        }
        // `undo` without a name means this one, also when another restore comes in between
        task.restore = Some(plan.restore.id.to_string());
        task.approved = Some(plan.plan_digest);
    }
    carry_out(session, &target, args, task).await
}

async fn planned(session: &Session, target: &Target, args: &Args) -> anyhow::Result<(Ended, UndoResult)> {
    let verb = Verb::Undo(args.task(true));
    let ended = run::answer(session, target, "plan", verb, args.wait.timeout.timeout).await?;
    let plan = ended.result()?;
    Ok((ended, plan))
}

async fn carry_out(session: &Session, target: &Target, args: &Args, task: UndoTask) -> anyhow::Result<ExitCode> {
    match bound(session, target, run::new_id("undo"), Verb::Undo(task), Manner::work(args.wait)).await? {
        Run::Left { id, code } => run::left(&id, code),
        Run::Ended(ended) => {
            let result: UndoResult = ended.result().context("the undo is done")?;
            print(&rendered(&result, args, &session.screen)?)?;
            tell_rest(&ended, &result, &session.screen);
            tell(&line(&ended, &result, &session.screen));
            Ok(ended.code)
        }
    }
}

fn rendered(result: &UndoResult, args: &Args, screen: &Screen) -> anyhow::Result<String> {
    Ok(match args.output {
        Format::Json => document::json(result)?,
        Format::Yaml => document::yaml(result)?,
        _ => table(result, args, screen),
    })
}

fn table(result: &UndoResult, args: &Args, screen: &Screen) -> String {
    shown::items_table(&result.items, args.output == Format::Wide, !args.no_headers, screen)
}

fn tell_rest(ended: &Ended, result: &UndoResult, screen: &Screen) {
    for note in &result.notes {
        tell(&format!("{} {}", screen.err(Color::Cyan, "note:"), safe(note)));
    }
    run::tell_problems(&result.problems, result.problems.len() as u64, &ended.id, screen);
}

fn sum(result: &UndoResult, verdicts: &[&str]) -> u64 {
    result.items.iter().filter(|item| verdicts.contains(&item.verdict.as_str())).count() as u64
}

fn nothing_left(plan: &UndoResult) -> String {
    format!("there is nothing left to undo of {}", plan.restore.id)
}

/// What is asked before anything is written.
fn deed(plan: &UndoResult, context: &str) -> String {
    let is_data = |item: &&ItemResult| item.kind == EBS_VOLUMES && item.verdict == "delete";
    let deeds = [
        ("put back ", sum(plan, &["update", "recreate", "create"]), "object"),
        ("delete ", sum(plan, &["delete"]), "object"),
        ("with the data on ", plan.items.iter().filter(is_data).count() as u64, "EBS volume"),
    ];
    let deeds = deeds.iter().filter(|(_, many, _)| *many > 0);
    let deeds = deeds.map(|(deed, many, what)| format!("{deed}{}", count(*many, what)));
    let deeds = deeds.collect::<Vec<_>>().join(", ");
    format!("undo restore {} in cluster `{context}` ({deeds})", plan.restore.id)
}

/// `undo undo-… Complete: 3 objects put back, 12 deleted of restore-…, 1.2s`.
fn line(ended: &Ended, result: &UndoResult, screen: &Screen) -> String {
    let outcome = screen.err(outcome_color(ended.outcome), &ended.outcome.to_string());
    let back = count(sum(result, &["updated", "recreated", "created"]), "object");
    let gone = number(sum(result, &["deleted"]));
    let (id, restore, took) = (&ended.id, &result.restore.id, took(ended.took));
    format!("undo {id} {outcome}: {back} put back, {gone} deleted of {restore}, {took}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_asked_names_what_goes_with_its_data() {
        let plan = |verdicts: &[(&str, &str)]| -> UndoResult {
            let items = verdicts.iter().map(|(kind, verdict)| json!({"kind": kind, "name": "x", "verdict": verdict}));
            let digest = kubectl_backup::id::Digest::of(b"");
            let restore = json!({"format": "f", "id": "r-1", "attempt": "a", "cluster": "u", "backup": "b-1",
                                 "planDigest": digest, "startedAt": "2026-11-20T10:00:00Z"});
            let plan = json!({"restore": restore, "planDigest": digest, "dryRun": true, "problems": [], "notes": [],
                              "items": items.collect::<Vec<_>>()});
            serde_json::from_value(plan).unwrap()
        };
        let all = [("secrets", "update"), ("persistentvolumeclaims", "delete"), ("ebs-volumes", "delete")];
        let expected =
            "undo restore r-1 in cluster `c` (put back 1 object, delete 2 objects, with the data on 1 EBS volume)";
        assert_eq!(deed(&plan(&all), "c"), expected);
        let some = [("secrets", "delete"), ("ebs-volumes", "skip")];
        assert_eq!(deed(&plan(&some), "c"), "undo restore r-1 in cluster `c` (delete 1 object)");
    }

    #[test]
    fn arguments_become_a_task() {
        let parse = |words: &[&str]| {
            let words = ["kubectl-backup", "undo"].iter().chain(words).map(Into::into);
            crate::args::parse(words).map(|cli| match cli.verb {
                crate::args::Verb::Undo(args) => args.task(false),
                _ => panic!("not `undo`"),
            })
        };
        assert_eq!(parse(&[]).unwrap().restore, None);
        let task = parse(&["restore-1", "ns/shop", "pvc/a"]).unwrap();
        assert_eq!((task.restore.as_deref(), task.objects.len()), (Some("restore-1"), 2));
        for bad in [&["ns/shop"][..], &["--dry-run=server"], &["Restore"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
