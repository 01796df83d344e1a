//! What file commands work in.

use alloc::{format, string::String, string::ToString, sync::Arc, vec::Vec};
use core::{
    fmt::{self, Arguments, Write},
    time::Duration,
};

use virtio_fs::{
    Error, Result,
    fs::{At, DirEntry, Fd, Process, Symlinks},
    wire::{FileType, OpenFlags},
};

use super::Failure;
use crate::{
    clock, print,
    shell::{
        Context,
        words::{Mode, Output},
    },
    virtiofs::{Host, Mounted},
};

/// Bytes moved at once.
pub(super) const CHUNK: usize = 1 << 20;

/// A mounted file system with a user at it.
pub struct Files {
    pub(super) mounted: Arc<Mounted>,
    pub(super) process: Process<Host>,
    /// Where output goes, if not to the console, and the first error on the way.
    output: Option<(Fd, Vec<u8>, Option<Error>)>,
    /// For moving data: one buffer for all commands.
    pub(super) buffer: Vec<u8>,
}

impl Files {
    /// Makes a user at the root of a mount.
    pub fn new(mounted: Arc<Mounted>) -> Self {
        let process = mounted.process();
        Self {
            mounted,
            process,
            output: None,
            buffer: Vec::new(),
        }
    }

    /// Returns the mounted file system.
    pub(crate) fn mounted(&self) -> Arc<Mounted> {
        self.mounted.clone()
    }

    /// Returns the working directory, for a prompt.
    pub fn prompt(&self) -> String {
        let path = self.process.getcwd().unwrap_or_default();
        format!("{}", Show(&path))
    }

    /// Says what went wrong with `path`.
    pub(super) fn fail(&mut self, command: &str, path: &[u8], error: Error) -> Failure {
        let text = strerror(error);
        self.complain(format_args!("{command}: {}: {text}\n", Show(path)));
        Failure::Said
    }

    /// Runs `each` on all of `paths` and goes on after failures. Returns the
    /// status for all.
    pub(super) fn each(
        &mut self,
        command: &str,
        paths: &[String],
        mut each: impl FnMut(&mut Self, &[u8]) -> Result<()>,
    ) -> core::result::Result<u8, Failure> {
        if paths.is_empty() {
            return Err(Failure::Usage);
        }
        let mut status = 0;
        for path in paths {
            if let Err(error) = each(self, path.as_bytes()) {
                self.fail(command, path.as_bytes(), error);
                status = 1;
            }
        }
        Ok(status)
    }

    /// Returns the names in a directory, sorted, without `.` and `..`.
    pub(super) fn names(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, Option<FileType>)>> {
        let mut names = Vec::new();
        let fd = self.process.open(At::Cwd, path, OpenFlags::DIRECTORY, 0)?;
        let result = self.process.read_dir(fd, |entry: DirEntry<'_>| {
            if entry.name != b"." && entry.name != b".." {
                names.push((entry.name.to_vec(), entry.file_type));
            }
            true
        });
        self.process.close(fd)?;
        result?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    }

    /// Hands the content of a file to `sink`, from its start, until that returns
    /// false. Data come straight into the buffer.
    pub(super) fn read_file(
        &mut self,
        path: &[u8],
        mut sink: impl FnMut(&mut Self, &[u8]) -> bool,
    ) -> Result<()> {
        let fd = self.process.open(At::Cwd, path, OpenFlags::RDONLY, 0)?;
        let mut buffer = core::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        let result = loop {
            match self.process.read(fd, &mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) if sink(self, &buffer[..n]) => {}
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        result.and(self.process.close(fd))
    }

    /// Writes bytes where output goes, as they are.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        match &mut self.output {
            None => crate::console::write(bytes),
            Some((fd, pending, error)) => {
                pending.extend_from_slice(bytes);
                if pending.len() >= CHUNK && error.is_none() {
                    *error = self.process.write_all(*fd, pending).err();
                    pending.clear();
                }
            }
        }
    }

    /// Returns whether a path leads to a directory.
    pub(super) fn is_dir(&self, path: &[u8]) -> bool {
        self.process
            .stat(At::Cwd, path, Symlinks::Follow)
            .is_ok_and(|meta| meta.file_type() == FileType::Directory)
    }
}

