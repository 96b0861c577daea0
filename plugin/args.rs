//! Arguments as they are typed: the verbs, and the flags that several of them share. What they mean is resolved in
//! `session`; nothing here connects to anything.

mod selection;

pub(crate) use selection::SelectionArgs;
pub(crate) mod adapt;

use crate::screen::ColorChoice;
use crate::text::duration;
use crate::verbs::{
    backup, copy, delete, describe, diff, init, list, logs, restore, show, undo, verify, version, worker,
};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use kubectl_backup::cluster::connect::ConnectOptions;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::Query;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How kubectl calls this program.
const KUBECTL_BACKUP: &str = "kubectl backup";

const EXAMPLES: &str = "Examples:
  kubectl backup ns shop --local       # a first try, into a folder on this machine
  kubectl backup init --location 's3://my-bucket/backups?region=eu-central-1' \\
    --role-arn arn:aws:iam::123456789012:role/backup
  kubectl backup ns shop               # back up a namespace into the bucket
  kubectl backup list                  # what is there
  kubectl backup restore latest:shop   # see the plan, then restore

Flags go behind `backup`: kubectl takes none in front of a plugin's name.
Exit codes: 0 complete, 1 failed, 2 wrong usage, 3 partial, 4 still running when
the wait ended, 5 nothing found by that name, 6 forbidden, 7 integrity failure,
130 interrupted.";

/// Back up Kubernetes namespaces into a bucket, and restore them
#[derive(Debug, Parser)]
#[command(name = "kubectl-backup", after_help = EXAMPLES, disable_help_subcommand = true, disable_help_flag = true)]
pub(crate) struct Cli {
    /// Print help
    // one help text, the compact one, for -h and --help
    #[arg(short, long, global = true, action = ArgAction::HelpShort, display_order = 999)]
    help: Option<bool>,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Init(Box<init::Args>),
    Ns(backup::NamespacesArgs),
    Cluster(backup::ClusterArgs),
    List(list::Args),
    Describe(describe::Args),
    Show(show::Args),
    Diff(diff::Args),
    Logs(logs::Args),
    Restore(Box<restore::Args>),
    Undo(undo::Args),
    Verify(verify::Args),
    Copy(copy::Args),
    Delete(delete::Args),
    Version(version::Args),
    #[command(hide = true)]
    Worker(worker::Args),
}

/// What every verb takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection options")]
pub(crate) struct Common {
    /// Kubeconfig file to use
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Cluster of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// User of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "NAME")]
    impersonate: Option<String>,
    /// Group to act as; can be repeated
    #[arg(long = "as-group", global = true, value_name = "NAME")]
    impersonate_groups: Vec<String>,
    /// How long one request may take, such as 30s [default: 1m]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    request_timeout: Option<Duration>,
    /// Namespace that kubectl-backup is installed in, where its Jobs run
    #[arg(long, global = true, value_name = "NAMESPACE", default_value = "kubectl-backup", value_parser = namespace)]
    pub(crate) install_namespace: String,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_name = "auto|always|never",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub(crate) color: ColorChoice,
}

impl Common {
    /// The file that `--kubeconfig` names.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// How to find the API server.
    pub(crate) fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
            impersonate: self.impersonate.clone(),
            impersonate_groups: self.impersonate_groups.clone(),
            // as with kubectl, 0 is no limit of the person's; our own stays, since every wait has a deadline
            request_timeout: self.request_timeout.filter(|timeout| !timeout.is_zero()),
        }
    }
}

/// Where the backups are, and who goes there.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceArgs {
    /// Where the backups are: a configured location's name, or s3://BUCKET/PREFIX?region=REGION
    #[arg(long, value_name = "NAME|URL")]
    pub(crate) location: Option<String>,
    /// Work in this process with your kubeconfig and AWS credentials, without a Job [default location: a folder]
    #[arg(long)]
    pub(crate) local: bool,
}

/// How long to wait for a Job.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait until it is done; with --wait=false say how to follow, and leave it running
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        hide_possible_values = true,
        conflicts_with = "local"
    )]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
}

/// When to stop waiting for a Job.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct TimeoutArgs {
    /// How long to wait for the Job, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "local")]
    pub(crate) timeout: Option<Duration>,
}

/// Which cluster's backups `latest` and the like mean.
#[derive(Clone, Debug, Args)]
pub(crate) struct FromClusterArgs {
    /// Whose backups ID means where several clusters share the location [default: this cluster's]
    #[arg(long, value_name = "UID")]
    pub(crate) from_cluster: Option<String>,
}

impl FromClusterArgs {
    /// The backup that is meant.
    pub(crate) fn query(&self, backup: &BackupQuery) -> Query {
        Query { backup: backup.clone(), from_cluster: self.from_cluster.clone() }
    }
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For people with wide terminals.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Only names, one on each line.
    Name,
}

impl Format {
    const ALL: [(&'static str, Self); 5] = [
        ("table", Self::Table),
        ("wide", Self::Wide),
        ("json", Self::Json),
        ("yaml", Self::Yaml),
        ("name", Self::Name),
    ];

    /// Reads one of these formats.
    pub(crate) fn among<const N: usize>(names: [&'static str; N]) -> impl TypedValueParser<Value = Self> {
        PossibleValuesParser::new(names).try_map(|text| {
            let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
            found.map(|(_, format)| format).ok_or("there is no such format")
        })
    }
}

/// Reads a namespace's name.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    match kubectl_backup::resource::check_namespace(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(format!("it is not a namespace's name: {error}")),
    }
}

/// Reads the arguments of this process.
///
/// # Errors
/// Wrong usage; also `--help`, whose text goes to stdout.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let matches = command(&invocation(words.first()), color_of(&words)).try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches)
}

/// The commands as they are called in help texts.
fn command(invocation: &str, color: clap::ColorChoice) -> clap::Command {
    let called = |command: clap::Command| match command.get_after_help() {
        Some(text) if invocation != KUBECTL_BACKUP => {
            let text = text.to_string().replace(KUBECTL_BACKUP, invocation);
            command.after_help(text)
        }
        _ => command,
    };
    let command = Cli::command().bin_name(invocation).color(color);
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    verbs.into_iter().fold(called(command), |command, verb| command.mut_subcommand(verb, called))
}

/// How this program was called: kubectl starts `kubectl-backup` for `kubectl backup`.
fn invocation(program: Option<&OsString>) -> String {
    let name = program.and_then(|path| Path::new(path).file_stem()).map(|name| name.to_string_lossy().into_owned());
    match name.as_deref() {
        None | Some("" | "kubectl-backup") => KUBECTL_BACKUP.to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// `--color` for the help text, which clap writes before it has read the arguments.
fn color_of(words: &[OsString]) -> clap::ColorChoice {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).take_while(|word| word != "--").collect();
    let joined = words.iter().filter_map(|word| word.strip_prefix("--color="));
    let split = words.windows(2).filter(|pair| pair[0] == "--color").map(|pair| pair[1].as_ref());
    match joined.chain(split).last() {
        Some("always") => clap::ColorChoice::Always,
        Some("never") => clap::ColorChoice::Never,
        _ => clap::ColorChoice::Auto,
    }
}

#[cfg(test)]
mod tests;
