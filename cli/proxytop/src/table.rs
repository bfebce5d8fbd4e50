//! Rows and columns without a terminal: what is in a cell, how it reads, and how rows are sorted and filtered.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::columns::Column;
use crate::units;

/// What a pane shows in rows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) columns: &'static [Column],
    pub(crate) rows: Vec<Row>,
    /// Said instead of rows, when there are none.
    pub(crate) empty: String,
}

/// A row; the first cell is its name.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Tells it from others, and stays the same.
    pub(crate) key: String,
    pub(crate) cells: Vec<Cell>,
}

/// What is known of one thing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Cell {
    /// Not known, or there is none.
    #[default]
    None,
    Text(String),
    /// A word about how something is.
    State(&'static str, Mood),
    /// As [`Cell::State`], of words that are not all known beforehand.
    Word(Cow<'static, str>, Mood),
    /// Microseconds since 1970.
    Moment(u64),
    /// How many.
    Count(u64),
    /// As [`Cell::Count`], where anything but 0 is bad.
    Faults(u64),
    /// A second.
    Rate(f64),
    /// As [`Cell::Rate`], where anything but 0 is bad.
    FaultRate(f64),
    /// Bytes a second.
    Bytes(f64),
    /// From 0 to 1.
    Share(f64),
    /// As [`Cell::Share`], where less than 1 is bad.
    Success(f64),
    /// Microseconds.
    Time(f64),
    /// So many of so many; fewer is bad.
    Of(u64, u64),
    /// Seconds.
    Age(u64),
    /// Change a second, up or down.
    Change(f64),
}

/// What a cell says of how things are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Plain,
    /// Nothing there: no need to look.
    Quiet,
    Good,
    Warning,
    Bad,
}

impl Cell {
    pub(crate) fn count(value: Option<u64>) -> Cell {
        value.map_or(Cell::None, Cell::Count)
    }

    pub(crate) fn rate(value: Option<f64>) -> Cell {
        value.map_or(Cell::None, Cell::Rate)
    }

    pub(crate) fn faults(value: Option<f64>) -> Cell {
        value.map_or(Cell::None, Cell::FaultRate)
    }

    pub(crate) fn bytes(value: Option<f64>) -> Cell {
        value.map_or(Cell::None, Cell::Bytes)
    }

    /// As shown.
    pub(crate) fn text(&self) -> String {
        match self {
            Cell::None => "-".to_owned(),
            Cell::Text(text) => text.clone(),
            Cell::State(word, _) => (*word).to_owned(),
            Cell::Word(word, _) => (**word).to_owned(),
            Cell::Moment(at_us) => units::moment(*at_us),
            Cell::Count(count) | Cell::Faults(count) => units::number(*count as f64),
            Cell::Rate(rate) | Cell::FaultRate(rate) => units::number(*rate),
            Cell::Bytes(bytes) => units::bytes(*bytes),
            Cell::Share(share) | Cell::Success(share) => units::percent(*share),
            Cell::Time(microseconds) => units::time(*microseconds),
            Cell::Of(some, all) => format!("{some}/{all}"),
            Cell::Age(seconds) => units::age(*seconds),
            Cell::Change(change) if *change < 0.0 => format!("-{}", units::number(-change)),
            Cell::Change(change) if *change > 0.0 => format!("+{}", units::number(*change)),
            Cell::Change(_) => "0".to_owned(),
        }
    }

    pub(crate) fn mood(&self) -> Mood {
        match self {
            Cell::State(_, mood) | Cell::Word(_, mood) => *mood,
            Cell::Faults(0) => Mood::Quiet,
            Cell::Faults(_) => Mood::Bad,
            Cell::FaultRate(rate) if *rate > 0.0 => Mood::Bad,
            Cell::Of(0, 1..) => Mood::Bad,
            Cell::Of(some, all) if some < all => Mood::Warning,
            Cell::Success(share) if *share < 0.9 => Mood::Bad,
            Cell::Success(share) if *share < 0.999 => Mood::Warning,
            Cell::None | Cell::Count(0) => Mood::Quiet,
            Cell::Rate(value) | Cell::Bytes(value) | Cell::FaultRate(value) | Cell::Change(value)
                if *value == 0.0 =>
            {
                Mood::Quiet
            }
            _ => Mood::Plain,
        }
    }

    /// For programs: numbers in the units that the manual names.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Cell::None => serde_json::Value::Null,
            Cell::Text(text) => text.as_str().into(),
            Cell::State(word, _) => (*word).into(),
            Cell::Word(word, _) => (**word).into(),
            Cell::Moment(at_us) => proxy_stats::utc(*at_us).into(),
            Cell::Count(value) | Cell::Faults(value) | Cell::Age(value) => (*value).into(),
            Cell::Rate(value)
            | Cell::FaultRate(value)
            | Cell::Bytes(value)
            | Cell::Share(value)
            | Cell::Success(value)
            | Cell::Time(value)
            | Cell::Change(value) => (*value).into(),
            Cell::Of(some, all) => serde_json::json!([some, all]),
        }
    }

    /// In ascending order; what is not known comes first.
    fn compare(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Text(one), Cell::Text(other)) => natural(one, other),
            (Cell::State(one, _), Cell::State(other, _)) => one.cmp(other),
            (Cell::Word(one, _), Cell::Word(other, _)) => one.cmp(other),
            _ => self.weight().total_cmp(&other.weight()),
        }
    }

    fn weight(&self) -> f64 {
        match self {
            Cell::None => -1.0,
            Cell::Text(_) | Cell::State(..) | Cell::Word(..) => 0.0,
            Cell::Moment(value) | Cell::Count(value) | Cell::Faults(value) | Cell::Age(value) => {
                *value as f64
            }
            Cell::Rate(value)
            | Cell::FaultRate(value)
            | Cell::Bytes(value)
            | Cell::Share(value)
            | Cell::Success(value)
            | Cell::Time(value)
            | Cell::Change(value) => *value,
            // Those that lack most come first.
            Cell::Of(some, all) => *some as f64 - *all as f64 + *all as f64 / 1e9,
        }
    }
}

