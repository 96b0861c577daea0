//! What a backup is of: the cluster as discovery shows it, the namespaces and kinds that the selection means there, and
//! what it leaves out. The same for `--explain`.

use super::{BackupTask, HookReport, Resolved};
use crate::archive::manifest::ClusterIdentity;
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::id::BackupId;
use crate::operations::{Context, Usage};
use crate::pipeline::save::pin::Pin;
use crate::pipeline::save::{self, SaveRequest, Wanted, pin};
use crate::pipeline::{Error, until_cancelled};
use crate::report::{Event, Events, Omission, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules::kinds::Served;
use crate::rules::selection::{self, Chosen, Namespaces, Selection};
use crate::rules::{self, similar};
use crate::volumes::snapshot::Ended;
use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Namespaces read at once.
const AT_ONCE: usize = 8;

/// The cluster as a backup sees it before the first list.
pub(in crate::operations) struct Target {
    pub(in crate::operations) identity: ClusterIdentity,
    pub(in crate::operations) wanted: Wanted,
    pub(in crate::operations) chosen: Chosen,
    /// The kinds that may be saved: asked for, or cluster-scoped and so perhaps needed.
    pub(in crate::operations) kinds: Vec<Kind>,
    served: Vec<Kind>,
    left_out: Vec<String>,
    pub(in crate::operations) problems: Vec<Problem>,
    pub(in crate::operations) omissions: Vec<Omission>,
    pub(in crate::operations) hooks: Vec<HookReport>,
    pub(in crate::operations) volumes: Ended,
    pub(in crate::operations) volumes_skew: f64,
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
        let (wanted, left_out) = wanted(&chosen, cluster, &discovery).await?;
        let mut target = Self {
            identity,
            wanted,
            chosen,
            kinds: Vec::new(),
            served: discovery.kinds.iter().map(|served| served.kind.clone()).collect(),
            left_out,
            problems: Vec::new(),
            omissions: Vec::new(),
            hooks: Vec::new(),
            volumes: Ended::default(),
            volumes_skew: 0.0,
        };
        target.name_stale(&discovery.stale, events);
        let stale = discovery.stale;
        // the problem of its group says it; asking for each kind would take minutes to fail
        let answers = |served: &Served| !stale.contains(&served.kind.api_version());
        discovery.kinds.into_iter().filter(answers).for_each(|served| target.choose(served));
        target.name_omissions();
        Ok(target)
    }

    /// What a group holds whose server doesn't answer is not saved: a problem, unless every kind that is asked for is
    /// known.
    fn name_stale(&mut self, stale: &[String], events: &Events) {
        let include = &self.chosen.selection().include;
        let all_known =
            self.chosen.is_by_name_only() || !include.is_empty() && !include.iter().any(|kind| kind.is_glob());
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
        let is_asked = self.chosen.lists(&served.kind);
        let may_be_needed = !served.kind.namespaced;
        let rule = match selection::never_backed_up(&served) {
            Some(_) if !is_asked => return,
            Some(rule) => Some(rule.to_owned()),
            None if !is_asked && !may_be_needed => return,
            None => self.chosen.excluded(&served.kind),
        };
        match rule {
            Some(rule) => self.omissions.push(Omission { subject: served.kind.key(), rule, objects: None }),
            None => self.kinds.push(served.kind),
        }
    }

    /// What the flags leave out.
    fn name_omissions(&mut self) {
        let others = self.chosen.other_kinds();
        let omission = |rule| Omission { subject: "all other kinds".to_owned(), rule, objects: None };
        self.omissions.extend(others.map(omission));
        if !self.left_out.is_empty() {
            let rule = format!("--exclude-namespace {}", self.chosen.selection().exclude_namespaces.join(","));
            let objects = Some(self.left_out.len() as u64);
            self.omissions.push(Omission { subject: "namespaces".to_owned(), rule, objects });
        }
    }

    /// The namespaces of a backup of namespaces.
    pub(in crate::operations) fn namespaces(&self) -> Vec<String> {
        match &self.wanted {
            Wanted::Cluster => Vec::new(),
            Wanted::Namespaces(names) => names.iter().cloned().collect(),
        }
    }

    /// What the selection came to, for the report.
    pub(in crate::operations) fn resolved(&self) -> Resolved {
        let is_namespaces = matches!(self.wanted, Wanted::Namespaces(_));
        let listed = |kind: &&Kind| {
            let is_asked = self.chosen.lists(kind) && (kind.namespaced || !is_namespaces);
            is_asked || (is_namespaces && kind.is("namespaces"))
        };
        Resolved {
            kinds: self.kinds.iter().filter(listed).map(Kind::key).collect(),
            excluded_namespaces: self.left_out.clone(),
        }
    }

    /// What to list, for a task.
    pub(in crate::operations) fn request<'a>(
        &'a self,
        id: &'a BackupId,
        task: &BackupTask,
        context: &'a Context,
    ) -> SaveRequest<'a> {
        SaveRequest {
            id,
            attempt: &context.attempt,
            wanted: &self.wanted,
            chosen: &self.chosen,
            lists: task.parallel.unwrap_or(save::LISTS),
            kinds: &self.kinds,
            served: &self.served,
            volumes: task.volumes,
            install_namespace: &context.install_namespace,
            restart_when_compacted: true,
        }
    }

    /// Chooses the revision to read at.
    pub(in crate::operations) async fn pin(
        &self,
        task: &BackupTask,
        cluster: &Cluster,
        context: &Context,
        events: &Events,
    ) -> anyhow::Result<Pin> {
        let reference = self.served.iter().find(|kind| kind.is("namespaces")).context("namespaces can't be listed")?;
        let within = match &self.wanted {
            Wanted::Cluster => None,
            Wanted::Namespaces(names) => names.first().map(String::as_str),
        };
        let pin = pin::choose(cluster, reference, &self.kinds, task.consistency, within, task.parallel);
        let pin = async { pin.await.context("choosing the revision") };
        let pin = until_cancelled(&context.cancel, pin).await?;
        events.note(format!("reading at revision {}", pin.revision.as_deref().unwrap_or("(none)")));
        Ok(pin)
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

/// The namespaces that are meant, and those that are left out. A name or glob that means none is an error: a backup of
/// nothing would look good.
async fn wanted(chosen: &Chosen, cluster: &Cluster, discovery: &Discovery) -> anyhow::Result<(Wanted, Vec<String>)> {
    let selection = chosen.selection();
    if selection.namespaces.is_none() && selection.exclude_namespaces.is_empty() {
        return Ok((Wanted::Cluster, Vec::new()));
    }
    let kind = &discovery.get("namespaces").context("the API server serves no namespaces")?.kind;
    let Some(patterns) = &selection.namespaces else {
        let there = all_namespaces(cluster, kind).await?;
        return Ok((Wanted::Cluster, there.into_iter().filter(|name| chosen.leaves_out(name)).collect()));
    };
    let patterns = Namespaces::parse(patterns).map_err(|error| Usage(error.to_string()))?;
    let there = if patterns.is_literal() {
        named_namespaces(cluster, kind, &patterns).await?
    } else {
        all_namespaces(cluster, kind).await?
    };
    let existing: Vec<&str> = there.iter().map(String::as_str).collect();
    if let Some(unmatched) = patterns.unmatched(&existing).first() {
        // who may not list them is told the same, without what is spelled nearly so
        let all = all_namespaces(cluster, kind).await.unwrap_or_default();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        return Err(Error::NotFound(no_such_namespace(unmatched, &all)).into());
    }
    let meant = there.into_iter().filter(|name| patterns.matches(name));
    let (left_out, wanted): (Vec<String>, Vec<String>) = meant.partition(|name| chosen.leaves_out(name));
    if wanted.is_empty() {
        let flag = selection.exclude_namespaces.join(",");
        let text = format!("`--exclude-namespace {flag}` leaves no namespace\nhint: name fewer");
        return Err(Usage(text).into());
    }
    Ok((Wanted::Namespaces(wanted.into_iter().collect()), left_out))
}

async fn all_namespaces(cluster: &Cluster, kind: &Kind) -> anyhow::Result<BTreeSet<String>> {
    let listed = cluster.list_names(kind, None).await.context("listing namespaces")?;
    Ok(listed.into_iter().map(|listed| listed.name.name).collect())
}

/// Those of the namespaces that are there: each is read, so that nobody needs the right to list all.
async fn named_namespaces(cluster: &Cluster, kind: &Kind, patterns: &Namespaces) -> anyhow::Result<BTreeSet<String>> {
    let names: BTreeSet<&str> = patterns.literal_names().collect();
    let read = async |name: &str| {
        let found = cluster.get(kind, &ObjectName::new(None, name)).await;
        let found = found.with_context(|| format!("reading the namespace `{name}`"))?;
        anyhow::Ok(found.map(|_| name.to_owned()))
    };
    let found = stream::iter(names).map(read).buffer_unordered(AT_ONCE);
    found.try_filter_map(async |name| Ok(name)).try_collect().await
}

fn no_such_namespace(pattern: &str, existing: &[&str]) -> String {
    let similar = similar(pattern, existing.iter().copied());
    let hint = match similar.first() {
        Some(name) => format!("did you mean `{name}`?"),
        None => "`kubectl get namespaces` lists what there is".to_owned(),
    };
    format!("there is no namespace `{pattern}`\nhint: {hint}")
}
