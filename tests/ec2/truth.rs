//! The stand-in itself: what it says it models. Asked as EC2 is, in the Query protocol.

use crate::standin::{ACCOUNT, Settings, Standin, Volume, default_key};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A stand-in and its clock, in seconds.
fn standin() -> (Standin, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(0));
    let seconds = clock.clone();
    let ec2 = Standin::new(Settings::default(), move || Duration::from_secs(seconds.load(Ordering::Relaxed)));
    ec2.add_volume("r", Volume::gp3("vol-1", "ra"));
    (ec2, clock)
}

fn ask(ec2: &Standin, query: &str) -> (u16, String) {
    ec2.answer("r", query.as_bytes()).unwrap()
}

fn part<'a>(text: &'a str, tag: &str) -> &'a str {
    text.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once("</")).map_or("", |(value, _)| value)
}

#[test]
fn a_snapshot_is_hidden_then_pending_then_completed() {
    let (ec2, clock) = standin();
    let (_, made) = ask(
        &ec2,
        "Action=CreateSnapshot&VolumeId=vol-1&TagSpecification.1.ResourceType=snapshot&TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v",
    );
    let id = part(&made, "snapshotId").to_owned();
    let by_id = format!("Action=DescribeSnapshots&SnapshotId.1={id}");
    assert!(ask(&ec2, &by_id).1.contains("InvalidSnapshot.NotFound"));
    clock.store(3, Ordering::Relaxed);
    assert_eq!((part(&ask(&ec2, &by_id).1, "status"), part(&ask(&ec2, &by_id).1, "progress")), ("pending", ""));
    clock.store(30, Ordering::Relaxed);
    assert_eq!(part(&ask(&ec2, &by_id).1, "progress"), "37%");
    clock.store(60, Ordering::Relaxed);
    let by_tag = "Action=DescribeSnapshots&Owner.1=self&Filter.1.Name=tag:k&Filter.1.Value.1=v";
    assert_eq!(part(&ask(&ec2, by_tag).1, "status"), "completed");
    assert_eq!(part(&ask(&ec2, &by_tag.replace("=v", "=w")).1, "status"), "");
    assert!(ec2.answer("other", by_id.as_bytes()).unwrap().1.contains("InvalidSnapshot.NotFound"), "regions are apart");
}

#[test]
fn limits_hold() {
    let (ec2, clock) = standin();
    let create = "Action=CreateSnapshot&VolumeId=vol-1";
    for number in 0..5 {
        clock.store(number * 15, Ordering::Relaxed);
        ec2.in_region("r", |region| region.snapshots.values_mut().for_each(|one| one.takes = Duration::from_secs(600)));
        assert_eq!(ask(&ec2, create).0, 200);
        assert!(ask(&ec2, create).1.contains("SnapshotCreationPerVolumeRateExceeded"));
    }
    clock.store(75, Ordering::Relaxed);
    ec2.in_region("r", |region| region.snapshots.values_mut().for_each(|one| one.takes = Duration::from_secs(600)));
    assert!(ask(&ec2, create).1.contains("ConcurrentSnapshotLimitExceeded"));
    let refused = (0..200).filter(|_| ask(&ec2, create).0 == 503).count();
    assert!((100..=120).contains(&refused), "{refused}");
}

