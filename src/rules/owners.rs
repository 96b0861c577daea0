//! Owner references. The garbage collector deletes an object whose owners' uids it can't find, and restored owners have
//! new uids: so a child is created after its owners ([`places`] says when) and [`Owners`] puts the new uids in. What
//! can't be resolved is stripped, and told.

use super::waves::Wave;
use crate::resource::Kind;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// An object's uid. API servers make UUIDs, which are kept in 16 bytes; whatever else stands there is kept as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Uid {
    /// A UUID in its usual spelling.
    Uuid([u8; 16]),
    /// Any other text.
    Other(Box<str>),
}

/// Where a UUID's text has dashes.
const DASHES: [usize; 4] = [8, 13, 18, 23];

impl Uid {
    /// Reads a uid; prints as the same text again.
    pub fn parse(text: &str) -> Self {
        uuid(text.as_bytes()).map_or_else(|| Self::Other(text.into()), Self::Uuid)
    }
}

fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let mut bytes = [0; 16];
    let mut digits = 0;
    for (at, &c) in text.iter().enumerate() {
        let digit = match c {
            b'-' if DASHES.contains(&at) => continue,
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => return None,
        };
        let byte = bytes.get_mut(digits / 2)?; // a letter in a dash's place makes one digit too many
        *byte = *byte << 4 | digit;
        digits += 1;
    }
    Some(bytes)
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(bytes) => bytes.iter().enumerate().try_for_each(|(at, byte)| {
                let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                write!(f, "{dash}{byte:02x}")
            }),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// The uids that owners have now, by the uids they had when they were backed up. Only owners that children wait for are
/// remembered, so that memory follows their number and not that of all objects.
#[derive(Debug, Default)]
pub struct Owners(HashMap<Uid, Option<Owner>>);

#[derive(Debug)]
struct Owner {
    uid: Uid,
    namespace: Option<Box<str>>,
}

/// An owner reference that was taken out of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stripped {
    /// The owner, as `Kind name`.
    pub owner: String,
    /// Why.
    pub reason: &'static str,
}

impl Owners {
    /// Notes that an object waits for these owners.
    pub fn expect(&mut self, owners: &[Uid]) {
        for owner in owners {
            if !self.0.contains_key(owner) {
                self.0.insert(owner.clone(), None);
            }
        }
    }

    /// The owners that objects wait for and whose uids aren't known yet: if the backup doesn't hold them, the target
    /// cluster may.
    pub fn missing(&self) -> impl Iterator<Item = &Uid> {
        self.0.iter().filter(|(_, owner)| owner.is_none()).map(|(uid, _)| uid)
    }

    /// Whether any object waits for this one.
    pub fn is_awaited(&self, was: &Uid) -> bool {
        self.0.contains_key(was)
    }

    /// Records what uid an object has now: just created, or there already. `namespace` is where it is now. Objects that
    /// nobody waits for are passed over.
    pub fn record(&mut self, was: &Uid, now: Uid, namespace: Option<&str>) {
        if let Some(owner) = self.0.get_mut(was) {
            *owner = Some(Owner { uid: now, namespace: namespace.map(Into::into) });
        }
    }

    /// Forgets what uid an object has, which is to be made and has none yet.
    pub fn forget(&mut self, was: &Uid) {
        if let Some(owner) = self.0.get_mut(was) {
            *owner = None;
        }
    }

