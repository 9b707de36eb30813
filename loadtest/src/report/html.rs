//! One page that needs nothing else: values, charts, the check, the settings. It follows the reader's light or dark theme.

use std::fmt::Write as _;

use super::{Report, Section, chart};

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1c2330; --soft: #5b6472; --line: #dfe3e8; --page: #f6f7f9; --card: #fff;
  --c0: #2563c9; --c1: #c2570c; --c2: #15803d; --good: #15803d; --bad: #c01c28; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --soft: #9aa4b2; --line: #2c333d; --page: #12161c;
  --card: #1a2028; --c0: #6ea8fe; --c1: #f0a35e; --c2: #5fcf86; --good: #5fcf86; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 60rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; } h2 { font-size: 1rem; margin: 0 0 .5rem; }
.verdict { display: inline-block; padding: .1rem .7rem; border-radius: 1rem; font-size: .9rem; font-weight: 600;
  color: var(--card); background: var(--good); } .verdict.bad { background: var(--bad); }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
section, figure { margin: 0; padding: 1rem 1.2rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; min-width: 0; overflow-x: auto; }
figure { margin: 0 0 1rem; } figcaption { font-weight: 600; margin-bottom: .6rem; }
table { width: 100%; border-collapse: collapse; } td { padding: .25rem 0; border-top: 1px solid var(--line); vertical-align: top; }
tr:first-child td { border-top: 0; } td.value { text-align: right; white-space: nowrap; padding: .25rem .8rem;
  font-variant-numeric: tabular-nums; font-weight: 600; } td.note { color: var(--soft); font-size: .85rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 12px; }
svg text.value { fill: var(--text); font-weight: 600; } .grid { stroke: var(--line); }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; } .dot { opacity: 0; } .dot:hover { opacity: 1; }
.curve.c0 { stroke: var(--c0); } .curve.c1 { stroke: var(--c1); } .curve.c2 { stroke: var(--c2); }
rect.c0, .dot.c0 { fill: var(--c0); } .dot.c1 { fill: var(--c1); } .dot.c2 { fill: var(--c2); }
.key { margin-left: 1rem; font-weight: 400; color: var(--soft); } .key::before { content: ''; display: inline-block;
  width: .8rem; height: .2rem; margin-right: .4rem; vertical-align: middle; background: var(--c0); }
.key.c1::before { background: var(--c1); } .key.c2::before { background: var(--c2); }
.warning { padding: .6rem 1rem; border-left: .25rem solid var(--c1); background: var(--card); }
";

/// Returns the page of a report.
pub(super) fn render(report: &Report) -> String {
    let title = escape(&report.title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>{STYLE}</style></head>\n\
         <body><h1>{title} {}</h1>\n",
        verdict(report),
    );
    for warning in &report.warnings {
        let _ = writeln!(page, "<p class=\"warning\">{}</p>", escape(warning));
    }
    report.charts.iter().for_each(|chart| page += &chart::render(chart));
    page += "<div class=\"cards\">\n";
    report.sections.iter().for_each(|section| page += &table(section));
    page + "</div></body></html>\n"
}

fn verdict(report: &Report) -> &'static str {
    match (&report.check, report.passed()) {
        (None, _) => "",
        (_, true) => "<span class=\"verdict\">check passed</span>",
        (_, false) => "<span class=\"verdict bad\">check failed</span>",
    }
}

fn table(section: &Section) -> String {
    let mut text = format!("<section><h2>{}</h2><table>", escape(&section.title));
    for row in &section.rows {
        let [name, value, note] = [&row.name, &row.value, &row.note].map(|part| escape(part));
        let _ = write!(
            text,
            "<tr><td>{name}</td><td class=\"value\">{value}</td><td class=\"note\">{note}</td></tr>"
        );
    }
    text + "</table></section>\n"
}

/// Makes a text safe inside an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Check;
    use crate::report::Chart;

    fn report(check: Check) -> Report {
        let curves = vec![("runtime".to_owned(), vec![(0.0, 1.0), (1.0, 58_123.0)])];
        Report::new("SQLite & friends")
            .section(Section::new("Rates").noted("commands", "58,123/s", "a \"note\""))
            .chart(Chart::Lines { title: "Throughput".into(), across: "seconds".into(), curves })
            .chart(Chart::Bars { title: "Ratio".into(), bars: vec![("naive".into(), 12.5)] })
            .checked(check)
    }

    #[test]
    fn the_page_has_the_data() {
        let page = render(&report(Check { acknowledged: 1_234, ..Check::default() }));
        let wanted = [
            "SQLite &amp; friends",
            "58,123/s",
            "a &quot;note&quot;",
            "Throughput",
            "<polyline",
            "58.12k at 1",
            "naive",
            "12.5",
            "1,234",
            "check passed",
        ];
        for part in wanted {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = render(&report(Check::default()));
        for part in ["http:", "https:", "<script", "src=", "@import", "url("] {
            assert!(!page.contains(part), "{part} is in the page");
        }
    }

    #[test]
    fn a_failed_check_is_shown() {
        assert!(render(&report(Check { lost: 1, ..Check::default() })).contains("check failed"));
    }
}
