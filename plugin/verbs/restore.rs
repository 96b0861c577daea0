//! `restore`: shows the plan, asks, and carries out the plan that was shown.

mod plan_file;
pub(crate) mod shown;

use crate::args::adapt::AdaptArgs;
use crate::args::{Format, FromClusterArgs, PlaceArgs, SelectionArgs, WaitArgs};
use crate::ask;
use crate::failure::Failure;
use crate::run::{self, Ended, Manner, Run};
use crate::screen::{Color, Screen, print, tell};
use crate::session::{Session, Target};
use crate::text::{count, number, safe, took};
use crate::verbs::list::outcome_color;
use crate::verbs::volumes;
use anyhow::Context as _;
use clap::ValueEnum;
use jiff::Timestamp;
use kubectl_backup::config::Location;
use kubectl_backup::id::{BackupId, BackupQuery, Digest};
use kubectl_backup::jobs::{self, binding};
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::restore::{self, RestoreResult, RestoreTask};
use kubectl_backup::report::ExitCode;
use kubectl_backup::rules::verdict::Existing;
use plan_file::PlanFile;
use shown::{deed, rendered, with_verdict, writes};
use std::path::PathBuf;

/// Restore a backup, or some of its objects
#[derive(Debug, clap::Args)]
#[command(after_help = "First the plan is shown: what would be created, what is there already, what
can't be restored and why. Nothing is written before you agree; what then runs
is the plan you saw, or nothing. Existing objects are left as they are, unless
--existing says otherwise.

Examples:
  kubectl backup restore latest:shop
  kubectl backup restore latest:shop --dry-run=client -o wide
  kubectl backup restore latest:shop deploy/web secret/db
  kubectl backup restore latest:shop --include cm,secrets -l app=web
  kubectl backup restore latest:shop --existing=update --dry-run=server
  kubectl backup restore latest:shop --existing=update --plan-out plan.json
  kubectl backup restore --plan plan.json
  kubectl backup restore latest:shop --map-namespace shop=shop-test")]
pub(crate) struct Args {
    /// The backup: its id or the beginning of it, latest, latest:NAMESPACE, or @2026-11-20T10:00
    #[arg(value_name = "ID", value_parser = BackupQuery::parse, required_unless_present = "plan")]
    pub(crate) backup: Option<BackupQuery>,
    /// Objects to restore, in any spelling kubectl takes: deploy/web, secret/db
    #[arg(value_name = "KIND/NAME", conflicts_with = "SelectionArgs")]
    pub(crate) objects: Vec<String>,
    /// Only these namespaces of the backup; can be repeated, globs allowed
    #[arg(short, long = "namespace", value_name = "NAMESPACE", value_delimiter = ',')]
    pub(crate) namespaces: Vec<String>,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// Restore what was in namespace OLD into namespace NEW; can be repeated
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',', value_parser = mapping)]
    pub(crate) map_namespace: Vec<String>,
    /// What to do with objects that are there: leave them; replace or recreate those that differ; fail if any differs
    #[arg(
        long,
        value_name = "skip|update|recreate|fail",
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub(crate) existing: OnExisting,
    /// Where to save what is changed, when the backup's location is read-only: a location's name, or s3://…
    #[arg(long, value_name = "NAME|URL")]
    pub(crate) safety_location: Option<String>,
    /// With client: show the plan and write nothing. With server: also let the API server try every write out
    #[arg(long, value_name = "none|client|server", value_enum, default_value_t, hide_possible_values = true)]
    pub(crate) dry_run: DryRun,
    /// Write the plan to a file instead of carrying it out
    #[arg(long, value_name = "FILE")]
    pub(crate) plan_out: Option<PathBuf>,
    /// Carry out the plan of a file; refused when the cluster is no longer as it was then
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["backup", "objects", "namespaces", "SelectionArgs", "map_namespace", "existing", "safety_location", "dry_run", "plan_out", "from_cluster", "RestoreArgs", "AdaptArgs"]
    )]
    pub(crate) plan: Option<PathBuf>,
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
    pub(crate) from: FromClusterArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    volumes: volumes::RestoreArgs,
    // last: its heading would take in what follows
    #[command(flatten)]
    pub(crate) adapt: AdaptArgs,
}

