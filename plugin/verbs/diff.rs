//! `diff`: shows how a backup differs from the cluster or from another backup, with the program that kubectl would use.

use crate::args::{Format, FromClusterArgs, PlaceArgs, TimeoutArgs};
use crate::document;
use crate::failure::{self, Failure};
use crate::run;
use crate::screen::print;
use crate::session::Session;
use anyhow::Context as _;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::diff::{DiffResult, DiffTask};
use kubectl_backup::pipeline::diff::Difference;
use kubectl_backup::report::ExitCode;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Show how a backup differs from the cluster, or from another backup
#[derive(Debug, clap::Args)]
#[command(after_help = "Lines with - are what the backup holds, lines with + what is there now (or in
the second backup). What the API server and controllers set is left out, and so
is what controllers make anew; of Secret values only that they differ is shown.
As kubectl diff, it uses the program of KUBECTL_EXTERNAL_DIFF, or diff -u -N,
and exits with 0 where nothing differs, 1 where something does, more than 1 in
case of trouble.

Examples:
  kubectl backup diff latest:shop
  kubectl backup diff latest:shop deploy/web
  kubectl backup diff @2026-11-20T10:00 latest -n shop")]
pub(crate) struct Args {
    /// The backup: its id or the beginning of it, latest, latest:NAMESPACE, or @2026-11-20T10:00
    #[arg(value_name = "ID", value_parser = BackupQuery::parse)]
    pub(crate) backup: BackupQuery,
    /// Another backup to compare it with instead of the cluster; and objects, in any spelling kubectl takes: deploy/web
    #[arg(value_name = "ID2|KIND/NAME")]
    pub(crate) rest: Vec<String>,
    /// Only these namespaces; can be repeated, globs allowed
    #[arg(short, long = "namespace", value_name = "NAMESPACE", value_delimiter = ',')]
    pub(crate) namespaces: Vec<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table", hide_default_value = true,
          value_parser = Format::among(["table", "name", "json", "yaml"]))]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) from: FromClusterArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
}

impl Args {
    /// The task that these arguments mean. Ids hold no `/`, and every `KIND/NAME` does.
    fn task(&self) -> Result<DiffTask, Failure> {
        let (objects, ids): (Vec<String>, Vec<String>) = self.rest.iter().cloned().partition(|word| word.contains('/'));
        let other = match ids.as_slice() {
            [] => None,
            [id] => Some(BackupQuery::parse(id).map_err(|error| Failure::usage(format!("`{id}`: {error}")))?),
            [_, more, ..] => {
                let text =
                    format!("`{more}` is one backup too many\nhint: give one backup, or two; and objects as KIND/NAME");
                return Err(Failure::usage(text));
            }
        };
        let query = self.from.query(&self.backup);
        Ok(DiffTask { query, other, objects, namespaces: self.namespaces.clone() })
    }
}

/// Compares.
///
/// # Errors
/// What kept it from being done; never with the exit code 1, which means that something differs.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    compare(session, args).await.map_err(|error| match failure::exit_code(&error) {
        ExitCode::Failed => Failure::new(TROUBLE, kubectl_backup::worker::told(&error)).into(),
        _ => error,
    })
}

/// As diff(1) says it.
const TROUBLE: ExitCode = ExitCode::Usage;

async fn compare(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let task = args.task()?;
    let target = session.target(&args.place).await?;
    let answer = run::answer(session, &target, "diff", Verb::Diff(task), args.timeout.timeout).await?;
    let result: DiffResult = answer.result()?;
    let differs = if result.differences.is_empty() { ExitCode::Complete } else { ExitCode::Failed };
    let code = match args.output {
        Format::Json => print(&document::json(&result)?).map(|_| differs)?,
        Format::Yaml => print(&document::yaml(&result)?).map(|_| differs)?,
        Format::Name => {
            print(&result.differences.iter().map(|one| name(one) + "\n").collect::<String>()).map(|_| differs)?
        }
        _ if result.differences.is_empty() => differs,
        _ => shown(&result)?,
    };
    run::tell_problems(&result.problems, result.problems.len() as u64, &answer.id, &session.screen);
    // what could not be compared may differ, too
    Ok(if result.problems.is_empty() { code } else { ExitCode::Partial })
}

/// `deployments.apps/web`, with the namespace in front where there is one.
fn name(difference: &Difference) -> String {
    let object = format!("{}/{}", difference.kind, difference.name);
    difference.namespace.as_ref().map_or(object.clone(), |namespace| format!("{namespace} {object}"))
}

