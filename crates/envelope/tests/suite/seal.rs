//! Sealed values: open where they belong, nowhere else.

use std::convert::Infallible;

use data_encoding::HEXLOWER;
use envelope::{
    limits,
    messages::{SealedRef, SealedValue, SealingKeyBytes},
    seal::{SealContext, SealError, SealingSecretKey, check_sealed_values, seal},
};
use hpke::rand_core::{TryCryptoRng, TryRng};
use ids::sha256;

use crate::samples::{command, id};

/// Bytes anyone can predict: for tests only.
pub(crate) struct CountingRng(pub(crate) u64);

impl TryRng for CountingRng {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|n| n as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(32) {
            self.0 += 1;
            chunk.copy_from_slice(&sha256(&self.0.to_be_bytes()).0[..chunk.len()]);
        }
        Ok(())
    }
}
impl TryCryptoRng for CountingRng {}

const CONTEXT: fn() -> SealContext<'static> =
    || SealContext { fleet: id(1), host: id(2), app: "shop", name: "db/PASSWORD", version: id(3) };

fn host() -> SealingSecretKey {
    SealingSecretKey::from_bytes(&[77; 32])
}

#[test]
fn a_value_opens_where_it_belongs_and_keeps_its_bytes() {
    let sealed = seal(&host().public(), &CONTEXT(), b"hunter2", &mut CountingRng(0)).expect("seals");
    assert_eq!(sealed.len(), 7 + limits::SEAL_OVERHEAD_BYTES);
    // Values sealed by an earlier version must stay readable.
    assert_eq!(
        HEXLOWER.encode(&sealed),
        "979b279888ff83acd62829287b10344c6a8cd26430a3e179c71dc120a9ed2a48e427d11497417ec1dc3db8116f1a2c7d920db13841a1d8"
    );
    assert_eq!(host().open(&CONTEXT(), &sealed).expect("opens").as_slice(), b"hunter2");
    let reread = SealingSecretKey::from_bytes(&host().to_bytes());
    assert_eq!(reread.open(&CONTEXT(), &sealed).expect("opens").as_slice(), b"hunter2");
    let again = seal(&host().public(), &CONTEXT(), b"hunter2", &mut CountingRng(9)).expect("seals");
    assert_ne!(sealed, again, "equal values must not look equal");
}

#[test]
fn a_moved_value_does_not_open() {
    let sealed = seal(&host().public(), &CONTEXT(), b"hunter2", &mut CountingRng(0)).expect("seals");
    assert!(host().open(&CONTEXT(), &sealed).is_ok());
    let moved = [
        SealContext { fleet: id(9), ..CONTEXT() },
        SealContext { host: id(9), ..CONTEXT() },
        SealContext { version: id(9), ..CONTEXT() },
        SealContext { app: "shop2", ..CONTEXT() },
        SealContext { name: "web/PASSWORD", ..CONTEXT() },
        // The same letters, cut elsewhere; the same ids, swapped.
        SealContext { app: "shopdb", name: "/PASSWORD", ..CONTEXT() },
        SealContext { fleet: id(2), host: id(1), ..CONTEXT() },
        SealContext { app: "db/PASSWORD", name: "shop", ..CONTEXT() },
    ];
    for context in moved {
        let refused = host().open(&context, &sealed).map(|value| value.to_vec());
        assert_eq!(refused, Err(SealError::Open { name: context.name.into() }), "{context:?}");
    }
    let other_host = SealingSecretKey::from_bytes(&[78; 32]);
    assert!(other_host.open(&CONTEXT(), &sealed).is_err());
}

#[test]
fn a_changed_value_does_not_open() {
    let sealed = seal(&host().public(), &CONTEXT(), b"hunter2", &mut CountingRng(0)).expect("seals");
    assert!(host().open(&CONTEXT(), &sealed).is_ok());
    for at in 0..sealed.len() {
        // The highest bit of an X25519 point is ignored (RFC 7748 section 5), but HPKE binds the
        // encapsulated key's bytes into its key schedule, so even that is refused.
        for mask in [0x01, 0x80] {
            let mut changed = sealed.clone();
            changed[at] ^= mask;
            assert!(host().open(&CONTEXT(), &changed).is_err(), "byte {at} ^ {mask:#x}");
        }
        assert!(host().open(&CONTEXT(), &sealed[..at]).is_err(), "cut to {at}");
    }
}

#[test]
fn limits_and_keys_are_checked() {
    let seal_as = |context: &SealContext<'_>, value: &[u8]| seal(&host().public(), context, value, &mut CountingRng(0));
    let longest = vec![b'x'; limits::SECRET_BYTES_MAX];
    let sealed = seal_as(&CONTEXT(), &longest).expect("the longest seals");
    assert_eq!(host().open(&CONTEXT(), &sealed).expect("and opens").as_slice(), longest);
    assert!(matches!(seal_as(&CONTEXT(), &[longest, vec![0]].concat()), Err(SealError::TooLong { .. })));
    assert!(seal_as(&CONTEXT(), b"").is_ok(), "an empty value is a value");
    for context in [SealContext { app: "", ..CONTEXT() }, SealContext { name: "", ..CONTEXT() }] {
        assert!(matches!(seal_as(&context, b""), Err(SealError::Name { .. })));
    }
    let name = "n".repeat(limits::SEALED_NAME_BYTES_MAX + 1);
    assert!(seal_as(&SealContext { name: &name[1..], ..CONTEXT() }, b"").is_ok());
    assert!(matches!(seal_as(&SealContext { name: &name, ..CONTEXT() }, b""), Err(SealError::Name { .. })));
    let weak = seal(&SealingKeyBytes([0; 32]), &CONTEXT(), b"hunter2", &mut CountingRng(0));
    assert!(matches!(weak, Err(SealError::Key { .. })));
}

#[test]
fn values_beside_an_order_must_be_the_ones_it_names() {
    let value = |name: &str, bytes: &[u8]| SealedValue { name: name.into(), bytes: bytes.to_vec() };
    let good = vec![value("a/A", b"one"), value("b/B", b"two")];
    let mut order = command().order;
    order.sealed = good.iter().map(|it| SealedRef { name: it.name.clone(), sha256: sha256(&it.bytes) }).collect();
    let mismatch = |values: &[SealedValue]| match check_sealed_values(&order, values) {
        Err(SealError::Mismatch { what }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(check_sealed_values(&order, &good), Ok(()));
    assert_eq!(mismatch(&good[..1]), "their number differs");
    assert_eq!(mismatch(&[good.clone(), good.clone()].concat()), "their number differs");
    assert_eq!(mismatch(&[good[1].clone(), good[0].clone()]), "a name differs");
    assert_eq!(mismatch(&[good[0].clone(), value("b/B", b"three")]), "a hash differs");
    assert_eq!(
        mismatch(&[good[0].clone(), value("b/B", &vec![0; limits::SEALED_TOTAL_BYTES_MAX])]),
        "together they are too large"
    );
}

#[test]
fn nothing_secret_is_printed() {
    let value = SealedValue { name: "a/A".into(), bytes: b"hunter2".to_vec() };
    assert_eq!(format!("{value:?}"), "SealedValue { name: \"a/A\", .. }");
}
