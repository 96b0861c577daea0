//! What a backup is of: the cluster as discovery shows it, the namespaces and kinds that the selection means there, and
//! what it leaves out. The same for `--explain`.

use super::places::Places;
use super::{BackupTask, HookReport, Resolved};
use crate::archive::manifest::ClusterIdentity;
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::id::BackupId;
use crate::operations::{Context, Usage};
use crate::pipeline::save::pin::Pin;
use crate::pipeline::save::{self, SaveRequest, Wanted, pin};
use crate::pipeline::until_cancelled;
use crate::report::{Event, Events, Omission, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules;
use crate::rules::kinds::Served;
use crate::rules::selection::{self, Chosen, Selection};
use crate::volumes::snapshot::Ended;
use anyhow::Context as _;
use serde::Deserialize;

/// The cluster as a backup sees it before the first list.
pub(in crate::operations) struct Target {
    pub(in crate::operations) identity: ClusterIdentity,
    /// What is meant of namespaces: before the hooks, and once it is saved, at the revision.
    pub(in crate::operations) places: Places,
    /// The kinds that may be saved: asked for, or cluster-scoped and so perhaps needed.
    pub(in crate::operations) kinds: Vec<Kind>,
    served: Vec<Kind>,
    namespaces: Kind,
    pub(in crate::operations) problems: Vec<Problem>,
    pub(in crate::operations) omissions: Vec<Omission>,
    pub(in crate::operations) hooks: Vec<HookReport>,
    pub(in crate::operations) volumes: Ended,
    /// Seconds that what is saved is apart at most, snapshots included.
    pub(in crate::operations) skew_seconds: f64,
}

impl Target {
    pub(in crate::operations) async fn discover(
        selection: &Selection,
        cluster: &Cluster,
        events: &Events,
    ) -> anyhow::Result<Self> {
        let discovery = cluster.discover().await.context("discovery")?;
        let chosen = chosen(selection, &discovery)?;
        let identity = identity(cluster, &discovery).await?;
        let namespaces = discovery.get("namespaces").context("the API server serves no namespaces")?.kind.clone();
        let places = Places::now(chosen, cluster, &namespaces, events).await?;
        let mut target = Self {
            identity,
            places,
            kinds: Vec::new(),
            served: discovery.kinds.iter().map(|served| served.kind.clone()).collect(),
            namespaces,
            problems: Vec::new(),
            omissions: Vec::new(),
            hooks: Vec::new(),
            volumes: Ended::default(),
            skew_seconds: 0.0,
        };
        target.name_stale(&discovery.stale, events);
        let stale = discovery.stale;
        // the problem of its group says it; asking for each kind would take minutes to fail
        let answers = |served: &Served| !stale.contains(&served.kind.api_version());
        discovery.kinds.into_iter().filter(answers).for_each(|served| target.choose(served));
        let others = target.places.chosen.other_kinds();
        let omission = |rule| Omission { subject: "all other kinds".to_owned(), rule, objects: None };
        target.omissions.extend(others.map(omission));
        Ok(target)
    }

    /// What a group holds whose server doesn't answer is not saved: a problem, unless every kind that is asked for is
    /// known.
    fn name_stale(&mut self, stale: &[String], events: &Events) {
        let include = &self.places.chosen.selection().include;
        let all_known =
            self.places.chosen.is_by_name_only() || !include.is_empty() && !include.iter().any(|kind| kind.is_glob());
        if all_known {
            return;
        }
        let message = "its API server gives no fresh answer, so what it holds is unknown and not saved";
        for group in stale {
            let problem = Problem { subject: group.clone(), message: message.to_owned() };
            events.send(Event::Problem(problem.clone()));
            self.problems.push(problem);
        }
    }

    fn choose(&mut self, served: Served) {
        // where others are asked for, one line says so for all of these
        let is_asked = self.places.chosen.lists(&served.kind);
        let may_be_needed = !served.kind.namespaced;
        let rule = match selection::never_backed_up(&served) {
            Some(_) if !is_asked => return,
            Some(rule) => Some(rule.to_owned()),
            None if !is_asked && !may_be_needed => return,
            None => self.places.chosen.excluded(&served.kind),
        };
        match rule {
            Some(rule) => self.omissions.push(Omission { subject: served.kind.key(), rule, objects: None }),
            None => self.kinds.push(served.kind),
        }
    }

    /// The namespaces of a backup of namespaces.
    pub(in crate::operations) fn namespaces(&self) -> Vec<String> {
        match &self.places.wanted {
            Wanted::Cluster => Vec::new(),
            Wanted::Namespaces(names) => names.iter().cloned().collect(),
        }
    }

    /// What the selection came to, for the report.
    pub(in crate::operations) fn resolved(&self) -> Resolved {
        let is_namespaces = matches!(self.places.wanted, Wanted::Namespaces(_));
        let listed = |kind: &&Kind| {
            let is_asked = self.places.chosen.lists(kind) && (kind.namespaced || !is_namespaces);
            is_asked || (is_namespaces && kind.is("namespaces"))
        };
        Resolved {
            kinds: self.kinds.iter().filter(listed).map(Kind::key).collect(),
            excluded_namespaces: self.places.left_out.clone(),
        }
    }

    /// What to list of these namespaces, for a task.
    pub(in crate::operations) fn request<'a>(
        &'a self,
        places: &'a Places,
        id: &'a BackupId,
        task: &BackupTask,
        context: &'a Context,
    ) -> SaveRequest<'a> {
        SaveRequest {
            id,
            attempt: &context.attempt,
            wanted: &places.wanted,
            chosen: &places.chosen,
            lists: task.parallel.unwrap_or(save::LISTS),
            kinds: &self.kinds,
            served: &self.served,
            volumes: task.volumes,
            install_namespace: &context.install_namespace,
            restart_when_compacted: true,
        }
    }

    /// Chooses the revision to read at, and finds out what the selection means of the namespaces that there are at it.
    /// Where it is compacted already, another one is chosen, once.
    pub(in crate::operations) async fn begin(
        &self,
        task: &BackupTask,
        cluster: &Cluster,
        context: &Context,
        events: &Events,
    ) -> anyhow::Result<(Pin, Places)> {
        let mut is_first = true;
        loop {
            let pin = until_cancelled(&context.cancel, self.pin(task, cluster)).await?;
            events.note(format!("reading at revision {}", pin.revision.as_deref().unwrap_or("(none)")));
            let places = async {
                let revision = pin.of(&self.namespaces);
                match self.places.at(cluster, &self.namespaces, revision).await {
                    Err(error) if error.is_expired() && !is_first => {
                        self.places.at(cluster, &self.namespaces, None).await
                    }
                    other => other,
                }
            };
            match until_cancelled(&context.cancel, places).await {
                Err(error) if error.is_expired() && is_first => is_first = false,
                places => return Ok((pin, places?)),
            }
        }
    }

    async fn pin(&self, task: &BackupTask, cluster: &Cluster) -> anyhow::Result<Pin> {
        let within = match &self.places.wanted {
            Wanted::Cluster => None,
            Wanted::Namespaces(names) => names.first().map(String::as_str),
        };
        let pin = pin::choose(cluster, &self.namespaces, &self.kinds, task.consistency, within, task.parallel);
        pin.await.context("choosing the revision")
    }

    /// Takes over what the namespaces came to at the revision, and tells in what that differs.
    pub(in crate::operations) fn settle(&mut self, places: Places, hooks: bool, events: &Events) {
        let hooks = hooks && self.kinds.iter().any(|kind| kind.is("pods"));
        self.places.notes(&places, hooks).into_iter().for_each(|line| events.note(line));
        places.problems.iter().for_each(|problem| events.send(Event::Problem(problem.clone())));
        self.problems.extend(places.problems.iter().cloned());
        self.omissions.extend(places.omissions());
        self.places = places;
    }
}

