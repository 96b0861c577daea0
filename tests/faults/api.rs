//! A fake API server below the real `kube::Client`: aggregated discovery, paged lists at exact revisions, metadata-only
//! lists, single objects, creates, updates, deletes, dry runs. Faults are put in front of requests by name, so that a test can go through every
//! request that a run makes.

mod body;
mod writes;

use crate::world::{KINDS, World, place};
use body::{Answered, stream};
use http::{Request, Response};
use kube::client::Body;
use kubectl_backup::cluster::Cluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Objects in a page, however many are asked for.
const PAGE: usize = 3;

/// What goes wrong with a request. Numbers are per cent of the body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// An answer with this code.
    Status(u16),
    /// An answer with this code that says when to come again.
    RetryAfter(u16),
    /// An answer with this code whose text never ends.
    StatusStalls(u16),
    /// The connection breaks before anything happens.
    Reset,
    /// It happens, and the connection breaks before the answer.
    ResetAfter,
    /// Nothing happens, and no answer comes.
    Silent,
    /// It happens, and no answer comes.
    SilentAfter,
    /// The body breaks off with an error.
    BreaksOff(usize),
    /// The body ends early, as if that were all.
    Ends(usize),
    /// The body comes to here and no further.
    Stalls(usize),
    /// From here on the body is not what was sent.
    Rots(usize),
    /// A proxy's page instead of an answer.
    Page,
    /// `{}`.
    Nothing,
    /// Every chunk takes 40 seconds.
    Slow,
    /// An answer with this code, text and cause.
    Says(u16, &'static str, &'static str),
    /// Somebody else writes the object just before: its `data`.
    Edited,
    /// The same, but only its status.
    Touched,
    /// The revisions so far are compacted before the request is looked at.
    Compact,
}

/// A fault for requests of this name, the one of that number or all of them.
#[derive(Clone, Debug)]
struct Rule {
    name: String,
    number: Option<usize>,
    fault: Fault,
}

type Hook = Box<dyn Fn(&str, usize) + Send>;
/// What somebody else does: before the request of this name and number.
type Change = (String, usize, Box<dyn Fn(&mut World) + Send>);

pub(crate) struct State {
    pub(crate) world: World,
    /// Somebody else writes between requests.
    pub(crate) churn: bool,
    /// Revisions below this one are no longer kept.
    compacted: u64,
    /// Objects that can't be read: `(kind, place)`, with an empty place for all of a kind.
    pub(crate) broken: Vec<(usize, String)>,
    /// Whether kinds that count for themselves are listed in an order of their own, too.
    pub(crate) unordered: bool,
    /// Whether a group's server is down.
    pub(crate) stale: bool,
    /// Whether a new namespace is given a service account at once, as a controller does.
    pub(crate) appearing: bool,
    /// Whether the Job of any run has not ended.
    pub(crate) job_at_work: bool,
    /// Whether custom kinds have a status that is written on its own.
    pub(crate) statuses: bool,
    seen: Vec<(String, usize)>,
    counts: BTreeMap<String, usize>,
    rules: Vec<Rule>,
    /// From which request on, counted from the first of all, no API server is there, and for how long.
    outage: Option<(usize, Duration)>,
    away_since: Option<tokio::time::Instant>,
    hook: Option<Hook>,
    changes: Vec<Change>,
}

#[derive(Clone)]
pub(crate) struct Api(Arc<Mutex<State>>);

/// An answer that is not yet on its way: code, seconds after which to try again, body.
type Answer = (u16, Option<u32>, String);

