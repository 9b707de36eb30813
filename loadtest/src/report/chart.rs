//! Charts as inline SVG: no script, no font, no colour that does not follow the page's theme.

use std::fmt::Write as _;

use super::Chart;
use super::html::escape;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Lines of the grid that are aimed at.
const TICKS: f64 = 4.0;
/// Height of one bar with its name above and the gap after it.
const BAR_STEP: f64 = 44.0;

/// Points of a curve, each across and up.
type Points = Vec<(f64, f64)>;

/// Returns a chart as a figure with a caption.
pub(super) fn render(chart: &Chart) -> String {
    match chart {
        Chart::Lines { title, across, curves } => {
            figure(title, &legend(curves), &lines(title, across, curves))
        }
        Chart::Bars { title, bars } => figure(title, "", &bars_of(title, bars)),
    }
}

fn figure(title: &str, legend: &str, svg: &str) -> String {
    format!("<figure><figcaption>{}{legend}</figcaption>{svg}</figure>\n", escape(title))
}

fn legend(curves: &[(String, Points)]) -> String {
    if curves.len() < 2 {
        return String::new();
    }
    let key = |(number, (name, _)): (usize, &(String, Points))| {
        format!(r#" <span class="key c{number}">{}</span>"#, escape(name))
    };
    curves.iter().enumerate().map(key).collect()
}

/// The ranges that a line chart shows, and where a point lies on it.
struct Frame {
    across_max: f64,
    up_max: f64,
}

impl Frame {
    fn around(curves: &[(String, Points)]) -> Self {
        let points = || curves.iter().flat_map(|(_, points)| points);
        let across_max = points().map(|point| point.0).fold(0.0, f64::max);
        let up_max = points().map(|point| point.1).fold(0.0, f64::max);
        let step = step_for(up_max);
        Self { across_max: positive(across_max), up_max: (positive(up_max) / step).ceil() * step }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.across_max * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.up_max * (HEIGHT - TOP - BOTTOM)
    }
}

fn lines(title: &str, across: &str, curves: &[(String, Points)]) -> String {
    let frame = Frame::around(curves);
    let mut svg = open_svg(title, HEIGHT) + &grid(&frame, across);
    for (number, (name, points)) in curves.iter().enumerate() {
        svg += &curve(&frame, number, name, points);
    }
    svg + "</svg>"
}

fn open_svg(title: &str, height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}">"#, escape(title))
}

fn grid(frame: &Frame, across: &str) -> String {
    let mut svg = String::new();
    let end = WIDTH - RIGHT;
    for tick in ticks(frame.up_max) {
        let (y, text_y, told) = (frame.y(tick), frame.y(tick) + 4.0, short(tick));
        let _ = write!(svg, r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{end}" y2="{y:.1}"/>"#);
        let _ = write!(svg, r#"<text x="{}" y="{text_y:.1}" text-anchor="end">{told}</text>"#, LEFT - 8.0);
    }
    for tick in ticks(frame.across_max) {
        let (x, y) = (frame.x(tick), HEIGHT - BOTTOM + 18.0);
        let _ = write!(svg, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{}</text>"#, short(tick));
    }
    let _ =
        write!(svg, r#"<text x="{end}" y="{}" text-anchor="end">{}</text>"#, HEIGHT - 4.0, escape(across));
    svg
}

fn curve(frame: &Frame, number: usize, name: &str, points: &[(f64, f64)]) -> String {
    let path: Vec<String> =
        points.iter().map(|(x, y)| format!("{:.1},{:.1}", frame.x(*x), frame.y(*y))).collect();
    let mut svg = format!(r#"<polyline class="curve c{number}" points="{}"/>"#, path.join(" "));
    for (x, y) in points {
        let told = format!("{}: {} at {}", escape(name), short(*y), short(*x));
        let _ = write!(
            svg,
            r#"<circle class="dot c{number}" cx="{:.1}" cy="{:.1}" r="5"><title>{told}</title></circle>"#,
            frame.x(*x),
            frame.y(*y),
        );
    }
    svg
}

fn bars_of(title: &str, bars: &[(String, f64)]) -> String {
    let longest = positive(bars.iter().map(|(_, value)| *value).fold(0.0, f64::max));
    let mut svg = open_svg(title, bars.len() as f64 * BAR_STEP);
    for (number, (name, value)) in bars.iter().enumerate() {
        let top = number as f64 * BAR_STEP;
        let width = (value / longest * (WIDTH - 110.0)).max(1.0);
        let (name_y, bar_y, value_y) = (top + 12.0, top + 18.0, top + 30.0);
        let _ = write!(svg, r#"<text x="0" y="{name_y:.1}">{}</text>"#, escape(name));
        let _ =
            write!(svg, r#"<rect class="c0" x="0" y="{bar_y:.1}" width="{width:.1}" height="15" rx="3"/>"#);
        let told = short(*value);
        let _ = write!(svg, r#"<text class="value" x="{:.1}" y="{value_y:.1}">{told}</text>"#, width + 8.0);
    }
    svg + "</svg>"
}

fn positive(value: f64) -> f64 {
    if value > 0.0 { value } else { 1.0 }
}

/// Returns a step of 1, 2 or 5 times a power of ten that gives about as many lines as wanted.
fn step_for(max: f64) -> f64 {
    let rough = positive(max) / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    power * factor.unwrap_or(10.0)
}

fn ticks(max: f64) -> Vec<f64> {
    let step = step_for(max);
    (0..=(positive(max) / step + 0.001) as usize).map(|number| number as f64 * step).collect()
}

/// Writes a number for an axis: 1.2k, 3M, 0.25.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let text = format!("{value:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(100.0), [0.0, 50.0, 100.0]);
        assert_eq!(ticks(8.0), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert!(ticks(0.0).len() > 2, "an empty chart still has a grid");
    }

    #[test]
    fn numbers_on_an_axis_are_short() {
        let written = [0.0, 0.25, 120.0, 1_500.0, 58_000.0, 2_500_000.0].map(short);
        assert_eq!(written, ["0", "0.25", "120", "1500", "58k", "2.5M"]);
    }

    #[test]
    fn points_lie_inside_the_frame() {
        let curves = vec![("a".to_owned(), vec![(0.0, 5.0), (10.0, 55.0)])];
        let frame = Frame::around(&curves);
        assert!(frame.y(55.0) >= TOP && frame.y(0.0) <= HEIGHT - BOTTOM);
        assert!((frame.x(10.0) - (WIDTH - RIGHT)).abs() < 0.001 && (frame.x(0.0) - LEFT).abs() < 0.001);
    }

    #[test]
    fn names_are_escaped() {
        let chart = Chart::Bars { title: "a<b".into(), bars: vec![("<script>".into(), 1.0)] };
        let svg = render(&chart);
        assert!(
            svg.contains("a&lt;b") && svg.contains("&lt;script&gt;") && !svg.contains("<script"),
            "{svg}"
        );
    }
}
