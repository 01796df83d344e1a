//! Commands, and running lines of them.

use alloc::{format, string::String, vec::Vec};
use core::{fmt::Arguments, time::Duration};

use super::{
    line::Completion,
    words::{self, Output, When},
};

/// The status of a command that worked.
pub const SUCCESS: u8 = 0;
/// The status of a command that was used wrongly.
pub const MISUSED: u8 = 2;
/// The status of a command that does not exist.
pub const NOT_FOUND: u8 = 127;

/// What commands run in: their output, and whatever else the user of the shell
/// gives them.
pub trait Context {
    /// Writes output: to the console, or to the file of
    /// [`redirect`](Self::redirect).
    fn print(&mut self, text: Arguments);

    /// Writes a message to the console, wherever output goes.
    fn complain(&mut self, text: Arguments);

    /// Sends output to a file until [`restore`](Self::restore).
    ///
    /// # Errors
    ///
    /// Why that is not possible, as a sentence without the path.
    fn redirect(&mut self, output: &Output) -> Result<(), String>;

    /// Ends the redirection, and tells of what went wrong in it.
    ///
    /// # Errors
    ///
    /// The first error in writing, as a sentence.
    fn restore(&mut self) -> Result<(), String>;

    /// Returns the time, for `time`.
    fn now(&self) -> Duration;

    /// Returns how a path that begins with `word` can go on; the candidates
    /// replace the word.
    fn complete_path(&self, word: &str) -> Vec<String>;
}

/// A command.
pub trait Command<C>: Sync {
    /// The word that runs it.
    fn name(&self) -> &'static str;
    /// Its arguments, as a manual would show them.
    fn usage(&self) -> &'static str;
    /// What it does, in a line.
    fn help(&self) -> &'static str;
    /// Runs it and returns its status, 0 for success. `args` are without its name.
    fn run(&self, args: &[String], context: &mut C) -> u8;
}

/// The commands that can be run: some of its own (`help`, `time`, `exit`) and
/// those it was made with.
pub struct Shell<C: 'static> {
    commands: &'static [&'static dyn Command<C>],
    exit: Option<u8>,
}

/// Name, usage and help of the shell's own commands.
const OWN: [(&str, &str, &str); 3] = [
    ("exit", "[STATUS]", "leave the shell, and the machine"),
    ("help", "[COMMAND]", "list the commands, or explain one"),
    (
        "time",
        "COMMAND [ARGUMENT]...",
        "run a command and say how long it took",
    ),
];

