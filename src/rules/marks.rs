//! The marks of what is ours, by which it is found again: labels and annotations of objects, tags of snapshots and volumes.

/// The run that something was made for: on its Job, pods, ConfigMap and binding, and on the snapshots of a backup.
pub const ID: &str = "kubectl-backup/id";
/// `true` on snapshots and volumes, and on the objects that make a snapshot known to a cluster.
pub const MANAGED: &str = "kubectl-backup/managed";
/// The claim's namespace and name: on snapshots that were made one by one, and on the objects that make one known.
pub const CLAIM: &str = "kubectl-backup/claim";