/// `--dry-run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Write.
    #[default]
    None,
    /// Compare with what is there, write nothing.
    Client,
    /// Have the API server try the writes out.
    Server,
}

impl From<DryRun> for restore::DryRun {
    fn from(arg: DryRun) -> Self {
        match arg {
            DryRun::None => Self::None,
            DryRun::Client => Self::Client,
            DryRun::Server => Self::Server,
        }
    }
}

/// `--existing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnExisting {
    /// Leave it.
    #[default]
    Skip,
    /// Replace what differs.
    Update,
    /// Delete what differs and create it anew.
    Recreate,
    /// Restore nothing if anything differs.
    Fail,
}

impl From<OnExisting> for Existing {
    fn from(arg: OnExisting) -> Self {
        match arg {
            OnExisting::Skip => Self::Skip,
            OnExisting::Update => Self::Update,
            OnExisting::Recreate => Self::Recreate,
            OnExisting::Fail => Self::Fail,
        }
    }
}

/// Checks one `--map-namespace`.
fn mapping(text: &str) -> Result<String, String> {
    let (old, new) = text.split_once('=').ok_or("write OLD=NEW, such as shop=shop-test")?;
    for name in [old, new] {
        kubectl_backup::resource::check_namespace(name)
            .map_err(|error| format!("`{name}` is not a namespace's name: {error}"))?;
    }
    Ok(text.to_owned())
}

impl Args {
    /// The task that these arguments mean. `None`: they name a file.
    fn task(
        &self,
        dry_run: restore::DryRun,
        approved: Option<Digest>,
        safety_location: Option<Location>,
    ) -> Option<RestoreTask> {
        Some(RestoreTask {
            query: self.from.query(self.backup.as_ref()?),
            objects: self.objects.clone(),
            namespaces: self.namespaces.clone(),
            selection: self.selection.selection(),
            map_namespace: self.map_namespace.clone(),
            existing: self.existing.into(),
            adapt: self.adapt.options(),
            safety_location,
            dry_run,
            approved,
            volumes: self.volumes.options(),
        })
    }
}

/// Restores: plan, question, work.
///
/// # Errors
/// What kept it from being done.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let target = session.target(&args.place).await?;
    let safety = match &args.safety_location {
        Some(text) => Some(session.second(text, &target).await?),
        None => None,
    };
    let Some(task) = args.task(args.dry_run.into(), None, safety) else {
        let file = args.plan.as_deref().context("neither a backup nor a plan is named")?;
        let PlanFile { task, plan, .. } = PlanFile::read(file)?;
        let agreed = args.yes || agreed(session, args, &plan).await?;
        return if agreed { carry_out(session, &target, args, task).await } else { Ok(ExitCode::Failed) };
    };
    if args.dry_run != DryRun::None || args.plan_out.is_some() {
        return only_plan(session, &target, args, task).await;
    }
    let mut task = task;
    if !args.yes {
        let (planned, plan) = planned(session, &target, args, &task).await?;
        // on stderr: what goes to stdout is what becomes of it
        tell_rest(&planned, &plan, &session.screen);
        if writes(&plan.items) == 0 {
            tell(shown::table(&plan, args, &session.screen).trim_end());
            tell("there is nothing to restore");
            return Ok(planned.code);
        }
        if !agreed(session, args, &plan).await? {
            return Ok(ExitCode::Failed);
        }
        task.approved = Some(plan.plan_digest);
    }
    carry_out(session, &target, args, task).await
}

/// Shows a plan and asks.
async fn agreed(session: &Session, args: &Args, plan: &RestoreResult) -> anyhow::Result<bool> {
    tell(shown::table(plan, args, &session.screen).trim_end());
    let agreed = ask::agreed(&deed(plan, &session.context), &session.screen).await?;
    if !agreed {
        tell("nothing was changed");
    }
    Ok(agreed)
}

