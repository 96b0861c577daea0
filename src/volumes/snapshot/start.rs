//! The beginning: which claims are there, what is behind each, and all snapshots at once.

use super::freeze::Frozen;
use super::*;
use crate::rules::marks::{CLAIM, MANAGED};

/// Volumes that CreateSnapshots can leave out of a machine's.
const MOST_EXCLUDED: usize = 40;

/// Tags of volumes that a snapshot gets: EC2 takes 50, and some are ours.
const MOST_TAGS: usize = 40;

/// The claims and volumes to save, by the volume's id.
type Named<'a> = BTreeMap<&'a str, (&'a Claim, &'a EbsVolume)>;

/// How long beginning a snapshot may take.
const BEGIN: Duration = Duration::from_secs(600);

/// How long what EC2 puts off is left alone where filesystems are frozen for it: as long as one snapshot of a volume keeps
/// the next one waiting.
const PUT_OFF: Duration = Duration::from_secs(16);

/// Volumes whose snapshots are begun by one call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unit {
    One(String),
    /// All data volumes of a machine but some.
    Machine {
        id: String,
        volumes: Vec<String>,
        all_but: Vec<String>,
    },
}

impl Unit {
    fn volumes(&self) -> Vec<String> {
        match self {
            Self::One(volume) => vec![volume.clone()],
            Self::Machine { volumes, .. } => volumes.clone(),
        }
    }
}

