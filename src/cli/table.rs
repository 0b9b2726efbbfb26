//! Tables for people: columns as wide as what is in them.

use std::fmt;

/// Rows under a head. The first column stands left, the others right, but for the last where it is for words.
pub struct Table {
    rows: Vec<Vec<String>>,
    ends_in_words: bool,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Table {
        Table { rows: vec![head.map(str::to_owned).to_vec()], ends_in_words: false }
    }

    /// The last column is for words.
    pub fn ending_in_words(mut self) -> Table {
        self.ends_in_words = true;
        self
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if at == 0 { "" } else { "  " };
                let left = at == 0 || (self.ends_in_words && at + 1 == columns);
                line += &if left { format!("{gap}{cell:width$}") } else { format!("{gap}{cell:>width$}") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A length of time, roughly, in its two largest units at the most.
pub fn age(seconds: f64) -> String {
    // Below zero where two clocks disagree.
    let seconds = seconds.max(0.0);
    match seconds as u64 {
        0..10 => format!("{seconds:.1}s"),
        whole @ 10..60 => format!("{whole}s"),
        whole @ 60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        whole @ 3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole % 3_600 / 60),
        whole => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_needed() {
        let mut table = Table::new(["shard", "lag", "problem"]).ending_in_words();
        table.row(["a/0".to_owned(), "12345".to_owned(), "none".to_owned()]);
        table.row(["ticks/10".to_owned(), "1".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "shard       lag  problem\na/0       12345  none\nticks/10      1\n");
    }

    #[test]
    fn ages_are_short() {
        let cases = [
            (-1.0, "0.0s"),
            (0.25, "0.2s"),
            (59.9, "59s"),
            (61.0, "1m01s"),
            (7_260.0, "2h01m"),
            (1e5, "1d03h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(age(seconds), text);
        }
    }
}
