//! The list of backups that the last worker left in the cluster, so that `list` answers without a Job. One ConfigMap,
//! one key per location. Others can write it: it is a hint, and what can't be read counts as absent.

use super::api::{Deed, optional};
use super::error::Error;
use super::{APP, MANAGER};
use crate::config::Location;
use crate::id::Digest;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The ConfigMap's name.
pub const NAME: &str = "kubectl-backup-list";
/// Bytes that all lists may have together. The API server takes 1 MiB.
pub const LIMIT: usize = 900 * 1024;

/// The backups of a location as a worker saw them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cached<T> {
    /// The location, as text.
    pub location: String,
    /// When the worker looked.
    pub at: Timestamp,
    /// Whether the oldest were left out for want of room.
    #[serde(default)]
    pub truncated: bool,
    /// The backups, newest first.
    pub backups: Vec<T>,
}

/// What tells how old a list of another location is.
#[derive(Deserialize)]
struct Age {
    at: Timestamp,
}

/// The key of a location in the ConfigMap.
pub fn key(location: &Location) -> String {
    let hash = Digest::of(text_of(location).as_bytes()).to_string();
    format!("location-{}", &hash[..16])
}

/// The location as text: two servers may have buckets of one name.
fn text_of(location: &Location) -> String {
    match &location.place {
        crate::config::Place::S3(crate::config::S3 { endpoint: Some(endpoint), .. }) => {
            format!("{location}?endpoint={endpoint}")
        }
        _ => location.to_string(),
    }
}

fn deed<'a>(verb: &'static str, namespace: &'a str) -> Deed<'a> {
    Deed { verb, resource: "configmaps", namespace: Some(namespace), name: NAME }
}

/// The list that was left for a location; `None` where there is none, or none that can be read.
pub async fn read<T: DeserializeOwned>(
    client: &kube::Client,
    namespace: &str,
    location: &Location,
) -> Result<Option<Cached<T>>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = optional(deed("get", namespace).again(|| api.get(NAME)).await)?;
    let Some(text) = map.and_then(|map| map.data?.remove(&key(location))) else { return Ok(None) };
    match serde_json::from_str::<Cached<T>>(&text) {
        Ok(cached) if cached.location == text_of(location) => Ok(Some(cached)),
        Ok(_) => Ok(None),
        Err(error) => {
            tracing::debug!("`{NAME}` holds a list that can't be read: {error}");
            Ok(None)
        }
    }
}

/// Leaves a list, newest first. What is too much is cut from its end; lists of other locations make room, the oldest
/// first.
pub async fn write<T: Serialize>(
    client: &kube::Client,
    namespace: &str,
    location: &Location,
    backups: &[T],
    at: Timestamp,
) -> Result<(), Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let text = fit(text_of(location), backups, at)?;
    let there = optional(deed("get", namespace).again(|| api.get(NAME)).await)?;
    let mut data = Map::new();
    let others = there.as_ref().and_then(|map| map.data.clone()).unwrap_or_default();
    data.extend(crowded_out(&others, &key(location), text.len()).map(|key| (key, Value::Null)));
    data.insert(key(location), json!(text));
    if there.is_none() {
        let made = json!({ "metadata": { "name": NAME, "labels": { "app.kubernetes.io/name": APP } }, "data": data });
        let made: ConfigMap = serde_json::from_value(made)
            .map_err(|error| Error::Manifest { name: NAME.to_owned(), message: error.to_string() })?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), dry_run: false };
        match deed("create", namespace).again(|| api.create(&params, &made)).await {
            Err(Error::Api { reason, .. }) if reason == "AlreadyExists" => (),
            answer => return answer.map(|_| ()),
        }
    }
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "data": data }));
    deed("patch", namespace).again(|| api.patch(NAME, &params, &patch)).await.map(|_| ())
}

/// The list as JSON of at most [`LIMIT`] bytes.
fn fit<T: Serialize>(location: String, backups: &[T], at: Timestamp) -> Result<String, Error> {
    let damaged = |error: serde_json::Error| Error::Manifest { name: NAME.to_owned(), message: error.to_string() };
    let mut cached: Cached<Box<RawValue>> = Cached { location, at, truncated: true, backups: Vec::new() };
    let mut room = LIMIT.saturating_sub(serde_json::to_string(&cached).map_err(damaged)?.len());
    for backup in backups {
        let raw = serde_json::value::to_raw_value(backup).map_err(damaged)?;
        match room.checked_sub(raw.get().len() + 1) {
            Some(left) => room = left,
            None => break,
        }
        cached.backups.push(raw);
    }
    cached.truncated = cached.backups.len() < backups.len();
    serde_json::to_string(&cached).map_err(damaged)
}

