//! Tables for people: columns as wide as what they show, two spaces between, nothing after the last.

use anstyle::Style;
use unicode_width::UnicodeWidthStr as _;

use crate::output::{Paint, clean_line};

/// A table of text. Cells are cleaned as they enter.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<(String, Style)>>,
}

/// One cell, with its style.
pub(crate) struct Cell(String, Style);

impl Cell {
    pub(crate) fn styled(text: &str, style: Style) -> Self {
        Self(clean_line(text), style)
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(&text.to_string(), Style::new())
    }
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// One more row; as many cells as the header has.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.header.len());
        let cells = cells.into_iter().map(|Cell(text, style)| match text.as_str() {
            "" => ("-".to_owned(), style),
            _ => (text, style),
        });
        self.rows.push(cells.collect());
    }

    /// The table, or these words when it has no row.
    pub(crate) fn render(&self, paint: Paint, when_empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{when_empty}\n");
        }
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].0.width());
                cells.chain([self.header[column].width()]).max().unwrap_or(0)
            })
            .collect();
        let bold = Style::new().bold();
        let header: Vec<(&str, Style)> = self.header.iter().map(|name| (*name, bold)).collect();
        let mut text = line(&header, &widths, paint);
        for row in &self.rows {
            let cells: Vec<(&str, Style)> = row.iter().map(|(text, style)| (text.as_str(), *style)).collect();
            text.push_str(&line(&cells, &widths, paint));
        }
        text
    }
}

fn line(cells: &[(&str, Style)], widths: &[usize], paint: Paint) -> String {
    let mut text = String::new();
    for (index, ((cell, style), width)) in cells.iter().zip(widths).enumerate() {
        text.push_str(&paint.on(*style, cell));
        if index + 1 < cells.len() {
            text.push_str(&" ".repeat(width - cell.width() + 2));
        }
    }
    text.push('\n');
    text
}

/// `name  value` lines, the values in one column.
pub(crate) fn fields(paint: Paint, fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in fields {
        let gap = " ".repeat(width - name.width() + 2);
        text.push_str(&format!("{}{gap}{value}\n", paint.bold(name)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_is_seen() {
        let mut table = Table::new(["NAME", "STATUS", "NOTE"]);
        table.row(["web".into(), "connected".into(), "".into()]);
        table.row(["データ".into(), "off\u{1b}line".into(), "two\nlines".into()]);
        let expected = expect_test::expect![[r"
            NAME    STATUS     NOTE
            web     connected  -
            データ  off�line   two lines
        "]];
        expected.assert_eq(&table.render(Paint(false), "none"));
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(Table::new(["A"]).render(Paint(true), "no hosts yet"), "no hosts yet\n");
    }
}
