//! Where the test kernel's instructions go: blocks of code, named after the
//! functions that they are in.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use object::{Object, ObjectSymbol, SymbolKind};

/// Functions that are shown.
const SHOWN: usize = 40;

/// Reads blocks and the symbols of the kernel that they ran in, and returns a table
/// for `ops` operations.
pub(crate) fn table(blocks: &Path, kernel: &Path, ops: u64) -> Result<String, String> {
    let bytes = fs::read(kernel).map_err(|e| format!("{}: {e}", kernel.display()))?;
    let file = object::File::parse(&*bytes).map_err(|e| format!("{}: {e}", kernel.display()))?;
    let functions: BTreeMap<u64, &str> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
        .collect();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let text = fs::read_to_string(blocks).map_err(|e| format!("{}: {e}", blocks.display()))?;
    for line in text.lines() {
        let Some((address, count)) = line.split_once(' ') else {
            continue;
        };
        let address = u64::from_str_radix(address.trim_start_matches("0x"), 16);
        let (Ok(address), Ok(count)) = (address, count.parse::<u64>()) else {
            continue;
        };
        let function = functions.range(..=address).next_back();
        *counts
            .entry(function.map_or("?", |(_, name)| name))
            .or_default() += count;
    }
    let all: u64 = counts.values().sum();
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let each = |count: u64| count as f64 / ops.max(1) as f64;
    let mut text = format!(
        "{:9.1} instructions for each of {ops} operations\n",
        each(all)
    );
    for (name, count) in sorted.into_iter().take(SHOWN) {
        let part = 100.0 * count as f64 / all.max(1) as f64;
        let name = rustc_demangle::demangle(name);
        let _ = writeln!(text, "{:9.1} {part:5.1} %  {name:#}", each(count));
    }
    Ok(text)
}
