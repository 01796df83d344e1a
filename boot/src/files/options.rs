//! Options of commands.

use alloc::{string::String, vec::Vec};

use super::Failure;

/// Splits arguments into single-letter options out of `known` and the rest.
/// `--` ends the options.
pub(super) fn split(args: &[String], known: &str) -> Result<(Vec<char>, Vec<String>), Failure> {
    let mut options = Vec::new();
    let mut rest = Vec::new();
    let mut ended = false;
    for arg in args {
        match arg.strip_prefix('-') {
            Some("-") if !ended => ended = true,
            Some(letters) if !ended && !letters.is_empty() => {
                if letters.chars().any(|letter| !known.contains(letter)) {
                    return Err(Failure::Usage);
                }
                options.extend(letters.chars());
            }
            _ => rest.push(arg.clone()),
        }
    }
    Ok((options, rest))
}

/// Parses a number of bytes that may end in K, M or G.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    #[test]
    fn options_may_be_joined_and_end_at_two_dashes() {
        let args: Vec<String> = ["-la", "x", "-", "--", "-R"].map(String::from).into();
        let Ok((options, rest)) = split(&args, "laR") else {
            panic!("refused")
        };
        assert_eq!(options, ['l', 'a']);
        assert_eq!(rest, vec!["x".to_string(), "-".into(), "-R".into()]);
        assert!(split(&["-z".to_string()], "laR").is_err());
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(size("12"), Some(12));
        assert_eq!(size("3K"), Some(3072));
        assert_eq!(size("1G"), Some(1 << 30));
        assert_eq!(size("K"), None);
        assert_eq!(size("99999999999G"), None);
        assert_eq!(size(""), None);
    }
}