/// Shows a plan, and writes it to a file where one is named.
async fn only_plan(session: &Session, target: &Target, args: &Args, task: RestoreTask) -> anyhow::Result<ExitCode> {
    let (planned, plan) = planned(session, target, args, &task).await?;
    print(&rendered(&plan, args, &session.screen)?)?;
    tell_rest(&planned, &plan, &session.screen);
    tell(&match writes(&plan.items) {
        0 => "there is nothing to restore".to_owned(),
        _ => format!("would {} from {}; nothing was changed", deed(&plan, &session.context), plan.backup.id),
    });
    if let Some(path) = &args.plan_out {
        PlanFile::new(task, plan).write(path)?;
        tell(&format!("`kubectl backup restore --plan {}` carries this plan out", path.display()));
    }
    Ok(planned.code)
}

/// Plans: with the reader's rights, or, where the API server is to try the writes out, with the writer's for this run.
async fn planned(
    session: &Session,
    target: &Target,
    args: &Args,
    task: &RestoreTask,
) -> anyhow::Result<(Ended, RestoreResult)> {
    let timeout = args.wait.timeout.timeout;
    let ended = if task.dry_run == restore::DryRun::Server {
        let verb = Verb::Restore(Box::new(task.clone()));
        match bound(session, target, run::new_id("plan"), verb, Manner::answer(timeout)).await? {
            Run::Ended(ended) => ended,
            Run::Left { code, .. } => return Err(Failure::new(code, "interrupted; nothing was changed").into()),
        }
    } else {
        let verb = Verb::Restore(Box::new(RestoreTask { dry_run: restore::DryRun::Client, ..task.clone() }));
        run::answer(session, target, "plan", verb, timeout).await?
    };
    let plan = ended.result()?;
    Ok((ended, plan))
}

/// Carries the plan out that was approved, or with `--yes` whatever it is.
async fn carry_out(session: &Session, target: &Target, args: &Args, task: RestoreTask) -> anyhow::Result<ExitCode> {
    let id = run::new_id(&format!("restore-{}", task.query.backup));
    match bound(session, target, id, Verb::Restore(Box::new(task)), Manner::work(args.wait)).await? {
        Run::Left { id, code } => run::left(&id, code),
        Run::Ended(ended) => {
            let result: RestoreResult = ended.result().context("the restore is done")?;
            print(&rendered(&result, args, &session.screen)?)?;
            tell_rest(&ended, &result, &session.screen);
            tell(&line(&ended, &result, &session.screen));
            if let Some(way_back) = way_back(&ended, &result, target, args) {
                tell(&session.screen.err(Color::Dim, &way_back));
            }
            Ok(ended.code)
        }
    }
}

/// How what was written is taken back, where there is a record to do it by.
fn way_back(ended: &Ended, result: &RestoreResult, target: &Target, args: &Args) -> Option<String> {
    let is_written = ["created", "updated", "recreated"].iter().any(|verdict| with_verdict(result, verdict) > 0);
    let at = args.safety_location.as_deref().or(args.place.location.as_deref());
    let has_record = is_written && (!target.location.read_only || args.safety_location.is_some());
    let at = at.map_or_else(String::new, |at| format!(" --location {}", shell_word(at)));
    let local = if target.local { " --local" } else { "" };
    has_record.then(|| format!("`kubectl backup undo {}{at}{local}` takes it back", ended.id))
}

