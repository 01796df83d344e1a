//! What cannot be beaten: two clairvoyant limits, and one for those who cannot
//! see the future.
//!
//! - [`fewest_maps`]: Belady's rule. The fewest mappings if every access must go
//!   through the window: when a range is needed, the one used again last goes.
//! - [`least_cost`]: the least modelled cost if an access may also go by
//!   request, whatever the policy, knowing the future. Exact, as a flow of one
//!   unit per range through time: a range either waits, or pays for a mapping
//!   and then saves, at each access of its chunk, what a request costs more;
//!   or leaves the chunk and pays for the unmapping. Unmappings cost their entry
//!   only (all requests shared in batches), so that it stays a lower bound.
//! - [`informed_maps`]: what knowledge of all frequencies alone is worth.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use virtio_fs::dax::{Access, Chunk, InodeKey, Kind};

use crate::cost::Model;

/// Accesses to one chunk with none to another in between.
struct Run {
    key: (InodeKey, Chunk),
    saving: i64,
}

/// Stands for the cost of a fault that finds no mapping: it must never happen.
const NEVER: i64 = 1_000_000_000_000;

/// Returns the runs and the cost if nothing were ever mapped.
fn runs(accesses: &[Access], model: &Model) -> (Vec<Run>, i64) {
    let mut runs: Vec<Run> = Vec::new();
    let mut base = 0;
    for access in accesses {
        let mapped = model.costs.by_window(access.len) as i64;
        let beyond = access.at + access.len > access.chunk_len;
        let unmapped = match access.kind {
            Kind::Fault if !beyond => NEVER,
            _ => model.costs.by_request(access.len) as i64,
        };
        base += unmapped;
        if beyond {
            continue;
        }
        let key = (access.inode, access.chunk);
        match runs.last_mut() {
            Some(run) if run.key == key => run.saving += (unmapped - mapped).max(0),
            _ => runs.push(Run {
                key,
                saving: (unmapped - mapped).max(0),
            }),
        }
    }
    (runs, base)
}

/// For each run, the next one of the same chunk, or the number of runs.
fn successors(runs: &[Run]) -> Vec<usize> {
    let mut next = vec![runs.len(); runs.len()];
    let mut seen = HashMap::new();
    for (at, run) in runs.iter().enumerate().rev() {
        if let Some(later) = seen.insert(run.key, at) {
            next[at] = later;
        }
    }
    next
}

/// Returns the fewest mappings with `ranges` ranges if every access is mapped.
pub fn fewest_maps(accesses: &[Access], model: &Model, ranges: usize) -> u64 {
    let (runs, _) = runs(accesses, model);
    let next = successors(&runs);
    let mut resident: BTreeSet<(usize, (InodeKey, Chunk))> = BTreeSet::new();
    let mut maps = 0;
    for (at, run) in runs.iter().enumerate() {
        if !resident.remove(&(at, run.key)) {
            maps += 1;
            if resident.len() == ranges {
                resident.pop_last();
            }
        }
        // A chunk that never comes back sorts last and is told apart by its key.
        resident.insert((next[at], run.key));
    }
    maps
}

/// Returns the mappings of a policy that knows how often each chunk is accessed in
/// the whole trace, but not when: when a range is needed, the rarest goes. If
/// accesses are independent draws, nobody who cannot see the future does better.
pub fn informed_maps(accesses: &[Access], model: &Model, ranges: usize) -> u64 {
    let (runs, _) = runs(accesses, model);
    let mut counts: HashMap<_, usize> = HashMap::new();
    for run in &runs {
        *counts.entry(run.key).or_default() += 1;
    }
    let mut resident: BTreeSet<(usize, (InodeKey, Chunk))> = BTreeSet::new();
    let mut maps = 0;
    for run in &runs {
        let entry = (counts[&run.key], run.key);
        if resident.contains(&entry) {
            continue;
        }
        maps += 1;
        if resident.len() == ranges {
            resident.pop_first();
        }
        resident.insert(entry);
    }
    maps
}

#[derive(Clone, Copy)]
struct Edge {
    to: u32,
    room: u32,
    cost: i64,
}

/// A network for successive shortest paths. Edge `e ^ 1` is the way back of `e`.
struct Flow {
    edges: Vec<Edge>,
    out: Vec<Vec<u32>>,
    potential: Vec<i64>,
}

const FAR: i64 = i64::MAX / 4;

impl Flow {
    fn new(nodes: usize) -> Self {
        Self {
            edges: Vec::new(),
            out: vec![Vec::new(); nodes],
            potential: vec![FAR; nodes],
        }
    }

    fn edge(&mut self, from: usize, to: usize, room: u32, cost: i64) {
        for (from, to, room, cost) in [(from, to, room, cost), (to, from, 0, -cost)] {
            self.out[from].push(self.edges.len() as u32);
            let to = to as u32;
            self.edges.push(Edge { to, room, cost });
        }
    }

    /// Distances over a network without cycles whose nodes are in order.
    fn prepare(&mut self) {
        self.potential[0] = 0;
        for node in 0..self.out.len() {
            for &edge in &self.out[node] {
                let Edge { to, room, cost } = self.edges[edge as usize];
                let through = self.potential[node].saturating_add(cost);
                if room > 0 && through < self.potential[to as usize] {
                    self.potential[to as usize] = through;
                }
            }
        }
    }

