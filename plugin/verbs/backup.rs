//! `ns` and `cluster`: make a backup, or tell what it would hold.

mod explain;

use crate::args::{Format, PlaceArgs, SelectionArgs, WaitArgs};
use crate::document;
use crate::failure::Failure;
use crate::run::{self, Ended, Manner, Run};
use crate::screen::{Screen, print};
use crate::session::Session;
use crate::text::{count, safe, size, took};
use crate::verbs::list::outcome_color;
use crate::verbs::volumes::{self, Volumes};
use clap::builder::RangedU64ValueParser;
use clap::{ArgAction, ValueEnum};
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::pipeline::save::LISTS;
use kubectl_backup::pipeline::save::pin::Demand;
use kubectl_backup::report::{ExitCode, Outcome, Problem};
use kubectl_backup::rules::claims::VolumeData;
use kubectl_backup::rules::kinds::ObjectArg;
use kubectl_backup::rules::selection::Namespaces;
use serde::Serialize;

/// Back up namespaces, and the cluster-scoped objects they need
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubectl backup ns shop
  kubectl backup ns shop 'team-*' --wait=false
  kubectl backup ns shop deploy/web secret/db
  kubectl backup ns shop -l app=web --exclude secrets --explain
  ID=$(kubectl backup ns shop -o name)
  kubectl backup ns shop --local   # into ~/.local/share/kubectl-backup")]
pub(crate) struct NamespacesArgs {
    /// Namespaces, or globs of them such as 'team-*'; and objects in them, where not all are meant: deploy/web
    #[arg(value_name = "NAME|KIND/NAME", required_unless_present = "all_namespaces")]
    pub(crate) names: Vec<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) shared: SharedArgs,
}

/// Back up everything in the cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubectl backup cluster
  kubectl backup cluster --timeout 30m -o json
  kubectl backup cluster --exclude-namespace 'kube-*' --include-secrets=false")]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) shared: SharedArgs,
}

/// `--consistency`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Consistency {
    /// Everything as it was at one instant.
    #[default]
    Exact,
    /// Every list as it comes.
    Relaxed,
}

/// What both verbs take.
#[derive(Debug, clap::Args)]
pub(crate) struct SharedArgs {
    /// Read everything as it was at one instant, or, relaxed, each kind when its turn comes
    #[arg(long, value_name = "exact|relaxed", value_enum, default_value_t, hide_possible_values = true)]
    consistency: Consistency,
    /// Output format; a line for people where none is given
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::among(["json", "yaml", "name"]))]
    pub(crate) output: Option<Format>,
    /// Run the commands that pods' annotations ask for, before and after; with --hooks=false run none
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        hide_possible_values = true
    )]
    pub(crate) hooks: bool,
    /// Print what would be saved and left out, and why; save nothing and run no hooks
    #[arg(long, conflicts_with = "wait")]
    pub(crate) explain: bool,
    /// Lists in flight at the API server, at most 4; fewer are gentler to it
    #[arg(long, value_name = "N", default_value_t = LISTS, value_parser = RangedU64ValueParser::<usize>::new().range(1..=LISTS as u64))]
    parallel: usize,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    volumes: volumes::BackupArgs,
}

impl SharedArgs {
    /// What both verbs ask of a backup; of everything, until namespaces are named.
    fn task(&self) -> BackupTask {
        BackupTask {
            selection: self.selection.selection(),
            volumes: self.volumes.volumes.map_or(VolumeData::Save, |Volumes::Skip| VolumeData::Skip),
            consistency: match self.consistency {
                Consistency::Exact => Demand::Exact,
                Consistency::Relaxed => Demand::Relaxed,
            },
            hooks: self.hooks,
            parallel: (self.parallel != LISTS).then_some(self.parallel),
            volume_options: self.volumes.options(),
        }
    }
}

impl ClusterArgs {
    /// The task that these arguments mean.
    pub(crate) fn task(&self) -> BackupTask {
        self.shared.task()
    }
}