impl Api {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(State {
            world,
            churn: false,
            compacted: 0,
            broken: Vec::new(),
            unordered: false,
            stale: false,
            appearing: false,
            job_at_work: false,
            statuses: false,
            seen: Vec::new(),
            counts: BTreeMap::new(),
            rules: Vec::new(),
            outage: None,
            away_since: None,
            hook: None,
            changes: Vec::new(),
        })))
    }

    /// A cluster with everything in it, in which somebody else is at work.
    pub(crate) fn busy() -> Self {
        let api = Self::new(World::full());
        api.state().churn = true;
        api
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Puts a fault in front of a request: of that number among those of its name, or of all of them.
    pub(crate) fn fault(&self, name: &str, number: Option<usize>, fault: Fault) -> &Self {
        self.state().rules.push(Rule { name: name.to_owned(), number, fault });
        self
    }

    /// Lets the API server be away for a while, from a request on, counted from the first of all.
    pub(crate) fn outage(&self, first: usize, length: Duration) {
        self.state().outage = Some((first, length));
    }

    /// Calls this at each request with its name and number, before anything happens.
    pub(crate) fn at_each(&self, hook: impl Fn(&str, usize) + Send + 'static) {
        self.state().hook = Some(Box::new(hook));
    }

    /// Has somebody else do this just before a request, of that number among those of its name.
    pub(crate) fn before(&self, name: &str, number: usize, change: impl Fn(&mut World) + Send + 'static) -> &Self {
        self.state().changes.push((name.to_owned(), number, Box::new(change)));
        self
    }

    /// Every request so far: its name, and how many of that name came before.
    pub(crate) fn seen(&self) -> Vec<(String, usize)> {
        self.state().seen.clone()
    }

    pub(crate) fn cluster(&self) -> Cluster {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        let client = kube::Client::new(service, "default");
        Cluster::new(client.clone(), client)
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Answered>, tower::BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let asked = Asked::read(&parts);
        let (fault, answer) = {
            let mut state = self.state();
            let fault = state.note(&asked.name);
            let before = match fault {
                Some(Fault::Status(code) | Fault::StatusStalls(code)) => Some(refusal(code, "Injected")),
                Some(Fault::RetryAfter(code)) => {
                    let (code, _, text) = refusal(code, "Injected");
                    Some((code, Some(3), text))
                }
                Some(Fault::Says(code, message, cause)) => Some(saying(code, "Injected", message, cause)),
                Some(Fault::Edited) => {
                    state.write_meanwhile(&asked, "data");
                    None
                }
                Some(Fault::Touched) => {
                    state.write_meanwhile(&asked, "status");
                    None
                }
                Some(Fault::Reset | Fault::Silent) => Some((0, None, String::new())),
                Some(Fault::Page) => Some((200, None, "<html>{\"items\":[]}</html>".to_owned())),
                Some(Fault::Nothing) => Some((200, None, "{}".to_owned())),
                Some(Fault::Compact) => {
                    state.world.revision += 10;
                    state.compacted = state.world.revision;
                    None
                }
                _ => None,
            };
            let answer = before.unwrap_or_else(|| state.handle(&asked, &body));
            if state.churn && asked.method == "GET" {
                state.world.churn();
            }
            (fault, answer)
        };
        match fault {
            Some(Fault::Reset | Fault::ResetAfter) => return Err("connection reset by peer".into()),
            Some(Fault::Silent | Fault::SilentAfter) => std::future::pending().await,
            _ => (),
        }
        let (code, retry_after, text) = answer;
        let mut response = Response::builder().status(code);
        if let Some(seconds) = retry_after {
            response = response.header("retry-after", seconds);
        }
        Ok(response.body(stream(text.into_bytes(), fault))?)
    }
}

/// A request, understood.
struct Asked {
    name: String,
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    metadata_only: bool,
}

impl Asked {
    fn read(parts: &http::request::Parts) -> Self {
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let accept = parts.headers.get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let metadata_only = accept.contains("as=PartialObjectMetadataList");
        let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
        let mut name = format!("{method} {path}");
        if metadata_only {
            let one = query.get("limit").is_some_and(|limit| limit == "1");
            name += match (one, query.contains_key("resourceVersion")) {
                (true, false) => " revision",
                (true, true) => " count",
                _ => " names",
            };
        }
        if let Some(selector) = query.get("fieldSelector") {
            name += &format!(" {selector}");
        }
        if let Some(token) = query.get("continue") {
            let page: usize = token.split(':').nth(1).unwrap().parse().unwrap();
            name += &format!(" page {page}");
        }
        Self { name, method, path, query, metadata_only }
    }

    fn is_dry_run(&self, body: &[u8]) -> bool {
        let of_delete = || serde_json::from_slice::<Value>(body).is_ok_and(|body| body["dryRun"] == json!(["All"]));
        self.query.get("dryRun").is_some_and(|all| all == "All") || (self.method == "DELETE" && of_delete())
    }

    /// Kind, namespace and name that the path means.
    fn object(&self) -> Option<(usize, Option<&str>, Option<&str>)> {
        let segments: Vec<&str> = self.path.trim_start_matches('/').split('/').collect();
        let (group, rest) = match segments.as_slice() {
            ["api", "v1", rest @ ..] => ("", rest),
            ["apis", group, "v1", rest @ ..] => (*group, rest),
            _ => return None,
        };
        let find = |resource: &str| KINDS.iter().position(|def| def.group == group && def.resource == resource);
        match rest {
            ["namespaces"] => Some((find("namespaces")?, None, None)),
            ["namespaces", name] => Some((find("namespaces")?, None, Some(name))),
            ["namespaces", namespace, resource] => Some((find(resource)?, Some(namespace), None)),
            ["namespaces", namespace, resource, name, ..] => Some((find(resource)?, Some(namespace), Some(name))),
            [resource] => Some((find(resource)?, None, None)),
            [resource, name] => Some((find(resource)?, None, Some(name))),
            _ => None,
        }
    }
}

