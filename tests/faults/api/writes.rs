//! What writes do to the fake API server: creates, updates, deletes, and what somebody else writes meanwhile.

use super::{Answer, Asked, State, refusal};
use crate::world::{KINDS, World, kind, place};
use serde_json::{Value, json};

impl State {
    pub(super) fn create(&mut self, asked: &Asked, number: usize, namespace: Option<&str>, body: &[u8]) -> Answer {
        let Ok(mut object) = serde_json::from_slice::<Value>(body) else { return refusal(400, "BadRequest") };
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if object["metadata"]["namespace"].as_str() != namespace || object["kind"] != KINDS[number].kind {
            return refusal(400, "BadRequest");
        }
        if namespace.is_some_and(|namespace| self.world.get(kind("namespaces"), namespace).is_none()) {
            return refusal(404, "NotFound");
        }
        let place = place(namespace, &name);
        if self.world.get(number, &place).is_some() {
            return refusal(409, "AlreadyExists");
        }
        let revision = self.world.next(number);
        object["metadata"]["uid"] = json!(format!("{number:08x}-1111-4000-8000-{revision:012x}"));
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        object["metadata"]["managedFields"] = json!([{"manager": asked.query.get("fieldManager")}]);
        if KINDS[number].resource == "customresourcedefinitions" {
            object["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        }
        if KINDS[number].custom && self.statuses {
            object.as_object_mut().unwrap().remove("status");
        }
        if asked.is_dry_run(body) {
            return (201, None, object.to_string());
        }
        let answer = self.store(number, &place, object);
        if self.appearing && KINDS[number].resource == "namespaces" {
            let pulls = r#""imagePullSecrets":[{"name":"its-own"}]"#;
            self.world.put("serviceaccounts", Some(&name), "default", "", pulls);
        }
        (201, None, answer)
    }

    /// Keeps an object as it is now; its text as an answer has it.
    fn store(&mut self, number: usize, place: &str, mut object: Value) -> String {
        let answer = object.to_string();
        if !KINDS[number].custom {
            let fields = object.as_object_mut().unwrap();
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        let meta = object["metadata"].to_string();
        self.world.insert(number, place, Some((object.to_string(), meta)));
        answer
    }

    /// The object as it is, or the refusal of a request that is meant for another state of it.
    fn meant(&self, number: usize, place: &str, uid: &Value, revision: &Value) -> Result<Value, Answer> {
        let Some(text) = self.world.get(number, place) else { return Err(refusal(404, "NotFound")) };
        let live: Value = serde_json::from_str(&World::whole(number, text)).unwrap();
        let same = (uid, revision) == (&live["metadata"]["uid"], &live["metadata"]["resourceVersion"]);
        if same { Ok(live) } else { Err(refusal(409, "Conflict")) }
    }

    pub(super) fn update(&mut self, asked: &Asked, number: usize, place: &str, body: &[u8]) -> Answer {
        let Ok(mut object) = serde_json::from_slice::<Value>(body) else { return refusal(400, "BadRequest") };
        let meta = &object["metadata"];
        let live = match self.meant(number, place, &meta["uid"], &meta["resourceVersion"]) {
            Ok(live) => live,
            Err(refused) => return refused,
        };
        if live["metadata"]["managedFields"].is_array() {
            object["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        }
        if object == live || asked.is_dry_run(body) {
            return (200, None, object.to_string());
        }
        object["metadata"]["resourceVersion"] = json!(self.world.next(number).to_string());
        let manager = json!({"manager": asked.query.get("fieldManager")});
        let fields = object["metadata"].as_object_mut().unwrap().entry("managedFields").or_insert_with(|| json!([]));
        let fields = fields.as_array_mut().unwrap();
        if !fields.contains(&manager) {
            fields.push(manager);
        }
        (200, None, self.store(number, place, object))
    }

    /// Deletes what an object owned.
    fn collect_garbage(&mut self, uid: &Value) {
        let owned = |text: &str| {
            let object: Value = serde_json::from_str(text).unwrap();
            object["metadata"]["ownerReferences"]
                .as_array()
                .is_some_and(|owners| owners.iter().any(|o| o["uid"] == *uid))
        };
        let all = self.world.all().filter(|(.., text)| owned(text)).map(|(kind, place, _)| (kind, place.to_owned()));
        for (kind, place) in all.collect::<Vec<_>>() {
            self.world.delete(KINDS[kind].resource, &place);
        }
    }

    /// With finalizers, an object only begins to go.
    pub(super) fn delete(&mut self, asked: &Asked, number: usize, place: &str, body: &[u8]) -> Answer {
        let Ok(options) = serde_json::from_slice::<Value>(body) else { return refusal(400, "BadRequest") };
        let wanted = &options["preconditions"];
        let mut live = match self.meant(number, place, &wanted["uid"], &wanted["resourceVersion"]) {
            Ok(live) => live,
            Err(refused) => return refused,
        };
        if !asked.is_dry_run(body) {
            if live["metadata"]["finalizers"].is_array() {
                live["metadata"]["deletionTimestamp"] = json!("2026-11-20T10:00:00Z");
                live["metadata"]["resourceVersion"] = json!(self.world.next(number).to_string());
                self.store(number, place, live);
            } else {
                self.world.delete(KINDS[number].resource, place);
                if options["propagationPolicy"] == "Background" {
                    self.collect_garbage(&live["metadata"]["uid"]);
                }
            }
        }
        (200, None, json!({"kind": "Status", "status": "Success"}).to_string())
    }

    /// Somebody else writes an object just before a request about it: what it is, or only its status.
    pub(super) fn write_meanwhile(&mut self, asked: &Asked, field: &str) {
        let Some((number, namespace, Some(name))) = asked.object() else { return };
        let place = place(namespace, name);
        let Some(text) = self.world.get(number, &place) else { return };
        let mut object: Value = serde_json::from_str(&World::whole(number, text)).unwrap();
        object[field]["by"] = json!("somebody");
        object["metadata"]["resourceVersion"] = json!(self.world.next(number).to_string());
        self.store(number, &place, object);
    }
}