    /// Sends one unit from the first node to the last along the cheapest way.
    /// Returns what it costs.
    fn send(&mut self) -> Option<i64> {
        let last = self.out.len() - 1;
        let mut distance = vec![FAR; self.out.len()];
        let mut by = vec![u32::MAX; self.out.len()];
        let mut heap = BinaryHeap::from([(Reverse(0), 0_u32)]);
        distance[0] = 0;
        while let Some((Reverse(so_far), node)) = heap.pop() {
            if node as usize == last {
                break;
            }
            if so_far > distance[node as usize] {
                continue;
            }
            for &edge in &self.out[node as usize] {
                let Edge { to, room, cost } = self.edges[edge as usize];
                if room == 0 {
                    continue;
                }
                let step = cost + self.potential[node as usize] - self.potential[to as usize];
                if so_far + step < distance[to as usize] {
                    distance[to as usize] = so_far + step;
                    by[to as usize] = edge;
                    heap.push((Reverse(so_far + step), to));
                }
            }
        }
        let whole = distance[last];
        if whole == FAR {
            return None;
        }
        for (potential, distance) in self.potential.iter_mut().zip(&distance) {
            *potential += (*distance).min(whole);
        }
        let (mut node, mut cost) = (last, 0);
        while node != 0 {
            let edge = by[node] as usize;
            cost += self.edges[edge].cost;
            self.edges[edge].room -= 1;
            self.edges[edge ^ 1].room += 1;
            node = self.edges[edge ^ 1].to as usize;
        }
        Some(cost)
    }
}

/// Returns the least cost in nanoseconds with `ranges` ranges.
pub fn least_cost(accesses: &[Access], model: &Model, ranges: usize) -> u64 {
    let (runs, base) = runs(accesses, model);
    let next = successors(&runs);
    // Nodes in order of time: waiting, entering, leaving; at last the end.
    let (waiting, entering, leaving) = (|t| 3 * t, |t| 3 * t + 1, |t| 3 * t + 2);
    let end = 3 * runs.len();
    let mut flow = Flow::new(end + 1);
    for (t, run) in runs.iter().enumerate() {
        flow.edge(waiting(t), waiting(t + 1), ranges as u32, 0);
        flow.edge(waiting(t), entering(t), 1, model.setup() as i64);
        flow.edge(entering(t), leaving(t), 1, -run.saving);
        flow.edge(leaving(t), waiting(t + 1), 1, model.remove_entry as i64);
        if next[t] < runs.len() {
            flow.edge(leaving(t), entering(next[t]), 1, 0);
        }
        // What is mapped at the end need not be unmapped.
        flow.edge(leaving(t), end, 1, 0);
    }
    flow.prepare();
    let mut cost = base;
    for _ in 0..ranges {
        match flow.send() {
            Some(gain) if gain < 0 => cost += gain,
            _ => break,
        }
    }
    cost as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn access(chunk: u64, len: u32, kind: Kind) -> Access {
        Access {
            inode: InodeKey(1),
            chunk: Chunk(chunk),
            at: 0,
            len,
            chunk_len: 2 << 20,
            kind,
            run: 0,
        }
    }

    /// Tries every choice: for each access, go by request or map over any slot.
    fn search(accesses: &[Access], slots: &mut Vec<Option<Chunk>>, model: &Model) -> u64 {
        let Some((first, rest)) = accesses.split_first() else {
            return 0;
        };
        let by_window = model.costs.by_window(first.len);
        if slots.contains(&Some(first.chunk)) {
            return by_window + search(rest, slots, model);
        }
        let mut least = u64::MAX;
        if first.kind == Kind::Copy {
            least = model.costs.by_request(first.len) + search(rest, slots, model);
        }
        for slot in 0..slots.len() {
            let old = slots[slot].replace(first.chunk);
            let remove = old.map_or(0, |_| model.remove_entry);
            let cost = model.setup() + remove + by_window + search(rest, slots, model);
            least = least.min(cost);
            slots[slot] = old;
        }
        least
    }

    fn search_maps(accesses: &[Access], slots: &mut Vec<Option<Chunk>>) -> u64 {
        let Some((first, rest)) = accesses.split_first() else {
            return 0;
        };
        if slots.contains(&Some(first.chunk)) {
            return search_maps(rest, slots);
        }
        let mut least = u64::MAX;
        for slot in 0..slots.len() {
            let old = slots[slot].replace(first.chunk);
            least = least.min(1 + search_maps(rest, slots));
            slots[slot] = old;
        }
        least
    }

    #[test]
    fn limits_agree_with_trying_everything() {
        let seed = 42;
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut model = Model::MEASURED;
        // Few accesses must be able to pay for a mapping.
        model.costs.map = 400_000;
        model.remove_entry = 60_000;
        model.remove_request = 40_000;
        for round in 0..300 {
            let ranges = 1 + round % 2;
            let accesses: Vec<Access> = (0..9)
                .map(|_| {
                    let kind = [Kind::Copy, Kind::Copy, Kind::Fault][random.below(3) as usize];
                    let len = [4096, 1 << 20][random.below(2) as usize];
                    access(random.below(4), len, kind)
                })
                .collect();
            let least = search(&accesses, &mut vec![None; ranges], &model);
            assert_eq!(least_cost(&accesses, &model, ranges), least, "{accesses:?}");
            let fewest = search_maps(&accesses, &mut vec![None; ranges]);
            assert_eq!(
                fewest_maps(&accesses, &model, ranges),
                fewest,
                "{accesses:?}"
            );
        }
    }
}