pub(in crate::operations) async fn identity(
    cluster: &Cluster,
    discovery: &Discovery,
) -> anyhow::Result<ClusterIdentity> {
    let version = async { cluster.version().await.context("asking for the version") };
    let (uid, version) = tokio::try_join!(cluster_uid(cluster, discovery), version)?;
    Ok(ClusterIdentity { uid, version })
}

/// What tells this cluster from others: the uid of `kube-system`, which lives as long as the cluster does.
pub(in crate::operations) async fn cluster_uid(cluster: &Cluster, discovery: &Discovery) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Namespace {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        uid: String,
    }
    let kind = &discovery.get("namespaces").context("the API server serves no namespaces")?.kind;
    let found =
        cluster.get(kind, &ObjectName::new(None, "kube-system")).await.context("reading the cluster's identity")?;
    let bytes = found.context("there is no namespace `kube-system`")?;
    Ok(serde_json::from_slice::<Namespace>(&bytes).context("reading the namespace `kube-system`")?.metadata.uid)
}

/// The uid of the cluster whose backups are meant: the one that is named, else this one.
pub(in crate::operations) async fn meant_cluster(named: Option<&str>, cluster: &Cluster) -> anyhow::Result<String> {
    match named {
        Some(uid) => Ok(uid.to_owned()),
        None => cluster_uid(cluster, &cluster.discover().await.context("discovery")?).await,
    }
}

/// What the selection means among the kinds that are served.
fn chosen(selection: &Selection, discovery: &Discovery) -> Result<Chosen, Usage> {
    let resolved = Chosen::resolve(selection, &discovery.kinds);
    let checked = resolved.and_then(|chosen| chosen.check_for_backup(&discovery.kinds).map(|()| chosen));
    checked.map_err(|error| {
        let mut text = error.to_string();
        if matches!(error, rules::Error::UnknownKind { .. }) && !text.contains("hint:") {
            text += match discovery.stale.as_slice() {
                [] => "\nhint: `kubectl api-resources` lists the kinds there are",
                _ => "\nhint: some API groups give no answer; `kubectl get apiservices` tells which",
            };
        }
        Usage(text)
    })
}