/// The keys of other lists that must go so that all fit together: what can't be read, then the oldest.
fn crowded_out(data: &BTreeMap<String, String>, own: &str, size: usize) -> impl Iterator<Item = String> {
    let mut others: Vec<(Option<Timestamp>, &String, usize)> = data
        .iter()
        .filter(|(key, _)| *key != own)
        .map(|(key, text)| (serde_json::from_str::<Age>(text).ok().map(|age| age.at), key, text.len()))
        .collect();
    others.sort();
    let mut total = size + others.iter().map(|(_, _, size)| size).sum::<usize>();
    let mut gone = Vec::new();
    for (_, key, size) in others {
        if total <= LIMIT {
            break;
        }
        total -= size;
        gone.push(key.clone());
    }
    gone.into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;
    use crate::config::{Place, S3};

    const MAP: &str = "/api/v1/namespaces/kb/configmaps/kubectl-backup-list";

    fn location(bucket: &str) -> Location {
        let s3 = S3 { bucket: bucket.into(), prefix: String::new(), region: None, endpoint: None, path_style: false };
        Location { name: None, place: Place::S3(s3), role_arn: None, credentials_secret: None, read_only: false }
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    async fn put(fake: &Fake, bucket: &str, backups: &[String], second: i64) {
        write(&fake.client(), "kb", &location(bucket), backups, time(second)).await.unwrap();
    }

    async fn got(fake: &Fake, bucket: &str) -> Option<Cached<String>> {
        read(&fake.client(), "kb", &location(bucket)).await.unwrap()
    }

    #[tokio::test]
    async fn lists_of_several_locations_live_side_by_side() {
        let fake = Fake::default();
        assert_eq!(got(&fake, "a").await, None);
        put(&fake, "a", &["one".into()], 1).await;
        put(&fake, "b", &["two".into()], 2).await;
        put(&fake, "a", &["three".into(), "one".into()], 3).await;
        let a = got(&fake, "a").await.unwrap();
        assert_eq!((a.at, a.truncated, a.backups), (time(3), false, vec!["three".to_owned(), "one".to_owned()]));
        assert_eq!(got(&fake, "b").await.unwrap().backups, ["two"]);
        let mut elsewhere = location("a");
        if let Place::S3(s3) = &mut elsewhere.place {
            s3.endpoint = Some("https://minio".into());
        }
        assert_ne!(key(&elsewhere), key(&location("a")));
    }

    #[tokio::test]
    async fn the_oldest_backups_are_cut_and_it_is_said() {
        let fake = Fake::default();
        let many: Vec<String> = (0..2000).map(|n| format!("{n:04}{}", "x".repeat(1000))).collect();
        put(&fake, "a", &many, 1).await;
        let cached = got(&fake, "a").await.unwrap();
        assert!(cached.truncated);
        assert_eq!(cached.backups, many[..cached.backups.len()]);
        let size = fake.get(MAP).unwrap()["data"][key(&location("a"))].as_str().unwrap().len();
        assert!((LIMIT - 2000..=LIMIT).contains(&size), "{size}");
    }

    #[tokio::test]
    async fn other_lists_make_room_the_oldest_first() {
        let fake = Fake::default();
        let third: Vec<String> = (0..300).map(|n| format!("{n:04}{}", "x".repeat(1000))).collect();
        put(&fake, "old", &third, 1).await;
        put(&fake, "new", &third, 2).await;
        put(&fake, "a", &[third.clone(), third.clone()].concat(), 3).await;
        assert_eq!(got(&fake, "old").await, None);
        assert_eq!(got(&fake, "new").await.unwrap().backups.len(), 300);
        assert_eq!(got(&fake, "a").await.unwrap().backups.len(), 600);
    }

    #[tokio::test]
    async fn what_somebody_else_put_there_counts_as_absent() {
        let fake = Fake::default();
        put(&fake, "a", &["one".into()], 1).await;
        let mut map = fake.get(MAP).unwrap();
        map["data"][key(&location("a"))] = json!("{");
        fake.put(MAP, map.clone());
        assert_eq!(got(&fake, "a").await, None);
        let other = serde_json::to_string(&Cached {
            location: "s3://b".into(),
            at: time(1),
            truncated: false,
            backups: vec!["x"],
        });
        map["data"][key(&location("a"))] = json!(other.unwrap());
        fake.put(MAP, map);
        assert_eq!(got(&fake, "a").await, None);
        put(&fake, "a", &["two".into()], 2).await;
        assert_eq!(got(&fake, "a").await.unwrap().backups, ["two"]);
    }
}