impl State {
    /// Counts a request and says what goes wrong with it.
    fn note(&mut self, name: &str) -> Option<Fault> {
        let count = self.counts.entry(name.to_owned()).or_default();
        let number = *count;
        *count += 1;
        self.seen.push((name.to_owned(), number));
        if let Some(hook) = &self.hook {
            hook(name, number);
        }
        for (_, _, change) in self.changes.iter().filter(|(of, at, _)| of == name && *at == number) {
            change(&mut self.world);
        }
        if let Some((first, length)) = self.outage
            && self.seen.len() > first
            && self.away_since.get_or_insert_with(tokio::time::Instant::now).elapsed() < length
        {
            return Some(Fault::Reset);
        }
        let rule =
            self.rules.iter().find(|rule| rule.name == name && rule.number.is_none_or(|wanted| wanted == number));
        rule.map(|rule| rule.fault)
    }

    fn handle(&mut self, asked: &Asked, body: &[u8]) -> Answer {
        match asked.path.as_str() {
            "/api" => return ok(&self.discovery(|group| group.is_empty())),
            "/apis" => return ok(&self.discovery(|group| !group.is_empty())),
            "/version" => return ok(&json!({"gitVersion": "v1.36.3"})),
            "/apis/apiregistration.k8s.io/v1/apiservices" => return ok(&api_services()),
            path if self.job_at_work && path.starts_with("/apis/batch/v1/namespaces/kubectl-backup/jobs/") => {
                return ok(&json!({"metadata": {"name": "x"}, "status": {"active": 1}}));
            }
            _ => (),
        }
        let Some((kind, namespace, name)) = asked.object().filter(|(kind, ..)| self.world.is_served(&KINDS[*kind]))
        else {
            return refusal(404, "NotFound");
        };
        match (asked.method.as_str(), name) {
            ("GET", None) => self.list(asked, kind, namespace),
            ("GET", Some(name)) => match self.world.get(kind, &place(namespace, name)) {
                Some(text) => (200, None, World::whole(kind, text)),
                None => refusal(404, "NotFound"),
            },
            ("POST", None) => self.create(asked, kind, namespace, body),
            ("PUT", Some(name)) => self.update(asked, kind, &place(namespace, name), body),
            ("DELETE", Some(name)) => self.delete(asked, kind, &place(namespace, name), body),
            ("PATCH", Some(name)) => self.merge(kind, &place(namespace, name), body),
            _ => refusal(405, "MethodNotAllowed"),
        }
    }

    fn discovery(&self, wanted: impl Fn(&str) -> bool) -> Value {
        let mut groups = BTreeMap::<&str, Vec<Value>>::new();
        for def in KINDS.iter().filter(|def| wanted(def.group) && self.world.is_served(def)) {
            groups.entry(def.group).or_default().push(json!({
                "resource": def.resource,
                "responseKind": {"group": def.group, "version": "v1", "kind": def.kind},
                "scope": if def.namespaced { "Namespaced" } else { "Cluster" },
                "verbs": ["create", "delete", "get", "list", "update", "watch"],
                "subresources": if def.custom && self.statuses { status() } else { json!([]) },
            }));
        }
        let group = |(name, resources): (&str, Vec<Value>)| json!({"metadata": {"name": name}, "versions": [{"version": "v1", "freshness": "Current", "resources": resources}]});
        let mut items: Vec<Value> = groups.into_iter().map(group).collect();
        if self.stale && wanted("stale.example") {
            items.push(json!({"metadata": {"name": "stale.example"}, "versions": [{"version": "v1", "freshness": "Stale", "resources": []}]}));
        }
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
    }

