//! Authentic payloads in another than their one form. The signer is honest about everything but the
//! encoding: each is signed by the right key under the right type.

use envelope::messages::AgentHello;

use crate::{
    samples::{Case, SEED, agent_hello, cases, command},
    wire::{Envelope, field_bytes, fields, varint},
};

/// Signs `payload` as this case's message and opens it.
fn resigned(case: &Case, payload: Vec<u8>) -> Result<(), String> {
    (case.open)(&Envelope::signed(&SEED, case.payload_type, payload).bytes())
}

fn join(fields: &[(u64, Vec<u8>)]) -> Vec<u8> {
    fields.iter().flat_map(|(_, field)| field.clone()).collect()
}

/// Other forms of a message, each with a name. Every one decodes as lenient protobuf.
fn other_forms(payload: &[u8]) -> Vec<(String, Vec<u8>)> {
    let parts = fields(payload);
    let mut forms = Vec::new();
    for number in [99, 1000] {
        forms.push((format!("unknown field {number}"), [payload, &field_bytes(number, b"x")].concat()));
        forms.push((format!("unknown number {number}"), [payload, &varint(number << 3), &varint(1)].concat()));
        forms.push((format!("unknown field {number} first"), [&field_bytes(number, b""), payload].concat()));
    }
    let repeated = |number: u64| parts.iter().filter(|(other, _)| *other == number).count() > 1;
    for (at, (number, field)) in parts.iter().enumerate() {
        if !repeated(*number) {
            forms.push((format!("field {number} twice"), [payload, field].concat()));
        }
        if at > 0 && parts[at - 1].0 != *number {
            let mut swapped = parts.clone();
            swapped.swap(at - 1, at);
            forms.push((format!("field {number} before its predecessor"), join(&swapped)));
        }
        // The key written longer than it needs to be.
        let mut padded = parts.clone();
        padded[at].1[0] |= 0x80;
        padded[at].1.insert(1, 0x00);
        if parts[at].1[0] & 0x80 == 0 {
            forms.push((format!("field {number} with a padded key"), join(&padded)));
        }
    }
    forms
}

#[test]
fn other_forms_of_every_message_are_refused() {
    for case in cases() {
        let payload = Envelope::of(&case.envelope).payload;
        assert_eq!(resigned(&case, payload.clone()), Ok(()), "{}", case.payload_type);
        let forms = other_forms(&payload);
        assert!(forms.len() > 10);
        for (what, form) in forms {
            assert_ne!(form, payload, "{what}");
            let refused = resigned(&case, form).expect_err(&format!("{}: {what}", case.payload_type));
            assert!(refused.starts_with("content: ") || refused.starts_with("signature: "), "{what}: {refused}");
        }
    }
}

#[test]
fn other_forms_inside_a_command_are_refused() {
    let case = cases().into_iter().find(|case| case.payload_type.ends_with(".command.v1")).expect("the command");
    let payload = Envelope::of(&case.envelope).payload;
    let parts = fields(&payload);
    let (number, order) = &parts[0];
    assert_eq!(*number, 1);
    let inner = &order[1 + varint(order.len() as u64 - 3).len()..];
    let with = |inner: &[u8]| [field_bytes(1, inner), join(&parts[1..])].concat();
    assert_eq!(with(inner), payload, "the parts fit together again");
    for (what, form) in other_forms(inner) {
        let refused = resigned(&case, with(&form)).expect_err(&what);
        assert!(refused.starts_with("content: "), "{what}: {refused}");
    }
}

#[test]
fn other_forms_of_an_agents_hello_are_refused() {
    let bytes = agent_hello().encode();
    assert_eq!(AgentHello::decode(&bytes), Ok(agent_hello()));
    for (what, form) in other_forms(&bytes) {
        assert!(AgentHello::decode(&form).is_err(), "{what}");
    }
    // Packed and unpacked lists decode alike; only the packed one is canonical.
    let unpacked: Vec<u8> = [1u64, 2, 300].iter().flat_map(|n| [varint(8), varint(*n)].concat()).collect();
    let rest = join(&fields(&bytes)[1..]);
    assert!(AgentHello::decode(&[unpacked, rest].concat()).is_err());
}

#[test]
fn a_default_written_out_is_refused() {
    let case = cases().into_iter().find(|case| case.payload_type.ends_with(".command.v1")).expect("the command");
    let mut zero_epoch = command();
    zero_epoch.epoch.0 = 0;
    let payload = Envelope::of(crate::samples::key().sign(&zero_epoch).envelope()).payload;
    assert_eq!(resigned(&case, payload.clone()), Ok(()));
    // Field 3, the epoch, between fields 2 and 4: zero, in full.
    let mut parts = fields(&payload);
    assert!(parts.iter().all(|(number, _)| *number != 3));
    let at = parts.iter().position(|(number, _)| *number == 4).expect("the sequence");
    parts.insert(at, (3, vec![3 << 3, 0]));
    assert!(resigned(&case, join(&parts)).expect_err("a default").contains("canonical"));
}

/// Dropping any field that must be there, or emptying it, is refused.
#[test]
fn fields_of_fixed_size_cannot_be_left_out_or_resized() {
    for case in cases() {
        let payload = Envelope::of(&case.envelope).payload;
        let parts = fields(&payload);
        for at in 0..parts.len() {
            let (number, field) = &parts[at];
            let delimited = field[0] & 7 == 2;
            let sized = delimited && matches!(field.len(), 18 | 34 | 35) && field[1] as usize + 2 == field.len();
            if !sized || parts.iter().filter(|(other, _)| other == number).count() > 1 {
                continue;
            }
            for content in [&field[2..field.len() - 1], &[&field[2..], &[0]].concat()] {
                let mut resized = parts.clone();
                resized[at].1 = field_bytes(*number, content);
                assert!(resigned(&case, join(&resized)).is_err(), "{}: field {number}", case.payload_type);
            }
        }
    }
}
