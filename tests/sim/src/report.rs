//! The tables: aligned text for the terminal, Markdown for RESULTS.md.

use std::fmt::Write as _;

use virtio_fs::dax::{Reclaim, Window};

use crate::contest::{Contestant, Limits};
use crate::cost::Model;
use crate::replay::Outcome;
use crate::synthetic::{Shape, WORKLOADS};
use crate::trace::{Prepared, Trace};

/// Working sets of the tables, in halves of a window.
pub const WORKING_SETS: [u64; 5] = [1, 2, 4, 8, 32];

/// How the tables are to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Columns aligned with blanks.
    Aligned,
    /// Markdown.
    Markdown,
}

/// Everything known of one trace.
pub struct Row {
    /// Name of the trace.
    pub name: String,
    /// Working set, as printed; empty for a recorded trace.
    pub working_set: String,
    /// Number of accesses.
    pub accesses: u64,
    /// MiB moved.
    pub mib: f64,
    /// The clairvoyant limits.
    pub limits: Limits,
    /// One per contestant.
    pub outcomes: Vec<Outcome>,
}

impl Row {
    /// Runs everybody on `trace`.
    pub fn of(name: &str, working_set: String, trace: &Prepared, model: &Model) -> Self {
        let run = |contestant: &Contestant| contestant.run(trace, model);
        let bytes: u64 = trace.accesses.iter().map(|a| u64::from(a.len)).sum();
        Self {
            name: name.to_owned(),
            working_set,
            accesses: trace.accesses.len() as u64,
            mib: bytes as f64 / f64::from(1 << 20),
            limits: Limits::of(trace, model),
            outcomes: Contestant::ALL.iter().map(run).collect(),
        }
    }

    /// Returns the modelled cost of `outcome` as a multiple of the optimum.
    pub fn ratio(&self, outcome: &Outcome) -> f64 {
        outcome.cost as f64 / self.limits.cost as f64
    }
}

/// Runs the synthetic workloads whose names contain `filter`.
///
/// # Errors
/// The window holds no range.
pub fn synthetic(shape: Shape, filter: &str, model: &Model) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for workload in WORKLOADS.iter().filter(|w| w.name.contains(filter)) {
        for halves in WORKING_SETS {
            let shape = Shape {
                working_set: (shape.window * halves / 2).max(1),
                ..shape
            };
            let trace = workload.trace(shape).prepare()?;
            let working_set = format!("{}", halves as f64 / 2.0);
            rows.push(Row::of(workload.name, working_set, &trace, model));
        }
    }
    Ok(rows)
}

/// Runs a recorded trace.
///
/// # Errors
/// The window holds no range.
pub fn recorded(trace: &Trace, model: &Model) -> Result<Vec<Row>, String> {
    let row = Row::of(&trace.name, String::new(), &trace.prepare()?, model);
    Ok(vec![row])
}

fn table(
    rows: &[Row],
    style: Style,
    columns: &[&str],
    cells: impl Fn(&Row) -> Vec<String>,
) -> String {
    let mut lines = vec![];
    let head = ["trace", "windows"].iter().chain(columns);
    lines.push(head.map(|&cell| cell.to_owned()).collect::<Vec<_>>());
    for row in rows {
        let mut line = vec![row.name.clone(), row.working_set.clone()];
        line.extend(cells(row));
        lines.push(line);
    }
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].len())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| {
                if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        let cells: Vec<String> = cells.collect();
        match style {
            Style::Aligned => drop(writeln!(text, "{}", cells.join("  ").trim_end())),
            Style::Markdown => drop(writeln!(text, "| {} |", cells.join(" | "))),
        }
        if number == 0 && style == Style::Markdown {
            let rule: Vec<&str> = (0..cells.len())
                .map(|c| if c == 0 { "---" } else { "--:" })
                .collect();
            let _ = writeln!(text, "|{}|", rule.join("|"));
        }
    }
    text
}

fn names() -> Vec<&'static str> {
    Contestant::ALL
        .iter()
        .map(|contestant| contestant.name())
        .collect()
}

