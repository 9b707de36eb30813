//! What a command prints: text for people or JSON for programs, always to standard output.

use std::io::Write;

use serde::Serialize;

use super::error::CliError;

/// Where answers go, and in which form.
pub(super) struct Output {
    out: Box<dyn Write + Send>,
    json: bool,
}

impl Output {
    pub(super) fn new(out: Box<dyn Write + Send>, json: bool) -> Self {
        Self { out, json }
    }

    /// Tells whether programs read the answer.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the whole answer of a command: `value` as JSON, or the text.
    pub(super) fn answer(
        &mut self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.json {
            let json = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
            self.line(&json)
        } else {
            self.line(text().trim_end())
        }
    }

    /// Prints one of many answers: a line of JSON, or a line of text. It is sent on at once.
    pub(super) fn item(
        &mut self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        let line =
            if self.json { serde_json::to_string(value).map_err(std::io::Error::from)? } else { text() };
        self.line(&line)
    }

    fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// Returns the writer itself, for what is neither.
    pub(super) fn writer(&mut self) -> &mut dyn Write {
        &mut self.out
    }
}

/// Lays out rows in columns; the last column is as wide as it likes.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns bytes in a unit that people read.
pub(super) fn human_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| bytes >= 1 << shift);
    unit.map_or_else(
        || format!("{bytes} bytes"),
        |(unit, shift)| format!("{:.1} {unit}", bytes as f64 / f64::from(*shift).exp2()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a", "1"], ["long", "2"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "a     1\nlong  2\n");
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(human_bytes(17), "17 bytes");
        assert_eq!(human_bytes(3 << 19), "1.5 MiB");
    }
}
