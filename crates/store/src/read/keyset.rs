//! Pages by key: the part of a statement that says where a page begins, in which order its rows come
//! and how many there are, and what is made of the rows.

use fleet::{
    list::{ListKey, ListPage, ListValue, Listed},
    ports::StoreError,
};
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};

use crate::limits;

/// Greater than every name.
const TEXT_MAX: &str = "\u{10FFFF}";

/// What a list is sorted by, in SQL: a column and the row's own number. Both are constants.
#[derive(Clone, Copy)]
pub(super) struct Order {
    pub(super) column: &'static str,
    pub(super) row: &'static str,
    pub(super) is_text: bool,
}

impl Order {
    pub(super) const fn number(column: &'static str, row: &'static str) -> Self {
        Self { column, row, is_text: false }
    }

    pub(super) const fn text(column: &'static str, row: &'static str) -> Self {
        Self { column, row, is_text: true }
    }

    /// Ends a statement whose conditions are all there. A page without a beginning gets one before
    /// every row, so that the engine always seeks and never scans.
    pub(super) fn end(self, select: &mut QueryBuilder<Sqlite>, page: &ListPage) {
        let Self { column, row, is_text } = self;
        let (compare, direction) = if page.descending { ("<", "DESC") } else { (">", "ASC") };
        select.push(format_args!(" AND ({column}, {row}) {compare} ("));
        match (&page.after, is_text, page.descending) {
            (Some(ListKey { value: ListValue::Text(text), .. }), true, _) => select.push_bind(text.clone()),
            (Some(ListKey { value: ListValue::Number(number), .. }), false, _) => select.push_bind(bounded(*number)),
            (_, true, true) => select.push_bind(TEXT_MAX),
            (_, true, false) => select.push_bind(""),
            (_, false, true) => select.push_bind(i64::MAX),
            (_, false, false) => select.push_bind(-1i64),
        };
        let start = if page.descending { i64::MAX } else { -1 };
        let number = page.after.as_ref().map_or(start, |after| bounded(after.row));
        select.push(", ").push_bind(number);
        select.push(format_args!(") ORDER BY {column} {direction}, {row} {direction} LIMIT "));
        // One more, to know whether there is one.
        select.push_bind(i64::from(limit(page)) + 1);
    }
}

/// A number of a key that somebody may have made up.
fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn limit(page: &ListPage) -> u32 {
    page.limit.clamp(1, limits::LIST_MAX)
}

/// The page that these rows are.
pub(super) fn listed<T>(
    mut rows: Vec<SqliteRow>,
    page: &ListPage,
    read: impl FnMut(&SqliteRow) -> Result<(ListKey, T), StoreError>,
) -> Result<Listed<T>, StoreError> {
    let most = limit(page) as usize;
    let more = rows.len() > most;
    rows.truncate(most);
    Ok(Listed { items: rows.iter().map(read).collect::<Result<_, _>>()?, more })
}

pub(super) fn number_key(value: u64, row: u64) -> ListKey {
    ListKey { value: ListValue::Number(value), row }
}
