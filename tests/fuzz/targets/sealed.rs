//! Sealed values, as they travel beside an order.
#![no_main]

use envelope::seal::{SealContext, SealingSecretKey};
use ids::{FleetId, HostId, OperationId};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let context = SealContext {
        fleet: FleetId::from_bytes([1; 16]),
        host: HostId::from_bytes([2; 16]),
        app: "shop",
        name: "web/environment/PASSWORD",
        version: OperationId::from_bytes([3; 16]),
    };
    // Nobody seals by chance.
    assert!(SealingSecretKey::from_bytes(&[7; 32]).open(&context, bytes).is_err());
});
