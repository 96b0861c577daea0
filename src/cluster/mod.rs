//! (being written)
pub mod exec;
