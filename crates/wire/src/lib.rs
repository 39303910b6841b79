//! The stream between agent and control plane: frames generated from `proto/`, and the checked
//! conversions from and to the values of `session`. Nothing else sees a protobuf frame.
//!
//! Signed content passes through as the bytes of an envelope; it is opened, and judged, by the
//! machine that receives it.

#[cfg(any(feature = "client", feature = "server"))]
mod codec;
mod convert;
pub mod limits;
mod roots;

/// Generated code: frames, and (by feature) the tonic client and server.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        reason = "generated from proto/serverflow/agent/v1/agent.proto"
    )]
    tonic::include_proto!("serverflow.agent.v1");
}

pub use convert::FrameError;
