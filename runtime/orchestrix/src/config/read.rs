//! Turns texts into values, and keeps a record of what was found where.

use std::time::Duration;

use serde::Serialize;

use super::error::ConfigError;
use super::source::{Origin, Source};
use super::variable::row;

/// One variable as it took effect, for people: secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where it was found.
    pub origin: Origin,
}

/// Reads variables one by one.
pub(super) struct Reader<'a> {
    source: &'a Source,
    pub(super) effective: Vec<Effective>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, effective: Vec::new() }
    }

    /// Reads a variable by `parse`, which says `None` to what is not allowed; `show` is how the value reads back.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Result<T, ConfigError> {
        let (value, origin) = match self.source.get(name) {
            None => (default, Origin::Default),
            Some((text, origin)) => (parse(text.trim()).ok_or_else(|| invalid(name, text))?, origin),
        };
        self.note(name, &show(&value), origin);
        Ok(value)
    }

    /// Returns the text of a variable without noting it.
    pub(super) fn peek(&self, name: &str) -> Option<(&'a str, Origin)> {
        self.source.get(name)
    }

    /// Reads a text as it stands; `None` when it is not set.
    pub(super) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let found = self.source.get(name);
        let (value, origin) = found.unwrap_or(("", Origin::Default));
        self.note(name, value, origin);
        found.map(|(value, _)| value)
    }

    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, ConfigError> {
        self.value(name, default, flag, ToString::to_string)
    }

    pub(super) fn count(&mut self, name: &'static str, default: usize) -> Result<usize, ConfigError> {
        self.value(name, default, |text| text.parse().ok(), ToString::to_string)
    }

    pub(super) fn bytes(&mut self, name: &'static str, default: u64) -> Result<u64, ConfigError> {
        self.value(name, default, bytes, |value| show_bytes(*value))
    }

    pub(super) fn seconds(&mut self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        self.value(name, default, seconds, |value| value.as_secs_f64().to_string())
    }

    /// Refuses a variable of a later release when it is set.
    pub(super) fn not_here(&mut self, name: &'static str) -> Result<(), ConfigError> {
        match self.source.get(name) {
            None => Ok(()),
            Some((value, _)) => Err(ConfigError::NotInThisRelease {
                name,
                value: masked(name, value),
                remedy: "remove it; see the list at the end of the page on settings",
            }),
        }
    }

    /// Records a value for people.
    pub(super) fn note(&mut self, name: &'static str, value: &str, origin: Origin) {
        self.effective.push(Effective { name, value: masked(name, value), origin });
    }
}

/// Makes the error about a value that is not allowed.
pub(super) fn invalid(name: &'static str, value: &str) -> ConfigError {
    ConfigError::Invalid { name, value: masked(name, value), allowed: row(name).allowed.to_owned() }
}

/// Returns a value as it may be shown: of a URL with a password everything but the password, of any other secret the
/// path of a SQLite database or nothing.
pub(super) fn masked(name: &str, value: &str) -> String {
    if !row(name).secret {
        return value.to_owned();
    }
    let Some((scheme, rest)) = value.split_once("://") else {
        return if value.is_empty() { String::new() } else { "***".to_owned() };
    };
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let number: f64 = text.strip_suffix('s').unwrap_or(text).parse().ok()?;
    Duration::try_from_secs_f64(number).ok()
}

const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

fn bytes(text: &str) -> Option<u64> {
    for (unit, shift) in UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return number.trim().parse::<u64>().ok()?.checked_mul(1 << shift);
        }
    }
    text.parse().ok()
}

fn show_bytes(value: u64) -> String {
    let unit = UNITS.iter().find(|(_, shift)| value > 0 && value.is_multiple_of(1 << shift));
    unit.map_or_else(|| value.to_string(), |(unit, shift)| format!("{}{unit}", value >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        let mask = |value| masked("DATABASE_URL", value);
        assert_eq!(mask("sqlite://data/bank.db"), "sqlite://data/bank.db");
        assert_eq!(mask("postgres://ada:secret@db/bank?password=secret"), "postgres://ada:***@db/bank");
        assert_eq!(mask("postgres://ada:se@cret@db/bank"), "postgres://ada:***@db/bank");
        assert_eq!(mask("only-a-secret"), "***");
    }

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!((bytes("2MiB"), bytes("17"), bytes("2MB")), (Some(2 << 20), Some(17), None));
        assert_eq!((show_bytes(3 << 30), show_bytes(1_000)), ("3GiB".to_owned(), "1000".to_owned()));
        assert_eq!(seconds("0.5"), Some(Duration::from_millis(500)));
        assert_eq!((seconds("-1"), seconds("NaN"), seconds("soon")), (None, None, None));
    }

    #[test]
    fn a_flag_is_one_of_eight_words() {
        assert_eq!((flag("True"), flag("off"), flag("maybe")), (Some(true), Some(false), None));
    }
}