impl Snapshots<'_> {
    /// Takes the claims as they are found, until all are, and begins the snapshots of their volumes. Called again, when the
    /// lists start again, it goes on with the snapshots that it has.
    pub async fn start(&mut self, mut claims: mpsc::UnboundedReceiver<Claim>) {
        self.request.events.withdraw(std::mem::take(&mut self.problems));
        self.omissions.clear();
        self.copies.clear();
        let mut found = BTreeMap::new();
        while let Some(claim) = claims.recv().await {
            found.insert((claim.namespace.clone(), claim.name.clone()), claim);
        }
        let chosen = self.choose(found.into_values().collect()).await;
        if chosen.is_empty() {
            return;
        }
        let ec2 = match &self.ec2 {
            Some(ec2) => ec2.clone(),
            None => match self.connect().await {
                Ok(ec2) => ec2,
                Err(error) => return self.fail_all(&chosen, &error),
            },
        };
        self.mounts = self.mounts(&chosen).await;
        // kept from here on: a run that ends in between has to take back what it began
        self.ec2 = Some(ec2.clone());
        self.in_between = true;
        if let Err(error) = self.begin(&ec2, &chosen).await {
            self.fail_all(&chosen, &error);
        }
        self.in_between = false;
        self.begun = Instant::now();
    }

    async fn connect(&self) -> Result<Ec2, Error> {
        Place::of(self.request.cluster).await?.ec2().await
    }

    /// Decides on each claim; those that are to be saved, with their volume's id.
    async fn choose(&mut self, claims: Vec<Claim>) -> Vec<(Claim, String)> {
        let (cluster, kind) = (self.request.cluster, self.request.volumes);
        let read = stream::iter(claims).map(|claim| async move {
            let source = source(cluster, kind, &claim.volume).await;
            (claim, source)
        });
        let read: Vec<_> = read.buffered(AT_ONCE).collect().await;
        let mut chosen = Vec::new();
        for (claim, source) in read {
            let method = match source {
                Ok(source) => self.request.options.policy.choose(&claim, &source),
                Err(why) => Method::Unsaved(why),
            };
            match method {
                Method::EbsSnapshot(volume) => chosen.push((claim, volume)),
                Method::Skip(rule) => {
                    self.omissions.push(Omission { subject: claim.subject(), rule, objects: None });
                }
                Method::Unsaved(why) => self.tell(claim.subject(), claims::unsaved(&why)),
            }
        }
        chosen
    }

    fn fail_all(&mut self, chosen: &[(Claim, String)], error: &Error) {
        for (claim, _) in chosen {
            self.tell(claim.subject(), claims::unsaved(&one_line(error)));
        }
    }

    /// Begins what isn't begun yet.
    async fn begin(&mut self, ec2: &Ec2, chosen: &[(Claim, String)]) -> Result<(), Error> {
        let ids: BTreeSet<String> = chosen.iter().map(|(_, id)| id.clone()).collect();
        let ids: Vec<String> = ids.into_iter().collect();
        let there: BTreeMap<String, EbsVolume> =
            ec2.volumes(&ids).await?.into_iter().map(|(volume, _)| (volume.id.clone(), volume)).collect();
        for snapshot in ec2.snapshots(ID, self.request.id.as_str()).await? {
            // the one that is kept in the end, where there are several; one that failed is made again
            if there.contains_key(&snapshot.volume) && snapshot.state != State::Error {
                let made = self.made.entry(snapshot.volume.clone()).or_insert_with(|| snapshot.clone());
                if snapshot.age() < made.age() {
                    *made = snapshot;
                }
            }
        }
        let missing: Vec<&EbsVolume> = there.values().filter(|volume| !self.made.contains_key(&volume.id)).collect();
        let units = self.units(ec2, &missing).await;
        let named: Named<'_> =
            chosen.iter().filter_map(|(claim, id)| Some((id.as_str(), (claim, there.get(id)?)))).collect();
        let begun = {
            let this = &*self;
            let named = &named;
            let begun = stream::iter(units).map(|unit| async move { this.begin_unit(ec2, unit, named).await });
            begun.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await
        };
        let mut failed = BTreeMap::new();
        for (volume, result) in begun.into_iter().flatten() {
            match result {
                Ok(snapshot) => _ = self.made.insert(volume, snapshot),
                Err(error) => _ = failed.insert(volume, error),
            }
        }
        self.note(ec2, chosen, &there, &failed);
        Ok(())
    }

    /// Notes what became of each claim.
    fn note(
        &mut self,
        ec2: &Ec2,
        chosen: &[(Claim, String)],
        there: &BTreeMap<String, EbsVolume>,
        failed: &BTreeMap<String, Error>,
    ) {
        for (claim, id) in chosen {
            let (Some(volume), Some(snapshot)) = (there.get(id), self.made.get(id)) else {
                let why = match failed.get(id) {
                    Some(error) => one_line(error),
                    None => format!("volume `{id}` is not in region `{}`", ec2.region()),
                };
                self.tell(claim.subject(), claims::unsaved(&why));
                continue;
            };
            self.copies.push(VolumeCopy {
                namespace: claim.namespace.clone(),
                claim: claim.name.clone(),
                volume: claim.volume.clone(),
                method: Way::EbsSnapshot,
                source: volume.clone(),
                snapshot: snapshot.clone(),
            });
        }
        self.note_unfrozen();
        self.request.events.note(format!("the snapshots of {} volumes are begun", self.copies.len()));
    }

    /// Tells of filesystems that were to be frozen and weren't.
    fn note_unfrozen(&mut self) {
        let text = |copy: &VolumeCopy| {
            let mount = self.mounts.get(&copy.source.id).filter(|_| !copy.snapshot.frozen)?;
            let why = match (mount, &copy.snapshot.unfrozen) {
                (Err(why), _) | (_, Some(why)) => why,
                (Ok(_), None) => "an earlier try of this backup has begun it without",
            };
            let text = format!(
                "its filesystem was not frozen, and its snapshot is what a crash would have left: {why}; without `--freeze` \
                 that is as it should be"
            );
            Some((copy.subject(), text))
        };
        let texts: Vec<_> = self.copies.iter().filter_map(text).collect();
        texts.into_iter().for_each(|(subject, text)| self.tell(subject, text));
    }

    /// Volumes that are on one machine together, all others one by one.
    async fn units(&self, ec2: &Ec2, volumes: &[&EbsVolume]) -> Vec<Unit> {
        let mut on = BTreeMap::<&str, Vec<String>>::new();
        for volume in volumes {
            if let Some(machine) = &volume.attached_to {
                on.entry(machine).or_default().push(volume.id.clone());
            }
        }
        on.retain(|_, volumes| volumes.len() > 1);
        let ids: Vec<String> = on.keys().map(|&id| id.to_owned()).collect();
        let machines = if ids.is_empty() { Ok(BTreeMap::new()) } else { ec2.machines(&ids).await };
        let machines = machines.unwrap_or_else(|error| {
            self.request.events.note(format!("volumes are snapshotted one by one: {}", one_line(&error)));
            BTreeMap::new()
        });
        let mut units = Vec::new();
        let mut together = BTreeSet::new();
        for (id, volumes) in on {
            let Some(machine) = machines.get(id) else { continue };
            let all_but: Vec<String> =
                machine.data_volumes.iter().filter(|volume| !volumes.contains(volume)).cloned().collect();
            let all_there = volumes.iter().all(|volume| machine.data_volumes.contains(volume));
            if all_there && all_but.len() <= MOST_EXCLUDED {
                together.extend(volumes.clone());
                units.push(Unit::Machine { id: id.to_owned(), volumes, all_but });
            }
        }
        let alone = volumes.iter().filter(|volume| !together.contains(&volume.id));
        units.extend(alone.map(|volume| Unit::One(volume.id.clone())));
        units
    }

    async fn begin_unit(&self, ec2: &Ec2, unit: Unit, named: &Named<'_>) -> Vec<(String, Result<Snapshot, Error>)> {
        let Unit::Machine { id, volumes, .. } = &unit else {
            let result = self.begin_together(ec2, &unit, named).await;
            let one =
                |mut made: Vec<Snapshot>| made.pop().ok_or_else(|| Error::Setting("a snapshot went missing".into()));
            return unit.volumes().into_iter().zip([result.and_then(one)]).collect();
        };
        match self.begin_together(ec2, &unit, named).await {
            Ok(made) => made.into_iter().map(|snapshot| (snapshot.volume.clone(), Ok(snapshot))).collect(),
            Err(error) if error.concerns_all() => {
                volumes.iter().map(|volume| (volume.clone(), Err(error.clone()))).collect()
            }
            Err(error) => {
                // a right that is missing, or a volume that has come or gone: then each by itself
                self.request
                    .events
                    .note(format!("the volumes on `{id}` are snapshotted one by one: {}", one_line(&error)));
                let mut results = Vec::new();
                for volume in volumes {
                    results.extend(Box::pin(self.begin_unit(ec2, Unit::One(volume.clone()), named)).await);
                }
                results
            }
        }
    }

    /// Begins the snapshots of a unit by one call, as often as it takes; filesystems are frozen for each call by itself.
    async fn begin_together(&self, ec2: &Ec2, unit: &Unit, named: &Named<'_>) -> Result<Vec<Snapshot>, Error> {
        let (volumes, deadline) = (unit.volumes(), self.deadline());
        loop {
            let frozen = Frozen::of(self.request.cluster, &self.mounts, &volumes).await;
            let held = frozen.any();
            // nobody is held still for longer than one answer takes
            let patience = if held { Duration::ZERO } else { deadline - Instant::now() };
            let made = self.call(ec2, unit, named, frozen.all(), patience).await;
            let (frozen, unfrozen) = frozen.thaw().await;
            let known = |mut snapshot: Snapshot| {
                snapshot.frozen = frozen.contains(&snapshot.volume);
                snapshot.unfrozen = unfrozen.get(&snapshot.volume).cloned();
                snapshot
            };
            match made {
                Err(Error::Unavailable { unsure: true, .. }) if Instant::now() < deadline => {
                    if let Some(found) = self.appeared(ec2, &volumes).await? {
                        return Ok(found.into_iter().map(known).collect());
                    }
                }
                Err(Error::Unavailable { .. }) if held && Instant::now() + PUT_OFF < deadline => sleep(PUT_OFF).await,
                // a volume that was attached meanwhile is one too many: the end of the run removes it
                Ok(made) => {
                    let wanted = made.into_iter().filter(|one| volumes.contains(&one.volume));
                    return Ok(wanted.map(known).collect());
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn call(
        &self,
        ec2: &Ec2,
        unit: &Unit,
        named: &Named<'_>,
        frozen: bool,
        patience: Duration,
    ) -> Result<Vec<Snapshot>, Error> {
        let (mut tags, id) = (self.chosen_tags(&unit.volumes(), named), self.request.id);
        tags.extend(self.tags());
        if frozen {
            tags.insert(FROZEN.to_owned(), "true".to_owned());
        }
        match unit {
            Unit::One(volume) => {
                tags.insert(VOLUME.to_owned(), volume.clone());
                let claim = named.get(volume.as_str());
                let of = claim.map(|(claim, _)| format!("{}/{}", claim.namespace, claim.name)).unwrap_or_default();
                tags.insert(CLAIM.to_owned(), of.clone());
                let description = format!("kubectl-backup {id} of {of}");
                Ok(vec![ec2.create_snapshot(volume, &description, &tags, patience).await?])
            }
            Unit::Machine { id: machine, all_but, .. } => {
                tags.insert(TOGETHER.to_owned(), machine.clone());
                let description = format!("kubectl-backup {id} of all on {machine}");
                ec2.create_snapshots(machine, all_but, &description, &tags, patience).await
            }
        }
    }

    /// The tags of volumes that their snapshot gets, too. Where it is one call for several, only those that are the same on all.
    fn chosen_tags(&self, volumes: &[String], named: &Named<'_>) -> BTreeMap<String, String> {
        let mut all = volumes.iter().filter_map(|volume| named.get(volume.as_str())).map(|(_, volume)| &volume.tags);
        let Some(first) = all.next() else { return BTreeMap::new() };
        let others: Vec<_> = all.collect();
        let policy = &self.request.options.policy;
        let common = |(key, value): &(&String, &String)| others.iter().all(|tags| tags.get(*key) == Some(*value));
        let chosen = first.iter().filter(|(key, _)| policy.takes_tag(key)).filter(common);
        chosen.take(MOST_TAGS).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// How long a place among a volume's pending snapshots is waited for: applications may be held still meanwhile.
    fn deadline(&self) -> Instant {
        Instant::now() + BEGIN.min(Duration::from_secs(self.request.options.timeout_seconds))
    }

    /// Looks for snapshots whose making wasn't confirmed, until EC2 would list them. All or none.
    async fn appeared(&self, ec2: &Ec2, volumes: &[String]) -> Result<Option<Vec<Snapshot>>, Error> {
        let deadline = Instant::now() + SETTLES;
        loop {
            let listed = ec2.snapshots(ATTEMPT, self.request.attempt.as_str()).await?;
            let of = |volume: &String| listed.iter().find(|snapshot| snapshot.volume == *volume).cloned();
            let found: Option<Vec<Snapshot>> = volumes.iter().map(of).collect();
            if found.is_some() || Instant::now() >= deadline {
                return Ok(found);
            }
            sleep(POLL.0).await;
        }
    }

    fn tags(&self) -> BTreeMap<String, String> {
        let Request { id, attempt, cluster_uid, location, .. } = &self.request;
        let tags = [
            (ID, id.as_str()),
            (ATTEMPT, attempt.as_str()),
            (CLUSTER, cluster_uid),
            (LOCATION, location.as_str()),
            (MANAGED, "true"),
        ];
        tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

/// What is behind a claim; the error is words.
async fn source(cluster: &Cluster, kind: Option<&Kind>, name: &str) -> Result<Source, String> {
    let kind = kind.ok_or_else(|| "the API server serves no PersistentVolumes".to_owned())?;
    let read = cluster.get(kind, &ObjectName::new(None, name)).await.map_err(|error| error.to_string())?;
    let bytes = read.ok_or_else(|| format!("there is no PersistentVolume `{name}`"))?;
    Source::of(&bytes).map_err(|error| format!("PersistentVolume `{name}`: {error}"))
}
