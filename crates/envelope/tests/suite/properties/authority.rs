//! Messages that carry authority beyond one command.

use envelope::{limits, messages::*};
use ids::*;
use proptest::{collection::vec, prelude::*};

use super::{challenge, exporter, id, last_report, public, round_trip, sealing, sha, time};
use crate::samples::key;

fn sealed_refs() -> impl Strategy<Value = Vec<SealedRef>> {
    let names = proptest::collection::btree_map("[a-z]{1,12}/[A-Z_]{1,12}", sha(), 0..5);
    names.prop_map(|names| names.into_iter().map(|(name, sha256)| SealedRef { name, sha256 }).collect())
}
fn approval() -> impl Strategy<Value = Approval> {
    let life = 1..=limits::APPROVAL_LIFETIME_MAX.0;
    let when = (0..1u64 << 60, life);
    (id(), id(), any::<u64>(), id(), any::<u32>(), sha(), sealed_refs(), sha(), any::<bool>(), when).prop_map(
        |(fleet, host, epoch, operation, version, parameters, sealed, plan, bind_plan, (at, life))| Approval {
            fleet,
            host,
            host_epoch: HostEpoch(epoch),
            operation,
            action: "app.remove".parse().expect("an action name"),
            action_version: version,
            parameters_sha256: parameters,
            sealed,
            plan_sha256: plan,
            bind_plan,
            approved_at: UnixMs(at),
            expires: UnixMs(at + life),
        },
    )
}
fn standing() -> impl Strategy<Value = Standing> {
    let texts = ("[ -~]{1,40}", "[A-Z][a-z]{1,8}/[A-Z][a-z]{1,8}", "[ -~]{0,60}");
    (id(), id(), id(), id(), any::<u32>(), sha(), sealed_refs(), texts, 0..=limits::ALONE_FOR_MAX.0).prop_map(
        |(fleet, host, order, operation, version, schema_sha256, sealed, (schedule, zone, parameters), alone)| {
            Standing {
                fleet,
                host,
                order,
                operation,
                action: "app.restart".parse().expect("an action name"),
                action_version: version,
                schema_sha256,
                parameters: parameters.into_bytes(),
                sealed,
                schedule,
                zone,
                valid_until: UnixMs(0),
                alone_for: DurationMs(alone),
            }
        },
    )
}
fn standing_order() -> impl Strategy<Value = StandingOrder> {
    let when = (0..1u64 << 60, 1..=limits::STANDING_LIFETIME_MAX.0);
    (standing(), any::<u64>(), any::<u64>(), 1..=u64::MAX, when).prop_map(
        |(standing, host_epoch, epoch, revision, (issued, life))| StandingOrder {
            standing: Standing { valid_until: UnixMs(issued + life), ..standing },
            host_epoch: HostEpoch(host_epoch),
            epoch: Epoch(epoch),
            revision: Revision(revision),
            issued: UnixMs(issued),
        },
    )
}
fn guard_reset() -> impl Strategy<Value = GuardReset> {
    (id(), id(), any::<u64>(), id(), 2..=u64::MAX, any::<u64>(), last_report(), time()).prop_map(
        |(fleet, host, epoch, quarantine, host_epoch, high, last_report, time)| GuardReset {
            fleet,
            host,
            epoch: Epoch(epoch),
            quarantine,
            host_epoch: HostEpoch(host_epoch),
            high: Sequence(high),
            last_report,
            time,
        },
    )
}
fn key_offer() -> impl Strategy<Value = KeyOffer> {
    (id(), id(), 2..=u64::MAX, public(), sealing(), challenge(), exporter()).prop_filter_map(
        "two keys",
        |(fleet, host, host_epoch, old_identity_key, sealing_key, control_nonce, exporter)| {
            let identity_key = key::<envelope::keys::role::Agent>().public();
            (identity_key != old_identity_key).then_some(KeyOffer {
                identity_key,
                fleet,
                host,
                host_epoch: HostEpoch(host_epoch),
                old_identity_key,
                sealing_key,
                control_nonce,
                exporter,
            })
        },
    )
}
fn key_rotation() -> impl Strategy<Value = KeyRotation> {
    let offer = vec(any::<u8>(), 0..limits::SELF_SIGNED_BYTES_MAX);
    (id(), id(), offer).prop_map(|(fleet, host, offer)| KeyRotation { fleet, host, offer })
}
fn key_receipt() -> impl Strategy<Value = KeyReceipt> {
    (id(), id(), 2..=u64::MAX, public(), sealing(), sha(), time()).prop_map(
        |(fleet, host, host_epoch, identity_key, sealing_key, rotation_sha256, time)| KeyReceipt {
            fleet,
            host,
            host_epoch: HostEpoch(host_epoch),
            identity_key,
            sealing_key,
            rotation_sha256,
            time,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn approval_round_trips(value in approval()) { round_trip(&value)?; }
    #[test]
    fn standing_order_round_trips(value in standing_order()) { round_trip(&value)?; }
    #[test]
    fn guard_reset_round_trips(value in guard_reset()) { round_trip(&value)?; }
    #[test]
    fn key_offer_round_trips(value in key_offer()) { round_trip(&value)?; }
    #[test]
    fn key_rotation_round_trips(value in key_rotation()) { round_trip(&value)?; }
    #[test]
    fn key_receipt_round_trips(value in key_receipt()) { round_trip(&value)?; }
}
