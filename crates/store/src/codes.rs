//! The words and byte forms under which values without a form of their own stand in the database.
//! They are part of the schema: what is written once must be readable for ever.

use fleet::{
    model::{AppInstanceState, OperationKind, UserRole},
    ports::StoreError,
    selector::Labels,
};
use ids::BootId;
use session::frames::ActionRef;

pub(crate) fn user_role(word: &str) -> Result<UserRole, StoreError> {
    word.parse().map_err(|_| corrupt("an account", "role", word))
}

pub(crate) const fn operation_kind_word(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Single => "single",
        OperationKind::Deploy => "deploy",
    }
}

pub(crate) fn operation_kind(word: &str) -> Result<OperationKind, StoreError> {
    [OperationKind::Single, OperationKind::Deploy]
        .into_iter()
        .find(|kind| operation_kind_word(*kind) == word)
        .ok_or_else(|| corrupt("an operation", "kind", word))
}

pub(crate) fn app_state(word: &str) -> Result<AppInstanceState, StoreError> {
    AppInstanceState::named(word).ok_or_else(|| corrupt("an app", "state", word))
}

/// Boot ids one after the other.
pub(crate) fn boots_encode(boots: &[BootId]) -> Vec<u8> {
    boots.iter().flat_map(|boot| *boot.as_bytes()).collect()
}

pub(crate) fn boots(bytes: &[u8]) -> Result<Vec<BootId>, StoreError> {
    let (ids, []) = bytes.as_chunks() else {
        return Err(StoreError::Corrupt(
            "a host's boot ids do not decode; restore the database from a backup".to_owned(),
        ));
    };
    Ok(ids.iter().map(|id| BootId::from_bytes(*id)).collect())
}

/// One action per line: name, version, schema hash, apart by spaces.
pub(crate) fn actions_encode(actions: &[ActionRef]) -> String {
    let lines = actions.iter().map(|action| format!("{} {} {}", action.name, action.version, action.schema_sha256));
    lines.collect::<Vec<_>>().join("\n")
}

pub(crate) fn actions(text: &str) -> Result<Vec<ActionRef>, StoreError> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let action = ActionRef {
            name: words.next()?.parse().ok()?,
            version: words.next()?.parse().ok()?,
            schema_sha256: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(action)
    };
    text.lines().map(|text| line(text).ok_or_else(|| corrupt("a host", "action", text))).collect()
}

/// One label per line: key and value, apart by an equals sign. `None` when there is none.
pub(crate) fn labels(text: Option<&str>) -> Result<Labels, StoreError> {
    let line = |line: &str| {
        let (key, value) = line.split_once('=')?;
        Some((key.parse().ok()?, value.parse().ok()?))
    };
    let lines = text.unwrap_or_default().lines();
    lines.map(|text| line(text).ok_or_else(|| corrupt("a host", "label", text))).collect()
}

fn corrupt(whose: &str, what: &str, word: &str) -> StoreError {
    let word: String = word.chars().take(80).collect();
    StoreError::Corrupt(format!(
        "{whose} has the {what} {word:?}, which no program wrote; restore the database from a backup"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_bytes_round_trip() {
        for role in UserRole::ALL {
            assert_eq!(user_role(role.as_str()), Ok(role));
        }
        for kind in [OperationKind::Single, OperationKind::Deploy] {
            assert_eq!(operation_kind(operation_kind_word(kind)), Ok(kind));
        }
        for list in [vec![], vec![BootId::from_bytes([1; 16]), BootId::from_bytes([2; 16])]] {
            assert_eq!(boots(&boots_encode(&list)), Ok(list));
        }
        let action =
            |name: &str| ActionRef { name: name.parse().unwrap(), version: 3, schema_sha256: ids::sha256(b"x") };
        for list in [vec![], vec![action("app.deploy"), action("host.facts")]] {
            assert_eq!(actions(&actions_encode(&list)), Ok(list));
        }
    }

    #[test]
    fn strange_words_are_corruption() {
        assert!(matches!(user_role("root"), Err(StoreError::Corrupt(_))));
        assert!(matches!(app_state("up"), Err(StoreError::Corrupt(_))));
        assert!(matches!(operation_kind(""), Err(StoreError::Corrupt(_))));
        assert!(matches!(boots(&[1, 2, 3]), Err(StoreError::Corrupt(_))));
        assert!(matches!(actions("app.deploy 1"), Err(StoreError::Corrupt(_))));
    }
}
