//! placeholder
pub mod frames;