impl NamespacesArgs {
    /// The task that these arguments mean.
    ///
    /// # Errors
    /// Names that can't be meant.
    pub(crate) fn task(&self) -> Result<BackupTask, Failure> {
        let mut task = self.shared.task();
        let (objects, mut namespaces): (Vec<String>, Vec<String>) =
            self.names.iter().cloned().partition(|name| name.contains('/'));
        let parsed: Result<Vec<_>, _> = objects.iter().map(|object| ObjectArg::parse(object)).collect();
        task.selection.objects = parsed.map_err(|error| Failure::usage(error.to_string()))?;
        match (self.all_namespaces, namespaces.first()) {
            (true, None) => namespaces.push("*".to_owned()),
            (true, Some(name)) => {
                let text = format!("`{name}` and `--all-namespaces` can't both be meant\nhint: give one of the two");
                return Err(Failure::usage(text));
            }
            (false, None) => {
                let text =
                    "no namespace is given\nhint: name it before the objects: `kubectl backup ns shop deploy/web`";
                return Err(Failure::usage(text));
            }
            (false, Some(_)) => (),
        }
        let checked = Namespaces::parse(&namespaces).and_then(|_| match task.selection.exclude_namespaces.as_slice() {
            [] => Ok(()),
            without => Namespaces::parse(without).map(drop),
        });
        checked.map_err(|error| Failure::usage(error.to_string()))?;
        task.selection.namespaces = Some(namespaces);
        Ok(task)
    }
}

/// What is known of a backup that was just made, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    id: &'a str,
    outcome: Outcome,
    location: String,
    objects: u64,
    bytes: u64,
    seconds: f64,
    problems_total: u64,
    /// The first of them; `describe` gives them all.
    problems: &'a [Problem],
}

/// Makes a backup.
///
/// # Errors
/// What kept it from being made.
pub(crate) async fn run(session: &Session, task: BackupTask, args: &SharedArgs) -> anyhow::Result<ExitCode> {
    let target = session.target(&args.place).await?;
    if args.explain {
        return explain::run(session, &target, task, args).await;
    }
    let id = run::new_id(&name(&task));
    let run = run::run(session, &target, id, Verb::Backup(task), Manner::work(args.wait)).await?;
    let url = target.location.url();
    match run {
        Run::Left { id, code } => run::left(&id, code),
        Run::Ended(ended) => {
            print(&rendered(&ended, args.output, &url, &session.screen)?)?;
            ended.tell_problems(&session.screen);
            Ok(ended.code)
        }
    }
}

/// The end of a backup as it goes to stdout.
fn rendered(ended: &Ended, format: Option<Format>, url: &str, screen: &Screen) -> anyhow::Result<String> {
    let summary = Summary {
        id: ended.id.as_str(),
        outcome: ended.outcome,
        location: url.to_owned(),
        objects: ended.counts.objects,
        bytes: ended.counts.bytes,
        seconds: ended.took.as_secs_f64(),
        problems_total: ended.problems_total,
        problems: &ended.problems,
    };
    Ok(match format {
        Some(Format::Json) => document::json(&summary)?,
        Some(Format::Yaml) => document::yaml(&summary)?,
        Some(Format::Name) => format!("{}\n", ended.id),
        _ => line(ended, url, screen),
    })
}

/// `backup shop-… Complete: 1,234 objects, 4.1 MiB, 2.3s, in s3://bucket/prefix`.
fn line(ended: &Ended, url: &str, screen: &Screen) -> String {
    let outcome = screen.out(outcome_color(ended.outcome), &ended.outcome.to_string());
    let mut parts = vec![count(ended.counts.objects, "object"), size(ended.counts.bytes), took(ended.took)];
    if ended.problems_total > 0 {
        parts.insert(0, count(ended.problems_total, "problem"));
    }
    format!("backup {} {outcome}: {}, in {}\n", ended.id, parts.join(", "), safe(url))
}

