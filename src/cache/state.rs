//! In which state the pages of a folio are. See the [module](super)'s table.

/// Returns the bits of `count` pages from `first` on.
pub(crate) const fn span(first: u32, count: u32) -> u64 {
    match count {
        0 => 0,
        64.. => u64::MAX << first,
        _ => ((1 << count) - 1) << first,
    }
}

/// The states of up to 64 pages, a bit for each in every word.
///
/// # Invariants
///
/// - A page that is filling is neither valid nor dirty nor writing.
/// - A page that is dirty or writing is valid.
/// - A page that is doomed is filling or writing, and not dirty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct States {
    valid: u64,
    filling: u64,
    dirty: u64,
    writing: u64,
    /// Filling or writing, and absent afterwards.
    doomed: u64,
}

impl States {
    pub(crate) const fn valid(&self) -> u64 {
        self.valid
    }

    pub(crate) const fn filling(&self) -> u64 {
        self.filling
    }

    pub(crate) const fn dirty(&self) -> u64 {
        self.dirty
    }

    pub(crate) const fn writing(&self) -> u64 {
        self.writing
    }

    /// Returns whether nobody but readers uses any page.
    pub(crate) const fn is_idle(&self) -> bool {
        self.filling | self.dirty | self.writing == 0
    }

    /// Makes the absent pages of `pages` filling and returns them: they are the
    /// caller's to fill.
    pub(crate) const fn claim(&mut self, pages: u64) -> u64 {
        let claimed = pages & !(self.valid | self.filling);
        self.filling |= claimed;
        claimed
    }

    /// Ends the filling of `pages`, with content for those in `good`.
    pub(crate) const fn filled(&mut self, pages: u64, good: u64) {
        let pages = pages & self.filling;
        self.filling &= !pages;
        self.valid |= pages & good & !self.doomed;
        self.doomed &= !pages;
    }

    /// Notes that valid pages were changed. Returns those that were not dirty.
    pub(crate) const fn soil(&mut self, pages: u64) -> u64 {
        let new = pages & self.valid & !self.dirty;
        self.dirty |= new;
        self.doomed &= !new;
        new
    }

    /// Takes the dirty pages of `pages` that are not on their way already, to be
    /// written out.
    pub(crate) const fn take_dirty(&mut self, pages: u64) -> u64 {
        let taken = pages & self.dirty & !self.writing;
        self.dirty &= !taken;
        self.writing |= taken;
        taken
    }

    /// Ends the writing out of `pages`.
    pub(crate) const fn written(&mut self, pages: u64) {
        let pages = pages & self.writing;
        self.writing &= !pages;
        self.valid &= !(pages & self.doomed);
        self.doomed &= !pages;
    }

    /// Makes pages absent, whatever they held: at once, or as soon as they are not
    /// on their way any more. Returns those that were dirty.
    pub(crate) const fn discard(&mut self, pages: u64) -> u64 {
        let dirty = self.dirty & pages;
        let busy = pages & (self.filling | self.writing);
        self.dirty &= !pages;
        self.doomed |= busy;
        self.valid &= !(pages & !busy);
        dirty
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// One page, as the table has it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Page {
        valid: bool,
        filling: bool,
        dirty: bool,
        writing: bool,
        doomed: bool,
    }

    fn bits(pages: &[Page], what: impl Fn(&Page) -> bool) -> u64 {
        let set = pages.iter().enumerate().filter(|(_, page)| what(page));
        set.fold(0, |bits, (i, _)| bits | 1 << i)
    }

    /// Calls `change` for each page in `set` and returns those for which it says
    /// so.
    fn each(pages: &mut [Page], set: u64, mut change: impl FnMut(&mut Page) -> bool) -> u64 {
        let mut said = 0;
        for (i, page) in pages.iter_mut().enumerate() {
            if set >> i & 1 != 0 && change(page) {
                said |= 1 << i;
            }
        }
        said
    }

    #[test]
    fn spans_are_as_long_as_they_say() {
        assert_eq!(span(0, 64), u64::MAX);
        assert_eq!(span(63, 1), 1 << 63);
        assert_eq!(span(3, 2), 0b11000);
        assert_eq!(span(5, 0), 0);
    }

    #[test]
    fn any_sequence_agrees_with_pages_one_by_one() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..300 {
            let (mut states, mut pages) = (States::default(), [Page::default(); 64]);
            let mut steps = Vec::new();
            for _ in 0..200 {
                let set = match random() % 3 {
                    0 => span((random() % 64) as u32, (random() % 8) as u32),
                    1 => random() & random(),
                    _ => u64::MAX,
                };
                let step = random() % 6;
                steps.push((step, set));
                let (got, model) = match step {
                    0 => {
                        let model = each(&mut pages, set, |p| {
                            let absent = !p.valid && !p.filling;
                            p.filling |= absent;
                            absent
                        });
                        (states.claim(set), model)
                    }
                    1 => {
                        let good = random();
                        states.filled(set, good);
                        let filling = bits(&pages, |p| p.filling);
                        each(&mut pages, set & filling & good, |p| {
                            p.valid = !p.doomed;
                            false
                        });
                        each(&mut pages, set & filling, |p| {
                            (p.filling, p.doomed) = (false, false);
                            false
                        });
                        (0, 0)
                    }
                    2 => {
                        let model = each(&mut pages, set, |p| {
                            let new = p.valid && !p.dirty;
                            p.dirty |= new;
                            p.doomed &= !new;
                            new
                        });
                        (states.soil(set), model)
                    }
                    3 => {
                        let model = each(&mut pages, set, |p| {
                            let go = p.dirty && !p.writing;
                            if go {
                                (p.dirty, p.writing) = (false, true);
                            }
                            go
                        });
                        (states.take_dirty(set), model)
                    }
                    4 => {
                        states.written(set);
                        let writing = bits(&pages, |p| p.writing);
                        each(&mut pages, set & writing, |p| {
                            p.valid &= !p.doomed;
                            (p.writing, p.doomed) = (false, false);
                            false
                        });
                        (0, 0)
                    }
                    _ => {
                        let model = each(&mut pages, set, |p| {
                            let was = core::mem::take(&mut p.dirty);
                            match p.filling || p.writing {
                                true => p.doomed = true,
                                false => p.valid = false,
                            }
                            was
                        });
                        (states.discard(set), model)
                    }
                };
                let words = [
                    states.valid(),
                    states.filling(),
                    states.dirty(),
                    states.writing(),
                ];
                let expected = [
                    bits(&pages, |p| p.valid),
                    bits(&pages, |p| p.filling),
                    bits(&pages, |p| p.dirty),
                    bits(&pages, |p| p.writing),
                ];
                assert_eq!((got, words), (model, expected), "round {round}: {steps:x?}");
                assert_eq!(states.filling() & states.valid(), 0, "round {round}");
                assert_eq!((states.dirty() | states.writing()) & !states.valid(), 0);
            }
        }
    }
}
