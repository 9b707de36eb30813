//! A progress bar, where a person watches: on a terminal, and not beside JSON.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;

/// Makes a bar of `length` steps on standard error; an invisible one when nobody watches.
pub(super) fn bar(out: &Output, length: u64, unit: &'static str) -> ProgressBar {
    if out.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {prefix} {msg} {elapsed}")
        .expect("the template is a constant, and right");
    let bar = ProgressBar::new(length).with_style(style).with_prefix(unit);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
