//! The kernel's command line: words `key=value`, values in quotes if they hold
//! spaces: `tag=myfs cmd="ls -l /; cat /x" log=debug`. A word without `=` has
//! the value `1`. Inside quotes, `\` keeps the next character.

use alloc::{string::String, vec::Vec};
use core::fmt;

/// A word that the kernel understands.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The part before `=`.
    pub name: &'static str,
    /// What may stand behind it and what it does, one line.
    pub help: &'static str,
    /// Says whether a value is valid.
    pub valid: fn(&str) -> bool,
}

impl Key {
    /// A key that takes any value.
    pub const fn any(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            valid: |_| true,
        }
    }
}

/// A parsed command line. Every key in it was valid, and given once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine(Vec<(String, String)>);

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLineError {
    /// A quote is not closed.
    Quote,
    /// This word is not known.
    Unknown(String),
    /// This key does not take this value.
    Value(String, String),
    /// This key stands there twice.
    Twice(String),
}

impl fmt::Display for CommandLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quote => f.write_str("a quote on the command line is not closed"),
            Self::Unknown(word) => write!(f, "unknown word \"{word}\" on the command line"),
            Self::Value(key, value) => write!(f, "{key} cannot be \"{value}\""),
            Self::Twice(key) => write!(f, "{key} is given twice on the command line"),
        }
    }
}

impl core::error::Error for CommandLineError {}

impl CommandLine {
    /// Parses `line` against the words in `keys`.
    ///
    /// # Errors
    ///
    /// The first word that is wrong.
    pub fn parse(line: &str, keys: &[&[Key]]) -> Result<Self, CommandLineError> {
        let mut parsed = Self::default();
        let mut rest = line.chars().peekable();
        loop {
            while rest.next_if(|c| c.is_whitespace()).is_some() {}
            if rest.peek().is_none() {
                return Ok(parsed);
            }
            let (mut key, mut value) = (String::new(), None::<String>);
            let mut quoted = false;
            while let Some(c) = rest.next_if(|c| quoted || !c.is_whitespace()) {
                let literal = match c {
                    '"' => {
                        quoted = !quoted;
                        continue;
                    }
                    '=' if !quoted && value.is_none() => {
                        value = Some(String::new());
                        continue;
                    }
                    '\\' if quoted => rest.next().ok_or(CommandLineError::Quote)?,
                    c => c,
                };
                value.as_mut().unwrap_or(&mut key).push(literal);
            }
            if quoted {
                return Err(CommandLineError::Quote);
            }
            let value = value.unwrap_or_else(|| "1".into());
            let Some(known) = keys
                .iter()
                .copied()
                .flatten()
                .find(|known| known.name == key)
            else {
                return Err(CommandLineError::Unknown(key));
            };
            if parsed.get(&key).is_some() {
                return Err(CommandLineError::Twice(key));
            }
            if !(known.valid)(&value) {
                return Err(CommandLineError::Value(key, value));
            }
            parsed.0.push((key, value));
        }
    }

    /// Returns the value of `key` if it was given.
    pub fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(name, _)| name == key)?;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[Key] = &[
        Key::any("tag", "NAME"),
        Key::any("cmd", "COMMANDS"),
        Key {
            name: "test",
            help: "0 or 1",
            valid: |value| matches!(value, "0" | "1"),
        },
    ];

    fn parse(line: &str) -> Result<CommandLine, CommandLineError> {
        CommandLine::parse(line, &[KEYS])
    }

    #[test]
    fn quotes_keep_spaces_and_escapes() {
        let line = parse(r#"  tag=a=b cmd="ls -l /; echo \"x\" \\" test "#).unwrap();
        assert_eq!(line.get("tag"), Some("a=b"));
        assert_eq!(line.get("cmd"), Some(r#"ls -l /; echo "x" \"#));
        assert_eq!(line.get("test"), Some("1"));
        assert_eq!(line.get("log"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        use CommandLineError::*;
        assert_eq!(parse("tga=x"), Err(Unknown("tga".into())));
        assert_eq!(
            parse("test=maybe"),
            Err(Value("test".into(), "maybe".into()))
        );
        assert_eq!(parse("tag=a tag=b"), Err(Twice("tag".into())));
        assert_eq!(parse("cmd=\"ls"), Err(Quote));
        assert_eq!(parse("cmd=\"ls\\"), Err(Quote));
        assert_eq!(parse("=x"), Err(Unknown("".into())));
    }

    #[test]
    fn an_empty_line_is_fine() {
        assert_eq!(parse(" \t "), Ok(CommandLine::default()));
    }
}
