//! A line editor for a terminal that understands ANSI sequences: cursor keys,
//! Home, End, Delete, the usual control keys of Emacs and readline, history and
//! completion.
//!
//! Bytes come in one by one, what the terminal shall show goes out as text.
//! Every character is taken to be one column wide.

use alloc::{string::String, vec::Vec};
use core::fmt::Write;

/// The most lines that are remembered.
const HISTORY: usize = 200;
/// The longest line that can be typed, in characters.
const LONGEST: usize = 4096;

/// What the user did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Entered this line.
    Line(String),
    /// Pressed Ctrl-C: the line is dropped.
    Interrupt,
    /// Pressed Ctrl-D on an empty line.
    End,
}

/// How a word goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Byte offset in the text before the cursor at which the word begins. An
    /// offset inside a character counts as none.
    pub start: usize,
    /// What could stand there. One that is complete ends in a blank (or `/`).
    pub candidates: Vec<String>,
}

/// The state of a line while it is edited, and the lines before it.
#[derive(Debug, Default)]
pub struct Editor {
    prompt: String,
    text: Vec<char>,
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown; its length for the new line.
    shown: usize,
    /// The new line, while an older one is shown.
    draft: Vec<char>,
    /// An unfinished UTF-8 character.
    partial: Vec<u8>,
    escape: Escape,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Start,
    /// After `ESC [` or `ESC O`, with the number so far.
    Sequence(u8),
}

const fn control(key: u8) -> u8 {
    key & 0x1f
}

impl Editor {
    /// Makes an editor without history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a line: shows `prompt`.
    pub fn begin(&mut self, prompt: &str, out: &mut String) {
        self.prompt = prompt.into();
        self.text.clear();
        self.cursor = 0;
        self.shown = self.history.len();
        self.draft.clear();
        out.push_str(prompt);
    }

    /// Takes one byte of input. `complete` is asked on Tab, with the text before
    /// the cursor. What the terminal shall show is put behind `out`.
    pub fn feed(
        &mut self,
        byte: u8,
        complete: impl FnOnce(&str) -> Completion,
        out: &mut String,
    ) -> Option<Event> {
        const BACKSPACE: u8 = 0x7f;
        const ESCAPE: u8 = 0x1b;
        if self.escape != Escape::None {
            self.sequence(byte, out);
            return None;
        }
        match byte {
            b'\r' | b'\n' => {
                out.push('\n');
                let line: String = self.text.iter().collect();
                self.remember(&line);
                return Some(Event::Line(line));
            }
            byte if byte == control(b'C') => {
                out.push_str("^C\n");
                return Some(Event::Interrupt);
            }
            byte if byte == control(b'D') => {
                if self.text.is_empty() {
                    out.push('\n');
                    return Some(Event::End);
                }
                self.delete(out);
            }
            b'\t' => {
                let before: String = self.text[..self.cursor].iter().collect();
                self.complete(&before, complete(&before), out);
            }
            ESCAPE => self.escape = Escape::Start,
            BACKSPACE => self.backspace(out),
            byte if byte == control(b'H') => self.backspace(out),
            byte if byte == control(b'A') => self.move_to(0, out),
            byte if byte == control(b'E') => self.move_to(self.text.len(), out),
            byte if byte == control(b'B') => self.move_to(self.cursor.saturating_sub(1), out),
            byte if byte == control(b'F') => self.move_to(self.cursor + 1, out),
            byte if byte == control(b'P') => self.older(out),
            byte if byte == control(b'N') => self.newer(out),
            byte if byte == control(b'K') => self.remove(self.cursor, self.text.len(), out),
            byte if byte == control(b'U') => self.remove(0, self.cursor, out),
            byte if byte == control(b'W') => {
                let before = &self.text[..self.cursor];
                let word = before.iter().rposition(|c| !c.is_whitespace()).unwrap_or(0);
                let start = before[..word].iter().rposition(|c| c.is_whitespace());
                self.remove(start.map_or(0, |at| at + 1), self.cursor, out);
            }
            byte if byte == control(b'L') => {
                out.push_str("\x1b[H\x1b[2J");
                self.redraw(out);
            }
            0..0x20 => {}
            byte => self.text_byte(byte, out),
        }
        None
    }

