//! Frames as a control plane reads them from anybody who dials in, and what its handshake makes of them.
#![no_main]

use ids::{FleetId, TlsExporter};
use prost::Message as _;
use session::{control::Handshake, frames::AgentFrame};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(frame) = wire::v1::AgentFrame::decode(bytes) else { return };
    let Ok(frame) = AgentFrame::try_from(frame) else { return };
    let again = wire::v1::AgentFrame::from(frame.clone());
    assert!(AgentFrame::try_from(again).is_ok_and(|again| again == frame), "what is read can be sent on");
    // The fleet of the samples, so that a hello gets as far as it can.
    let mut handshake = Handshake::new(FleetId::from_bytes([1; 16]), TlsExporter([10; 32]));
    let _ = handshake.receive(frame.clone());
    let _ = handshake.receive(frame);
});