/// Which rows, in which order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    /// Column to sort by; none: as the rows come.
    pub(crate) sort: Option<usize>,
    pub(crate) descending: bool,
    /// Rows whose name has this in it, in any case.
    pub(crate) filter: String,
}

impl View {
    /// Numbers of the rows to show. Rows that are equal stay in the order of their names, so that nothing jumps.
    pub(crate) fn order(&self, table: &Table, pinned: impl Fn(&str) -> bool) -> Vec<usize> {
        let wanted = self.filter.to_lowercase();
        let mut order: Vec<usize> = (0..table.rows.len())
            .filter(|row| wanted.is_empty() || matches(&table.rows[*row], &wanted))
            .collect();
        if let Some(column) = self.sort {
            let compare = |one: &usize, other: &usize| {
                let (one, other) = (&table.rows[*one], &table.rows[*other]);
                let by_column = one.cells[column].compare(&other.cells[column]);
                let by_column = if self.descending { by_column.reverse() } else { by_column };
                by_column.then_with(|| natural(&one.key, &other.key))
            };
            order.sort_by(compare);
        }
        order.sort_by_key(|row| !pinned(&table.rows[*row].key));
        order
    }
}

fn matches(row: &Row, wanted: &str) -> bool {
    let found = |text: &str| text.to_lowercase().contains(wanted);
    row.cells.iter().any(|cell| match cell {
        Cell::Text(text) => found(text),
        Cell::State(word, _) => found(word),
        Cell::Word(word, _) => found(word),
        _ => false,
    })
}

/// Numbers in names are in order of their value: `worker_2` before `worker_10`.
fn natural(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        let (Some(first), Some(second)) = (one.first(), other.first()) else {
            return one.len().cmp(&other.len());
        };
        if first.is_ascii_digit() && second.is_ascii_digit() {
            let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let ((a, one_rest), (b, other_rest)) = (one.split_at(digits(one)), other.split_at(digits(other)));
            let trimmed = |text: &'_ [u8]| text.iter().position(|byte| *byte != b'0').unwrap_or(text.len());
            let (a, b) = (&a[trimmed(a)..], &b[trimmed(b)..]);
            match a.len().cmp(&b.len()).then_with(|| a.cmp(b)) {
                Ordering::Equal => (one, other) = (one_rest, other_rest),
                unequal => return unequal,
            }
        } else if first == second {
            (one, other) = (&one[1..], &other[1..]);
        } else {
            return first.cmp(second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, Cell)]) -> Table {
        let row = |(name, cell): &(&str, Cell)| Row {
            key: (*name).to_owned(),
            cells: vec![Cell::Text((*name).to_owned()), cell.clone()],
        };
        Table { rows: rows.iter().map(row).collect(), ..Table::default() }
    }

    fn names(table: &Table, view: &View) -> Vec<String> {
        view.order(table, |_| false).into_iter().map(|row| table.rows[row].key.clone()).collect()
    }

    #[test]
    fn rows_are_sorted_by_what_they_mean() {
        let table = table(&[
            ("w10", Cell::Rate(5.0)),
            ("w9", Cell::None),
            ("w2", Cell::Rate(5.0)),
            ("W1", Cell::Rate(1200.0)),
        ]);
        let by = |sort, descending| View { sort: Some(sort), descending, ..View::default() };
        assert_eq!(names(&table, &by(1, true)), ["W1", "w2", "w10", "w9"]);
        assert_eq!(names(&table, &by(0, false)), ["W1", "w2", "w9", "w10"]);
        let filtered = View { filter: "W1".into(), ..View::default() };
        assert_eq!(names(&table, &filtered), ["w10", "W1"]);
        let pinned = by(1, true).order(&table, |key| key == "w9");
        assert_eq!(pinned[0], 1);
    }

    #[test]
    fn hosts_that_lack_most_come_first() {
        let table = table(&[("a", Cell::Of(3, 3)), ("b", Cell::Of(0, 9)), ("c", Cell::Of(1, 2))]);
        assert_eq!(names(&table, &View { sort: Some(1), ..View::default() }), ["b", "c", "a"]);
    }

    #[test]
    fn moods_point_at_trouble_only() {
        assert_eq!(Cell::FaultRate(0.0).mood(), Mood::Quiet);
        assert_eq!(Cell::FaultRate(0.2).mood(), Mood::Bad);
        assert_eq!(
            [Cell::Of(2, 2), Cell::Of(1, 2), Cell::Of(0, 2)].map(|cell| cell.mood()),
            [Mood::Plain, Mood::Warning, Mood::Bad]
        );
    }
}