    /// Takes a byte of a character; bytes that are no UTF-8 become U+FFFD.
    fn text_byte(&mut self, byte: u8, out: &mut String) {
        self.partial.push(byte);
        let decoded: String = match core::str::from_utf8(&self.partial) {
            Ok(text) => text.into(),
            // Unfinished, so far without a mistake.
            Err(error) if error.error_len().is_none() => return,
            Err(_) => String::from_utf8_lossy(&self.partial).into_owned(),
        };
        self.partial.clear();
        for c in decoded.chars().filter(|c| !c.is_control()) {
            if self.text.len() < LONGEST {
                self.text.insert(self.cursor, c);
                self.cursor += 1;
                if self.cursor == self.text.len() {
                    out.push(c);
                } else {
                    self.redraw(out);
                }
            }
        }
    }

    /// Takes a byte of an escape sequence; unknown ones are swallowed.
    fn sequence(&mut self, byte: u8, out: &mut String) {
        self.escape = match (self.escape, byte) {
            (Escape::Start, b'[' | b'O') => Escape::Sequence(0),
            (Escape::Sequence(number), b'0'..=b'9') => {
                Escape::Sequence(number.saturating_mul(10).saturating_add(byte - b'0'))
            }
            // Modifiers such as `1;5C` (Ctrl-Right) count as the plain key.
            (Escape::Sequence(_), b';') => Escape::Sequence(0),
            (Escape::Sequence(number), _) => {
                match (byte, number) {
                    (b'A', _) => self.older(out),
                    (b'B', _) => self.newer(out),
                    (b'C', _) => self.move_to(self.cursor + 1, out),
                    (b'D', _) => self.move_to(self.cursor.saturating_sub(1), out),
                    (b'H', _) | (b'~', 1 | 7) => self.move_to(0, out),
                    (b'F', _) | (b'~', 4 | 8) => self.move_to(self.text.len(), out),
                    (b'~', 3) => self.delete(out),
                    _ => {}
                }
                Escape::None
            }
            _ => Escape::None,
        };
    }

    fn complete(&mut self, before: &str, completion: Completion, out: &mut String) {
        let Completion { start, candidates } = completion;
        let (Some(typed), Some(first)) = (before.get(start..), candidates.first()) else {
            out.push('\x07');
            return;
        };
        let common = candidates.iter().fold(first.as_str(), |common, other| {
            let same = common
                .char_indices()
                .zip(other.chars())
                .find(|((_, a), b)| a != b);
            let end = same.map_or(common.len().min(other.len()), |((at, _), _)| at);
            &common[..end]
        });
        if common != typed && (common.len() > typed.len() || candidates.len() == 1) {
            let from = self.cursor - typed.chars().count();
            let old = self.cursor;
            self.text.splice(from..old, common.chars());
            self.cursor = from + common.chars().count();
            self.redraw(out);
        } else if candidates.len() > 1 {
            out.push('\n');
            for candidate in &candidates {
                out.push_str(candidate.trim_end());
                out.push_str("  ");
            }
            out.push('\n');
            self.redraw(out);
        }
    }

    fn remember(&mut self, line: &str) {
        if !line.trim().is_empty() && self.history.last().is_none_or(|last| last != line) {
            if self.history.len() == HISTORY {
                self.history.remove(0);
            }
            self.history.push(line.into());
        }
    }

    fn older(&mut self, out: &mut String) {
        if self.shown > 0 {
            if self.shown == self.history.len() {
                self.draft = core::mem::take(&mut self.text);
            }
            self.shown -= 1;
            self.show(self.history[self.shown].chars().collect(), out);
        }
    }

    fn newer(&mut self, out: &mut String) {
        if self.shown < self.history.len() {
            self.shown += 1;
            let text = match self.history.get(self.shown) {
                Some(line) => line.chars().collect(),
                None => core::mem::take(&mut self.draft),
            };
            self.show(text, out);
        }
    }

    fn show(&mut self, text: Vec<char>, out: &mut String) {
        self.text = text;
        self.cursor = self.text.len();
        self.redraw(out);
    }

    fn move_to(&mut self, to: usize, out: &mut String) {
        self.cursor = to.min(self.text.len());
        self.redraw(out);
    }

    fn backspace(&mut self, out: &mut String) {
        self.remove(self.cursor.saturating_sub(1), self.cursor, out);
    }

    fn delete(&mut self, out: &mut String) {
        self.remove(self.cursor, (self.cursor + 1).min(self.text.len()), out);
    }

    fn remove(&mut self, from: usize, to: usize, out: &mut String) {
        self.text.drain(from..to);
        self.cursor = from;
        self.redraw(out);
    }

