//! A stand-in for the API server, for tests: keeps objects by path in memory below a real `kube::Client`. Models:
//! get, list with equality label selectors, create (409 when there is one), server-side apply and merge patch (a patch
//! that names another uid is a conflict), delete with a uid as precondition, dry run, resource versions that move only
//! with content. Answers and changes can be put in front of it. No validation, no field managers, no watch.

use bytes::Bytes;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

type Change = Box<dyn FnOnce(&mut BTreeMap<String, Value>) + Send>;

/// Method, path, and the answer still to give: `None` is a connection that breaks.
type Answer = (String, String, Option<(u16, Bytes)>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    calls: Vec<Call>,
    revision: u64,
    answers: Vec<Answer>,
    /// Method, path, how many such calls come before it, what changes then.
    changes: Vec<(String, String, usize, Change)>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn client(&self) -> kube::Client {
        let state = self.0.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let state = state.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let call = Call {
                    method: parts.method.to_string(),
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().unwrap_or_default().to_owned(),
                    body: if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? },
                };
                let (code, body) = state.lock().unwrap().handle(&call).ok_or("connection reset")?;
                let answer = http::Response::builder().status(code).body(Body::from(body.to_vec()))?;
                Ok::<_, tower::BoxError>(answer)
            }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        let mut state = self.0.lock().unwrap();
        let object = state.stamp(object, None);
        state.objects.insert(path.to_owned(), object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn calls(&self, method: &str, path: &str) -> Vec<Call> {
        let state = self.0.lock().unwrap();
        state.calls.iter().filter(|call| call.method == method && call.path == path).cloned().collect()
    }

    pub(crate) fn all_calls(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        state.calls.iter().map(|call| format!("{} {}", call.method, call.path)).collect()
    }

    /// The next such call gets this answer.
    pub(crate) fn answer(&self, method: &str, path: &str, code: u16, body: Value) {
        self.answer_bytes(method, path, code, body.to_string());
    }

    pub(crate) fn answer_bytes(&self, method: &str, path: &str, code: u16, body: impl Into<Bytes>) {
        let answer = (method.to_owned(), path.to_owned(), Some((code, body.into())));
        self.0.lock().unwrap().answers.push(answer);
    }

    /// The next such call is a connection that breaks.
    pub(crate) fn break_off(&self, method: &str, path: &str) {
        self.0.lock().unwrap().answers.push((method.to_owned(), path.to_owned(), None));
    }

    /// Changes the objects before the call of that number (from 1) is answered.
    pub(crate) fn at(
        &self,
        method: &str,
        path: &str,
        number: usize,
        change: impl FnOnce(&mut BTreeMap<String, Value>) + Send + 'static,
    ) {
        let change: Change = Box::new(change);
        self.0.lock().unwrap().changes.push((method.to_owned(), path.to_owned(), number, change));
    }
}

/// What the API server answers when it refuses.
pub(crate) fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": reason, "code": code})
}

impl State {
    fn handle(&mut self, call: &Call) -> Option<(u16, Bytes)> {
        self.calls.push(call.clone());
        let same = |c: &&Call| c.method == call.method && c.path == call.path;
        let number = self.calls.iter().filter(same).count();
        while let Some(at) =
            self.changes.iter().position(|(m, p, n, _)| *m == call.method && *p == call.path && *n <= number)
        {
            let (_, _, _, change) = self.changes.remove(at);
            change(&mut self.objects);
        }
        if let Some(at) = self.answers.iter().position(|(m, p, _)| *m == call.method && *p == call.path) {
            return self.answers.remove(at).2;
        }
        let (code, body) = match call.method.as_str() {
            "GET" => self.read(call),
            "POST" => self.create(call),
            "PATCH" => self.patch(call),
            "DELETE" => self.delete(call),
            other => (405, failure(405, "MethodNotAllowed", other)),
        };
        Some((code, body.to_string().into()))
    }

    fn stamp(&mut self, mut object: Value, old: Option<&Value>) -> Value {
        let meta = &mut object["metadata"];
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{}", meta["name"].as_str().unwrap_or_default()));
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = json!("2026-11-20T10:00:00Z");
        }
        if old != Some(&object) {
            self.revision += 1;
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        }
        object
    }

    fn read(&self, call: &Call) -> (u16, Value) {
        if let Some(object) = self.objects.get(&call.path) {
            return (200, object.clone());
        }
        let last = call.path.rsplit('/').next().unwrap_or_default();
        let collections = ["pods", "events", "jobs", "clusterrolebindings", "configmaps"];
        if !collections.contains(&last) {
            return not_found(call);
        }
        let selector = query_value(&call.query, "labelSelector");
        let below = |path: &str| {
            path.strip_prefix(&call.path)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|rest| !rest.contains('/'))
        };
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, object)| below(path) && selected(object, &selector))
            .map(|(_, o)| o)
            .collect();
        (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}))
    }

    fn create(&mut self, call: &Call) -> (u16, Value) {
        let name = call.body["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{}/{name}", call.path);
        if self.objects.contains_key(&path) {
            return (409, failure(409, "AlreadyExists", &format!("\"{name}\" already exists")));
        }
        let object = self.stamp(call.body.clone(), None);
        self.keep(call, path, object.clone());
        (201, object)
    }

    fn patch(&mut self, call: &Call) -> (u16, Value) {
        let apply = call.query.contains("fieldManager") && call.body.get("apiVersion").is_some();
        let old = self.objects.get(&call.path).cloned();
        let Some(base) = old.clone().or_else(|| apply.then(|| json!({}))) else { return not_found(call) };
        let uid = &call.body["metadata"]["uid"];
        if !uid.is_null() && *uid != base["metadata"]["uid"] {
            return (409, failure(409, "Conflict", "Precondition failed: UID in precondition"));
        }
        let mut object = base;
        merge(&mut object, &call.body);
        let object = self.stamp(object, old.as_ref());
        self.keep(call, call.path.clone(), object.clone());
        (if old.is_some() { 200 } else { 201 }, object)
    }

    fn delete(&mut self, call: &Call) -> (u16, Value) {
        let Some(object) = self.objects.get(&call.path) else { return not_found(call) };
        let uid = &call.body["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return (409, failure(409, "Conflict", "Precondition failed: UID in precondition"));
        }
        self.objects.remove(&call.path);
        (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }

    fn keep(&mut self, call: &Call, path: String, object: Value) {
        if !call.query.contains("dryRun=All") {
            self.objects.insert(path, object);
        }
    }
}

fn not_found(call: &Call) -> (u16, Value) {
    (404, failure(404, "NotFound", &format!("\"{}\" not found", call.path.rsplit('/').next().unwrap_or_default())))
}

fn query_value(query: &str, name: &str) -> String {
    let value = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
    value.map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn selected(object: &Value, selector: &str) -> bool {
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        let (key, value) = term.split_once('=').unwrap_or((term, ""));
        object["metadata"]["labels"][key] == json!(value)
    })
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                match value {
                    Value::Null => drop(into.remove(key)),
                    value => merge(into.entry(key.clone()).or_insert(Value::Null), value),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
