//! When to try to make a session anew, and when to stop trying.
//!
//! A pure state machine: it has no clock and sends nothing. One thread at a time
//! makes an attempt; the others wait. Attempts follow each other after pauses
//! that double. They are counted until a caller's request has been answered, so
//! a server that dies at once, time and again, is given up after as many, and
//! one that works for a while in between is not.

use core::time::Duration;

use super::config::Restart;

/// Where a recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The session stands.
    Calm,
    /// Nobody makes an attempt; the next may begin at this time.
    Due(Duration),
    /// Somebody does.
    Running,
    /// No more attempts.
    Over,
}

/// What a thread that finds the session lost is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Make an attempt, and say how it ended.
    Go,
    /// Wait until then.
    Wait(Duration),
    /// Wait for whoever makes one.
    Busy,
    /// Nothing: there is nothing to be done, or nothing more.
    None,
}

/// The course of recoveries.
#[derive(Debug)]
pub(super) struct Recovery {
    phase: Phase,
    /// Attempts since a caller's request was answered.
    attempts: u32,
    pause: Duration,
}

impl Recovery {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Calm,
            attempts: 0,
            pause: Duration::ZERO,
        }
    }

    /// The session is lost. The first attempt is due at once, unless those before
    /// came to nothing.
    pub(super) fn lost(&mut self, now: Duration) {
        if self.phase == Phase::Calm {
            self.phase = Phase::Due(now.saturating_add(self.pause));
        }
    }

    /// Asks for a turn. Who gets [`Turn::Go`] must call
    /// [`succeeded`](Self::succeeded), [`failed`](Self::failed),
    /// [`left`](Self::left) or [`give_up`](Self::give_up).
    pub(super) fn turn(&mut self, now: Duration, policy: &Restart) -> Turn {
        match self.phase {
            Phase::Due(at) if at > now => Turn::Wait(at),
            Phase::Due(_) if self.attempts >= policy.attempts => {
                self.phase = Phase::Over;
                Turn::None
            }
            Phase::Due(_) => {
                self.phase = Phase::Running;
                self.attempts += 1;
                self.pause = (self.pause * 2).clamp(policy.pause, policy.longest_pause);
                Turn::Go
            }
            Phase::Running => Turn::Busy,
            Phase::Calm | Phase::Over => Turn::None,
        }
    }

    /// The session stands again.
    pub(super) fn succeeded(&mut self) {
        self.phase = Phase::Calm;
    }

    /// The attempt failed; the next one is due after a pause.
    pub(super) fn failed(&mut self, now: Duration) {
        if self.phase == Phase::Running {
            self.phase = Phase::Due(now.saturating_add(self.pause));
        }
    }

    /// The thread that made the attempt had to go: it does not count.
    pub(super) fn left(&mut self, now: Duration) {
        self.attempts = self.attempts.saturating_sub(1);
        if self.phase == Phase::Running {
            self.phase = Phase::Due(now);
        }
    }

    /// There will be no session any more.
    pub(super) fn give_up(&mut self) {
        self.phase = Phase::Over;
    }

    /// Keeps everybody from making an attempt from now on. Returns false if
    /// somebody is at it.
    pub(super) fn seize(&mut self) -> bool {
        let idle = self.phase != Phase::Running;
        self.phase = Phase::Over;
        idle
    }

    /// Returns whether attempts were given up.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// A caller's request was answered.
    pub(super) fn progress(&mut self) {
        if self.phase == Phase::Calm {
            (self.attempts, self.pause) = (0, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Restart = Restart {
        attempts: 4,
        pause: Duration::from_millis(10),
        longest_pause: Duration::from_millis(25),
        resends: 3,
    };
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_attempt_is_due_at_once_and_one_thread_makes_it() {
        let mut recovery = Recovery::new();
        assert_eq!(recovery.turn(MS, &POLICY), Turn::None);
        recovery.lost(MS);
        recovery.lost(MS * 99);
        assert_eq!(recovery.turn(MS, &POLICY), Turn::Go);
        assert_eq!(recovery.turn(MS, &POLICY), Turn::Busy);
        recovery.succeeded();
        assert_eq!(recovery.turn(MS, &POLICY), Turn::None);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_attempts_end() {
        let mut recovery = Recovery::new();
        recovery.lost(Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut pauses = [0; 4];
        for pause in &mut pauses {
            assert_eq!(recovery.turn(now, &POLICY), Turn::Go);
            recovery.failed(now);
            let Turn::Wait(until) = recovery.turn(now, &POLICY) else {
                panic!("no pause");
            };
            *pause = (until - now).as_millis();
            now = until;
        }
        assert_eq!(pauses, [10, 20, 25, 25]);
        assert_eq!(recovery.turn(now, &POLICY), Turn::None);
        assert!(recovery.is_over());
        recovery.lost(now);
        assert!(recovery.is_over());
    }

    #[test]
    fn sessions_that_answer_nothing_count_as_one_failure_after_the_other() {
        let mut recovery = Recovery::new();
        let mut now = Duration::ZERO;
        let mut sessions = 0;
        loop {
            recovery.lost(now);
            match recovery.turn(now, &POLICY) {
                Turn::Go => {
                    recovery.succeeded();
                    sessions += 1;
                }
                Turn::Wait(until) => now = until,
                Turn::Busy | Turn::None => break,
            }
        }
        assert_eq!(sessions, POLICY.attempts);
    }

    #[test]
    fn an_answered_request_makes_the_count_begin_anew() {
        let mut recovery = Recovery::new();
        for _ in 0..100 {
            recovery.lost(Duration::ZERO);
            assert_eq!(recovery.turn(Duration::ZERO, &POLICY), Turn::Go);
            recovery.succeeded();
            recovery.progress();
        }
    }

    #[test]
    fn a_thread_that_has_to_go_leaves_its_turn_to_the_next() {
        let mut recovery = Recovery::new();
        recovery.lost(MS);
        for _ in 0..100 {
            assert_eq!(recovery.turn(MS, &POLICY), Turn::Go);
            recovery.left(MS);
        }
        assert!(!recovery.is_over());
    }
}
