//! What a test run found, case by case, and its two forms for other programs: TAP (version 14) and
//! the XML of JUnit, as far as the tools that read it agree.

use crate::Error;
use std::{fmt::Write, fs, path::Path, time::Duration};

/// A test that ran, or should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Who judged: `guest` or `host`.
    pub group: &'static str,
    /// What it shows.
    pub name: String,
    /// How long it took, if that is known.
    pub time: Option<Duration>,
    /// Why it failed, if it did.
    pub result: Result<(), String>,
}

/// All cases of a run, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The cases.
    pub cases: Vec<Case>,
}

impl Report {
    /// Adds a case of the host's, and prints its line.
    pub(crate) fn host(&mut self, name: &str, result: Result<(), String>) {
        match &result {
            Ok(()) => println!("host: {name}: ok"),
            Err(why) => println!("host: {name}: FAILED\n{why}"),
        }
        self.cases.push(Case {
            group: "host",
            name: name.into(),
            time: None,
            result,
        });
    }

    /// How many cases passed, and how many failed.
    pub fn counts(&self) -> (usize, usize) {
        let failed = self.cases.iter().filter(|case| case.result.is_err());
        let failed = failed.count();
        (self.cases.len() - failed, failed)
    }

    /// Prints the sum as the last line.
    ///
    /// # Errors
    /// [`Error::Tests`] if a case failed.
    pub fn verdict(&self) -> Result<(), Error> {
        let (passed, failed) = self.counts();
        println!("{passed} passed, {failed} failed");
        match failed {
            0 => Ok(()),
            _ => Err(Error::Tests(format!("{failed} tests failed"))),
        }
    }

    /// Writes both forms, each where a file for it is named.
    ///
    /// # Errors
    /// [`Error::Os`] for the file that cannot be written.
    pub fn write(&self, tap: Option<&Path>, junit: Option<&Path>) -> Result<(), Error> {
        let write = |path: &Path, text| {
            fs::write(path, text).map_err(Error::os(format!("writing {}", path.display())))
        };
        tap.map_or(Ok(()), |path| write(path, self.tap()))?;
        junit.map_or(Ok(()), |path| write(path, self.junit()))
    }

    /// As TAP.
    pub fn tap(&self) -> String {
        let mut text = format!("TAP version 14\n1..{}\n", self.cases.len());
        for (number, case) in (1..).zip(&self.cases) {
            let verdict = if case.result.is_ok() { "ok" } else { "not ok" };
            let name = case.name.replace('\\', "\\\\").replace('#', "\\#");
            // Writing to a string cannot fail.
            let _ = write!(text, "{verdict} {number} - {}: {name}", case.group);
            if let Some(time) = case.time {
                let _ = write!(text, " # time={}ms", time.as_millis());
            }
            text.push('\n');
            if let Err(why) = &case.result {
                text.push_str("  ---\n  message: |\n");
                for line in why.lines() {
                    let _ = writeln!(text, "    {line}");
                }
                text.push_str("  ...\n");
            }
        }
        text
    }

    /// As JUnit's XML.
    pub fn junit(&self) -> String {
        let (_, failed) = self.counts();
        let time: Duration = self.cases.iter().filter_map(|case| case.time).sum();
        let sums = format!(
            "name=\"virtio-fs\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" time=\"{:.3}\"",
            self.cases.len(),
            time.as_secs_f64()
        );
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {sums}>\n  <testsuite {sums}>\n"
        );
        for case in &self.cases {
            let time = case.time.unwrap_or_default().as_secs_f64();
            let _ = write!(
                text,
                "    <testcase classname=\"{}\" name=\"{}\" time=\"{time:.3}\"",
                case.group,
                xml(&case.name)
            );
            text += &match &case.result {
                Ok(()) => "/>\n".into(),
                Err(why) => {
                    let first = why.lines().next().unwrap_or_default();
                    format!(
                        "><failure message=\"{}\">{}</failure></testcase>\n",
                        xml(first),
                        xml(why)
                    )
                }
            };
        }
        text + "  </testsuite>\n</testsuites>\n"
    }
}

/// Text as XML takes it in an attribute or between tags: what XML 1.0 does not know becomes U+FFFD.
fn xml(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => {
                safe.push(c);
            }
            _ => safe.push('\u{fffd}'),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let case = |group, name: &str, time, result| Case {
            group,
            name: name.into(),
            time,
            result,
        };
        let time = Some(Duration::from_millis(1250));
        let why = Err("left <1>\nright \"2\" & \u{1}".into());
        Report {
            cases: vec![
                case("guest", "a # b", time, Ok(())),
                case("host", "<c>", None, why),
            ],
        }
    }

    #[test]
    fn tap_numbers_the_cases_and_gives_the_reasons() {
        assert_eq!(
            report().tap(),
            "TAP version 14\n1..2\nok 1 - guest: a \\# b # time=1250ms\nnot ok 2 - host: <c>\n  ---\n  message: |\n    \
             left <1>\n    right \"2\" & \u{1}\n  ...\n"
        );
    }

    #[test]
    fn junit_counts_and_escapes() {
        let text = report().junit();
        assert!(text.contains("tests=\"2\" failures=\"1\" errors=\"0\" time=\"1.250\""));
        assert!(
            text.contains("<testcase classname=\"guest\" name=\"a # b\" time=\"1.250\"/>"),
            "{text}"
        );
        assert!(
            text.contains(
                "name=\"&lt;c&gt;\" time=\"0.000\"><failure message=\"left &lt;1&gt;\">left &lt;1&gt;\nright &quot;2&quot; \
                 &amp; \u{fffd}</failure></testcase>"
            ),
            "{text}"
        );
    }
}
