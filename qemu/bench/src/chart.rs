//! Results as a picture: our time as a part of Linux's, a bar for each workload,
//! on a logarithmic scale, with the targets and the spread. Plain SVG.

use std::fmt::Write as _;

use crate::results::{Results, Workload};

const LEFT: f64 = 190.0;
const WIDTH: f64 = 640.0;
const ROW: f64 = 20.0;
const TOP: f64 = 60.0;
/// The ends of the scale.
const LEAST: f64 = 0.01;
const MOST: f64 = 10.0;

fn x(ratio: f64) -> f64 {
    let part = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LEFT + part * WIDTH
}

/// Draws the chart.
pub(crate) fn draw(results: &Results) -> String {
    let shown: Vec<(&Workload, f64)> = results
        .workloads
        .iter()
        .filter(|workload| workload.set != "base")
        .filter_map(|workload| Some((workload, workload.ratio()?)))
        .collect();
    let height = TOP + shown.len() as f64 * ROW + 40.0;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="22" font-size="15">Elapsed time beside a Linux guest's: medians, logarithmic, less is better</text>
<text x="10" y="40" fill="#555">line across a bar: from our least by Linux's greatest to our greatest by Linux's least; tick: target</text>
"##,
        w = LEFT + WIDTH + 70.0
    );
    for mark in [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
        let (at, bottom) = (x(mark), height - 30.0);
        let color = if mark == 1.0 { "#000" } else { "#ddd" };
        let _ = writeln!(
            svg,
            r##"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{bottom:.1}" stroke="{color}"/><text x="{at:.1}" y="{:.1}" text-anchor="middle" fill="#555">{mark}</text>"##,
            bottom + 16.0
        );
    }
    for (row, (workload, ratio)) in shown.iter().enumerate() {
        let y = TOP + row as f64 * ROW;
        let middle = y + ROW / 2.0;
        let met = workload.target().is_none_or(|target| *ratio <= target);
        let color = match (met, *ratio < 1.0) {
            (true, _) => "#2a7",
            (false, true) => "#da3",
            (false, false) => "#c44",
        };
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text><rect x="{LEFT}" y="{:.1}" width="{:.1}" height="{:.1}" fill="{color}"/>"#,
            LEFT - 8.0,
            middle + 4.0,
            workload.name,
            y + 3.0,
            (x(*ratio) - LEFT).max(1.0),
            ROW - 6.0
        );
        let least = |ns: &[u64]| ns.iter().min().map(|ns| *ns as f64);
        let most = |ns: &[u64]| ns.iter().max().map(|ns| *ns as f64);
        let (ours, linux) = (&workload.ours.ns, &workload.linux.ns);
        if let (Some(a), Some(b), Some(c), Some(d)) =
            (least(ours), most(linux), most(ours), least(linux))
        {
            let _ = writeln!(
                svg,
                r##"<line x1="{:.1}" y1="{middle:.1}" x2="{:.1}" y2="{middle:.1}" stroke="#333"/>"##,
                x(a / b),
                x(c / d)
            );
        }
        if let Some(target) = workload.target() {
            let at = x(target);
            let _ = writeln!(
                svg,
                r##"<line x1="{at:.1}" y1="{:.1}" x2="{at:.1}" y2="{:.1}" stroke="#06c" stroke-width="2"/>"##,
                y + 2.0,
                y + ROW - 2.0
            );
        }
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}">{ratio:.2}</text>"#,
            LEFT + WIDTH + 8.0,
            middle + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_logarithmic_and_ends() {
        assert_eq!(x(LEAST), LEFT);
        assert_eq!(x(MOST), LEFT + WIDTH);
        assert_eq!(x(0.0), LEFT);
        assert_eq!(x(1e9), LEFT + WIDTH);
        assert!((x(0.1) - LEFT - WIDTH / 3.0).abs() < 1e-6);
    }

    #[test]
    fn what_has_no_ratio_is_left_out() {
        let mut results = Results::default();
        results.entry("posix", "seqread_1m").ours.ns = vec![5];
        results.entry("posix", "stat_hot").ours.ns = vec![5];
        results.entry("posix", "stat_hot").linux.ns = vec![10];
        let svg = draw(&results);
        assert!(svg.contains("stat_hot") && svg.contains(">0.50<"), "{svg}");
        assert!(!svg.contains("seqread_1m"), "{svg}");
    }
}