/// Modelled cost of each policy as a multiple of the optimum.
pub fn costs(rows: &[Row], style: Style) -> String {
    let mut columns = vec!["optimum us/access"];
    columns.extend(names());
    table(rows, style, &columns, |row| {
        let optimum = row.limits.cost as f64 / 1e3 / row.accesses as f64;
        let mut cells = vec![format!("{optimum:.1}")];
        cells.extend(
            row.outcomes
                .iter()
                .map(|outcome| format!("{:.2}", row.ratio(outcome))),
        );
        cells
    })
}

/// Mappings per MiB moved.
pub fn maps(rows: &[Row], style: Style) -> String {
    let mut columns = vec!["Belady", "frequencies"];
    columns.extend(names());
    table(rows, style, &columns, |row| {
        let per_mib = |maps: u64| format!("{:.3}", maps as f64 / row.mib);
        let mut cells = vec![per_mib(row.limits.maps), per_mib(row.limits.informed)];
        cells.extend(row.outcomes.iter().map(|outcome| per_mib(outcome.maps)));
        cells
    })
}

/// Requests of every kind per access.
pub fn requests(rows: &[Row], style: Style) -> String {
    table(rows, style, &names(), |row| {
        let per_access = |outcome: &Outcome| {
            format!("{:.3}", outcome.requests() as f64 / outcome.accesses as f64)
        };
        row.outcomes.iter().map(per_access).collect()
    })
}

/// The whole of RESULTS.md.
pub fn document(rows: &[Row], shape: Shape, model: &Model) -> String {
    let mut text = format!(
        "# Reclaim policies compared\n\n\
         Printed by `cargo run --release -p virtio-fs-sim -- --document`; do not edit.\n\n\
         Window: {} ranges of 2 MiB. About {} accesses per trace, seed {}. `windows` is the working\n\
         set as a multiple of the window.\n\n\
         Cost model, in microseconds: mapping and unmapping {} (of which SETUPMAPPING {}, one entry of a\n\
         REMOVEMAPPING {}, its round trip {}, shared by a batch); READ or WRITE {} and {} per KiB; access\n\
         through the window {} and {} per KiB. All work is added up; nothing is hidden by doing it in the\n\
         background, so mapping ahead gains nothing here and must only not cost more.\n\n",
        shape.window,
        shape.accesses,
        shape.seed,
        model.costs.map / 1000,
        model.setup() / 1000,
        model.remove_entry / 1000,
        model.remove_request / 1000,
        model.costs.request / 1000,
        f64::from(model.costs.request_kib) / 1e3,
        model.costs.access / 1000,
        f64::from(model.costs.access_kib) / 1e3,
    );
    text.push_str("## Traces\n\n");
    for workload in WORKLOADS {
        let _ = writeln!(text, "- **{}**: {}", workload.name, workload.about);
    }
    let _ = write!(
        text,
        "\n## Memory\n\n\
         Ledger {} bytes per range; policy {} bytes per range and {} bytes per ghost, two ghosts per range:\n\
         {} bytes for each 2 MiB of window ({:.3} %).\n\n",
        Window::BYTES_PER_RANGE,
        Reclaim::BYTES_PER_RANGE,
        Reclaim::BYTES_PER_GHOST,
        bytes_per_range(),
        bytes_per_range() as f64 * 100.0 / f64::from(2 << 20),
    );
    text.push_str(include_str!("reading.md"));
    for (title, body) in [
        (
            "Modelled cost, as a multiple of the clairvoyant optimum",
            costs(rows, Style::Markdown),
        ),
        ("Mappings per MiB moved", maps(rows, Style::Markdown)),
        ("Requests per access", requests(rows, Style::Markdown)),
    ] {
        let _ = write!(text, "\n## {title}\n\n{body}");
    }
    text
}

/// Memory per range of window, ghosts included.
pub const fn bytes_per_range() -> usize {
    Window::BYTES_PER_RANGE + Reclaim::BYTES_PER_RANGE + 2 * Reclaim::BYTES_PER_GHOST
}
