//! Values to columns and back, and the slicing of long lists into statements.
//!
//! A value that does not decode is [`StoreError::Corrupt`], never a panic: the file may have been
//! touched by anyone.

use core::{fmt::Display, str::FromStr};

use envelope::messages::LogPosition;
use fleet::ports::StoreError;
use ids::{Id, IdKind, Role, Sha256, UnixMs};
use sqlx::{Decode, QueryBuilder, Row as _, Sqlite, Type, sqlite::SqliteRow};

use crate::limits;

/// Slices `rows` into pieces whose lengths are powers of two, so that only a handful of different
/// statements exist and each is prepared once.
pub(crate) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    core::iter::from_fn(move || {
        let most = rows.len().min(limits::ROWS_PER_STATEMENT_MAX).checked_ilog2()?;
        let (piece, rest) = rows.split_at(1 << most);
        rows = rest;
        Some(piece)
    })
}

/// Binds `values` and closes the parenthesis.
pub(crate) fn bind_list(select: &mut QueryBuilder<Sqlite>, values: impl Iterator<Item = Vec<u8>>) {
    let mut list = select.separated(", ");
    for value in values {
        list.push_bind(value);
    }
    select.push(")");
}

/// A number as SQLite holds it.
pub(crate) fn int(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Conflict(format!("the number {value} is too large to be stored")))
}

/// Roles as one text.
pub(crate) fn roles_text(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",")
}

/// Named byte strings as one: lengths as 32-bit big-endian numbers before each part.
pub(crate) fn named_encode<'a>(parts: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts.flat_map(|(name, value)| [name.as_bytes(), value]) {
        let length = u32::try_from(part.len()).expect("invariant: names and sealed values are bounded far below 4 GiB");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

fn named_decode(mut bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
        bytes = rest;
        Some((value.to_vec(), rest.is_empty()))
    };
    let mut parts = Vec::new();
    loop {
        let (name, _) = part()?;
        let (value, last) = part()?;
        parts.push((String::from_utf8(name).ok()?, value));
        if last {
            return Some(parts);
        }
    }
}

/// Reads a row from left to right.
pub(crate) struct Fields<'r> {
    row: &'r SqliteRow,
    what: &'static str,
    next: usize,
}

impl<'r> Fields<'r> {
    /// `what` names the row in messages.
    pub(crate) fn of(row: &'r SqliteRow, what: &'static str) -> Self {
        Self { row, what, next: 0 }
    }

    /// From column `next` on.
    pub(crate) fn from(row: &'r SqliteRow, what: &'static str, next: usize) -> Self {
        Self { row, what, next }
    }

    fn corrupt(&self, why: impl Display) -> StoreError {
        let column = self.next.saturating_sub(1);
        StoreError::Corrupt(format!(
            "column {column} of a row of {} does not decode ({why}); restore the database from a backup",
            self.what
        ))
    }

    pub(crate) fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(&mut self) -> Result<T, StoreError> {
        self.next += 1;
        self.row.try_get(self.next - 1).map_err(|error| self.corrupt(error))
    }

    fn with<T>(&self, value: Option<T>, expected: &str) -> Result<T, StoreError> {
        value.ok_or_else(|| self.corrupt(format_args!("expected {expected}")))
    }

    pub(crate) fn number(&mut self) -> Result<u64, StoreError> {
        let value: i64 = self.get()?;
        self.with(u64::try_from(value).ok(), "a number that is not negative")
    }

    pub(crate) fn number_maybe(&mut self) -> Result<Option<u64>, StoreError> {
        let value: Option<i64> = self.get()?;
        value.map(|value| self.with(u64::try_from(value).ok(), "a number that is not negative")).transpose()
    }

    pub(crate) fn small(&mut self) -> Result<u32, StoreError> {
        let value = self.number()?;
        self.with(u32::try_from(value).ok(), "a number below 2^32")
    }

    pub(crate) fn time(&mut self) -> Result<UnixMs, StoreError> {
        self.number().map(UnixMs)
    }

    pub(crate) fn time_maybe(&mut self) -> Result<Option<UnixMs>, StoreError> {
        let value: Option<i64> = self.get()?;
        value.map(|ms| self.with(u64::try_from(ms).ok(), "a time").map(UnixMs)).transpose()
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let value: &[u8] = self.get()?;
        self.with(value.try_into().ok(), "bytes of a fixed length")
    }

    pub(crate) fn id<K: IdKind>(&mut self) -> Result<Id<K>, StoreError> {
        self.bytes().map(Id::from_bytes)
    }

    pub(crate) fn id_maybe<K: IdKind>(&mut self) -> Result<Option<Id<K>>, StoreError> {
        let value: Option<&[u8]> = self.get()?;
        value.map(|bytes| self.with(Id::try_from_slice(bytes).ok(), K::NAME)).transpose()
    }

    pub(crate) fn hash(&mut self) -> Result<Sha256, StoreError> {
        self.bytes().map(Sha256)
    }

    pub(crate) fn hash_maybe(&mut self) -> Result<Option<Sha256>, StoreError> {
        let value: Option<&[u8]> = self.get()?;
        value.map(|bytes| self.with(Sha256::try_from_slice(bytes), "a hash")).transpose()
    }

    pub(crate) fn word<T: FromStr>(&mut self) -> Result<T, StoreError> {
        let value: &str = self.get()?;
        self.with(value.parse().ok(), "a word it knows")
    }

    pub(crate) fn word_maybe<T: FromStr>(&mut self) -> Result<Option<T>, StoreError> {
        let value: Option<&str> = self.get()?;
        value.map(|text| self.with(text.parse().ok(), "a word it knows")).transpose()
    }

    pub(crate) fn roles(&mut self) -> Result<Vec<Role>, StoreError> {
        let value: &str = self.get()?;
        let words = value.split(',').filter(|word| !word.is_empty());
        words.map(|word| self.with(word.parse().ok(), "a role")).collect()
    }

    /// Three columns: log, size, root; all there or none.
    pub(crate) fn log_position_maybe(&mut self) -> Result<Option<LogPosition>, StoreError> {
        let (log, size, root) = (self.id_maybe()?, self.get::<Option<i64>>()?, self.hash_maybe()?);
        match (log, size.map(u64::try_from), root) {
            (None, None, None) => Ok(None),
            (Some(log), Some(Ok(size)), Some(root)) => Ok(Some(LogPosition { log, size, root })),
            _ => Err(self.corrupt("half a log position")),
        }
    }

    pub(crate) fn named(&mut self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let value: &[u8] = self.get()?;
        if value.is_empty() {
            return Ok(Vec::new());
        }
        self.with(named_decode(value), "names and bytes")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_the_whole_in_order(length in 0usize..2000) {
            let rows: Vec<usize> = (0..length).collect();
            let joined: Vec<usize> = pieces(&rows).flatten().copied().collect();
            prop_assert_eq!(joined, rows.clone());
            prop_assert!(pieces(&rows).all(|piece| piece.len().is_power_of_two() && piece.len() <= 128));
        }

        #[test]
        fn named_bytes_round_trip(parts in prop::collection::vec((".{0,8}", prop::collection::vec(any::<u8>(), 0..40)), 1..5)) {
            let bytes = named_encode(parts.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
            prop_assert_eq!(named_decode(&bytes), Some(parts));
            prop_assert!(named_decode(&bytes[..bytes.len() - 1]).is_none(), "cut short");
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = named_decode(&bytes);
        }
    }
}
