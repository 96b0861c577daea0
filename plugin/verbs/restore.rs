//! `restore`: shows the plan, asks, and carries out the plan that was shown.

use crate::args::{Format, FromClusterArgs, PlaceArgs, WaitArgs};
use crate::run::{self, Ended, Manner, Run};
use crate::screen::{Color, Screen, print, tell};
use crate::session::{Session, Target};
use crate::table::{Cell, NONE, Table};
use crate::text::{count, safe, took};
use crate::verbs::list::outcome_color;
use crate::verbs::volumes;
use crate::{ask, document};
use anyhow::Context as _;
use clap::ValueEnum;
use jiff::Timestamp;
use kubectl_backup::id::{BackupId, BackupQuery, Digest};
use kubectl_backup::jobs::{self, binding};
use kubectl_backup::operations::restore::{ItemResult, RestoreResult, RestoreTask};
use kubectl_backup::operations::{Query, Verb};
use kubectl_backup::report::ExitCode;

/// Restore a backup, or some of its objects
#[derive(Debug, clap::Args)]
#[command(after_help = "First the plan is shown: what would be created, what is there already, what
can't be restored and why. Nothing is written before you agree; what then runs
is the plan you saw, or nothing. Existing objects are left as they are.

Examples:
  kubectl backup restore latest:shop
  kubectl backup restore latest:shop --dry-run=client -o wide
  kubectl backup restore latest:shop deploy/web secret/db
  kubectl backup restore latest:shop --map-namespace shop=shop-test")]
pub(crate) struct Args {
    /// The backup: its id or the beginning of it, latest, latest:NAMESPACE, or @2026-11-20T10:00
    #[arg(value_name = "ID", value_parser = BackupQuery::parse)]
    pub(crate) backup: BackupQuery,
    /// Objects to restore, in any spelling kubectl takes: deploy/web, secret/db
    #[arg(value_name = "KIND/NAME")]
    pub(crate) objects: Vec<String>,
    /// Only these namespaces of the backup; can be repeated, globs allowed
    #[arg(short, long = "namespace", value_name = "NAMESPACE", value_delimiter = ',')]
    pub(crate) namespaces: Vec<String>,
    /// Restore what was in namespace OLD into namespace NEW; can be repeated
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',', value_parser = mapping)]
    pub(crate) map_namespace: Vec<String>,
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
    pub(crate) from: FromClusterArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    volumes: volumes::RestoreArgs,
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
    /// The task that these arguments mean.
    fn task(&self, dry_run: bool, approved: Option<Digest>) -> RestoreTask {
        RestoreTask {
            query: Query { backup: self.backup.clone(), from_cluster: self.from.from_cluster.clone() },
            objects: self.objects.clone(),
            namespaces: self.namespaces.clone(),
            map_namespace: self.map_namespace.clone(),
            dry_run,
            approved,
            volumes: self.volumes.options(),
        }
    }
}

/// Restores: plan, question, work.
///
/// # Errors
/// What kept it from being done.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let target = session.target(&args.place).await?;
    if args.dry_run == DryRun::Client {
        let (planned, plan) = planned(session, &target, args).await?;
        print(&rendered(&plan, args, &session.screen)?)?;
        tell_rest(&planned, &plan, &session.screen);
        return Ok(planned.code);
    }
    let approved = if args.yes {
        None
    } else {
        let (planned, plan) = planned(session, &target, args).await?;
        // on stderr: what goes to stdout is what becomes of it
        let shown = if args.output == Format::Wide { each(&plan.items) } else { summary(&plan.items) };
        tell(shown.render(&session.screen, true).trim_end());
        tell_rest(&planned, &plan, &session.screen);
        if with_verdict(&plan, "create") == 0 {
            tell("there is nothing to restore");
            return Ok(planned.code);
        }
        if !ask::agreed(&deed(&plan, &session.context), &session.screen).await? {
            tell("nothing was changed");
            return Ok(ExitCode::Failed);
        }
        Some(plan.plan_digest)
    };
    carry_out(session, &target, args, approved).await
}

/// Plans, with the reader's rights.
async fn planned(session: &Session, target: &Target, args: &Args) -> anyhow::Result<(Ended, RestoreResult)> {
    let verb = Verb::Restore(args.task(true, None));
    let ended = run::answer(session, target, "plan", verb, args.wait.timeout.timeout).await?;
    let plan = ended.result()?;
    Ok((ended, plan))
}

