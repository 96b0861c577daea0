//! Least rights: `manifests/iam` is all that a backup and a restore of volumes need of EC2, and each statement is needed.

use crate::restore::{restored_all, usable};
use crate::standin::{Fault, Volume};
use crate::world::{MACHINE, REGION, World};
use kubectl_backup::rules::volumes::import::Import;
use kubectl_backup::volumes::restore::Way;
use serde_json::{Value, json};

pub(crate) fn policy(file: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/iam").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let values = [
        ("${PARTITION}", "aws"),
        ("${BUCKET}", "b"),
        ("${PREFIX}", ""),
        ("${SOURCE_ACCOUNT}", crate::standin::ACCOUNT),
    ];
    let text = values.iter().fold(text, |text, (name, value)| text.replace(name, value));
    serde_json::from_str(&text).unwrap()
}

/// The policy without one of its statements.
pub(crate) fn without(policy: &Value, sid: &str) -> Value {
    let mut less = policy.clone();
    let statements = less["Statement"].as_array_mut().unwrap();
    let before = statements.len();
    statements.retain(|statement| statement["Sid"] != sid);
    assert_eq!(statements.len() + 1, before, "{sid}");
    less
}

/// Both policies on one role.
pub(crate) fn and(mut policy: Value, other: &Value) -> Value {
    let more = other["Statement"].as_array().unwrap().clone();
    policy["Statement"].as_array_mut().unwrap().extend(more);
    policy
}

/// The names of the statements about EC2.
pub(crate) fn of_ec2(policy: &Value) -> Vec<String> {
    let about = |statement: &&Value| statement["Action"].to_string().contains("ec2:");
    let sid = |statement: &Value| statement["Sid"].as_str().unwrap().to_owned();
    policy["Statement"].as_array().unwrap().iter().filter(about).map(sid).collect()
}

fn volume(id: &str) -> Volume {
    let mut volume = Volume::gp3(id, "eu-central-1a");
    volume.tags.insert("ebs.csi.aws.com/cluster".into(), "true".into());
    volume
}

/// Two volumes on one machine and one elsewhere, and an answer that gets lost.
async fn backup(policy: &Value) -> (World, Vec<String>) {
    let mut world = World::new();
    world.ebs_claim("db-0", volume("vol-01").attached_to(MACHINE, "/dev/xvdb"));
    world.ebs_claim("db-1", volume("vol-02").attached_to(MACHINE, "/dev/xvdc"));
    world.ebs_claim("idle", volume("vol-03"));
    // one too many, of an earlier try, that EC2 lists late
    let body = "Action=CreateSnapshot&VolumeId=vol-03&TagSpecification.1.ResourceType=snapshot\
                &TagSpecification.1.Tag.1.Key=kubectl-backup%2Fid&TagSpecification.1.Tag.1.Value=shop-20261120-100000-k3fa\
                &TagSpecification.1.Tag.2.Key=kubectl-backup%2Fmanaged&TagSpecification.1.Tag.2.Value=true";
    world.ec2.answer(REGION, body.as_bytes());
    world.ec2.in_region(REGION, |region| region.last_snapshot.clear());
    world.ec2.enforce(policy.clone());
    let ended = world.backup("a1").await;
    let mut refused: Vec<String> = ended.problems.iter().map(|problem| problem.message.clone()).collect();
    for action in ["DescribeInstances", "CreateSnapshots", "DeleteSnapshot"] {
        let calls = world.ec2.calls(action);
        refused.extend(
            calls.iter().filter_map(|call| call.refused.clone()).filter(|code| code == "UnauthorizedOperation"),
        );
    }
    (world, refused)
}

