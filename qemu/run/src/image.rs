//! A look at a kernel image before QEMU gets it, because QEMU's own words about a damaged one do not help, and because
//! half an image may well start.

use crate::Error;
use std::{fs::File, io::Read, os::unix::fs::FileExt, path::Path};

/// Checks that `path` holds a whole 64-bit x86 ELF image, or a Linux kernel (for a Linux guest as a peer).
///
/// # Errors
/// [`Error::Kernel`] with what is wrong.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    inspect(path).map_err(|why| Error::Kernel {
        path: path.into(),
        why,
    })
}

fn inspect(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("is no regular file".into());
    }
    let mut head = Vec::new();
    Read::by_ref(&mut file)
        .take(1024)
        .read_to_end(&mut head)
        .map_err(|error| error.to_string())?;
    if head.get(0x202..0x206) == Some(b"HdrS") {
        return Ok(());
    }
    if !head.starts_with(b"\x7fELF\x02\x01") || number::<2>(&head, 18) != Some(62) {
        return Err("is neither a 64-bit x86 ELF image nor a Linux kernel".into());
    }
    // Elf64_Ehdr: e_phoff at 32, e_shoff at 40, e_phentsize at 54, e_phnum at 56, e_shentsize at
    // 58, e_shnum at 60; Elf64_Phdr: p_offset at 8, p_filesz at 32.
    let field = |at| number::<8>(&head, at).unwrap_or(u64::MAX);
    let half = |at| number::<2>(&head, at).unwrap_or(0);
    let sections = field(40).checked_add(half(58) * half(60));
    if sections.is_none_or(|end| end > meta.len()) {
        return Err("is cut short: the section headers are missing".into());
    }
    let (start, size, count) = (field(32), half(54), half(56));
    if size < 56 || count == 0 {
        return Err("has no program headers".into());
    }
    for index in 0..count {
        let mut header = [0; 56];
        let at = start
            .checked_add(index * size)
            .ok_or("has damaged program headers")?;
        file.read_exact_at(&mut header, at)
            .map_err(|_| "is cut short: a program header is missing")?;
        let end = number::<8>(&header, 8)
            .zip(number::<8>(&header, 32))
            .and_then(|(at, len)| at.checked_add(len));
        if end.is_none_or(|end| end > meta.len()) {
            return Err("is cut short: a segment is missing".into());
        }
    }
    Ok(())
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn this_program_passes_and_every_damage_is_named() {
        let dir = std::env::temp_dir().join(format!("virtio-fs-image-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
        let try_it = |bytes: &[u8]| {
            fs::write(dir.join("image"), bytes).unwrap();
            inspect(&dir.join("image"))
        };
        assert_eq!(try_it(&whole), Ok(()));
        assert!(
            try_it(&whole[..whole.len() / 4])
                .unwrap_err()
                .contains("cut short")
        );
        assert!(try_it(&whole[..100]).unwrap_err().contains("cut short"));
        assert!(try_it(b"").unwrap_err().contains("neither"));
        let mut arm = whole.clone();
        arm[18] = 183;
        assert!(try_it(&arm).unwrap_err().contains("neither"));
        assert!(inspect(&dir.join("none")).is_err());
        assert!(inspect(&dir).unwrap_err().contains("regular"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
