//! Taking back what a restore did besides its objects, as far as it was to objects that were there.

use super::volumes::CLAIM_GOES;
use super::{Named, Part};
use crate::archive::besides::{Besides, MadeVolume};
use crate::cluster::discover::Discovery;
use crate::pipeline::undo::besides::{Beside, Deed, TakeBack};
use crate::pipeline::undo::{Made, Removal, Undo};
use crate::resource::{Kind, ObjectName};
use futures::{StreamExt, TryStreamExt, stream};

/// Objects looked at or changed at once.
const AT_ONCE: usize = 16;

/// What a restore did to objects that were there, and the volumes that it made.
pub(super) fn sorted(besides: Vec<Besides>, discovery: &Discovery) -> (Vec<Beside>, Vec<MadeVolume>) {
    let kind = |key: &str| -> Option<Kind> { Some(discovery.get(key)?.kind.clone()) };
    let (mut found, mut volumes) = (Vec::new(), Vec::new());
    for one in besides {
        let beside = match one {
            Besides::MadeVolume(made) => {
                volumes.push(made);
                None
            }
            Besides::Added { account, uid, added } => {
                kind("serviceaccounts").map(|kind| Beside { kind, name: account, uid, deed: Deed::Added(added) })
            }
            Besides::GivenBack { volume, uid, claim, was } => {
                let kinds = kind("persistentvolumes").zip(kind("persistentvolumeclaims"));
                kinds.map(|(of, kind)| {
                    let deed = Deed::GivenBack { kind, claim, was };
                    Beside { kind: of, name: ObjectName::new(None, &volume), uid, deed }
                })
            }
        };
        found.extend(beside);
    }
    (found, volumes)
}

/// Spares the claims, and their namespaces, with which data would go that was there before the restore.
pub(super) async fn protect(
    undo: &Undo<'_>,
    besides: &[Beside],
    made: &[Made],
    removals: &mut [Removal],
) -> anyhow::Result<()> {
    for one in besides {
        let Deed::GivenBack { claim, .. } = &one.deed else { continue };
        if !undo.goes_with_claim(one).await? {
            continue;
        }
        let why = format!(
            "with the claim `{claim}` would go the data of its volume `{}`, which was there before the restore: give the \
             volume the reclaim policy `Retain` first",
            one.name
        );
        for (made, removal) in made.iter().zip(removals.iter_mut()) {
            if *removal == Removal::Delete && takes(made, claim) {
                *removal = Removal::Refused(why.clone());
            }
        }
    }
    Ok(())
}

/// Whether a claim goes with an object.
pub(super) fn takes(made: &Made, claim: &ObjectName) -> bool {
    let is_claim = made.kind.is("persistentvolumeclaims") && made.name == *claim;
    is_claim || (made.kind.is("namespaces") && claim.namespace.as_deref() == Some(&made.name.name))
}

/// Whether the arguments mean it.
pub(super) fn is_asked(one: &Beside, named: &Named<'_>) -> bool {
    named.has(&one.kind.key(), &one.name.name)
        || matches!(&one.deed, Deed::GivenBack { claim, .. } if named.has("persistentvolumeclaims", &claim.name))
}

/// What is to be taken back.
pub(super) struct TakenBack(Vec<(Beside, TakeBack)>);

/// Decides what becomes of it. `goes` says whether this undo removes a claim. Writes nothing.
pub(super) async fn decide(
    undo: &Undo<'_>,
    besides: Vec<Beside>,
    named: &Named<'_>,
    goes: impl Fn(&ObjectName) -> bool,
) -> anyhow::Result<TakenBack> {
    let goes = &goes;
    let is_gone = |one: &Beside| matches!(&one.deed, Deed::GivenBack { claim, .. } if goes(claim));
    let asked = besides.into_iter().filter(|one| !named.is_some() || is_asked(one, named) || is_gone(one));
    let judged = stream::iter(asked.collect::<Vec<_>>()).map(|one| async {
        let judged = undo.judge_beside(&one, goes).await?;
        anyhow::Ok((one, judged))
    });
    Ok(TakenBack(judged.buffered(AT_ONCE).try_collect().await?))
}

impl TakenBack {
    /// Whether an argument means some of it.
    pub(super) fn is_meant(&self, arg: &Named<'_>) -> bool {
        self.0.iter().any(|(one, _)| is_asked(one, arg))
    }

    /// What is changed.
    pub(super) fn deeds(&self) -> impl Iterator<Item = String> {
        let changed = self.0.iter().filter(|(_, judged)| *judged == TakeBack::Change);
        changed.map(|(one, _)| format!("take back {} {} {}: {}", one.kind, one.name, one.uid, one.words()))
    }

    /// The plan in words.
    pub(super) fn planned(&self) -> Part {
        let mut part = Part::default();
        self.0.iter().for_each(|(one, judged)| tell(&mut part, one, judged, "update"));
        part
    }

    /// Takes it back.
    pub(super) async fn carry_out(self, undo: &Undo<'_>) -> Part {
        let mut part = Part::default();
        let changes = stream::iter(self.0).map(|(one, judged)| async {
            let changes = judged == TakeBack::Change;
            let result = if changes { undo.take_back(&one, CLAIM_GOES).await } else { Ok(()) };
            (one, judged, result)
        });
        let changes: Vec<_> = changes.buffered(AT_ONCE).collect().await;
        for (one, judged, result) in changes {
            match result {
                Ok(()) => tell(&mut part, &one, &judged, "updated"),
                Err(why) => part.problem(&one.kind.key(), &one.name, "failed", &why),
            }
        }
        part
    }
}

fn tell(part: &mut Part, one: &Beside, judged: &TakeBack, change: &str) {
    let (verdict, reason) = match judged {
        TakeBack::Change => (change, one.words()),
        TakeBack::Nothing(why) => ("unchanged", (*why).to_owned()),
        TakeBack::Kept(why) => ("skip", why.clone()),
    };
    part.item(&one.kind.key(), &one.name, verdict, &reason);
}
