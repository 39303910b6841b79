//! Lists, page after page, as much as was asked for.

use api::Page;
use serde::de::DeserializeOwned;

use crate::{client::Client, exit::Failure, limits};

/// Items of a list: at most `most`, all of them when it is `None`. `query` holds the filters.
pub(crate) async fn items<T: DeserializeOwned>(
    client: &Client,
    path: &[&str],
    query: &[(&str, String)],
    most: Option<usize>,
) -> Result<Vec<T>, Failure> {
    let mut items: Vec<T> = Vec::new();
    let mut after = None;
    loop {
        let left = most.map_or(limits::PAGE_ITEMS_MAX, |most| most - items.len()).min(limits::PAGE_ITEMS_MAX);
        let mut asked = query.to_vec();
        asked.push(("limit", left.to_string()));
        asked.extend(after.map(|after: String| ("after", after)));
        let page: Page<T> = client.get_with(path, &asked).await?;
        items.extend(page.items);
        after = page.next;
        if after.is_none() || most.is_some_and(|most| items.len() >= most) {
            return Ok(items);
        }
    }
}

/// A part of a query, if there is a value for it.
pub(crate) fn part<T: ToString>(name: &'static str, value: Option<&T>) -> Option<(&'static str, String)> {
    value.map(|value| (name, value.to_string()))
}