/// Hands both sides to a program, as files in two folders.
fn shown(result: &DiffResult) -> anyhow::Result<ExitCode> {
    let folder = Folder::new()?;
    let right = if result.right.is_some() { "other-backup" } else { "live" };
    let sides = [folder.0.join("backup"), folder.0.join(right)];
    for side in &sides {
        private(side)?;
    }
    for (number, difference) in result.differences.iter().enumerate() {
        for (side, object) in sides.iter().zip([&difference.left, &difference.right]) {
            if let Some(object) = object {
                std::fs::write(side.join(file_name(difference, number)), document::yaml(object)?)
                    .context("writing what is compared")?;
            }
        }
    }
    let external = std::env::var("KUBECTL_EXTERNAL_DIFF").ok();
    let words = program(external.as_deref());
    let (program, arguments) = words.split_first().context("no program to compare with")?;
    // to the person's own terminal: some of these programs need one. What they show holds nothing that steers it
    let status = Command::new(program).args(arguments).args(["backup", right]).current_dir(&folder.0).status();
    let status = status.map_err(|error| {
        let hint = "hint: install diff, or name another program in KUBECTL_EXTERNAL_DIFF; or use `-o yaml`";
        Failure::new(TROUBLE, format!("`{program}` can't be started: {error}\n{hint}"))
    })?;
    match status.code() {
        Some(0) => Ok(ExitCode::Complete),
        Some(1) => Ok(ExitCode::Failed),
        code => {
            let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            Err(Failure::new(TROUBLE, format!("`{program}` ended with {code}")).into())
        }
    }
}

/// The program and its arguments. As kubectl, only plain words are taken from the environment.
fn program(external: Option<&str>) -> Vec<String> {
    let is_plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-=_./".contains(c));
    let words: Vec<String> =
        external.unwrap_or_default().split_whitespace().filter(is_plain).map(str::to_owned).collect();
    if words.is_empty() { ["diff", "-u", "-N"].map(str::to_owned).to_vec() } else { words }
}

/// A file's name as kubectl makes it: group, version, kind, namespace, name; names that are no file names, or too long for
/// one, are cut and told apart by a number.
fn file_name(difference: &Difference, number: usize) -> String {
    let namespace = difference.namespace.as_deref().unwrap_or_default();
    let plain = format!("{}.{}.{namespace}.{}", difference.api_version, difference.kind, difference.name);
    let safe: String =
        plain.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' }).collect();
    if safe.len() <= 200 && difference.name.chars().all(|c| !c.is_ascii_uppercase() && c != ':' && c != ' ') {
        return safe;
    }
    format!("{}-{number}", &safe[..safe.len().min(200)])
}

/// A folder that only the person can read, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(run::new_id("kubectl-backup-diff").to_string());
        private(&path)?;
        Ok(Self(path))
    }
}

fn private(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .with_context(|| format!("making the folder `{}`", path.display()))
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // in the folder for temporary files: it goes anyway
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Args {
        let words = ["kubectl-backup", "diff"].iter().chain(words).map(Into::into);
        let crate::args::Verb::Diff(args) = crate::args::parse(words).unwrap().verb else { panic!("not `diff`") };
        args
    }

    #[test]
    fn words_are_backups_or_objects() {
        let task = args(&["latest", "deploy/web", "shop-2026", "-n", "a,b"]).task().unwrap();
        assert_eq!(
            (task.other, task.objects),
            (Some(BackupQuery::Prefix("shop-2026".into())), vec!["deploy/web".into()])
        );
        assert_eq!(task.namespaces, ["a", "b"]);
        assert_eq!(args(&["latest"]).task().unwrap().other, None);
        assert!(args(&["latest", "a", "b"]).task().is_err());
    }

    #[test]
    fn the_program_is_kubectls() {
        assert_eq!(program(None), ["diff", "-u", "-N"]);
        assert_eq!(program(Some(" ")), ["diff", "-u", "-N"]);
        assert_eq!(program(Some("colordiff -N -u $(x)")), ["colordiff", "-N", "-u"]);
    }

    #[test]
    fn files_are_named_by_their_objects_and_stay_in_their_folder() {
        let named = |name: &str| Difference {
            kind: "clusterroles.rbac.authorization.k8s.io".into(),
            api_version: "rbac.authorization.k8s.io/v1".into(),
            namespace: None,
            name: name.into(),
            left: None,
            right: None,
        };
        let file = |name: &str, number| file_name(&named(name), number);
        assert_eq!(file("a", 1), "rbac.authorization.k8s.io-v1.clusterroles.rbac.authorization.k8s.io..a");
        assert_ne!(file("x:A", 1), file("x:a", 2));
        assert!(!file("../../etc", 1).contains('/') && file(&"n".repeat(253), 3).len() < 255);
    }

    #[test]
    fn a_difference_is_shown_by_diff_itself() {
        let side = |value: &str| Some(serde_json::json!({"data": {"colour": value}, "kind": "ConfigMap"}));
        let difference = Difference {
            kind: "configmaps".into(),
            api_version: "v1".into(),
            namespace: Some("shop".into()),
            name: "settings".into(),
            left: side("green"),
            right: side("red\u{1b}[2J"),
        };
        let result = DiffResult { left: "a".into(), right: None, differences: vec![difference], problems: vec![] };
        assert_eq!(shown(&result).unwrap(), ExitCode::Failed);
    }
}