impl Context for Files {
    fn print(&mut self, text: Arguments) {
        struct Out<'a>(&'a mut Files);
        impl Write for Out<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.put(text.as_bytes());
                Ok(())
            }
        }
        if self.output.is_none() {
            print!("{text}");
        } else {
            // Writing to a file that fails is told by `restore`.
            let _ = Out(self).write_fmt(text);
        }
    }

    fn complain(&mut self, text: Arguments) {
        print!("{text}");
    }

    fn redirect(&mut self, output: &Output) -> core::result::Result<(), String> {
        let how = match output.mode {
            Mode::Replace => OpenFlags::TRUNC,
            Mode::Append => OpenFlags::APPEND,
        };
        let flags = OpenFlags::WRONLY | OpenFlags::CREAT | how;
        let fd = self
            .process
            .open(At::Cwd, output.path.as_bytes(), flags, 0o666)
            .map_err(strerror)?;
        self.output = Some((fd, Vec::new(), None));
        Ok(())
    }

    fn restore(&mut self) -> core::result::Result<(), String> {
        let Some((fd, pending, mut error)) = self.output.take() else {
            return Ok(());
        };
        if error.is_none() {
            error = self.process.write_all(fd, &pending).err();
        }
        let closed = self.process.close(fd).err();
        error
            .or(closed)
            .map_or(Ok(()), |error| Err(strerror(error)))
    }

    fn now(&self) -> Duration {
        clock::now()
    }

    fn complete_path(&self, word: &str) -> Vec<String> {
        let (dir, prefix) = word
            .rsplit_once('/')
            .map_or(("", word), |(dir, prefix)| (dir, prefix));
        let slash = word.len() > prefix.len();
        let shown = if slash {
            format!("{dir}/")
        } else {
            String::new()
        };
        let place = match (slash, dir) {
            (false, _) => ".",
            (true, "") => "/",
            (true, dir) => dir,
        };
        let mut candidates = Vec::new();
        for (name, kind) in self.names(place.as_bytes()).unwrap_or_default() {
            let Ok(name) = core::str::from_utf8(&name) else {
                continue;
            };
            if !name.starts_with(prefix) || name.starts_with('.') && prefix.is_empty() {
                continue;
            }
            let path = format!("{shown}{name}");
            let dir = match kind {
                Some(FileType::Directory) => true,
                Some(FileType::Symlink) | None => self.is_dir(path.as_bytes()),
                Some(_) => false,
            };
            candidates.push(format!("{path}{}", if dir { "/" } else { " " }));
        }
        candidates
    }
}

/// Returns what an error means, as strerror(3) has it: without the number's name.
pub(super) fn strerror(error: Error) -> String {
    let text = error.to_string();
    match text.split_once('(') {
        Some((_, meaning)) => {
            let meaning = meaning.trim_end_matches(')');
            let mut chars = meaning.chars();
            chars.next().map_or(String::new(), |first| {
                first.to_uppercase().chain(chars).collect()
            })
        }
        None => text,
    }
}

/// Shows a name: what is no printable UTF-8 is escaped.
pub(super) struct Show<'a>(pub(super) &'a [u8]);

impl fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match core::str::from_utf8(self.0) {
            Ok(text) if !text.chars().any(char::is_control) => f.write_str(text),
            _ => self.0.escape_ascii().fmt(f),
        }
    }
}

/// Joins a directory and a name.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Returns the last part of a path.
pub(super) fn base_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |at| at + 1);
    let start = path[..end]
        .iter()
        .rposition(|&b| b == b'/')
        .map_or(0, |at| at + 1);
    &path[start..end]
}
