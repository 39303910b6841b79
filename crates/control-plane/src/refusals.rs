//! Who was refused at the agents' listener: counted, and recorded once a minute, because strangers are many.

use std::collections::BTreeMap;

use envelope::audit::AuditKind;
use fleet::ports::{AuditEntry, AuditRecord};
use ids::{TokenId, UnixMs};

use crate::limits;

/// Refusals since they were last recorded.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    strangers: u64,
    /// By a join token that there is: somebody has it, or its id.
    enrolments: BTreeMap<TokenId, u64>,
}

impl Refusals {
    /// Someone who is nobody.
    pub(crate) const fn stranger(&mut self) {
        self.strangers += 1;
    }

    /// Someone who named this join token of ours. Beyond so many tokens in one minute they are counted as strangers.
    pub(crate) fn enrolment(&mut self, token: TokenId) {
        if self.enrolments.len() < limits::REFUSED_TOKENS_MAX || self.enrolments.contains_key(&token) {
            *self.enrolments.entry(token).or_default() += 1;
        } else {
            self.stranger();
        }
    }

    /// A leaf for each join token, and one for all strangers; what was counted is forgotten with that.
    pub(crate) fn take(&mut self, now: UnixMs) -> Vec<AuditEntry> {
        let Self { strangers, enrolments } = core::mem::take(self);
        let entry = |kind, actor: String, subject: &str, record: serde_json::Value| AuditEntry {
            time: now,
            kind,
            actor,
            subject: subject.to_owned(),
            record: AuditRecord::Inline(record.to_string().into_bytes()),
        };
        let by_token = enrolments.into_iter().map(|(token, count)| {
            let record = serde_json::json!({ "token": token, "refused": count });
            entry(AuditKind::EnrolmentRefused, format!("join token {token}"), "an enrolment", record)
        });
        let nobody = (strangers > 0).then(|| {
            let record = serde_json::json!({ "refused": strangers });
            entry(AuditKind::RefusalCount, "strangers".to_owned(), "the agents' listener", record)
        });
        by_token.chain(nobody).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(refusals: &mut Refusals) -> Vec<(AuditKind, String)> {
        let words = |entry: AuditEntry| match entry.record {
            AuditRecord::Inline(bytes) => (entry.kind, String::from_utf8(bytes).unwrap()),
            other => panic!("{other:?}"),
        };
        refusals.take(UnixMs(1)).into_iter().map(words).collect()
    }

    #[test]
    fn each_join_token_has_a_leaf_of_its_own_and_strangers_one_together() {
        let mut refusals = Refusals::default();
        assert!(refusals.take(UnixMs(1)).is_empty(), "nobody came");
        let token = TokenId::from_bytes([1; 16]);
        refusals.enrolment(token);
        refusals.stranger();
        refusals.enrolment(token);
        let expected = [
            (AuditKind::EnrolmentRefused, format!(r#"{{"refused":2,"token":"{token}"}}"#)),
            (AuditKind::RefusalCount, r#"{"refused":1}"#.to_owned()),
        ];
        assert_eq!(taken(&mut refusals), expected);
        assert!(taken(&mut refusals).is_empty(), "recorded once");
    }

    #[test]
    fn more_tokens_than_are_counted_apart_are_counted_together() {
        let mut refusals = Refusals::default();
        let tokens = (0..=limits::REFUSED_TOKENS_MAX).map(|number| TokenId::from_bytes((number as u128).to_be_bytes()));
        for token in tokens.clone().chain(tokens) {
            refusals.enrolment(token);
        }
        let taken = taken(&mut refusals);
        assert_eq!(taken.len(), limits::REFUSED_TOKENS_MAX + 1);
        assert_eq!(taken.last().unwrap(), &(AuditKind::RefusalCount, r#"{"refused":2}"#.to_owned()));
    }
}
