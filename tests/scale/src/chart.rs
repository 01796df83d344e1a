//! Curves as SVG, both axes logarithmic.

use std::fmt::Write as _;

/// A line of a chart: its name, and points with what grows and what it costs.
pub type Curve = (&'static str, Vec<(f64, f64)>);

const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
const COLORS: [&str; 4] = ["#06c", "#c44", "#2a7", "#a5a"];

/// Draws curves over decades of `x` and `y`, given by their ends.
pub fn draw(
    title: &str,
    axes: (&str, &str),
    x: (f64, f64),
    y: (f64, f64),
    all: &[Curve],
) -> String {
    let part = |v: f64, (from, to): (f64, f64)| (v.clamp(from, to) / from).ln() / (to / from).ln();
    let across = |v: f64| LEFT + WIDTH * part(v, x);
    let down = |v: f64| TOP + HEIGHT * (1.0 - part(v, y));
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="20" font-size="15">{title}</text>
<text x="10" y="38" fill="#555">{} over {}</text>
"##,
        LEFT + WIDTH + 160.0,
        TOP + HEIGHT + 40.0,
        axes.1,
        axes.0
    );
    let decades = |(from, to): (f64, f64)| {
        std::iter::successors(Some(from), |v| Some(v * 10.0)).take_while(move |v| *v <= to * 1.01)
    };
    for v in decades(x) {
        let at = across(v);
        let _ = writeln!(
            svg,
            r##"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{:.1}" stroke="#ddd"/><text x="{at:.1}" y="{:.1}" text-anchor="middle" fill="#555">{v}</text>"##,
            TOP + HEIGHT,
            TOP + HEIGHT + 16.0
        );
    }
    for v in decades(y) {
        let at = down(v);
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" y1="{at:.1}" x2="{:.1}" y2="{at:.1}" stroke="#ddd"/><text x="{:.1}" y="{:.1}" text-anchor="end" fill="#555">{v}</text>"##,
            LEFT + WIDTH,
            LEFT - 6.0,
            at + 4.0
        );
    }
    for ((name, points), color) in all.iter().zip(COLORS.iter().cycle()) {
        let line: String = points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1} ", across(*x), down(*y)))
            .collect();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="2"/>"#,
            line.trim_end()
        );
        if let Some((x, y)) = points.last() {
            let (x, y) = (across(*x) + 6.0, down(*y) + 4.0);
            let _ = writeln!(
                svg,
                r#"<text x="{x:.1}" y="{y:.1}" fill="{color}">{name}</text>"#
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
