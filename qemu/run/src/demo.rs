//! The directory that is shared when none is named: small, with one of each kind of file.

use crate::Error;
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

const ABOUT: &str = "\
This directory lies on the host, in the build tree at target/demo, and the guest
has mounted it over virtio-fs. Try, at the guest's prompt:

    ls -l
    cat hello.txt
    cat poems/latest
    echo written by the guest > note.txt
    sum numbers/primes.txt
    stats

and look at target/demo from the host meanwhile. SHARE=dir shares a directory of
your own. `make clean` removes this one.
";

const FOX: &str = "The quick brown fox\njumps over\nthe lazy dog.\n";

/// Makes the demonstration tree at `target/demo` unless it is there, and returns its place.
///
/// # Errors
/// [`Error::Os`] if it cannot be written.
pub fn demo(target: &Path) -> Result<PathBuf, Error> {
    let dir = target.join("demo");
    if !dir.is_dir() {
        // Renamed when whole, so that an interrupted run leaves no half of it. Of two runs at once
        // one wins.
        let new = target.join(format!("demo.{}.new", std::process::id()));
        let made = make(&new).and_then(|()| fs::rename(&new, &dir));
        if made.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        if !dir.is_dir() {
            made.map_err(Error::os(format!("making {}", dir.display())))?;
        }
    }
    Ok(dir)
}

fn make(dir: &Path) -> io::Result<()> {
    for folder in ["poems", "numbers", "deep/er/and/deeper", "empty"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    fs::write(dir.join("README.txt"), ABOUT)?;
    fs::write(dir.join("hello.txt"), "Hello from the host!\n")?;
    fs::write(dir.join("poems/fox.txt"), FOX)?;
    symlink("fox.txt", dir.join("poems/latest"))?;
    symlink("../hello.txt", dir.join("deep/hello"))?;
    fs::write(dir.join("deep/er/and/deeper/found.txt"), "You found it.\n")?;
    let prime = |n: &u32| {
        (2..*n)
            .take_while(|d| d * d <= *n)
            .all(|d| !n.is_multiple_of(d))
    };
    let primes: String = (2..1000).filter(prime).map(|n| format!("{n}\n")).collect();
    fs::write(dir.join("numbers/primes.txt"), primes)?;
    fs::hard_link(
        dir.join("numbers/primes.txt"),
        dir.join("numbers/same-primes.txt"),
    )?;
    let secret = dir.join("numbers/read-only.txt");
    fs::write(&secret, "42\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o444))
}