/// Carries the plan out that was approved, or with `--yes` whatever it is.
async fn carry_out(
    session: &Session,
    target: &Target,
    args: &Args,
    approved: Option<Digest>,
) -> anyhow::Result<ExitCode> {
    let id = run::new_id(&format!("restore-{}", args.backup));
    let verb = Verb::Restore(args.task(false, approved));
    match bound(session, target, id, verb, Manner::work(args.wait)).await? {
        Run::Left { id, code } => {
            if code == ExitCode::Complete {
                print(&format!("{id}\n"))?;
            }
            Ok(code)
        }
        Run::Ended(ended) => {
            let result: RestoreResult = ended.result().context("the restore is done")?;
            print(&rendered(&result, args, &session.screen)?)?;
            tell_rest(&ended, &result, &session.screen);
            tell(&line(&ended, &result, &session.screen));
            Ok(ended.code)
        }
    }
}

/// Runs a restore whose worker has its rights for this run only. It gives them back itself when it ends; so do we, in
/// case it died.
async fn bound(session: &Session, target: &Target, id: BackupId, verb: Verb, manner: Manner) -> anyhow::Result<Run> {
    if target.local {
        return run::run(session, target, id, verb, manner).await;
    }
    let client = session.cluster.client();
    // best effort: what a killed run left behind is not this run's trouble
    match binding::sweep(client, &session.install_namespace, Timestamp::now()).await {
        Ok(swept) => swept.iter().for_each(|id| tell(&format!("removed the rights that restore {id} left behind"))),
        Err(error) => tracing::debug!("bindings of earlier restores aren't swept: {error}"),
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
    format!(
        "restore {} {outcome}: {created} of {all} created from {}, {}",
        ended.id,
        result.backup.id,
        took(ended.took)
    )
}

/// Plan or result as it goes to stdout.
fn rendered(result: &RestoreResult, args: &Args, screen: &Screen) -> anyhow::Result<String> {
    Ok(match args.output {
        Format::Json => document::json(result)?,
        Format::Yaml => document::yaml(result)?,
        Format::Wide => each(&result.items).render(screen, !args.no_headers),
        _ => summary(&result.items).render(screen, !args.no_headers),
    })
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
        "exists" | "unchanged" => 1,
        "skip" => 2,
        "failed" => 4,
        _ => 3,
    }
}

fn color(verdict: &str) -> Color {
    match verdict {
        "create" | "created" => Color::Green,
        "failed" | "forbidden" | "refused" => Color::Red,
        "exists" | "unchanged" | "skip" => Color::Dim,
        _ => Color::Yellow,
    }
}

/// How many objects have a verdict.
fn with_verdict(result: &RestoreResult, verdict: &str) -> u64 {
    result.items.iter().filter(|item| item.verdict == verdict).count() as u64
}

/// What is asked before anything is written.
fn deed(result: &RestoreResult, context: &str) -> String {
    format!("restore {} into cluster `{context}`", count(with_verdict(result, "create"), "object"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use crate::verbs::list::tests::manifest;

    fn item(verdict: &str, kind: &str, name: &str, reason: &str) -> ItemResult {
        let namespace = (kind != "namespaces").then(|| "shop".to_owned());
        ItemResult { kind: kind.into(), namespace, name: name.into(), verdict: verdict.into(), reason: reason.into() }
    }

    fn plan() -> RestoreResult {
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

    fn args(words: &[&str]) -> Args {
        let words = ["kubectl-backup", "restore", "latest"].iter().chain(words).map(Into::into);
        let crate::args::Verb::Restore(args) = crate::args::parse(words).unwrap().verb else { panic!("not `restore`") };
        args
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
    }

    #[test]
    fn arguments_become_a_task() {
        let args = args(&["deploy/web", "-n", "a,b", "-n", "c", "--map-namespace", "a=x", "--dry-run", "client"]);
        let task = args.task(args.dry_run == DryRun::Client, None);
        assert_eq!(task.namespaces, ["a", "b", "c"]);
        assert_eq!(
            (task.map_namespace, task.objects, task.dry_run),
            (vec!["a=x".into()], vec!["deploy/web".into()], true)
        );
        for bad in [&["--map-namespace", "a"][..], &["--map-namespace", "a=B"], &["--dry-run=server"]] {
            let words = ["kubectl-backup", "restore", "latest"].iter().chain(bad).map(Into::into);
            assert!(crate::args::parse(words).is_err(), "{bad:?}");
        }
    }
}
