//! `init`: writes what the cluster needs: namespace, service accounts, RBAC, and the configuration.

use crate::args::Common;
use crate::failure::Failure;
use crate::screen::{Color, Screen, print, tell};
use crate::session::Session;
use crate::text::safe;
use anyhow::Context as _;
use clap::ValueEnum;
use kubectl_backup::config::{Config, Location, Place};
use kubectl_backup::jobs::install::{self, Applied, CONFIG_MAP, Change, InstallOptions};
use kubectl_backup::report::ExitCode;

/// Set this cluster up: namespace, service accounts, RBAC and configuration
#[derive(Debug, clap::Args)]
#[command(after_help = "Can be run again: what is there as it should be stays, and locations are added
to the configuration, never replaced. Nothing runs in the cluster afterwards
until the first backup.

Examples:
  kubectl backup init --location 's3://my-bucket/backups?region=eu-central-1' \\
    --role-arn arn:aws:iam::123456789012:role/backup
  kubectl backup init --location 's3://backups?endpoint=https://minio.example.com' \\
    --credentials-secret s3-keys
  kubectl backup init --location s3://my-bucket --print > kubectl-backup.yaml")]
pub(crate) struct Args {
    /// Location to configure: s3://BUCKET/PREFIX?region=REGION&endpoint=URL, under the name main unless one is given
    #[arg(long, value_name = "[NAME=]URL", value_parser = location)]
    location: Option<Named>,
    /// IAM role that Jobs assume for this location with their service account token; needs no webhook
    #[arg(long, value_name = "ARN", requires = "location", conflicts_with = "credentials_secret")]
    role_arn: Option<String>,
    /// Secret in the install namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for this location
    #[arg(long, value_name = "NAME", requires = "location")]
    credentials_secret: Option<String>,
    /// IAM role of the service account kubectl-backup-reader, as an annotation for EKS's webhook (IRSA)
    #[arg(long, value_name = "ARN")]
    reader_role_arn: Option<String>,
    /// IAM role of the service account kubectl-backup-writer, as an annotation for EKS's webhook (IRSA)
    #[arg(long, value_name = "ARN")]
    writer_role_arn: Option<String>,
    /// Image of the Jobs [default: the one this version was released with]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// When the image is pulled: Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY")]
    image_pull_policy: Option<String>,
    /// Print the manifests instead of applying them; needs no cluster
    #[arg(long, conflicts_with = "dry_run")]
    print: bool,
    /// With server: ask the API server what would change, and change nothing
    #[arg(long, value_name = "none|server", value_enum, default_value_t, hide_possible_values = true)]
    dry_run: DryRun,
}

/// `--dry-run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Apply.
    #[default]
    None,
    /// Ask only.
    Server,
}

/// A location with its name.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    location: Location,
}

/// Reads `[NAME=]URL`.
fn location(text: &str) -> Result<Named, String> {
    let scheme = text.find("://").unwrap_or(text.len());
    let (name, url) = match text[..scheme].split_once('=') {
        Some((name, _)) => (name, &text[name.len() + 1..]),
        None => ("main", text),
    };
    let location = Location::parse_url(url).map_err(|error| error.to_string())?;
    if matches!(location.place, Place::Folder(_)) {
        return Err("Jobs can't see a folder on this machine; a folder needs no `init`, only `--local`".to_owned());
    }
    Ok(Named { name: name.to_owned(), location })
}

/// Prints the manifests. Connects to nothing.
///
/// # Errors
/// A configuration that isn't valid.
fn print_manifests(common: &Common, args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.merged(None, &common.install_namespace)?;
    let text = match config {
        Some(text) => text,
        None => Config::default().to_yaml()?,
    };
    print(&install::to_yaml(&install::objects(&args.options(common, Some(text)))?)?)?;
    Ok(ExitCode::Complete)
}

