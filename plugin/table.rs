//! Tables as kubectl prints them: no lines, columns three spaces apart, never wrapped, so that `awk` and `grep` work.

use crate::screen::{Color, Screen};
use crate::text::safe;
use comfy_table::{ContentArrangement, presets};

/// A table being filled.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// A field of a table.
pub(crate) struct Cell {
    text: String,
    color: Color,
}

impl Cell {
    /// A field in a colour.
    pub(crate) fn colored(text: impl Into<String>, color: Color) -> Self {
        Self { text: text.into(), color }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::colored(text, Color::Plain)
    }
}

/// What stands where there is nothing, as in kubectl's tables.
pub(crate) const NONE: &str = "<none>";

impl Table {
    /// A table with these columns.
    pub(crate) fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self { header: header.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a line.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let row: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(row.len(), self.header.len(), "a field for each column");
        self.rows.push(row);
    }

    /// The table as text, with a line break at the end of each line.
    pub(crate) fn render(&self, screen: &Screen, headers: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
        if headers {
            table.set_header(self.header.clone());
        }
        // an empty field would shift what awk counts
        let shown = |cell: &Cell| if cell.text.is_empty() { NONE.to_owned() } else { safe(&cell.text).into_owned() };
        table.add_rows(self.rows.iter().map(|row| row.iter().map(shown).collect::<Vec<_>>()));
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 3));
        });
        let mut text = String::new();
        let skip = usize::from(headers);
        for (number, line) in table.lines().enumerate() {
            let row = number.checked_sub(skip).and_then(|number| self.rows.get(number));
            text.push_str(&row.map_or_else(|| line.trim_end().to_owned(), |row| painted(&line, row, screen)));
            text.push('\n');
        }
        text
    }
}

/// A line whose coloured fields are painted. Painting comes after the layout, so that escapes take no width; a field is
/// looked for after the one before it.
fn painted(line: &str, row: &[Cell], screen: &Screen) -> String {
    let (mut done, mut rest) = (String::new(), line.trim_end());
    for cell in row {
        let text = safe(&cell.text);
        let Some((before, after)) = rest.split_once(text.as_ref()).filter(|_| !text.is_empty()) else { continue };
        done.push_str(before);
        done.push_str(&screen.out(cell.color, &text));
        rest = after;
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ColorChoice;

    fn table() -> Table {
        let mut table = Table::new(["ID", "OUTCOME", "SIZE"]);
        table.row(["shop-1".into(), Cell::colored("Complete", Color::Green), "1.4 MiB".into()]);
        table.row(["a-long-\u{1b}[2Jname".into(), Cell::colored("Partial", Color::Yellow), "".into()]);
        table
    }

    #[test]
    fn columns_stand_under_each_other_without_trailing_spaces() {
        let never = Screen::new(ColorChoice::Never);
        let expected = "ID                    OUTCOME    SIZE\n\
                        shop-1                Complete   1.4 MiB\n\
                        a-long-\\u{1b}[2Jname   Partial    <none>\n";
        let text = table().render(&never, true);
        assert_eq!(text.replace("   SIZE", " SIZE").lines().count(), 3, "{text}");
        let starts: Vec<Option<usize>> =
            text.lines().zip(["OUTCOME", "Complete", "Partial"]).map(|(line, field)| line.find(field)).collect();
        assert!(starts.iter().all(|at| *at == starts[0] && at.is_some()), "{text}");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
        assert_eq!(table().render(&never, false).lines().count(), 2);
    }

    #[test]
    fn colour_moves_nothing() {
        let always = table().render(&Screen::new(ColorChoice::Always), true);
        assert!(always.contains("\u{1b}[32mComplete\u{1b}[0m"), "{always:?}");
        let stripped = always.replace("\u{1b}[32m", "").replace("\u{1b}[33m", "").replace("\u{1b}[0m", "");
        assert_eq!(stripped, table().render(&Screen::new(ColorChoice::Never), true));
    }
}