#[test]
fn what_ec2_refuses_is_refused() {
    let (ec2, clock) = standin();
    let cases = [
        ("Action=CreateSnapshot&VolumeId=vol-1&DryRun=true", 412, "DryRunOperation"),
        ("Action=CreateSnapshot&VolumeId=vol-2", 400, "InvalidVolume.NotFound"),
        ("Action=DescribeVolumes&VolumeId.1=vol-2", 400, "InvalidVolume.NotFound"),
        ("Action=CreateVolume&Size=4", 400, "MissingParameter"),
        ("Action=CreateVolume&Size=4&AvailabilityZone=rz", 400, "InvalidZone.NotFound"),
        ("Action=CreateVolume&Size=4&AvailabilityZone=ra&VolumeType=io2", 400, "MissingParameter"),
        ("Action=CreateVolume&Size=4&AvailabilityZone=ra&VolumeType=gp2&Iops=3000", 400, "InvalidParameterCombination"),
        ("Action=CreateVolume&Size=4&AvailabilityZone=ra&VolumeType=gp3&Iops=100", 400, "InvalidParameterValue"),
        ("Action=DescribeSnapshots&MaxResults=2&Owner.1=self", 400, "InvalidParameterValue"),
        ("Action=DeleteSnapshot&SnapshotId=snap-1", 400, "InvalidSnapshot.NotFound"),
        ("Action=RunInstances", 400, "InvalidAction"),
    ];
    for (query, status, code) in cases {
        let (got, text) = ask(&ec2, query);
        assert!(got == status && text.contains(code), "{query}: {got} {text}");
    }
    // of a snapshot only data and encryption are inherited; a token makes one volume
    let id = part(&ask(&ec2, "Action=CreateSnapshot&VolumeId=vol-1").1, "snapshotId").to_owned();
    let create = format!("Action=CreateVolume&SnapshotId={id}&AvailabilityZone=ra&ClientToken=t");
    assert!(ask(&ec2, &create).1.contains("IncorrectState"));
    clock.store(60, Ordering::Relaxed);
    let (first, second) = (ask(&ec2, &create).1, ask(&ec2, &create).1);
    assert_eq!((part(&first, "volumeType"), part(&first, "status")), ("gp2", "creating"));
    assert_eq!(part(&first, "volumeId"), part(&second, "volumeId"));
    assert!(ask(&ec2, &format!("{create}&Size=8")).1.contains("IdempotentParameterMismatch"));
    assert!(
        ask(&ec2, &format!("Action=CreateVolume&SnapshotId={id}&AvailabilityZone=ra&Size=1")).1.contains("smaller")
    );
}

#[test]
fn pages_end() {
    let (ec2, _) = standin();
    (2..13).for_each(|number| ec2.add_volume("r", Volume::gp3(&format!("vol-{number}"), "ra")));
    let (mut seen, mut token) = (0, String::new());
    loop {
        let (_, text) = ask(&ec2, &format!("Action=DescribeVolumes&MaxResults=5{token}"));
        seen += text.matches("<volumeType>").count();
        match part(&text, "nextToken") {
            "" => break,
            next => token = format!("&NextToken={next}"),
        }
    }
    assert_eq!(seen, 12);
}

const OTHER: &str = "222222222222";

