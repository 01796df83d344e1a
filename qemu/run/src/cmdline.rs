//! The kernel command line: words with spaces between, a value in double quotes where it needs them, and a backslash
//! before a quote or a backslash inside them (`\n` for a line break).

/// Builds a kernel command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine(String);

impl CommandLine {
    /// Appends `name=value`, quoted if the value holds more than plain characters.
    #[must_use]
    pub fn value(self, name: &str, value: &str) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/+@%".contains(c);
        if !value.is_empty() && value.chars().all(plain) {
            return self.words(&format!("{name}={value}"));
        }
        let mut quoted = format!("{name}=\"");
        for c in value.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                _ => quoted.push(c),
            }
        }
        quoted.push('"');
        self.words(&quoted)
    }

    /// Appends words as they are.
    #[must_use]
    pub fn words(mut self, words: &str) -> Self {
        if !words.is_empty() {
            if !self.0.is_empty() {
                self.0.push(' ');
            }
            self.0.push_str(words);
        }
        self
    }

    /// The line so far.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_only_where_they_must() {
        let line = CommandLine::default()
            .value("tag", "myfs")
            .value("cmd", "ls -l /; cat \"a\\b\"\nexit")
            .words("test=1");
        assert_eq!(
            line.as_str(),
            r#"tag=myfs cmd="ls -l /; cat \"a\\b\"\nexit" test=1"#
        );
        assert_eq!(CommandLine::default().value("cmd", "").as_str(), "cmd=\"\"");
    }
}
