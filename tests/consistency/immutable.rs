//! The table of fields that nobody can change, tried out: of each kind an object is made, changed field by field, and
//! sent back. The API server refuses what the table says, and takes what it doesn't.

mod cases;

use crate::api::{Api, DEFINITIONS};
use crate::plane::ControlPlane;
use cases::{Case, merge};
use http::Method;
use kubectl_backup::resource::Kind;
use kubectl_backup::rules::compare::{self, FIXED};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The kind that a list path is of.
fn kind(path: &str, object: &Value) -> Kind {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (group, version) = if parts[0] == "api" { ("", parts[1]) } else { (parts[1], parts[2]) };
    Kind {
        group: group.into(),
        version: version.into(),
        kind: object["kind"].as_str().unwrap_or_default().into(),
        resource: parts[parts.len() - 1].into(),
        namespaced: parts.contains(&"namespaces"),
    }
}

/// Makes the object of a case; gives its path and what is there then.
async fn made(api: &Api, number: usize, case: &Case) -> (String, Value) {
    let mut object = json!({"metadata": {"name": format!("case-{number}")}});
    merge(&mut object, &case.object);
    let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
    let path = format!("{}/{name}", case.path);
    let mut live = api.post(case.path, &object).await;
    if let Some(status) = &case.status {
        live["status"] = status.clone();
        api.call(Method::PUT, &format!("{path}/status"), Some(&live)).await.expect("a status");
    }
    if case.path == DEFINITIONS {
        api.wait_condition(&name, "Established", "True").await;
    }
    (path.clone(), api.get(&path).await)
}

/// What the API server says of a change that is tried out; `None`: it takes it.
async fn refusal(api: &Api, path: &str, change: &Value) -> Option<(u16, String)> {
    loop {
        let mut wanted = api.get(path).await;
        merge(&mut wanted, change);
        match api.call(Method::PUT, &format!("{path}?dryRun=All"), Some(&wanted)).await {
            Ok(_) => return None,
            // the API server's own controllers write a status meanwhile
            Err(kube::Error::Api(status)) if status.code == 409 => (),
            Err(kube::Error::Api(status)) => return Some((status.code, status.message.clone())),
            Err(error) => panic!("PUT {path}: {error}"),
        }
    }
}

/// The words in which API servers say that a field stays as it is.
const WORDS: [&str; 13] = [
    "immutable",
    "may not change",
    "may not be changed",
    "cannot change",
    "are forbidden",
    "may not update",
    "must be less than or equal to previous value",
    "must not update from",
    "can not be less than",
    "can not be modified",
    "only deletion is allowed",
    // of a Service: what else says of its address stays as it was
    "expected an IPv6 value",
    "first value must match `clusterIP`",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_table_says_of_fields_the_api_server_says_too() {
    let both = "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112";
    let plane = ControlPlane::start("immutable", &["--disable-admission-plugins=ServiceAccount", both]);
    let api = plane.api().await;
    api.namespace().await;
    let mut tried = BTreeSet::new();
    let mut wrong = Vec::new();
    for (number, case) in cases::all().into_iter().enumerate() {
        let (path, live) = made(&api, number, &case).await;
        let kind = kind(case.path, &live);
        let all =
            case.refused.iter().map(|change| (change, true)).chain(case.taken.iter().map(|change| (change, false)));
        for (change, expected) in all {
            let mut wanted = live.clone();
            merge(&mut wanted, change);
            let changes = compare::changes(&live, &wanted);
            assert!(!changes.is_empty(), "{path}: {change} changes nothing");
            let found = compare::immutable(&kind, &live, &changes);
            let said = refusal(&api, &path, change).await;
            let is_refused = match &said {
                None => false,
                // claims without a volume are kept from growing by admission
                Some((403, message)) => message.contains("bound claims can be expanded"),
                Some((code, message)) => *code == 422 && WORDS.iter().any(|word| message.contains(word)),
            };
            if (found.is_some(), is_refused, said.is_some()) != (expected, expected, expected) {
                wrong.push(format!("{kind} {change}: the table says {found:?}, the API server {said:?}"));
            }
            let fixed = FIXED.iter().filter(|fixed| fixed.kinds.split(' ').any(|key| kind.is(key)));
            for root in
                fixed.flat_map(|fixed| fixed.roots).filter(|root| found.is_some_and(|path| path.starts_with(**root)))
            {
                tried.insert((kind.key(), *root));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let entries = FIXED.iter().flat_map(|fixed| {
        fixed.kinds.split(' ').flat_map(|key| fixed.roots.iter().map(move |root| (key.to_owned(), *root)))
    });
    let untried: Vec<_> = entries.filter(|entry| !tried.contains(entry)).collect();
    assert!(untried.is_empty(), "no case tries {untried:?}");
}