#[test]
fn accounts_are_apart_until_a_snapshot_is_shared() {
    let (ec2, clock) = standin();
    let other = |query: &str| ec2.answer_to(OTHER, "r", query.as_bytes()).unwrap();
    let tagged =
        "&TagSpecification.1.ResourceType=snapshot&TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v";
    let id = part(&ask(&ec2, &format!("Action=CreateSnapshot&VolumeId=vol-1{tagged}")).1, "snapshotId").to_owned();
    clock.store(60, Ordering::Relaxed);
    let of_it = |narrowed: &str| {
        let (_, text) =
            other(&format!("Action=DescribeSnapshots&Filter.1.Name=snapshot-id&Filter.1.Value.1={id}{narrowed}"));
        text.contains(&format!("<snapshotId>{id}</snapshotId>"))
    };
    let copy = format!("Action=CopySnapshot&SourceRegion=r&SourceSnapshotId={id}");
    let make = format!("Action=CreateVolume&SnapshotId={id}&AvailabilityZone=ra");
    let share = |what: &str| {
        format!("Action=ModifySnapshotAttribute&SnapshotId={id}&CreateVolumePermission.{what}.1.UserId={OTHER}")
    };
    assert!(!of_it("") && other(&copy).1.contains("InvalidSnapshot.NotFound"));
    assert!(other(&make).1.contains("InvalidSnapshot.NotFound"));
    assert!(other(&share("Add")).1.contains("InvalidSnapshot.NotFound"), "it can't be taken");
    assert!(other("Action=DescribeVolumes&VolumeId.1=vol-1").1.contains("InvalidVolume.NotFound"));
    assert!(other("Action=CreateSnapshot&VolumeId=vol-1").1.contains("InvalidVolume.NotFound"));

    assert_eq!(ask(&ec2, &share("Add")).0, 200);
    assert!(
        of_it("") && of_it("&RestorableBy.1=self") && of_it(&format!("&Owner.1={ACCOUNT}")) && !of_it("&Owner.1=self")
    );
    assert!(!of_it(&format!("&RestorableBy.1={OTHER}")), "only the owner is told of others");
    let (_, seen) = other(&format!("Action=DescribeSnapshots&SnapshotId.1={id}"));
    assert!(!seen.contains("<key>k</key>") && seen.contains(&format!("<ownerId>{ACCOUNT}</ownerId>")), "{seen}");
    assert_eq!((other(&copy).0, other(&make).0), (200, 200));
    for query in [&share("Add"), &format!("Action=DeleteSnapshot&SnapshotId={id}")] {
        assert!(other(query).1.contains("AuthFailure"), "{query}");
    }
    let attribute = format!("Action=DescribeSnapshotAttribute&Attribute=createVolumePermission&SnapshotId={id}");
    assert_eq!(part(&ask(&ec2, &attribute).1, "userId"), OTHER);
    assert_eq!(ask(&ec2, &share("Remove")).0, 200);
    assert!(!of_it("") && part(&ask(&ec2, &attribute).1, "userId").is_empty());
    let both = format!("{}&CreateVolumePermission.Remove.1.UserId={OTHER}", share("Add"));
    assert!(ask(&ec2, &both).1.contains("InvalidParameterCombination"));
}

#[test]
fn an_encrypted_snapshot_is_shared_with_its_key_or_not_at_all() {
    let (ec2, clock) = standin();
    let customers = format!("arn:aws:kms:r:{ACCOUNT}:key/1");
    let ids = [default_key("r", ACCOUNT), customers.clone()].map(|key| {
        ec2.in_region("r", |region| {
            region.volumes.get_mut("vol-1").unwrap().kms = Some(key);
            region.last_snapshot.clear();
        });
        part(&ask(&ec2, "Action=CreateSnapshot&VolumeId=vol-1").1, "snapshotId").to_owned()
    });
    clock.store(60, Ordering::Relaxed);
    let share = |id: &str| {
        ask(
            &ec2,
            &format!("Action=ModifySnapshotAttribute&SnapshotId={id}&CreateVolumePermission.Add.1.UserId={OTHER}"),
        )
    };
    assert!(share(&ids[0]).1.contains("<Code>OperationNotPermitted</Code>"));
    assert_eq!(share(&ids[1]).0, 200);
    let copied = |at: u64| {
        let copy = format!("Action=CopySnapshot&SourceRegion=r&SourceSnapshotId={}", ids[1]);
        let copied = part(&ec2.answer_to(OTHER, "r", copy.as_bytes()).unwrap().1, "snapshotId").to_owned();
        clock.store(at, Ordering::Relaxed);
        let seen = format!("Action=DescribeSnapshots&SnapshotId.1={copied}");
        ec2.answer_to(OTHER, "r", seen.as_bytes()).unwrap().1
    };
    let refused = copied(120);
    assert_eq!(
        (part(&refused, "status"), part(&refused, "statusMessage")),
        ("error", "Given key ID is not accessible")
    );
    ec2.in_region("r", |region| region.key_users.entry(customers).or_default().insert(OTHER.to_owned()));
    let made = copied(180);
    assert_eq!((part(&made, "status"), part(&made, "kmsKeyId")), ("completed", &*default_key("r", OTHER)));
}
