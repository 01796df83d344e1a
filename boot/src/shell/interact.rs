//! The shell on the serial console.

use alloc::string::String;

use super::{Context, Editor, Event, Shell};
use crate::{console, print};

/// Reads lines from the console and runs them until `exit` or Ctrl-D, and
/// returns the exit status: that of `exit`, or 0. Blocks while nobody types.
pub fn interact<C: Context>(
    shell: &mut Shell<C>,
    context: &mut C,
    prompt: impl Fn(&C) -> String,
) -> u8 {
    let mut editor = Editor::new();
    loop {
        match read_line(&mut editor, shell, context, &prompt(context)) {
            Event::Line(line) => {
                shell.run(&line, context);
                if let Some(status) = shell.exited() {
                    return status;
                }
            }
            Event::Interrupt => {}
            Event::End => return 0,
        }
    }
}

fn read_line<C: Context>(
    editor: &mut Editor,
    shell: &Shell<C>,
    context: &C,
    prompt: &str,
) -> Event {
    let mut out = String::new();
    editor.begin(prompt, &mut out);
    loop {
        print!("{out}");
        out.clear();
        let byte = console::read();
        let event = editor.feed(byte, |before| shell.complete(before, context), &mut out);
        if let Some(event) = event {
            print!("{out}");
            return event;
        }
    }
}
