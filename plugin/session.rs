//! What typed arguments mean: which cluster, which location, which Job settings. Between this and the arguments stands
//! nothing but reading the kubeconfig and the ConfigMap `kubectl-backup-config`.

use crate::args::{Common, PlaceArgs};
use crate::failure::Failure;
use crate::screen::{Color, Screen, tell};
use anyhow::Context as _;
use kubectl_backup::cluster::Cluster;
use kubectl_backup::cluster::connect::from_kubeconfig;
use kubectl_backup::config::{Config, JobSettings, Location, Place};
use kubectl_backup::jobs;
use kubectl_backup::jobs::install::CONFIG_MAP;
use kubectl_backup::report::ExitCode;
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The image this version was released with.
pub(crate) const IMAGE: &str = concat!("ghcr.io/kubectl-backup/kubectl-backup:v", env!("CARGO_PKG_VERSION"));
/// Below the home folder: where `--local` keeps backups unless told otherwise.
const FOLDER: &str = ".local/share/kubectl-backup";

/// A connection to a cluster, with what else a verb needs to know about where it works.
pub(crate) struct Session {
    /// The API server.
    pub(crate) cluster: Cluster,
    /// What the person calls the cluster: the context's name.
    pub(crate) context: String,
    /// The namespace of our Jobs.
    pub(crate) install_namespace: String,
    /// The streams.
    pub(crate) screen: Screen,
}

/// Where a verb works.
pub(crate) struct Target {
    /// Where the backups are.
    pub(crate) location: Location,
    /// How Jobs are made.
    pub(crate) settings: JobSettings,
    /// Whether the work is done in this process.
    pub(crate) local: bool,
}

impl Session {
    /// Reads the kubeconfig. Nothing is sent yet.
    ///
    /// # Errors
    /// A kubeconfig that can't be used.
    pub(crate) async fn connect(common: &Common, screen: Screen) -> anyhow::Result<Self> {
        let connected = from_kubeconfig(&common.connect_options()).await?;
        let context = match &common.context {
            Some(context) => context.clone(),
            None => current_context(&kubeconfigs(common.kubeconfig())).unwrap_or_else(|| "in-cluster".to_owned()),
        };
        Ok(Self { cluster: connected.cluster, context, install_namespace: common.install_namespace.clone(), screen })
    }

    /// Where the backups are and how Jobs are made.
    ///
    /// # Errors
    /// No configuration in the cluster, no such location, a folder without `--local`.
    pub(crate) async fn target(&self, place: &PlaceArgs) -> anyhow::Result<Target> {
        if place.local && place.location.as_deref().is_none_or(|text| text.contains("://")) {
            let location = match &place.location {
                Some(url) => Location::parse_url(url)?,
                None => self.embedded_default()?,
            };
            return Ok(Target { location, settings: JobSettings::default(), local: true });
        }
        let config = self.config().await?;
        let location = config.location(place.location.as_deref())?;
        if !place.local && matches!(location.place, Place::Folder(_)) {
            let text =
                format!("`{}` is a folder on this machine, which a Job can't see\nhint: add `--local`", location.url());
            return Err(Failure::usage(text).into());
        }
        Ok(Target { location, settings: config.job, local: place.local })
    }

    /// A second location, which a verb writes to. Its Job goes there with the role or keys that are configured for it, and
    /// where there are none with those of the first.
    ///
    /// # Errors
    /// As [`Session::target`]; also one that is read-only.
    pub(crate) async fn second(&self, text: &str, first: &Target) -> anyhow::Result<Location> {
        let place = PlaceArgs { location: Some(text.to_owned()), local: first.local };
        let second = self.target(&place).await?.location;
        if second.read_only {
            let text =
                format!("`{text}` is read-only, so that nothing can be stored there\nhint: name another location");
            return Err(Failure::usage(text).into());
        }
        Ok(second)
    }

    /// The folder for a first try.
    fn embedded_default(&self) -> anyhow::Result<Location> {
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        let home = home.ok_or_else(|| {
            Failure::usage("there is no home folder to keep backups in\nhint: say `--location file:///FOLDER`")
        })?;
        let place = Place::Folder(home.join(FOLDER));
        let location = Location { name: None, place, role_arn: None, credentials_secret: None, read_only: false };
        let text = format!("backups are kept in {}; `--location` names another place", location.url());
        tell(&self.screen.err(Color::Dim, &text));
        Ok(location)
    }

    /// The configuration in the cluster.
    ///
    /// # Errors
    /// There is none, it can't be read, or it isn't valid.
    async fn config(&self) -> anyhow::Result<Config> {
        let namespace = &self.install_namespace;
        let found = jobs::install::read_config(self.cluster.client(), namespace).await;
        let missing = || {
            let text = format!(
                "there is no ConfigMap `{CONFIG_MAP}` in namespace `{namespace}`\n\
                 hint: `kubectl backup init --location 's3://BUCKET/PREFIX?region=REGION'` sets this cluster up\n\
                 hint: with `--local` nothing needs to be set up; where it is set up elsewhere, say `--install-namespace`"
            );
            Failure::new(ExitCode::NotFound, text)
        };
        let text = found.context("reading the configuration")?.ok_or_else(missing)?;
        Ok(Config::parse(&text)?)
    }
}

/// The kubeconfig files that kubectl would read.
fn kubeconfigs(flag: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = flag {
        return vec![path.to_owned()];
    }
    match std::env::var_os("KUBECONFIG").filter(|list: &OsString| !list.is_empty()) {
        Some(list) => std::env::split_paths(&list).collect(),
        None => std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
    }
}

/// The current context: that of the first file which names one.
fn current_context(files: &[PathBuf]) -> Option<String> {
    #[derive(Deserialize)]
    struct Kubeconfig {
        #[serde(rename = "current-context", default)]
        current_context: String,
    }
    let read = |path: &PathBuf| serde_saphyr::from_str::<Kubeconfig>(&std::fs::read_to_string(path).ok()?).ok();
    files.iter().filter_map(read).map(|file| file.current_context).find(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_names_a_context_wins() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = [
            folder.path().join("absent"),
            file("none", "apiVersion: v1\nkind: Config\ncurrent-context: \"\"\n"),
            file("a", "current-context: prod\nclusters: []\n"),
            file("b", "current-context: test\n"),
        ];
        assert_eq!(current_context(&files).as_deref(), Some("prod"));
        assert_eq!(current_context(&files[..2]), None);
    }
}
