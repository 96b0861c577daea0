//! The real client against a server on loopback that fails as it is told.

mod fake;
mod identity;
mod reading;
mod server;
mod writing;

use super::call::Patience;
use super::{Bucket, S3Store, client};
use crate::aws::identity::Environment;
use crate::config::{Location, Place};
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use server::{Answer, Server};
use std::sync::Arc;
use std::time::Duration;

/// Short pauses, so that the tests are short, and time enough for a busy machine.
const PATIENCE: Patience = Patience {
    attempts: 4,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(5),
    answer: Duration::from_secs(30),
    slowest: 10 << 20,
    completion: Duration::from_secs(30),
    total: Duration::from_secs(300),
};

/// Bytes of a part, less than S3 takes: what is sent is hashed, which takes its time in a test build.
const PART: usize = 64 << 10;

/// For servers that fall silent.
fn patience_for(fault: &Answer) -> Patience {
    let short = Duration::from_millis(250);
    match fault {
        Answer::Silence | Answer::Stalled { .. } => Patience { answer: short, completion: short, ..PATIENCE },
        _ => PATIENCE,
    }
}

/// The store in `s3://bucket/pre` at a server, with keys that any server takes.
fn store(server: &Server) -> S3Store {
    patient_store(server, PATIENCE)
}

fn patient_store(server: &Server, patience: Patience) -> S3Store {
    S3Store { bucket: Arc::new(bucket(server, patience)) }
}

fn bucket(server: &Server, patience: Patience) -> Bucket {
    let location = Location::parse_url(&format!("s3://bucket/pre?endpoint={}", server.url())).unwrap();
    let Place::S3(place) = &location.place else { panic!("{location}") };
    let keys = Credentials::new("AKIAEXAMPLE", "hunter2-secret", None, None, "test");
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .build();
    Bucket {
        client: client::client(&sdk, place, "us-east-1"),
        name: "bucket".to_owned(),
        prefix: "pre/".to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: place.endpoint.clone(),
        described: location.to_string(),
        environment: Environment::default(),
        patience,
        part_size: PART,
    }
}