/// Sets a cluster up.
///
/// # Errors
/// What kept it from being set up, such as rights that are missing.
pub(crate) async fn run(common: &Common, args: &Args, screen: Screen) -> anyhow::Result<ExitCode> {
    if args.print {
        return print_manifests(common, args);
    }
    let session = Session::connect(common, screen).await?;
    let client = session.cluster.client();
    let namespace = &common.install_namespace;
    let existing = install::read_config(client, namespace).await.context("reading the configuration")?;
    let config = args.merged(existing.as_deref(), namespace)?;
    if config.is_some()
        && existing.as_deref().is_some_and(|text| text.lines().any(|line| line.trim_start().starts_with('#')))
    {
        let label = screen.err(Color::Yellow, "warning:");
        tell(&format!("{label} comments in ConfigMap `{CONFIG_MAP}` are lost"));
    }
    let dry_run = args.dry_run == DryRun::Server;
    let applied = install::apply(client, &args.options(common, config.clone()), dry_run).await?;
    print(&applied.iter().map(|one| line(one, dry_run)).collect::<String>())?;
    let all_there = applied.iter().all(|one| matches!(one.change, Change::Unchanged | Change::Left));
    if !dry_run && !all_there {
        let usable = config.or(existing).and_then(|text| Config::parse(&text).ok());
        tell(&screen.err(Color::Dim, &next(usable.as_ref(), namespace)));
    }
    Ok(ExitCode::Complete)
}

/// What to do now.
fn next(config: Option<&Config>, namespace: &str) -> String {
    let Some(config) = config.filter(|config| !config.locations.is_empty()) else {
        let url = "'s3://BUCKET/PREFIX?region=REGION'";
        return format!("next: say where backups are kept: `kubectl backup init --location {url}`");
    };
    let secret = config.location(None).ok().and_then(|location| location.credentials_secret);
    match secret {
        Some(secret) => format!(
            "next: if it isn't there yet: kubectl -n {namespace} create secret generic {secret} --from-env-file=FILE\n\
             then `kubectl backup ns NAMESPACE` makes a first backup"
        ),
        None => "next: `kubectl backup ns NAMESPACE` makes a first backup".to_owned(),
    }
}

/// An object and what became of it, as kubectl says it.
fn line(applied: &Applied, dry_run: bool) -> String {
    let change = match applied.change {
        Change::Created => "created",
        Change::Configured => "configured",
        Change::Unchanged => "unchanged",
        Change::Left => "left as it is",
    };
    let suffix = if dry_run { " (server dry run)" } else { "" };
    format!("{}/{} {change}{suffix}\n", applied.kind.to_lowercase(), safe(&applied.name))
}

impl Args {
    fn options(&self, common: &Common, config_yaml: Option<String>) -> InstallOptions {
        InstallOptions {
            namespace: common.install_namespace.clone(),
            reader_role_arn: self.reader_role_arn.clone(),
            writer_role_arn: self.writer_role_arn.clone(),
            config_yaml,
        }
    }

    /// The configuration with what these arguments add; `None` where they add nothing to what is there.
    ///
    /// # Errors
    /// A location of that name is there and differs; values that are not allowed.
    fn merged(&self, existing: Option<&str>, namespace: &str) -> anyhow::Result<Option<String>> {
        let before = match existing {
            Some(text) => Config::parse(text)?,
            None => Config::default(),
        };
        let mut config = before.clone();
        if let Some(Named { name, location }) = &self.location {
            let location = Location {
                name: Some(name.clone()),
                role_arn: self.role_arn.clone(),
                credentials_secret: self.credentials_secret.clone(),
                ..location.clone()
            };
            self.add(&mut config, name, location, namespace)?;
        }
        if self.image.is_some() {
            config.job.image.clone_from(&self.image);
        }
        if self.image_pull_policy.is_some() {
            config.job.image_pull_policy.clone_from(&self.image_pull_policy);
        }
        Ok(if config == before { None } else { Some(config.to_yaml()?) })
    }

    fn add(&self, config: &mut Config, name: &str, location: Location, namespace: &str) -> Result<(), Failure> {
        match config.locations.get(name) {
            Some(there) if means(&location, there) => return Ok(()),
            Some(there) => {
                let role = there.role_arn.as_deref().map(|arn| format!(" with role {arn}"));
                let secret = there.credentials_secret.as_deref().map(|name| format!(" with secret {name}"));
                let access = role.or(secret).unwrap_or_default();
                let text = format!(
                    "location `{name}` is configured already, and differs: {}{access}\n\
                     hint: add yours under another name: `--location 'NAME={}'`\n\
                     hint: to change it for good: kubectl -n {namespace} edit configmap {CONFIG_MAP}",
                    there.url(),
                    location.url()
                );
                return Err(Failure::usage(text));
            }
            None => (),
        }
        // what was meant where none is named stays meant
        if config.default_location.is_none() {
            config.default_location = Some(config.locations.keys().next().map_or(name, String::as_str).to_owned());
        }
        config.locations.insert(name.to_owned(), location);
        Ok(())
    }
}

