//! An export of the audit log, as an auditor gets it from anybody.
#![no_main]

use envelope::{
    SigningKey,
    audit_verify::{AuditExport, verify_export},
    keys::role::Root,
};
use serverflow_fuzz::SEED;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(export) = serde_json::from_slice::<AuditExport>(bytes) {
        let _ = verify_export(&export, SigningKey::<Root>::from_seed(&SEED).public());
    }
});
