//! How much a server says it has done.

use super::Malformed;

/// How many bytes the server says it has dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the server may have done less than asked for, or claim more"]
pub struct Count(pub(super) u64);

impl Count {
    /// Returns the number after checking it against what was asked for.
    ///
    /// # Errors
    ///
    /// [`Malformed::Count`] if it is more.
    pub const fn of(self, asked: u64) -> Result<u64, Malformed> {
        if self.0 <= asked {
            Ok(self.0)
        } else {
            Err(Malformed::Count(self.0))
        }
    }

    /// Returns the number after checking it as the answer to a request for
    /// `asked` bytes that must make progress: WRITE.
    ///
    /// # Errors
    ///
    /// [`Malformed::Count`] if it is more, or 0 while more was asked for.
    pub const fn progress_of(self, asked: u64) -> Result<u64, Malformed> {
        if self.0 == 0 && asked != 0 {
            return Err(Malformed::Count(0));
        }
        self.of(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_cannot_do_more_than_it_was_asked_for() {
        assert_eq!(Count(10).of(10), Ok(10));
        assert_eq!(Count(0).of(10), Ok(0));
        assert_eq!(Count(11).of(10), Err(Malformed::Count(11)));
    }

    #[test]
    fn a_write_of_something_must_write_something() {
        assert_eq!(Count(0).progress_of(10), Err(Malformed::Count(0)));
        assert_eq!(Count(0).progress_of(0), Ok(0));
        assert_eq!(Count(3).progress_of(10), Ok(3));
        assert_eq!(Count(11).progress_of(10), Err(Malformed::Count(11)));
    }
}
