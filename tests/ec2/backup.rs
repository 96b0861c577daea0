//! What becomes of each claim.

use crate::standin::Volume;
use crate::world::{MACHINE, REGION, World, at, volumes_kind};
use kubectl_backup::id::Attempt;
use kubectl_backup::report::Events;
use kubectl_backup::rules::volumes::Policy;
use kubectl_backup::volumes::record::State;
use kubectl_backup::volumes::snapshot::Snapshots;
use serde_json::json;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_volume_is_saved_with_all_that_makes_it_what_it_is() {
    let mut world = World::new();
    let mut volume = Volume::gp3("vol-0aa", "eu-central-1b");
    (volume.iops, volume.throughput, volume.gib) = (Some(6000), Some(500), 20);
    volume.kms = Some("arn:aws:kms:eu-central-1:123456789012:key/k1".into());
    volume.tags.insert("ebs.csi.aws.com/cluster".into(), "true".into());
    volume.tags.insert("kubernetes.io/cluster/prod".into(), "owned".into());
    volume.tags.insert("cost-center".into(), "7".into());
    world.ebs_claim("data", volume);
    let ended = world.backup("a1").await;
    assert!(ended.problems.is_empty() && ended.omissions.is_empty(), "{ended:?}");
    let copy = serde_json::to_value(&ended.copies[0]).unwrap();
    let id = copy["snapshot"]["id"].clone();
    assert_eq!(
        copy,
        json!({
            "namespace": "shop", "claim": "data", "volume": "pv-data", "method": "ebs-snapshot",
            "source": {
                "id": "vol-0aa", "type": "gp3", "gib": 20, "iops": 6000, "throughput": 500,
                "kmsKeyId": "arn:aws:kms:eu-central-1:123456789012:key/k1", "zone": "eu-central-1b", "zoneId": "ec1-az2",
                "multiAttach": false,
                "driverTags": {"ebs.csi.aws.com/cluster": "true", "kubernetes.io/cluster/prod": "owned"}
            },
            "snapshot": {
                "id": id, "region": REGION, "state": "completed", "startedAt": "2026-11-20T10:00:00Z",
                "fullBytes": 20u64 << 29, "account": "123456789012"
            }
        })
    );
    let snapshot = &world.ec2.snapshots(REGION)[0];
    let tags = json!({
        "kubectl-backup/id": "shop-20261120-100000-k3fa", "kubectl-backup/volume": "vol-0aa",
        "kubectl-backup/cluster": "cluster-uid", "kubectl-backup/managed": "true", "kubectl-backup/attempt": "a1",
        "kubectl-backup/location": "s3://bucket/prefix", "kubectl-backup/claim": "shop/data"
    });
    assert_eq!(serde_json::to_value(&snapshot.tags).unwrap(), tags, "and no tag that lets a CSI driver delete it");
}

#[tokio::test(start_paused = true)]
async fn volumes_on_one_machine_are_taken_at_one_instant_and_no_other_volume_with_them() {
    let mut world = World::new();
    world.ebs_claim("db-0", Volume::gp3("vol-01", "eu-central-1a").attached_to(MACHINE, "/dev/xvdb"));
    world.ebs_claim("db-1", Volume::gp3("vol-02", "eu-central-1a").attached_to(MACHINE, "/dev/xvdc"));
    world.ebs_claim("idle", Volume::gp3("vol-03", "eu-central-1a"));
    world.ec2.add_volume(REGION, Volume::gp3("vol-0e", "eu-central-1a").attached_to(MACHINE, "/dev/xvdd"));
    let ended = world.backup("a1").await;
    assert!(ended.problems.is_empty(), "{ended:?}");
    let on: Vec<_> = ended.copies.iter().map(|copy| copy.snapshot.together_on.as_deref()).collect();
    assert_eq!(on, [Some(MACHINE), Some(MACHINE), None]);
    let calls = world.ec2.calls("CreateSnapshots");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].query.list("InstanceSpecification.ExcludeDataVolumeId"), ["vol-0e"]);
    assert_eq!(world.ec2.calls("CreateSnapshot").len(), 1);
    let mut volumes: Vec<String> = world.ec2.snapshots(REGION).into_iter().map(|snapshot| snapshot.volume).collect();
    volumes.sort();
    assert_eq!(volumes, ["vol-01", "vol-02", "vol-03"], "neither the boot volume nor another application's");
}

