//! Reads the guest's table of tests from its console: TAP, between whatever else it wrote.
//!
//! A run is believed only if it is whole: as many results as the plan says, and the last line's sum is
//! that of the results. A test that has begun and not ended is the one to blame for the end of the run.

use crate::report::{Case, Report};
use std::time::Duration;

/// Adds the tests that the guest ran to `report`; and one more case, for a run that is not whole or
/// whose status does not fit. `status` is how it ended.
pub(crate) fn judge(console: &str, status: Result<u8, String>, report: &mut Report) {
    let run = Run::read(console);
    let (passed, failed) = run.counts();
    let end = match (&status, run.plan, run.sum) {
        (Err(why), ..) => Err(why.clone()),
        (Ok(status), None, _) => Err(format!(
            "status {status}, but no plan \"1..N\" from the guest"
        )),
        (Ok(status), Some(plan), _) if plan != run.cases.len() => Err(format!(
            "status {status} after {} of {plan} tests",
            run.cases.len()
        )),
        (Ok(status), _, sum) if sum != Some((passed, failed)) => Err(format!(
            "status {status}; {passed} passed, {failed} failed, but the last line is {sum:?}"
        )),
        (Ok(_), Some(0), _) => Err("the guest ran no test".into()),
        (Ok(status), ..) if (*status == 0) != (failed == 0) => Err(format!(
            "status {status} does not fit {failed} failed tests"
        )),
        _ => Ok(()),
    };
    report.cases.extend(run.cases);
    if let Some(name) = run.begun {
        let why = match status {
            Ok(status) => format!("the run ended in it, with status {status}"),
            Err(why) => format!("the run ended in it: {why}"),
        };
        report.cases.push(guest(name, None, Err(why)));
    }
    report.host("the guest's plan, last line and status", end);
}

/// What the console shows of a run.
#[derive(Debug, Default)]
struct Run {
    plan: Option<usize>,
    cases: Vec<Case>,
    /// The test that has begun and not ended.
    begun: Option<String>,
    /// Passed and failed, by the last line.
    sum: Option<(usize, usize)>,
}

impl Run {
    fn read(console: &str) -> Self {
        let mut run = Self::default();
        let mut lines = console.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(plan) = line.strip_prefix("1..") {
                run.plan = plan.parse().ok();
            } else if let Some(test) = line.strip_prefix("# begins ") {
                run.begun = test.split_once(" - ").map(|(_, name)| plain(name).0);
            } else if let Some(sum) = sum(line) {
                run.sum = Some(sum);
            } else if let Some((passed, test)) = result(line) {
                let (name, time) = plain(test);
                let result = if passed {
                    Ok(())
                } else {
                    Err(reason(&mut lines))
                };
                run.begun = None;
                run.cases.push(guest(name, time, result));
            }
        }
        run
    }

    fn counts(&self) -> (usize, usize) {
        let failed = self.cases.iter().filter(|case| case.result.is_err());
        let failed = failed.count();
        (self.cases.len() - failed, failed)
    }
}

fn guest(name: String, time: Option<Duration>, result: Result<(), String>) -> Case {
    Case {
        group: "guest",
        name,
        time,
        result,
    }
}

/// `ok N - TEST` or `not ok N - TEST`.
fn result(line: &str) -> Option<(bool, &str)> {
    let (passed, rest) = match line.strip_prefix("not ") {
        Some(rest) => (false, rest),
        None => (true, line),
    };
    let (number, test) = rest.strip_prefix("ok ")?.split_once(" - ")?;
    number.parse::<usize>().ok().map(|_| (passed, test))
}

/// `# N passed, N failed`.
fn sum(line: &str) -> Option<(usize, usize)> {
    let counts = line.strip_prefix("# ")?.strip_suffix(" failed")?;
    let (passed, failed) = counts.split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.parse().ok()?))
}

/// A name without its escapes, and the time in the directive behind it.
fn plain(test: &str) -> (String, Option<Duration>) {
    let mut name = String::new();
    let mut chars = test.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => name.extend(chars.next()),
            '#' => break,
            _ => name.push(c),
        }
    }
    let time = chars.as_str().trim().strip_prefix("time=");
    let time = time.and_then(|time| time.strip_suffix("ms")?.parse().ok());
    (name.trim_end().into(), time.map(Duration::from_millis))
}

/// The message in the block below a failed test.
fn reason<'a>(lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> String {
    let mut message = Vec::new();
    if lines.next_if_eq(&"  ---").is_some() {
        for line in lines.by_ref().take_while(|line| *line != "  ...") {
            if line != "  message: |" {
                message.push(line.strip_prefix("    ").unwrap_or(line));
            }
        }
    }
    if message.is_empty() {
        return "no reason was given".into();
    }
    message.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(console: &str, status: Result<u8, String>) -> Vec<(String, Result<(), String>)> {
        let mut report = Report::default();
        judge(console, status, &mut report);
        let cases = report.cases.into_iter();
        cases.map(|case| (case.name, case.result)).collect()
    }

    const WHOLE: &str = "boot\nTAP version 14\n1..2\n# begins 1 - a \\# b\nok 1 - a \\# b # time=12ms\n# begins 2 - c\n\
                         [1.0] a log line\nnot ok 2 - c # time=3ms\n  ---\n  message: |\n    one\n    two\n  ...\n# 1 passed, 1 failed\n";

    #[test]
    fn names_times_and_reasons_are_read_between_other_lines() {
        let mut report = Report::default();
        judge(WHOLE, Ok(1), &mut report);
        assert_eq!(
            report.cases[0],
            guest("a # b".into(), Some(Duration::from_millis(12)), Ok(()))
        );
        assert_eq!(report.cases[1].result, Err("one\ntwo".into()));
        assert_eq!(report.counts(), (2, 1));
    }

    #[test]
    fn a_run_that_is_not_whole_is_a_failure() {
        let last = |console: &str, status| judged(console, status).pop().unwrap().1;
        assert_eq!(last(WHOLE, Ok(1)), Ok(()));
        for (console, status) in [
            ("", Ok(0)),
            ("TAP version 14\n1..0\n# 0 passed, 0 failed\n", Ok(1)),
            (WHOLE, Ok(0)),
            (&WHOLE.replace("1..2", "1..3"), Ok(1)),
            (&WHOLE.replace("1 failed", "0 failed"), Ok(1)),
            (&WHOLE.replace("# 1 passed, 1 failed\n", ""), Ok(1)),
            ("1..1\nok 1 - a\n# 1 passed, 0 failed\n", Ok(1)),
            (
                "1..1\nok 1 - a\n# 1 passed, 0 failed\n",
                Err("time was over".into()),
            ),
        ] {
            assert!(last(console, status).is_err(), "{console}");
        }
    }

    #[test]
    fn the_test_in_which_a_run_ended_is_named() {
        let cases = judged("1..2\n# begins 1 - breaks\npanic!\n", Ok(101));
        let why = "the run ended in it, with status 101".to_owned();
        assert_eq!(cases[0], ("breaks".into(), Err(why)));
    }
}