impl<C: Context> Shell<C> {
    /// Makes a shell with `commands` beside its own.
    pub const fn new(commands: &'static [&'static dyn Command<C>]) -> Self {
        Self {
            commands,
            exit: None,
        }
    }

    /// Returns the status that `exit` was given, once it was.
    pub fn exited(&self) -> Option<u8> {
        self.exit
    }

    /// Runs a line and returns the status of the last command that ran in it;
    /// 0 for none. A line that makes no sense is not run at all.
    pub fn run(&mut self, line: &str, context: &mut C) -> u8 {
        let steps = match words::parse(line) {
            Ok(steps) => steps,
            Err(error) => {
                context.complain(format_args!("shell: {error}\n"));
                return MISUSED;
            }
        };
        let mut status = SUCCESS;
        for step in steps {
            let wanted = match step.when {
                When::Always => true,
                When::Success => status == SUCCESS,
                When::Failure => status != SUCCESS,
            };
            if !wanted {
                continue;
            }
            status = match &step.output {
                None => self.command(&step.words, context),
                Some(output) => match context.redirect(output) {
                    Err(error) => {
                        context.complain(format_args!("shell: {}: {error}\n", output.path));
                        1
                    }
                    Ok(()) => {
                        let status = self.command(&step.words, context);
                        match context.restore() {
                            Ok(()) => status,
                            Err(error) => {
                                context.complain(format_args!("shell: {}: {error}\n", output.path));
                                status.max(1)
                            }
                        }
                    }
                },
            };
            if self.exit.is_some() {
                break;
            }
        }
        status
    }

    fn command(&mut self, words: &[String], context: &mut C) -> u8 {
        let Some((name, args)) = words.split_first() else {
            return SUCCESS;
        };
        match name.as_str() {
            "exit" => self.leave(args, context),
            "help" => self.explain(args, context),
            "time" => {
                let start = context.now();
                let status = self.command(args, context);
                let time = context.now() - start;
                context.complain(format_args!("{:.6} s\n", time.as_secs_f64()));
                status
            }
            name => match self.find(name) {
                Some(command) => command.run(args, context),
                None => {
                    context.complain(format_args!("{name}: no such command; try help\n"));
                    NOT_FOUND
                }
            },
        }
    }

    fn find(&self, name: &str) -> Option<&'static dyn Command<C>> {
        self.commands
            .iter()
            .copied()
            .find(|command| command.name() == name)
    }

    fn leave(&mut self, args: &[String], context: &mut C) -> u8 {
        let status = match args {
            [] => Some(SUCCESS),
            [status] => status.parse().ok(),
            _ => None,
        };
        match status {
            Some(status) => {
                self.exit = Some(status);
                status
            }
            None => {
                context.complain(format_args!("usage: exit [STATUS], 0 to 255\n"));
                MISUSED
            }
        }
    }

    fn explain(&self, args: &[String], context: &mut C) -> u8 {
        let mut rows: Vec<_> = OWN.to_vec();
        rows.extend(
            self.commands
                .iter()
                .map(|c| (c.name(), c.usage(), c.help())),
        );
        rows.sort_unstable();
        let mut status = SUCCESS;
        match args {
            [] => {
                for (name, _, help) in rows {
                    context.print(format_args!("{name:10} {help}\n"));
                }
            }
            names => {
                for name in names {
                    match rows.iter().find(|row| row.0 == name.as_str()) {
                        Some((name, usage, help)) => {
                            context.print(format_args!("{name} {usage}\n    {help}\n"));
                        }
                        None => {
                            context.complain(format_args!("{name}: no such command\n"));
                            status = NOT_FOUND;
                        }
                    }
                }
            }
        }
        status
    }

    /// Says how the text before the cursor can go on: a command's name as the
    /// first word, a path after it.
    pub fn complete(&self, before: &str, context: &C) -> Completion {
        let blank = |c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|' | '>');
        let start = before.rfind(blank).map_or(0, |at| at + 1);
        let (earlier, word) = before.split_at(start);
        let earlier = earlier.trim_end();
        let first = earlier.is_empty() || earlier.ends_with([';', '&', '|']);
        let candidates = if first {
            let own = OWN.iter().map(|row| row.0);
            own.chain(self.commands.iter().map(|command| command.name()))
                .filter(|name| name.starts_with(word))
                .map(|name| format!("{name} "))
                .collect()
        } else {
            context.complete_path(word)
        };
        Completion { start, candidates }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[derive(Default)]
    struct Terminal {
        console: String,
        file: Option<String>,
        written: Vec<(Output, String)>,
    }

    impl Context for Terminal {
        fn print(&mut self, text: Arguments) {
            let text = text.to_string();
            self.file
                .as_mut()
                .unwrap_or(&mut self.console)
                .push_str(&text);
        }
        fn complain(&mut self, text: Arguments) {
            self.console.push_str(&text.to_string());
        }
        fn redirect(&mut self, output: &Output) -> Result<(), String> {
            if output.path == "/bad" {
                return Err("Permission denied".into());
            }
            self.file = Some(String::new());
            self.written.push((output.clone(), String::new()));
            Ok(())
        }
        fn restore(&mut self) -> Result<(), String> {
            self.written.last_mut().unwrap().1 = self.file.take().unwrap();
            Ok(())
        }
        fn now(&self) -> Duration {
            Duration::from_millis(self.console.len() as u64)
        }
        fn complete_path(&self, word: &str) -> Vec<String> {
            [format!("{word}tc/")].into()
        }
    }

    struct Echo;
    impl Command<Terminal> for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }
        fn usage(&self) -> &'static str {
            "[TEXT]..."
        }
        fn help(&self) -> &'static str {
            "print text"
        }
        fn run(&self, args: &[String], context: &mut Terminal) -> u8 {
            context.print(format_args!("{}\n", args.join(" ")));
            SUCCESS
        }
    }

    fn run(line: &str) -> (u8, Terminal, Shell<Terminal>) {
        let mut terminal = Terminal::default();
        let mut shell = Shell::new(&[&Echo]);
        let status = shell.run(line, &mut terminal);
        (status, terminal, shell)
    }

    #[test]
    fn commands_run_by_the_status_before() {
        let (status, terminal, _) = run("echo a && nope || echo b; nope && echo c || echo d");
        assert_eq!(status, SUCCESS);
        let said = "nope: no such command; try help\n";
        assert_eq!(terminal.console, format!("a\n{said}b\n{said}d\n"));
    }

    #[test]
    fn output_goes_where_it_is_sent_and_messages_do_not() {
        let (status, terminal, _) = run("echo hi >x; nope >>y; echo z >/bad || echo said");
        assert_eq!(status, SUCCESS);
        assert_eq!(terminal.written[0].1, "hi\n");
        assert_eq!(terminal.written[1].0.mode, words::Mode::Append);
        assert!(
            terminal
                .console
                .ends_with("/bad: Permission denied\nsaid\n")
        );
    }

    #[test]
    fn exit_ends_the_line_with_its_status() {
        let (status, terminal, shell) = run("exit 7; echo never");
        assert_eq!((status, shell.exited()), (7, Some(7)));
        assert_eq!(terminal.console, "");
        assert_eq!(run("exit x").2.exited(), None);
    }

    #[test]
    fn time_passes_the_status_on() {
        let (status, terminal, _) = run("time echo abc");
        assert_eq!(
            (status, terminal.console.as_str()),
            (0, "abc\n0.004000 s\n")
        );
        assert_eq!(run("time nope").0, NOT_FOUND);
    }

    #[test]
    fn help_lists_and_explains() {
        let (_, terminal, _) = run("help; help echo; help nope");
        for part in [
            "echo       print text\n",
            "time ",
            "echo [TEXT]...\n",
            "nope: no such",
        ] {
            assert!(
                terminal.console.contains(part),
                "{part}: {}",
                terminal.console
            );
        }
    }

    #[test]
    fn a_line_of_nonsense_runs_nothing() {
        let (status, terminal, _) = run("echo a; echo 'b");
        assert_eq!(status, MISUSED);
        assert!(!terminal.console.contains("a\n"), "{}", terminal.console);
    }

    #[test]
    fn completion_knows_commands_from_paths() {
        let (_, terminal, shell) = run("");
        let complete = |text| shell.complete(text, &terminal);
        assert_eq!(complete("ec").candidates, ["echo "]);
        assert_eq!(complete("echo a;e").candidates, ["exit ", "echo "]);
        let path = complete("echo /e");
        assert_eq!(
            (path.start, path.candidates),
            (5, ["/etc/".to_string()].into())
        );
    }
}
