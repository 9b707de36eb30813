//! The address of a PostgreSQL database, which has a password in it: it is never shown as it is.

use std::fmt;

/// Stands where a password was.
const MASK: &str = "***";

/// The URL of a PostgreSQL database. Its `Debug` and `Display` forms hide the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Takes a URL that begins with `postgres://` or `postgresql://`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_ours = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        is_ours.then(|| Self(text.to_owned()))
    }

    /// Returns the URL with its password, for opening the database.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str(MASK) };
        // A parameter may be a password, too.
        let place = rest.split(['?', '#']).next().unwrap_or_default();
        match place.rsplit_once('@') {
            None => write!(f, "{scheme}://{place}"),
            Some((user, place)) => match user.split_once(':') {
                None => write!(f, "{scheme}://{user}@{place}"),
                Some((user, _)) => write!(f, "{scheme}://{user}:{MASK}@{place}"),
            },
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://bank:pass@db:5432/bank", "postgres://bank:***@db:5432/bank"),
            ("postgresql://bank@db/bank?password=pass", "postgresql://bank@db/bank"),
            ("postgres://bank:pa@ss@db/bank", "postgres://bank:***@db/bank"),
            ("postgres://", "postgres://"),
        ] {
            let url = DatabaseUrl::parse(url).expect("it begins right");
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), format!("\"{shown}\"")));
        }
        assert_eq!(DatabaseUrl::parse("mysql://bank"), None);
    }
}
