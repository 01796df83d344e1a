//! Open directories.
//!
//! fuse-backend-rs hides `.` and `..`, looks every name up even for a plain
//! READDIR, and fails or ends early when a name vanishes between the two. Here the
//! host's records are handed on as they are: getdents64(2), cookies unchanged.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

/// Bytes asked of the host at once. Less than a reply may hold, because names need
/// less room here than there.
const CHUNK: usize = 32 << 10;
/// `linux_dirent64` before its name.
const RECORD_HEADER: usize = 19;

/// A directory that the guest has open.
pub(super) struct OpenDirectory {
    pub(super) node: u64,
    /// Guards the position.
    file: Mutex<File>,
}

/// One name, as the host tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) ino: u64,
    /// Cookie of what comes after it.
    pub(super) next: u64,
    pub(super) kind: u8,
    pub(super) name: &'a CStr,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in the reply.
    Yes,
    /// It is to be left out.
    Skipped,
    /// The reply is full.
    Full,
}

impl OpenDirectory {
    pub(super) fn new(node: u64, file: File) -> Self {
        Self {
            node,
            file: Mutex::new(file),
        }
    }

    /// Hands the records from cookie `from` on to `take` until that has enough.
    ///
    /// # Errors
    /// `EINVAL` if not even the first record fits, else what the host or `take`
    /// says before any record was taken; later errors end the reply, and are told
    /// when the client asks for what follows.
    pub(super) fn read(
        &self,
        from: u64,
        take: &mut dyn FnMut(Record<'_>) -> io::Result<Taken>,
    ) -> io::Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let from = i64::try_from(from).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: the descriptor is that of `file`; lseek touches no memory.
        if unsafe { libc::lseek(file.as_raw_fd(), from, libc::SEEK_SET) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut buffer = [0u8; CHUNK];
        let mut any = false;
        loop {
            let n = match records(&file, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(_) if any => return Ok(()),
                Err(e) => return Err(e),
            };
            let mut rest = &buffer[..n];
            while let Some((record, after)) = split(rest) {
                match take(record) {
                    Ok(Taken::Yes) => any = true,
                    Ok(Taken::Skipped) => {}
                    Ok(Taken::Full) if any => return Ok(()),
                    // Success without a record would mean the end.
                    Ok(Taken::Full) => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
                    Err(_) if any => return Ok(()),
                    Err(e) => return Err(e),
                }
                rest = after;
            }
        }
    }

    /// Writes the directory back.
    pub(super) fn sync(&self, data_only: bool) -> io::Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if data_only {
            file.sync_data()
        } else {
            file.sync_all()
        }
    }
}

fn records(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of `buffer`, which is ours alone
    // during the call.
    let n = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            file.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// The first record and what follows; None at the end, or for bytes that are none.
fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let word = |at: usize| {
        bytes
            .get(at..at + 8)?
            .try_into()
            .ok()
            .map(u64::from_ne_bytes)
    };
    let (ino, next) = (word(0)?, word(8)?);
    let len = usize::from(u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?));
    let kind = *bytes.get(18)?;
    let name = CStr::from_bytes_until_nul(bytes.get(RECORD_HEADER..len)?).ok()?;
    Some((
        Record {
            ino,
            next,
            kind,
            name,
        },
        bytes.get(len..)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir =
            std::env::temp_dir().join(format!("daxd-directory-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a scratch directory");
        dir
    }

    fn names_in_steps(directory: &OpenDirectory, step: usize) -> Vec<String> {
        let (mut from, mut all) = (0, Vec::new());
        loop {
            let mut got = Vec::new();
            directory
                .read(from, &mut |record| {
                    if got.len() == step {
                        return Ok(Taken::Full);
                    }
                    from = record.next;
                    got.push(record.name.to_string_lossy().into_owned());
                    Ok(Taken::Yes)
                })
                .expect("a directory can be read");
            if got.is_empty() {
                return all;
            }
            all.append(&mut got);
        }
    }

    #[test]
    fn every_name_comes_once_whatever_the_reply_holds() {
        let dir = scratch("steps");
        let mut want: BTreeSet<String> = [".".into(), "..".into()].into();
        for n in 0..1200 {
            let name = format!("a-rather-long-name-{n:04}");
            File::create(dir.join(&name)).expect("a file");
            want.insert(name);
        }
        let directory = OpenDirectory::new(1, File::open(&dir).expect("the directory"));
        for step in [1, 7, 100, usize::MAX] {
            let names = names_in_steps(&directory, step);
            assert_eq!(names.len(), want.len(), "in steps of {step}");
            assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), want);
        }
        std::fs::remove_dir_all(dir).expect("to clean up");
    }

    #[test]
    fn a_reply_too_small_for_one_name_is_an_error_and_not_the_end() {
        let dir = scratch("small");
        let directory = OpenDirectory::new(1, File::open(&dir).expect("the directory"));
        let e = directory
            .read(0, &mut |_| Ok(Taken::Full))
            .expect_err("nothing fits");
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
        std::fs::remove_dir_all(dir).expect("to clean up");
    }

    #[test]
    fn names_that_vanish_are_left_out() {
        let dir = scratch("vanish");
        File::create(dir.join("gone")).expect("a file");
        let directory = OpenDirectory::new(1, File::open(&dir).expect("the directory"));
        let mut seen = 0;
        directory
            .read(0, &mut |record| {
                if record.name == c"gone" {
                    return Ok(Taken::Skipped);
                }
                seen += 1;
                Ok(Taken::Yes)
            })
            .expect("the others");
        assert_eq!(seen, 2);
        std::fs::remove_dir_all(dir).expect("to clean up");
    }
}
