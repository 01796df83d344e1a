//! Walks a tree and writes its manifest.

use crate::{DROP, Entry, Fs, Kind};
use alloc::{format, string::String, vec, vec::Vec};
use core::fmt;
use crc::{CRC_64_XZ, Crc, Digest, Table};

type Algorithm = Crc<u64, Table<16>>;
static CRC: Algorithm = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// The content hash of a manifest: CRC-64/XZ, the one that `xz` and `7z` print.
pub struct Hash(Digest<'static, u64, Table<16>>);

impl Hash {
    /// Of no bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self(CRC.digest())
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all bytes taken in.
    #[must_use]
    pub fn finish(self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({:016x})", self.0.clone().finalize())
    }
}

/// Hands `sink` one line for every entry below and at `from` (empty: the whole tree), a directory
/// before what it holds and names in the order of their bytes. [`DROP`] in the root is left out.
///
/// # Errors
/// The path at which the walk ended, and the file system's error there. A file that comes or goes
/// meanwhile is such an error: nobody else may change the tree.
pub fn walk<F: Fs>(
    fs: &mut F,
    from: &[u8],
    sink: &mut dyn FnMut(&str),
) -> Result<(), (Vec<u8>, F::Error)> {
    let mut todo: Vec<Vec<u8>> = vec![from.to_vec()];
    while let Some(path) = todo.pop() {
        let (line, mut names) = match describe(fs, &path) {
            Ok(both) => both,
            Err(error) => return Err((path, error)),
        };
        sink(&line);
        names.retain(|name| !path.is_empty() || name != DROP);
        // The last one is taken first.
        names.sort_unstable_by(|a, b| b.cmp(a));
        todo.extend(names.into_iter().map(|name| join(&path, &name)));
    }
    Ok(())
}

/// The line for one entry, and the names in it if it is a directory.
fn describe<F: Fs>(fs: &mut F, path: &[u8]) -> Result<(String, Vec<Vec<u8>>), F::Error> {
    let stat = fs.stat(path)?;
    let (mut hash, mut target, mut names) = (None, None, Vec::new());
    match stat.kind {
        Kind::Dir => names = fs.list(path)?,
        Kind::Link => target = Some(fs.read_link(path)?),
        Kind::File => {
            let mut content = Hash::new();
            fs.read(path, &mut |bytes| content.update(bytes))?;
            hash = Some(content.finish());
        }
        Kind::Other => (),
    }
    let shown: &[u8] = if path.is_empty() { b"." } else { path };
    let line = format!(
        "{}",
        Entry {
            path: shown,
            stat,
            hash,
            target: target.as_deref()
        }
    );
    Ok((line, names))
}

/// The path of a name in a directory.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_in_the_catalogue() {
        let mut hash = Hash::new();
        hash.update(b"1234");
        hash.update(b"56789");
        assert_eq!(hash.finish(), 0x995d_c9bb_df19_39fa);
    }
}
