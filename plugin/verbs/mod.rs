//! One file per verb: its arguments, the task they mean, and how its result looks.

pub(crate) mod backup;
pub(crate) mod copy;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod restore;
pub(crate) mod show;
pub(crate) mod undo;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod volumes;
pub(crate) mod worker;