    fn list(&self, asked: &Asked, kind: usize, namespace: Option<&str>) -> Answer {
        let def = &KINDS[kind];
        let current = self.world.revision_of(kind);
        let (revision, page, after) = match (asked.query.get("continue"), asked.query.get("resourceVersion")) {
            (Some(token), _) => {
                let mut parts = token.splitn(3, ':');
                let mut number = || parts.next().unwrap().parse::<u64>().unwrap();
                let (revision, page) = (number(), number());
                (revision, page, parts.next().unwrap().to_owned())
            }
            (None, Some(exact)) if !def.own_counter => (exact.parse().unwrap(), 0, String::new()),
            _ => (current, 0, String::new()),
        };
        if revision < self.compacted && !def.own_counter {
            return refusal(410, "Expired");
        }
        let limit = asked.query.get("limit").map_or(PAGE, |limit| limit.parse::<usize>().unwrap().min(PAGE));
        let name = asked.query.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name="));
        let within = |place: &str| namespace.is_none_or(|n| place.strip_prefix(n).is_some_and(|r| r.starts_with('/')));
        let is_named =
            |place: &str| name.is_none_or(|name| name == place.rsplit_once('/').map_or(place, |(_, name)| name));
        let matching = self.world.at(kind, revision).filter(|(place, ..)| within(place) && is_named(place));
        let mut left: Vec<(&str, &str, &str)> = if self.unordered && def.own_counter {
            let all: Vec<_> = matching.collect();
            all.into_iter().rev().skip(limit * usize::try_from(page).unwrap()).collect()
        } else {
            matching.filter(|(place, ..)| after.is_empty() || *place > after.as_str()).collect()
        };
        let is_last = left.len() <= limit;
        let remaining = left.len().saturating_sub(limit);
        left.truncate(limit);
        let taken = left;
        let unreadable = |place: &str| self.broken.iter().any(|(of, at)| *of == kind && (at.is_empty() || at == place));
        if taken.iter().any(|(place, ..)| unreadable(place)) {
            return refusal(500, "InternalError");
        }
        let token = match taken.last() {
            Some((last, ..)) if !is_last => format!("{revision}:{}:{last}", page + 1),
            _ => String::new(),
        };
        let mut meta = json!({"resourceVersion": revision.to_string(), "continue": token});
        // not where a selector is given, nor by every aggregated API
        if !is_last
            && !def.own_counter
            && !["fieldSelector", "labelSelector"].iter().any(|key| asked.query.contains_key(*key))
        {
            meta["remainingItemCount"] = json!(remaining);
        }
        let text_of = |(_, text, meta): &(&str, &str, &str)| {
            if asked.metadata_only { format!("{{\"metadata\":{meta}}}") } else { (*text).to_owned() }
        };
        let items: Vec<String> = taken.iter().map(text_of).collect();
        let (version, name, items) = (def.api_version(), def.kind, items.join(","));
        let text = if def.custom {
            format!(
                "{{\"apiVersion\":\"{version}\",\"items\":[{items}],\"kind\":\"{name}List\",\"metadata\":{meta}}}\n"
            )
        } else {
            format!(
                "{{\"kind\":\"{name}List\",\"apiVersion\":\"{version}\",\"metadata\":{meta},\"items\":[{items}]}}\n"
            )
        };
        (200, None, text)
    }

    /// A merge patch; one that names another resource version is refused.
    fn merge(&mut self, number: usize, place: &str, body: &[u8]) -> Answer {
        let Some(text) = self.world.get(number, place) else { return refusal(404, "NotFound") };
        let (mut object, mut patch) =
            (serde_json::from_str::<Value>(text).unwrap(), serde_json::from_slice::<Value>(body).unwrap());
        let wanted = patch["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
        if wanted.is_some_and(|wanted| wanted != object["metadata"]["resourceVersion"]) {
            return refusal(409, "Conflict");
        }
        json_patch::merge(&mut object, &patch);
        object["metadata"]["resourceVersion"] = json!(self.world.next(number).to_string());
        let meta = object["metadata"].to_string();
        self.world.insert(number, place, Some((object.to_string(), meta)));
        ok(&object)
    }
}

/// The status of a kind, as discovery tells of it.
fn status() -> Value {
    json!([{"subresource": "status", "responseKind": {"group": "", "version": "", "kind": "X"}, "verbs": ["patch"]}])
}

fn ok(value: &Value) -> Answer {
    (200, None, value.to_string())
}

/// The registrations of the aggregated APIs.
fn api_services() -> Value {
    let aggregated = KINDS.iter().filter(|kind| kind.own_counter);
    let items =
        aggregated.map(|kind| json!({"spec": {"group": kind.group, "version": "v1", "service": {"name": "own"}}}));
    json!({"metadata": {}, "items": items.collect::<Vec<_>>()})
}

fn refusal(code: u16, reason: &str) -> Answer {
    saying(code, reason, &format!("the fake says {reason}"), "")
}

fn saying(code: u16, reason: &str, message: &str, cause: &str) -> Answer {
    let causes = if cause.is_empty() { json!([]) } else { json!([{"reason": cause}]) };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": message, "code": code, "details": {"causes": causes}});
    (code, None, status.to_string())
}