    /// Shows the whole line anew.
    fn redraw(&self, out: &mut String) {
        out.push('\r');
        out.push_str(&self.prompt);
        out.extend(&self.text);
        out.push_str("\x1b[K");
        let back = self.text.len() - self.cursor;
        if back > 0 {
            // A String never fails.
            let _ = write!(out, "\x1b[{back}D");
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;

    fn complete(before: &str) -> Completion {
        let start = before.rfind(' ').map_or(0, |at| at + 1);
        let names = ["help ", "hello.txt ", "häuser/", "häfen/"];
        Completion {
            start,
            candidates: names
                .into_iter()
                .filter(|name| name.starts_with(&before[start..]))
                .map(ToString::to_string)
                .collect(),
        }
    }

    fn type_in(editor: &mut Editor, keys: &[u8]) -> (Vec<Event>, String) {
        let mut out = String::new();
        let mut events = Vec::new();
        editor.begin("$ ", &mut out);
        for &key in keys {
            if let Some(event) = editor.feed(key, complete, &mut out) {
                events.push(event);
                editor.begin("$ ", &mut out);
            }
        }
        (events, out)
    }

    fn line(keys: &[u8]) -> String {
        let mut editor = Editor::new();
        let mut all = keys.to_vec();
        all.push(b'\r');
        match type_in(&mut editor, &all).0.pop() {
            Some(Event::Line(line)) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_edit_the_line() {
        assert_eq!(line(b"helo\x1b[Dl"), "hello");
        assert_eq!(line(b"abc\x01X\x05Y"), "XabcY");
        assert_eq!(line(b"abc\x1b[HX\x1b[FY\x1bOHZ"), "ZXabcY");
        assert_eq!(line(b"abc\x7f\x08"), "a");
        assert_eq!(line(b"abc\x01\x04\x1b[3~"), "c");
        assert_eq!(line(b"one two  \x17x"), "one x");
        assert_eq!(line(b"one two\x02\x02\x0b"), "one t");
        assert_eq!(line(b"one two\x02\x02\x15"), "wo");
        assert_eq!(line(b"a\x1b[1;5Cb\x1b[99zc\x00\x0cd"), "abcd");
        assert_eq!(line(b"\x7f\x1b[D\x17\x15\x0b"), "");
    }

    #[test]
    fn characters_are_whole() {
        assert_eq!(line("gr\u{fc}n\u{1b}[D\u{7f}u".as_bytes()), "grun");
        assert_eq!(line(b"a\xffb\xe2\x82c"), "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn history_goes_back_and_forth_and_keeps_the_draft() {
        let mut editor = Editor::new();
        let (events, _) = type_in(
            &mut editor,
            b"one\rtwo\rtwo\r \rdra\x1b[A\x1b[A\x1b[A\x1b[Bx\x1b[B\x1b[Bft\r",
        );
        let lines: Vec<_> = events
            .into_iter()
            .map(|event| match event {
                Event::Line(line) => line,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lines, ["one", "two", "two", " ", "draft"]);
        assert_eq!(editor.history, ["one", "two", "draft"]);
    }

    #[test]
    fn tab_completes_as_far_as_candidates_agree() {
        assert_eq!(line(b"cat hello\t"), "cat hello.txt ");
        assert_eq!(line(b"he\tp\t"), "help ");
        assert_eq!(line("h\u{e4}u\t".as_bytes()), "häuser/");
        assert_eq!(line(b"nothing\t"), "nothing");
        let (_, out) = type_in(&mut Editor::new(), b"hel\t");
        assert!(out.contains("help  hello.txt"), "{out:?}");
    }

    #[test]
    fn control_keys_end_the_line() {
        let events = type_in(&mut Editor::new(), b"abc\x03\x04").0;
        assert_eq!(events, vec![Event::Interrupt, Event::End]);
    }

    #[test]
    fn random_bytes_never_panic() {
        const SEED: u64 = 0x11e_ed17;
        const KEYS: &[u8] =
            b"\x1b[ABCDHF~O13;ab \t\x01\x02\x04\x05\x0b\x10\x15\x17\x7f\xc3\xa4\xf0\r";
        std::println!("seed {SEED:#x}");
        let mut state = SEED;
        let mut editor = Editor::new();
        let keys: Vec<u8> = (0..50_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                KEYS[(state >> 33) as usize % KEYS.len()]
            })
            .collect();
        type_in(&mut editor, &keys);
    }
}
