//! `config`: the settings that take effect, and where each comes from.

use super::context::Context;
use super::error::CliError;
use super::output::table;
use crate::config::Origin;

/// Prints every variable; secrets are masked.
pub(super) fn run(context: &mut Context) -> Result<(), CliError> {
    let effective = context.config.effective().to_vec();
    context.out.answer(&effective, || {
        let rows: Vec<_> = effective
            .iter()
            .map(|one| [one.name.to_owned(), shown(&one.value), origin(one.origin).to_owned()])
            .collect();
        table(&rows)
    })
}

fn shown(value: &str) -> String {
    if value.is_empty() { "-".to_owned() } else { value.to_owned() }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Default => "default",
        Origin::Environment => "environment",
        Origin::EnvFile => ".env",
        Origin::File => "file",
    }
}
