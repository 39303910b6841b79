//! The generated protobuf types. They never leave this room.

#![allow(clippy::all, unreachable_pub, missing_docs)]

include!(concat!(env!("OUT_DIR"), "/serverflow.signed.v1.rs"));