/// A word as a shell takes it.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Runs a restore, or an undo, whose worker has its rights for this run only. It gives them back itself when it ends; so do we, in
/// case it died.
pub(crate) async fn bound(
    session: &Session,
    target: &Target,
    id: BackupId,
    verb: Verb,
    manner: Manner,
) -> anyhow::Result<Run> {
    if target.local {
        return run::run(session, target, id, verb, manner).await;
    }
    let client = session.cluster.client();
    // best effort: what a killed run left behind is not this run's trouble
    match binding::sweep(client, &session.install_namespace, Timestamp::now()).await {
        Ok(swept) => swept.iter().for_each(|id| tell(&format!("removed the rights that restore {id} left behind"))),
        Err(error @ jobs::Error::Forbidden { .. }) => {
            tracing::warn!("bindings of killed restores aren't removed: {error}")
        }
        Err(error) => tracing::debug!("bindings of killed restores aren't removed: {error}"),
    }
    binding::create(client, &session.install_namespace, &id).await.context("giving the writer its rights")?;
    let result = run::run(session, target, id.clone(), verb, manner).await;
    let goes_on = match &result {
        Ok(Run::Left { .. }) => true,
        Ok(Run::Ended(_)) => false,
        // we lost sight of it
        Err(error) => error.downcast_ref::<jobs::Error>().is_some_and(jobs::Error::is_transient),
    };
    if !goes_on && let Err(error) = binding::remove(client, &id).await {
        tracing::warn!("clusterrolebinding `{}` is left behind: {error}", binding::name(&id));
    }
    result
}

/// Notes and problems.
fn tell_rest(ended: &Ended, result: &RestoreResult, screen: &Screen) {
    for note in &result.notes {
        tell(&format!("{} {}", screen.err(Color::Cyan, "note:"), safe(note)));
    }
    run::tell_problems(&result.problems, result.problems.len() as u64, &ended.id, screen);
}

/// `restore restore-shop-… Complete: 12 of 14 objects created from shop-…, 2.3s`.
fn line(ended: &Ended, result: &RestoreResult, screen: &Screen) -> String {
    let color = outcome_color(ended.outcome);
    let outcome = screen.err(color, &ended.outcome.to_string());
    let (created, all) = (with_verdict(result, "created"), count(result.items.len() as u64, "object"));
    let others = told(result, &["updated", "recreated"]);
    let (id, backup, took) = (&ended.id, &result.backup.id, took(ended.took));
    format!("restore {id} {outcome}: {created} of {all} created{others} from {backup}, {took}")
}

/// `, 2 updated, 1 recreated`, as far as there are any.
fn told(result: &RestoreResult, verdicts: &[&str]) -> String {
    let some = verdicts.iter().map(|verdict| (with_verdict(result, verdict), verdict)).filter(|(count, _)| *count > 0);
    some.map(|(count, verdict)| format!(", {} {verdict}", number(count))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn args(words: &[&str]) -> Args {
        let words = ["kubectl-backup", "restore", "latest"].iter().chain(words).map(Into::into);
        let crate::args::Verb::Restore(args) = crate::args::parse(words).unwrap().verb else { panic!("not `restore`") };
        *args
    }

    #[test]
    fn arguments_become_a_task() {
        let args = args(&["deploy/web", "-n", "a,b", "-n", "c", "--map-namespace", "a=x", "--dry-run", "client"]);
        let task = args.task(args.dry_run.into(), None, None).unwrap();
        assert_eq!(task.namespaces, ["a", "b", "c"]);
        assert_eq!(
            (task.map_namespace, task.objects, task.dry_run),
            (vec!["a=x".into()], vec!["deploy/web".into()], restore::DryRun::Client)
        );
        for bad in [&["--map-namespace", "a"][..], &["--map-namespace", "a=B"], &["--existing=merge"], &["--plan", "f"]]
        {
            let words = ["kubectl-backup", "restore", "latest"].iter().chain(bad).map(Into::into);
            assert!(crate::args::parse(words).is_err(), "{bad:?}");
        }
        for (words, good) in [
            (&["--plan", "f", "--yes"][..], true),
            (&["--plan", "f", "-n", "a"], false),
            (&["--plan", "f", "--suspend-cronjobs"], false),
            (&["--plan", "f", "--map-image", "a=b"], false),
            (&["--plan", "f", "--volume-type", "gp3"], false),
            (&[], false),
        ] {
            let words = ["kubectl-backup", "restore"].iter().chain(words).map(Into::into);
            assert_eq!(crate::args::parse(words).is_ok(), good);
        }
    }
}