#[tokio::test(start_paused = true)]
async fn with_more_than_40_other_volumes_on_the_machine_each_is_taken_by_itself() {
    let mut world = World::new();
    world.ebs_claim("db-0", Volume::gp3("vol-01", "eu-central-1a").attached_to(MACHINE, "/dev/xvdb"));
    world.ebs_claim("db-1", Volume::gp3("vol-02", "eu-central-1a").attached_to(MACHINE, "/dev/xvdc"));
    for number in 0..41 {
        let other = Volume::gp3(&format!("vol-0e{number}"), "eu-central-1a");
        world.ec2.add_volume(REGION, other.attached_to(MACHINE, &format!("/dev/x{number}")));
    }
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (2, 0), "{ended:?}");
    assert_eq!((world.ec2.calls("CreateSnapshots").len(), world.ec2.calls("CreateSnapshot").len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn chosen_tags_of_volumes_go_on_their_snapshots_and_never_those_of_a_driver() {
    let mut world = World::new();
    let tagged = |id: &str, cost: &str| {
        let mut volume = Volume::gp3(id, "eu-central-1a");
        let tags = [
            ("cost-center", cost),
            ("team", "shop"),
            ("Name", id),
            ("ebs.csi.aws.com/cluster", "true"),
            ("CSIVolumeName", id),
        ];
        volume.tags.extend(tags.map(|(key, value)| (key.to_owned(), value.to_owned())));
        volume
    };
    world.ebs_claim("db-0", tagged("vol-01", "1").attached_to(MACHINE, "/dev/xvdb"));
    world.ebs_claim("db-1", tagged("vol-02", "2").attached_to(MACHINE, "/dev/xvdc"));
    world.ebs_claim("idle", tagged("vol-03", "3"));
    world.options.policy = serde_json::from_value(json!({"snapshotTags": ["cost-*", "team", "*c*"]})).unwrap();
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (3, 0), "{ended:?}");
    for snapshot in world.ec2.snapshots(REGION) {
        let tag = |key: &str| snapshot.tags.get(key).map(String::as_str);
        let alone = snapshot.volume == "vol-03";
        // one set of tags for those that are taken together: what is the same on all
        assert_eq!((tag("team"), tag("cost-center")), (Some("shop"), alone.then_some("3")), "{snapshot:?}");
        assert_eq!((tag("Name"), tag("ebs.csi.aws.com/cluster"), tag("CSIVolumeName")), (None, None, None));
        assert_eq!(tag("kubectl-backup/managed"), Some("true"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_saved_is_a_problem_that_says_why_and_what_a_policy_leaves_out_is_an_omission() {
    let mut world = World::new();
    world.claim("host", json!({"hostPath": {"path": "/x"}}));
    world.claim("gone", json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0dead"}}));
    world.ebs_claim("cache", Volume::gp3("vol-0c", "eu-central-1a"));
    world.ebs_claim("data", Volume::gp3("vol-0d", "eu-central-1a"));
    world.options.policy =
        serde_json::from_value::<Policy>(json!({"rules": [{"claim": ["shop/cache"], "action": "skip"}]})).unwrap();
    let ended = world.backup("a1").await;
    let told: Vec<String> =
        ended.problems.iter().map(|problem| format!("{}: {}", problem.subject, problem.message)).collect();
    assert_eq!(
        told,
        [
            "persistentvolumeclaims shop/host: the data on its volume is not saved: no method of this version saves a \
             `hostPath` volume; `--volumes=skip` says that it is meant",
            "persistentvolumeclaims shop/gone: the data on its volume is not saved: volume `vol-0dead` is not in region \
             `eu-central-1`; `--volumes=skip` says that it is meant",
        ]
    );
    assert_eq!(ended.omissions[0].subject, "persistentvolumeclaims shop/cache");
    assert_eq!(ended.copies.iter().map(|copy| copy.claim.as_str()).collect::<Vec<_>>(), ["data"]);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_ends_in_error_is_a_problem_with_ec2s_reason() {
    let mut world = World::new();
    let mut broken = Volume::gp3("vol-0bad", "eu-central-1a");
    broken.breaks_snapshots = Some("Given key ID is not accessible".into());
    world.ebs_claim("bad", broken);
    world.ebs_claim("good", Volume::gp3("vol-0ff", "eu-central-1a"));
    let ended = world.backup("a1").await;
    let states: Vec<_> = ended.copies.iter().map(|copy| copy.snapshot.state).collect();
    assert_eq!(states, [State::Error, State::Completed]);
    assert_eq!(ended.problems.len(), 1, "{ended:?}");
    assert!(ended.problems[0].message.ends_with("ended in error: Given key ID is not accessible"), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_gets_pending_snapshots_and_who_waits_too_long_a_problem() {
    let mut world = World::new();
    world.ebs_claim("data", Volume::gp3("vol-0aa", "eu-central-1a"));
    world.options.wait = false;
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies[0].snapshot.state, ended.problems.len()), (State::Pending, 0));
    assert!(world.elapsed() < Duration::from_secs(2));

    let mut world = World::new();
    world.ebs_claim("data", Volume::gp3("vol-0aa", "eu-central-1a"));
    world.options.timeout_seconds = 30;
    let ended = world.backup("a1").await;
    assert!(ended.problems[0].message.contains("is still pending (37%) after 30 s"), "{ended:?}");
    assert!(world.elapsed() < Duration::from_secs(40), "{:?}", world.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_skew_is_that_of_the_snapshot_furthest_from_the_objects() {
    let mut world = World::new();
    world.ebs_claim("data", Volume::gp3("vol-0aa", "eu-central-1a"));
    let (attempt, kind, events) = (Attempt::parse("a1").unwrap(), volumes_kind(), Events::ignored());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut snapshots = Snapshots::new(world.asked(&attempt, &kind, &events)).with_client(world.client());
    snapshots.start(world.listed()).await;
    assert!((snapshots.skew(at(Duration::ZERO)) - 4.0).abs() < 1.0, "{}", snapshots.skew(at(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_frozen_is_saved_and_said_and_one_that_nobody_mounts_is_fine() {
    let mut world = World::new();
    world.ebs_claim("data", Volume::gp3("vol-0aa", "eu-central-1a"));
    world.ebs_claim("idle", Volume::gp3("vol-0bb", "eu-central-1a"));
    world.options.freeze = true;
    let pod = |privileged: bool| {
        let container = json!({"name": "db", "securityContext": {"privileged": privileged},
                               "volumeMounts": [{"name": "d", "mountPath": "/data"}]});
        let spec = json!({"containers": [container],
                          "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]});
        let pod =
            json!({"metadata": {"namespace": "shop", "name": "db-0"}, "status": {"phase": "Running"}, "spec": spec});
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod]})
    };
    world.put("/api/v1/namespaces/shop/pods", pod(false));
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (2, 1), "{ended:?}");
    assert_eq!(ended.problems[0].subject, "persistentvolumeclaims shop/data");
    assert!(
        ended.problems[0].message.contains("no container of pod `shop/db-0` that mounts it may freeze it"),
        "{ended:?}"
    );

    world.put("/api/v1/namespaces/shop/pods", pod(true));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "status": {"allowed": false}});
    world.put("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review);
    let ended = world.backup("a2").await;
    let said = &ended.problems[0].message;
    assert!(
        said.contains("not allowed; `kubectl backup init --hooks --install-namespace kubectl-backup` grants it"),
        "{said}"
    );
    assert!(ended.copies.iter().all(|copy| !copy.snapshot.frozen), "{ended:?}");
}
