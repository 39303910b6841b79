//! Frames as an agent reads them.
#![no_main]

use prost::Message as _;
use session::frames::ControlFrame;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(frame) = wire::v1::ControlFrame::decode(bytes) else { return };
    let Ok(frame) = ControlFrame::try_from(frame) else { return };
    let again = wire::v1::ControlFrame::from(frame.clone());
    assert!(ControlFrame::try_from(again).is_ok_and(|again| again == frame), "what is read can be sent on");
});