/// What a backup is called, before time and chance are put behind: the first namespace, and how many more there are.
fn name(task: &BackupTask) -> String {
    match task.selection.namespaces.as_deref() {
        None | Some([]) => "cluster".to_owned(),
        Some([all]) if all == "*" => "all".to_owned(),
        Some([only]) => only.clone(),
        Some([first, more @ ..]) => format!("{first}-and-{}-more", more.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use kubectl_backup::id::BackupId;
    use kubectl_backup::report::Counts;
    use kubectl_backup::rules::selection::Selection;
    use std::time::Duration;

    fn ended() -> Ended {
        Ended {
            id: BackupId::parse("shop-20261120-100000-ab12").unwrap(),
            outcome: Outcome::Partial,
            code: ExitCode::Partial,
            counts: Counts { objects: 1234, bytes: 5 << 20, ..Counts::default() },
            problems: vec![Problem { subject: "secrets".into(), message: "no".into() }],
            problems_total: 1,
            result: None,
            took: Duration::from_millis(2340),
        }
    }

    #[test]
    fn a_backup_is_one_line_or_a_document() {
        let shown = |format| rendered(&ended(), format, "s3://b/p", &Screen::new(ColorChoice::Never)).unwrap();
        assert_eq!(
            shown(None),
            "backup shop-20261120-100000-ab12 Partial: 1 problem, 1,234 objects, 5.0 MiB, 2.3s, in s3://b/p\n"
        );
        assert_eq!(shown(Some(Format::Name)), "shop-20261120-100000-ab12\n");
        let json: serde_json::Value = serde_json::from_str(&shown(Some(Format::Json))).unwrap();
        assert_eq!((&json["outcome"], &json["objects"]), (&"Partial".into(), &1234.into()));
        assert_eq!((&json["problemsTotal"], &json["problems"][0]["subject"]), (&1.into(), &"secrets".into()));
    }

    #[test]
    fn a_backup_is_called_after_what_it_holds() {
        let of = |names: &[&str]| {
            let namespaces = Some(names.iter().map(ToString::to_string).collect());
            name(&BackupTask { selection: Selection { namespaces, ..Selection::default() }, ..BackupTask::default() })
        };
        assert_eq!((of(&["shop"]), of(&["shop", "blog", "wiki"])), ("shop".into(), "shop-and-2-more".into()));
        assert_eq!(name(&BackupTask::default()), "cluster");
    }

    fn task(words: &[&str]) -> Result<BackupTask, String> {
        let words = ["kubectl-backup"].iter().chain(words).map(Into::into);
        match crate::args::parse(words).map_err(|error| error.to_string())?.verb {
            crate::args::Verb::Ns(args) => args.task().map_err(|error| error.to_string()),
            crate::args::Verb::Cluster(args) => Ok(args.task()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_become_a_selection() {
        let selected = |words: &[&str]| serde_json::to_string(&task(words).unwrap().selection).unwrap();
        assert_eq!(selected(&["cluster"]), r#"{"namespaces":null}"#);
        assert_eq!(selected(&["ns", "-A"]), r#"{"namespaces":["*"]}"#);
        assert_eq!(
            selected(&["ns", "shop", "deploy/web", "blog", "secret/db"]),
            r#"{"namespaces":["shop","blog"],"objects":["deploy/web","secret/db"]}"#
        );
        assert_eq!(
            selected(&["cluster", "--include", "cm,po", "--include=*.example.com", "-l", "a in (b,c)", "--selector=d"]),
            r#"{"namespaces":null,"include":["cm","po","*.example.com"],"selectors":["a in (b,c)","d"]}"#
        );
        assert_eq!(
            selected(&["cluster", "--exclude", "jobs", "--include-secrets=false", "--exclude-namespace=kube-*,x"]),
            r#"{"namespaces":null,"excludeNamespaces":["kube-*","x"],"exclude":["jobs","secrets"]}"#
        );
        assert_eq!(selected(&["cluster", "--include-secrets"]), r#"{"namespaces":null}"#);
    }

    #[test]
    fn words_that_cannot_be_meant() {
        for (words, said) in [
            (&["ns", "deploy/web"][..], "no namespace is given"),
            (&["ns", "-A", "shop"], "`shop` and `--all-namespaces`"),
            (&["ns"], "required"),
            (&["ns", "shop", "deploy/"], "can't be a name"),
            (&["ns", "Shop"], "not a namespace"),
            (&["ns", "shop", "--exclude-namespace", "a_b"], "not a namespace"),
            (&["ns", "shop", "-l", "a=b=c"], "not a label selector"),
            (&["cluster", "--include", "a b"], "not a kind"),
            (&["cluster", "--parallel", "0"], "0"),
            (&["cluster", "--parallel", "5"], "5 is not in 1..=4"),
            (&["cluster", "--explain", "--wait=false"], "cannot be used with"),
        ] {
            let error = task(words).unwrap_err();
            assert!(error.contains(said), "{words:?}: {error}");
        }
        assert_eq!(task(&["cluster", "--parallel", "1"]).unwrap().parallel, Some(1));
        assert_eq!(task(&["cluster"]).unwrap().parallel, None);
    }

    #[test]
    fn hooks_run_unless_told_otherwise() {
        let task = |words: &[&str]| task(words).unwrap();
        assert!(task(&["ns", "shop"]).hooks && task(&["cluster"]).hooks && task(&["ns", "--hooks", "shop"]).hooks);
        assert!(!task(&["ns", "shop", "--hooks=false"]).hooks && !task(&["cluster", "--hooks=false"]).hooks);
    }
}
