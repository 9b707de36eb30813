//! The table for a terminal, and how numbers are written.

use std::fmt::Write as _;

use super::{Report, Section};

/// Returns the table of a report.
pub(super) fn render(report: &Report) -> String {
    let mut text = format!("\n{}\n", report.title);
    for section in &report.sections {
        render_section(&mut text, section);
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "\nwarning: {warning}");
    }
    text
}

fn render_section(text: &mut String, section: &Section) {
    let width = |of: fn(&super::Row) -> &str| {
        section.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0)
    };
    let names = width(|row| &row.name);
    let values = width(|row| &row.value);
    let _ = writeln!(text, "\n  {}", section.title);
    for row in &section.rows {
        let line = format!("    {:<names$}  {:>values$}  {}", row.name, row.value, row.note);
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// Writes a whole number with commas.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a rate.
pub(crate) fn per_second(rate: f64) -> String {
    format!("{}/s", count(rate.round().max(0.0) as u64))
}

/// Writes microseconds as milliseconds, or as microseconds when they are few.
pub(crate) fn millis(micros: f64) -> String {
    if micros < 1_000.0 { format!("{micros:.1} µs") } else { format!("{:.2} ms", micros / 1_000.0) }
}

/// Writes bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Writes a ratio.
pub(crate) fn ratio(value: f64) -> String {
    format!("{value:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([millis(7.26), millis(12_340.0)], ["7.3 µs", "12.34 ms"]);
        assert_eq!([per_second(58_123.6), mib(3 << 19), ratio(0.7)], ["58,124/s", "1.5 MiB", "0.700"]);
    }

    #[test]
    fn columns_line_up() {
        let section = Section::new("Memory").row("a", "1").noted("longer", "1,000", "why");
        let mut report = Report::new("Title").section(section);
        report.warnings.push("it rains".into());
        let expected =
            "\nTitle\n\n  Memory\n    a           1\n    longer  1,000  why\n\nwarning: it rains\n";
        assert_eq!(report.table(), expected);
    }
}
