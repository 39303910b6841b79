//! From when until when a certificate is valid: the one part of X.509 (RFC 5280 section 4.1) that nothing
//! else here reads. The certificate is the owner's own file, and was taken by the TLS library before.

use ids::UnixMs;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// The version, which stands before the serial number in every version but the first.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Not before, not after; nothing when it is no certificate.
pub(super) fn validity(certificate: &[u8]) -> Option<(UnixMs, UnixMs)> {
    let mut outer = Der(certificate);
    let mut signed = Der(Der(outer.next_of(SEQUENCE)?).next_of(SEQUENCE)?);
    if signed.0.first() == Some(&VERSION) {
        signed.next_of(VERSION)?;
    }
    signed.next_of(INTEGER)?;
    signed.next_of(SEQUENCE)?; // algorithm
    signed.next_of(SEQUENCE)?; // issuer
    let mut validity = Der(signed.next_of(SEQUENCE)?);
    Some((time(validity.next()?)?, time(validity.next()?)?))
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag and content (X.690, definite lengths).
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let (digits, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = behind;
            // Four bytes are more than any file here has.
            if digits.is_empty() || digits.len() > 4 {
                return None;
            }
            digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit))
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn next_of(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, as RFC 5280 section 4.1.2.5 has them.
fn time((tag, content): (u8, &[u8])) -> Option<UnixMs> {
    let text = std::str::from_utf8(content).ok().filter(|text| text.is_ascii())?;
    let full = match (tag, text.len()) {
        // Two digits: 1950 to 2049.
        (UTC_TIME, 13) if text.as_bytes()[0] >= b'5' => format!("19{text}"),
        (UTC_TIME, 13) => format!("20{text}"),
        (GENERALIZED_TIME, 15) => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| full.get(from..to);
    let (date, clock) =
        ([part(0, 4)?, part(4, 6)?, part(6, 8)?].join("-"), [part(8, 10)?, part(10, 12)?, part(12, 14)?].join(":"));
    // Before 1970 there is nothing to compare with.
    let read: api::Timestamp = serde_json::from_value(format!("{date}T{clock}Z").into()).ok()?;
    full.ends_with('Z').then_some(read.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_time_are_read() {
        assert_eq!(time((UTC_TIME, b"700102000000Z")), Some(UnixMs(86_400_000)));
        assert_eq!(time((UTC_TIME, b"231114221320Z")), Some(UnixMs(1_700_000_000_000)));
        assert_eq!(time((GENERALIZED_TIME, b"20231114221320Z")), Some(UnixMs(1_700_000_000_000)));
        assert_eq!(time((GENERALIZED_TIME, b"20500101000000Z")), Some(UnixMs(2_524_608_000_000)));
        for wrong in [&b"231114221320+"[..], b"231314221320Z", b"23111422132", b"2311142213\xff\xffZ", b""] {
            assert_eq!(time((UTC_TIME, wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_cut_or_broken_is_no_certificate() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let now = UnixMs(1_790_000_000_000);
        let made = crate::certificate::make(directory.path(), &["a.example".to_owned()], now).expect("a certificate");
        let whole = crate::people_tls::leaf(&made.cert).expect("a certificate");
        let (from, until) = validity(&whole).expect("dates");
        assert_eq!(from, now.minus(ids::DurationMs::from_days(1)));
        assert_eq!(until, now.plus(crate::limits::CERTIFICATE_LIFETIME));
        for length in 0..whole.len() {
            assert_eq!(validity(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(validity(&[0x30, 0x80]), None);
        assert_eq!(validity(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
    }
}
