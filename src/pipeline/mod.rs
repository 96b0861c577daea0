//! Where cluster, archive and store are joined by bounded channels: [`save`] (list, cut, frame, upload, commit),
//! [`fetch`] (find a backup, verify its frames, read its objects), [`plan`] and [`apply`] (compare with the target,
//! write wave by wave). Knows nothing of Jobs, flags and terminals.

pub mod apply;
pub mod catalog;
pub mod cut;
pub mod fetch;
pub mod plan;
pub mod save;
mod source;
mod upload;