    /// Puts the new uids into an object's owner references and takes out those that can't be resolved. The object's
    /// namespace must be mapped already.
    pub fn rewrite(&self, kind: &Kind, object: &mut Value) -> Vec<Stripped> {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return Vec::new() };
        let namespace = metadata.get("namespace").and_then(Value::as_str).map(str::to_owned);
        let mut stripped = Vec::new();
        let Some(references) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) else {
            return stripped;
        };
        references.retain_mut(|reference| match self.resolve(kind, namespace.as_deref(), reference) {
            Ok(uid) => {
                reference["uid"] = Value::String(uid);
                true
            }
            Err(reason) => {
                let text = |field| reference.get(field).and_then(Value::as_str).unwrap_or("?");
                stripped.push(Stripped { owner: format!("{} {}", text("kind"), text("name")), reason });
                false
            }
        });
        if references.is_empty() {
            metadata.remove("ownerReferences");
        }
        stripped
    }

    fn resolve(&self, kind: &Kind, namespace: Option<&str>, reference: &Value) -> Result<String, &'static str> {
        let text = |field| reference.get(field).and_then(Value::as_str).unwrap_or("");
        if is_taken_over(kind, text("apiVersion"), text("kind")) {
            return Err("the StatefulSet takes its claims over by itself");
        }
        let owner = self.0.get(&Uid::parse(text("uid"))).and_then(Option::as_ref);
        let owner = owner.ok_or("the owner is neither restored nor there")?;
        match (&owner.namespace, namespace) {
            (None, _) => Ok(owner.uid.to_string()),
            (Some(_), None) => Err("the owner is in a namespace, and the object in none"),
            (Some(owners), Some(own)) if **owners != *own => Err("the owner is in another namespace"),
            (Some(_), Some(_)) => Ok(owner.uid.to_string()),
        }
    }
}

/// Whether the owner finds and marks its child anew. The StatefulSet controller does so with claims, by their names
/// (`persistentVolumeClaimRetentionPolicy`); they must not wait for it, for it would make empty ones in the meantime.
pub(super) fn is_taken_over(kind: &Kind, owner_api_version: &str, owner_kind: &str) -> bool {
    kind.is("persistentvolumeclaims") && owner_kind == "StatefulSet" && owner_api_version.starts_with("apps/")
}

/// When an object is created: in which wave, and in which pass of that wave. A pass begins when the one before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The wave: the kind's own, or a later one where an owner is created later.
    pub wave: Wave,
    /// The pass, from 0: one more than that of the latest owner in the same wave.
    pub pass: u16,
}

/// What [`places`] needs to know of an object that is to be created.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The uid it had when it was backed up.
    pub uid: &'a Uid,
    /// Those of its owners.
    pub owners: &'a [Uid],
    /// The wave of its kind.
    pub wave: Wave,
}

/// Places `count` objects so that each comes after those of its owners that are created too. Owners that aren't among
/// them are there already or never will be, and nobody waits for them. Of references in a circle one is passed over,
/// and stripped when its turn comes.
pub fn places<'a>(count: usize, member: impl Fn(usize) -> Member<'a>) -> Vec<Place> {
    let wanted: HashSet<&Uid> = (0..count).flat_map(|at| member(at).owners).collect();
    let index: HashMap<&Uid, usize> =
        (0..count).map(|at| (member(at).uid, at)).filter(|(uid, _)| wanted.contains(uid)).collect();
    let mut places: Vec<Option<Place>> = vec![None; count];
    let mut visiting: HashSet<usize> = HashSet::new();
    let mut stack = Vec::new();
    for first in 0..count {
        stack.push(first);
        while let Some(&at) = stack.last() {
            let owners = || member(at).owners.iter().filter_map(|owner| index.get(owner).copied());
            let unplaced = owners().filter(|owner| places[*owner].is_none());
            if places[at].is_none() && visiting.insert(at) {
                stack.extend(unplaced.filter(|owner| !visiting.contains(owner)));
                continue; // and come back when all owners are placed
            }
            stack.pop();
            visiting.remove(&at);
            let after = owners().filter_map(|owner| places[owner]);
            let after = after.map(|owner| Place { pass: owner.pass.saturating_add(1), ..owner });
            let own = Place { wave: member(at).wave, pass: 0 };
            let place = after.filter(|place| place.wave >= own.wave).fold(own, Place::max);
            places[at].get_or_insert(place);
        }
    }
    places
        .into_iter()
        .enumerate()
        .map(|(at, place)| place.unwrap_or(Place { wave: member(at).wave, pass: 0 }))
        .collect()
}

#[cfg(test)]
mod tests;
