//! Pages of lists: what a query asks for, and cursors. A cursor is text that only this program reads:
//! which list and order it belongs to, and the key of the last row. It holds nothing that the rows did
//! not show, so nothing is signed; one that was made up only asks for another place.

use api::Page;
use data_encoding::BASE64URL_NOPAD;
use fleet::list::{ListKey, ListPage, ListValue, Listed};
use serde_json::{Value, json};

use crate::{input::list_limit, limits, problem::ApiError};

/// A list and what it may be sorted by; the first is the default, written as in a query.
pub(crate) struct List {
    pub(crate) name: &'static str,
    pub(crate) sorts: &'static [&'static str],
}

/// The part of a query that every list has.
pub(crate) struct ListQuery {
    pub(crate) limit: Option<u32>,
    pub(crate) after: Option<String>,
    pub(crate) sort: Option<String>,
}

/// A page as it was asked for.
#[derive(Debug)]
pub(crate) struct Sorted {
    list: &'static str,
    /// The field, without direction.
    pub(crate) field: &'static str,
    pub(crate) page: ListPage,
}

impl List {
    /// # Errors
    /// When the limit is out of bounds, the order is not one of the list's, or the cursor is none of
    /// this list and order.
    pub(crate) fn read(&self, asked: ListQuery) -> Result<Sorted, ApiError> {
        let sort = asked.sort.as_deref().unwrap_or(self.sorts[0]);
        let (wanted, descending) = sort.strip_prefix('-').map_or((sort, false), |field| (field, true));
        let fields = || self.sorts.iter().map(|field| field.trim_start_matches('-'));
        let field = fields().find(|field| *field == wanted).ok_or_else(|| {
            let known: Vec<&str> = fields().collect();
            ApiError::field("sort", format!("one of {}, with `-` before it for the greatest first", known.join(", ")))
        })?;
        let limit = list_limit(asked.limit)?;
        let mut sorted = Sorted { list: self.name, field, page: ListPage { descending, after: None, limit } };
        if let Some(cursor) = asked.after {
            sorted.page.after = Some(sorted.key(&cursor)?);
        }
        Ok(sorted)
    }
}

impl Sorted {
    fn key(&self, cursor: &str) -> Result<ListKey, ApiError> {
        let wrong = || {
            let message =
                "not a cursor of this list in this order; take `next` from the page before, with the same `sort`";
            ApiError::field("after", message)
        };
        if cursor.len() > limits::CURSOR_BYTES_MAX {
            return Err(wrong());
        }
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).map_err(|_| wrong())?;
        let parts: (String, String, bool, Value, u64) = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let (list, field, descending, value, row) = parts;
        let value = match value {
            Value::String(text) => ListValue::Text(text),
            Value::Number(number) => ListValue::Number(number.as_u64().ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        if list != self.list || field != self.field || descending != self.page.descending {
            return Err(wrong());
        }
        Ok(ListKey { value, row })
    }

    /// The text that asks for what follows a row.
    pub(crate) fn cursor(&self, key: &ListKey) -> String {
        let value = match &key.value {
            ListValue::Number(number) => json!(number),
            ListValue::Text(text) => json!(text),
        };
        let parts = json!([self.list, self.field, self.page.descending, value, key.row]);
        BASE64URL_NOPAD.encode(parts.to_string().as_bytes())
    }

    /// The answer.
    pub(crate) fn answer<T, U>(&self, listed: Listed<T>, show: impl Fn(T) -> U) -> Page<U> {
        let next = listed.items.last().filter(|_| listed.more).map(|(key, _)| self.cursor(key));
        Page { items: listed.items.into_iter().map(|(_, item)| show(item)).collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: List = List { name: "hosts", sorts: &["name", "-enrolled_at"] };

    fn asked(sort: Option<&str>, after: Option<String>) -> ListQuery {
        ListQuery { limit: None, after, sort: sort.map(ToOwned::to_owned) }
    }

    #[test]
    fn a_cursor_comes_back_as_the_key_it_was_made_of() {
        for key in [
            ListKey { value: ListValue::Text("web-1".to_owned()), row: 7 },
            ListKey { value: ListValue::Number(u64::MAX), row: u64::MAX },
        ] {
            let sorted = HOSTS.read(asked(None, None)).unwrap();
            let cursor = sorted.cursor(&key);
            assert!(cursor.len() <= limits::CURSOR_BYTES_MAX);
            assert_eq!(HOSTS.read(asked(Some("name"), Some(cursor))).unwrap().page.after, Some(key));
        }
    }

    #[test]
    fn a_cursor_of_another_list_or_order_is_refused_and_so_is_noise() {
        let key = ListKey { value: ListValue::Number(3), row: 3 };
        let cursor = |list: &List, sort| Some(list.read(asked(sort, None)).unwrap().cursor(&key));
        let other = List { name: "apps", sorts: &["name"] };
        let long = "A".repeat(limits::CURSOR_BYTES_MAX + 1);
        for after in [
            cursor(&other, None),
            cursor(&HOSTS, Some("-name")),
            cursor(&HOSTS, Some("enrolled_at")),
            Some(String::new()),
            Some("!".to_owned()),
            Some(BASE64URL_NOPAD.encode(br#"["hosts","name",false,{},1]"#)),
            Some(BASE64URL_NOPAD.encode(br#"["hosts","name",false,-1,1]"#)),
            Some(long),
        ] {
            let error = HOSTS.read(asked(None, after.clone())).expect_err("refused").problem();
            assert_eq!(error.errors[0].field, "after", "{after:?}");
        }
    }

    #[test]
    fn orders_are_the_lists_own() {
        let sorted = HOSTS.read(asked(Some("-enrolled_at"), None)).unwrap();
        assert_eq!((sorted.field, sorted.page.descending), ("enrolled_at", true));
        let error = HOSTS.read(asked(Some("size"), None)).expect_err("refused").problem();
        assert!(error.errors[0].message.contains("name, enrolled_at"), "{error:?}");
    }
}
