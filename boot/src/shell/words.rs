//! Taking a command line apart, as POSIX shells do for what is supported (XCU
//! 2.2, 2.3): blanks separate words; `'...'` keeps everything, `"..."` all but
//! `\` before `"` and `\`, and outside quotes `\` keeps one character; `;`,
//! `&&` and `||` join commands; `>` and `>>` send output to a file; `#` at the
//! start of a word begins a comment. No variables, globs or pipes.

use alloc::{string::String, vec::Vec};
use core::fmt;

/// One command of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// When it runs.
    pub when: When,
    /// Its name and arguments; not empty.
    pub words: Vec<String>,
    /// Where its output goes, if not to the console.
    pub output: Option<Output>,
}

/// Whether a command runs, by the status of the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Whatever it was (`;`).
    #[default]
    Always,
    /// If it was 0 (`&&`).
    Success,
    /// If it was not 0 (`||`).
    Failure,
}

/// A file that takes a command's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its path, as typed.
    pub path: String,
    /// What becomes of what is in it.
    pub mode: Mode,
}

/// How a file takes output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `>`: what was in it is gone.
    Replace,
    /// `>>`: the output is put behind.
    Append,
}

/// Why a line makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// This quote is not closed.
    Quote(char),
    /// `\` is the last character.
    Backslash,
    /// This operator has no command or file beside it.
    Operator(&'static str),
    /// This operator exists in other shells, but not here.
    Unsupported(char),
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quote(quote) => write!(f, "the quote {quote} is not closed"),
            Self::Backslash => f.write_str("nothing follows the last \\"),
            Self::Operator(operator) => write!(f, "something is missing beside {operator}"),
            Self::Unsupported(operator) => write!(f, "{operator} is not supported; quote it"),
        }
    }
}

impl core::error::Error for SyntaxError {}

enum Token {
    Word(String),
    Join(When, &'static str),
    Output(Mode, &'static str),
}

/// Takes `line` apart.
///
/// # Errors
///
/// The first thing that makes no sense; then nothing of the line should run.
pub fn parse(line: &str) -> Result<Vec<Step>, SyntaxError> {
    let mut steps = Vec::new();
    let mut step = Step::default();
    // The operator that still lacks what must follow it.
    let mut open: Option<&'static str> = None;
    let mut output: Option<(Mode, &'static str)> = None;
    for token in tokens(line)? {
        match token {
            Token::Word(word) => {
                match output.take() {
                    Some((mode, _)) => step.output = Some(Output { path: word, mode }),
                    None => step.words.push(word),
                }
                open = None;
            }
            Token::Output(mode, name) => {
                if output.is_some() {
                    return Err(SyntaxError::Operator(name));
                }
                output = Some((mode, name));
            }
            Token::Join(when, name) => {
                if step.words.is_empty() || output.is_some() {
                    return Err(SyntaxError::Operator(name));
                }
                steps.push(core::mem::take(&mut step));
                step.when = when;
                // A line may end in `;`.
                open = (when != When::Always).then_some(name);
            }
        }
    }
    if let Some(name) = output.map(|(_, name)| name).or(open) {
        return Err(SyntaxError::Operator(name));
    }
    match (step.words.is_empty(), &step.output) {
        (false, _) => steps.push(step),
        (true, Some(_)) => return Err(SyntaxError::Operator(">")),
        (true, None) => {}
    }
    Ok(steps)
}

fn tokens(line: &str) -> Result<Vec<Token>, SyntaxError> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let ends_word = matches!(c, ';' | '&' | '|' | '>' | '<') || c.is_whitespace();
        if ends_word && let Some(word) = word.take() {
            tokens.push(Token::Word(word));
        }
        match c {
            c if c.is_whitespace() => {}
            '#' if word.is_none() => break,
            ';' => tokens.push(Token::Join(When::Always, ";")),
            '&' if rest.next_if_eq(&'&').is_some() => {
                tokens.push(Token::Join(When::Success, "&&"));
            }
            '|' if rest.next_if_eq(&'|').is_some() => {
                tokens.push(Token::Join(When::Failure, "||"));
            }
            '>' if rest.next_if_eq(&'>').is_some() => {
                tokens.push(Token::Output(Mode::Append, ">>"));
            }
            '>' => tokens.push(Token::Output(Mode::Replace, ">")),
            '&' | '|' | '<' => return Err(SyntaxError::Unsupported(c)),
            '\\' => {
                let kept = rest.next().ok_or(SyntaxError::Backslash)?;
                word.get_or_insert_default().push(kept);
            }
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(SyntaxError::Quote(c))? {
                        end if end == c => break,
                        '\\' if c == '"' => match rest.next_if(|&c| c == '"' || c == '\\') {
                            Some(kept) => word.push(kept),
                            None => word.push('\\'),
                        },
                        kept => word.push(kept),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        parse(line)
            .unwrap()
            .into_iter()
            .map(|step| step.words)
            .collect()
    }

    #[test]
    fn quotes_and_backslashes_make_words() {
        assert_eq!(
            words(r#"a 'b  c' "d \" \n" e\ f '' x"y"'z'"#),
            [["a", "b  c", r#"d " \n"#, "e f", "", "xyz"]]
        );
        assert_eq!(words("  # all comment"), Vec::<Vec<String>>::new());
        assert_eq!(words("a#b # c"), [["a#b"]]);
        assert_eq!(words("ls grüße"), [["ls", "grüße"]]);
    }

    #[test]
    fn operators_join_commands() {
        let steps = parse("a 1;b&&c||d ; ").unwrap();
        let when: Vec<_> = steps
            .iter()
            .map(|step| (step.words[0].as_str(), step.when))
            .collect();
        assert_eq!(
            when,
            [
                ("a", When::Always),
                ("b", When::Always),
                ("c", When::Success),
                ("d", When::Failure),
            ]
        );
    }

    #[test]
    fn output_goes_to_files() {
        let steps = parse("echo a >x b; echo c>>'y z'").unwrap();
        assert_eq!(steps[0].words, ["echo", "a", "b"]);
        assert_eq!(
            steps[0].output,
            Some(Output {
                path: "x".into(),
                mode: Mode::Replace
            })
        );
        assert_eq!(
            steps[1].output,
            Some(Output {
                path: "y z".into(),
                mode: Mode::Append
            })
        );
    }

    #[test]
    fn nonsense_is_refused_as_a_whole() {
        use SyntaxError::*;
        for (line, error) in [
            ("a 'b", Quote('\'')),
            ("a \"b\\\"", Quote('"')),
            ("a \\", Backslash),
            ("a &&", Operator("&&")),
            ("|| a", Operator("||")),
            ("a ;; b", Operator(";")),
            ("a >", Operator(">")),
            ("a > ; b", Operator(";")),
            ("> x", Operator(">")),
            ("a | b", Unsupported('|')),
            ("a & b", Unsupported('&')),
            ("a < b", Unsupported('<')),
        ] {
            assert_eq!(parse(line), Err(error), "{line}");
        }
    }
}