#[tokio::test(start_paused = true)]
async fn a_backup_needs_its_policy_and_all_of_it() {
    let policy = policy("backup-policy.json");
    let (world, refused) = backup(&policy).await;
    assert_eq!(refused, [""; 0]);
    assert_eq!(world.ec2.snapshots(REGION).len(), 3, "the one too many was removed");
    let statements = of_ec2(&policy);
    assert_eq!(statements.len(), 6);
    for sid in statements {
        let (_, refused) = backup(&without(&policy, &sid)).await;
        assert!(!refused.is_empty(), "{sid} is not needed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_needs_its_policy_and_all_of_it() {
    let policy = policy("restore-policy.json");
    for sid in std::iter::once(None).chain(of_ec2(&policy).into_iter().map(Some)) {
        let (world, refused) = backup(&self::policy("backup-policy.json")).await;
        assert_eq!(refused, [""; 0]);
        let copies = world.backup("a2").await.copies;
        world.ec2.enforce(sid.as_ref().map_or_else(|| policy.clone(), |sid| without(&policy, sid)));
        // the second volume can't be made, and so the first one goes again
        let before = world.ec2.volumes(REGION).len();
        world.ec2.fault("CreateVolume", 1, Fault::Refuse { status: 400, code: "VolumeLimitExceeded", message: "" });
        let failed = restored_all("restore-20261120-110000-aaaa", &world, &copies).await.unwrap_err().to_string();
        let (failed_well, none_left) =
            (failed.contains("VolumeLimitExceeded"), world.ec2.volumes(REGION).len() == before);
        let whole = restored_all("restore-20261120-120000-bbbb", &world, &copies).await;
        match sid {
            None => assert!(failed_well && none_left && whole.is_ok(), "{failed} {whole:?}"),
            Some(sid) => assert!(!failed_well || !none_left || whole.is_err(), "{sid} is not needed"),
        }
    }
}

/// What `AmazonEBSCSIDriverPolicyV2` says of making volumes (AWS Managed Policy Reference, v1).
fn of_driver() -> Value {
    let statement = |resource: &str, condition: Value| json!({"Effect": "Allow", "Action": "ec2:CreateVolume", "Resource": resource, "Condition": {"StringEquals": condition}});
    let tags = json!({"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "arn:aws:ec2:*:*:volume/*",
        "Condition": {"StringEquals": {"ec2:CreateAction": "CreateVolume"}}});
    json!({"Statement": [
        statement("arn:aws:ec2:*:*:volume/*", json!({"aws:RequestTag/ebs.csi.aws.com/cluster": "true"})),
        statement("arn:aws:ec2:*:*:snapshot/*", json!({"ec2:ResourceTag/ebs.csi.aws.com/cluster": "true"})),
        tags,
    ]})
}

#[tokio::test(start_paused = true)]
async fn an_import_needs_to_see_snapshots_and_the_driver_to_use_them() {
    let (world, _) = backup(&policy("backup-policy.json")).await;
    let copies = world.backup("a2").await.copies;
    world.ec2.enforce(json!({"Statement": [{"Effect": "Allow", "Action": "ec2:DescribeSnapshots", "Resource": "*"}]}));
    let import = Import { driver: "ebs.csi.aws.com".into(), class: "gp3".into(), mode: "Filesystem".into() };
    assert_eq!(usable(&world, &copies, &Way::Filled(import)).await.unwrap(), 3);
    let made = usable(&world, &copies, &Way::Made(String::new())).await.unwrap_err().to_string();
    assert!(made.contains("ec2:DescribeAvailabilityZones"), "{made}");
    // the driver, by its own policy, may use no snapshot of ours: none has the tag by which it could delete it
    let query = format!(
        "Action=CreateVolume&SnapshotId={}&AvailabilityZone=eu-central-1a&VolumeType=gp3&TagSpecification.1.ResourceType=volume\
         &TagSpecification.1.Tag.1.Key=ebs.csi.aws.com%2Fcluster&TagSpecification.1.Tag.1.Value=true",
        copies[0].snapshot.id
    );
    let refused = || world.ec2.answer(REGION, query.as_bytes()).unwrap().1.contains("UnauthorizedOperation");
    world.ec2.enforce(of_driver());
    assert!(refused());
    world.ec2.enforce(and(of_driver(), &policy("driver-policy.json")));
    assert!(!refused());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ours_is_out_of_reach() {
    let (world, _) = backup(&policy("backup-policy.json")).await;
    let mut foreign = Volume::gp3("vol-0f", "eu-central-1a");
    foreign.tags.insert("Name".into(), "payroll".into());
    world.ec2.add_volume(REGION, foreign);
    let marked = "&TagSpecification.1.ResourceType=snapshot&TagSpecification.1.Tag.1.Key=kubectl-backup%2Fmanaged&TagSpecification.1.Tag.1.Value=true";
    world.ec2.in_region(REGION, |region| {
        let mut foreign = region.snapshots.values().next().unwrap().clone();
        foreign.id = "snap-0f".into();
        foreign.tags.clear();
        region.snapshots.insert(foreign.id.clone(), foreign);
        region.last_snapshot.clear();
    });
    let answer = |query: &str| world.ec2.answer(REGION, query.as_bytes()).unwrap().1;
    let refused = |query: &str| answer(query).contains("UnauthorizedOperation");
    assert!(refused(&format!("Action=CreateSnapshot&VolumeId=vol-0f{marked}")), "another application's volume");
    assert!(refused("Action=CreateSnapshot&VolumeId=vol-03"), "a snapshot without our mark");
    assert!(refused("Action=DeleteSnapshot&SnapshotId=snap-0f"), "somebody else's snapshot");
    assert!(
        refused("Action=CreateTags&ResourceId.1=snap-0f&Tag.1.Key=kubectl-backup%2Fmanaged&Tag.1.Value=true"),
        "marking it"
    );
    assert!(refused("Action=DeleteVolume&VolumeId=vol-03"), "a volume");
    world.ec2.enforce(policy("restore-policy.json"));
    assert!(refused("Action=CreateVolume&SnapshotId=snap-0f&AvailabilityZone=eu-central-1a"), "somebody else's data");
    assert!(refused("Action=DeleteVolume&VolumeId=vol-03"), "a volume that no restore has made");
}
