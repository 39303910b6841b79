//! Pages of lists.

use serde::{Deserialize, Serialize};

/// A page of a list. Every list takes `limit` (100 when absent, at most 500), `sort` (a field,
/// descending behind a `-`) and `after`: what `next` said on the page before. A page may be shorter
/// than its limit; only a page without `next` is the last. What is added meanwhile neither hides nor
/// repeats an item. A cursor belongs to its list and order, and is refused by any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "{T}Page"))]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Opaque; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
