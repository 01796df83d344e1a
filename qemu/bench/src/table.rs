//! Results as text.

use std::fmt::Write as _;

use crate::{
    border::Border,
    results::{Results, Side, Workload},
};

/// Counters of copies that the driver itself makes: between its window or its page
/// cache and the caller. Everything else the device moves.
const COPIES: &[&str] = &["dax_copies", "page_copies"];

/// All tables of a run.
pub(crate) fn all(results: &Results) -> String {
    let border = Border::measured(results);
    let mut text = times(results, border.as_ref());
    text.push_str(&counted(results));
    if let Some(border) = border {
        let _ = writeln!(
            text,
            "\nLinux, for user space: {:.2} us for an empty system call, {:.2} us for a data call of 4 KiB and \
             {:.1} us for one of 1 MiB beyond the copy.\nThe second ratio is without that.",
            border.call / 1e3,
            border.page / 1e3,
            border.mib / 1e3
        );
    }
    text
}

fn times(results: &Results, border: Option<&Border>) -> String {
    let mut text = format!(
        "{:24} {:>7}  {:>28}  {:>28}  {:>6} {:>6} {:>6}\n",
        "ms: median (min..max)", "ops", "test kernel", "Linux", "ratio", "inside", "target"
    );
    for workload in &results.workloads {
        let ratio = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let (plain, target) = (workload.ratio(), workload.target());
        let met = match (plain, target) {
            (Some(plain), Some(target)) if plain > target => " missed",
            _ => "",
        };
        let _ = writeln!(
            text,
            "{:24} {:>7}  {:>28}  {:>28}  {:>6} {:>6} {:>6}{met}",
            workload.name,
            workload.ours.ops.max(workload.linux.ops),
            spread(&workload.ours),
            spread(&workload.linux),
            ratio(plain),
            ratio(border.and_then(|border| border.ratio(workload))),
            ratio(target),
        );
    }
    text
}

fn spread(side: &Side) -> String {
    if let Some(why) = &side.skipped {
        return format!("refused, errno {why}");
    }
    let ms = |ns: f64| format!("{:.1}", ns / 1e6);
    match (side.median(), side.ns.iter().min(), side.ns.iter().max()) {
        (Some(median), Some(min), Some(max)) => {
            format!("{} ({}..{})", ms(median), ms(*min as f64), ms(*max as f64))
        }
        _ => "-".into(),
    }
}

/// What does not depend on the machine.
fn counted(results: &Results) -> String {
    let mut text = format!(
        "\n{:24} {:>15} {:>13} {:>13} {:>17} {:>11} {:>7} {:>10}  requests by name: ours | Linux's\n",
        "ours / Linux's", "requests", "kicks", "irqs", "insns/op", "io/op", "heap/op", "copies/op"
    );
    for workload in &results.workloads {
        let Workload { ours, linux, .. } = workload;
        let pair = |of: &dyn Fn(&Side) -> Option<String>| {
            let one = |side| of(side).unwrap_or("-".into());
            format!("{} / {}", one(ours), one(linux))
        };
        let each = |n: u64, side: &Side| n as f64 / side.ops.max(1) as f64;
        let last = |of: &[u64]| of.last().map(u64::to_string);
        let per_op = |keys: &[&str]| {
            let known = !ours.counts.is_empty();
            let n = keys.iter().filter_map(|key| ours.counts.get(*key)).sum();
            known.then(|| format!("{:.2}", each(n, ours)))
        };
        let _ = writeln!(
            text,
            "{:24} {:>15} {:>13} {:>13} {:>17} {:>11} {:>7} {:>10}  {}",
            workload.name,
            pair(&|s| Some(s.requests.as_ref()?.total().to_string())),
            pair(&|s| Some(s.requests.as_ref()?.kicks.to_string())),
            pair(&|s| last(&s.irqs)),
            pair(&|s| Some(format!("{:.0}", each(s.instructions?.total(), s)))),
            pair(&|s| Some(format!("{:.1}", each(s.instructions?.io, s)))),
            per_op(&["allocations"]).unwrap_or("-".into()),
            per_op(COPIES).unwrap_or("-".into()),
            names(ours, linux),
        );
    }
    text
}

fn names(ours: &Side, linux: &Side) -> String {
    let list = |side: &Side| {
        let requests = side.requests.as_ref()?;
        let one = |(name, count): (&String, &u64)| format!("{name} {count}");
        Some(
            requests
                .by_name
                .iter()
                .map(one)
                .collect::<Vec<_>>()
                .join(" "),
        )
    };
    match (list(ours), list(linux)) {
        (None, None) => String::new(),
        (ours, linux) => format!(
            "{} | {}",
            ours.unwrap_or_default(),
            linux.unwrap_or_default()
        ),
    }
}

/// How a run differs from an earlier one. Ratios are what can be compared between
/// machines; times only on one.
pub(crate) fn compared(old: &Results, new: &Results) -> String {
    let mut text = format!(
        "\n{:24} {:>10} {:>10} {:>7}  {:>6} {:>6}  {:>8} {:>8}  {:>9} {:>9}\n",
        "old and new",
        "ms",
        "ms",
        "new/old",
        "ratio",
        "ratio",
        "requests",
        "requests",
        "insns/op",
        "insns/op"
    );
    let show = |value: Option<f64>, digits: usize| match value {
        Some(value) => format!("{value:.digits$}"),
        None => "-".into(),
    };
    for now in &new.workloads {
        let Some(then) = old.get(&now.name) else {
            let _ = writeln!(text, "{:24} is new", now.name);
            continue;
        };
        let ms = |w: &Workload| w.ours.median().map(|ns| ns / 1e6);
        let requests = |w: &Workload| Some(w.ours.requests.as_ref()?.total() as f64);
        let insns =
            |w: &Workload| Some(w.ours.instructions?.total() as f64 / w.ours.ops.max(1) as f64);
        let change = ms(now).zip(ms(then)).map(|(now, then)| now / then);
        let _ = writeln!(
            text,
            "{:24} {:>10} {:>10} {:>7}  {:>6} {:>6}  {:>8} {:>8}  {:>9} {:>9}",
            now.name,
            show(ms(then), 1),
            show(ms(now), 1),
            show(change, 2),
            show(then.ratio(), 2),
            show(now.ratio(), 2),
            show(requests(then), 0),
            show(requests(now), 0),
            show(insns(then), 0),
            show(insns(now), 0),
        );
    }
    text
}