/// Whether what was asked for is what is there: the same place, and no other way in was named.
fn means(asked: &Location, there: &Location) -> bool {
    let same = |asked: &Option<String>, there: &Option<String>| asked.is_none() || asked == there;
    asked.place == there.place
        && same(&asked.role_arn, &there.role_arn)
        && same(&asked.credentials_secret, &there.credentials_secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Args {
        let words = ["kubectl-backup", "init"].iter().chain(words).map(Into::into);
        let crate::args::Verb::Init(args) = crate::args::parse(words).unwrap().verb else { panic!("not `init`") };
        *args
    }

    const URL: &str = "s3://my-bucket/backups?region=eu-central-1";
    const ROLE: &str = "arn:aws:iam::123456789012:role/backup";

    fn merged(existing: Option<&str>, words: &[&str]) -> anyhow::Result<Option<Config>> {
        args(words).merged(existing, "kb").map(|text| text.map(|text| Config::parse(&text).unwrap()))
    }

    #[test]
    fn the_first_location_is_the_default() {
        let words = ["--location", URL, "--role-arn", ROLE, "--image", "registry.example/kb:1"];
        let config = merged(None, &words).unwrap().unwrap();
        let main = config.location(None).unwrap();
        assert_eq!(
            (main.name.as_deref(), main.url().as_str(), main.role_arn.as_deref()),
            (Some("main"), URL, Some(ROLE))
        );
        assert_eq!(config.job.image.as_deref(), Some("registry.example/kb:1"));
    }

    #[test]
    fn what_is_configured_is_never_lost() {
        let first = args(&["--location", URL]).merged(None, "kb").unwrap().unwrap();
        // the same again changes nothing
        assert!(merged(Some(&first), &["--location", URL]).unwrap().is_none());
        assert!(merged(Some(&first), &[]).unwrap().is_none());
        let with_role = args(&["--location", URL, "--role-arn", ROLE]).merged(None, "kb").unwrap().unwrap();
        assert!(merged(Some(&with_role), &["--location", URL]).unwrap().is_none());
        // another of that name is refused, with the way out
        let error = merged(Some(&first), &["--location", "s3://my-other"]).unwrap_err().to_string();
        assert!(error.contains(URL) && error.contains("`--location 'NAME=s3://my-other'`"), "{error}");
        assert!(merged(Some(&first), &["--location", URL, "--role-arn", ROLE]).is_err());
        // one under another name comes to it, and the default stays
        let config = merged(Some(&first), &["--location", "dr=s3://my-other"]).unwrap().unwrap();
        assert_eq!((config.locations.len(), config.location(None).unwrap().url()), (2, URL.to_owned()));
        // also where none was marked, since the only one was meant
        let unmarked = format!("locations:\n  zoo:\n    url: {URL}\n");
        let config = merged(Some(&unmarked), &["--location", "s3://my-other"]).unwrap().unwrap();
        assert_eq!(config.default_location.as_deref(), Some("zoo"));
    }

    #[test]
    fn a_broken_configuration_is_not_overwritten() {
        assert!(merged(Some("locations: ["), &["--location", URL]).is_err());
        assert!(merged(Some("locatoins: {}"), &[]).is_err());
    }

    #[test]
    fn names_stand_before_urls() {
        assert_eq!(location("dr=s3://my-bucket?region=us-east-1").unwrap().name, "dr");
        assert_eq!(location("s3://my-bucket?region=us-east-1").unwrap().name, "main");
        assert!(location("file:///tmp").is_err());
        assert!(location("bucket").is_err());
        let words = ["kubectl-backup", "init", "--role-arn", ROLE].map(Into::into);
        assert!(crate::args::parse(words).is_err(), "a role without a location");
    }

    #[test]
    fn manifests_are_printed_without_a_cluster() {
        let args = args(&["--location", URL, "--print"]);
        let text = args.merged(None, "kb").unwrap().unwrap();
        assert!(text.contains("url: ") && text.contains("defaultLocation: main"), "{text}");
    }
}
