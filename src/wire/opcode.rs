//! Operation codes.

use core::fmt;

macro_rules! opcodes {
    ($($name:ident $text:literal = $number:literal;)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Opcode {
            $(
                #[doc = concat!($text, ", number ", $number, ".")]
                $name = $number,
            )*
        }

        impl Opcode {
            /// All of them, in ascending order of numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// One more than the largest number: the length of a table that is
            /// indexed by opcode.
            pub const TABLE_LEN: usize = {
                let mut max = 0;
                $(if $number > max { max = $number; })*
                max + 1
            };

            /// Finds the operation with this number.
            pub const fn from_wire(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Returns the number.
            pub const fn to_wire(self) -> u32 {
                self as u32
            }

            /// Returns the number as an index below [`TABLE_LEN`](Self::TABLE_LEN).
            pub const fn index(self) -> usize {
                self as usize
            }

            /// Returns the name as it stands in the FUSE documentation.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

opcodes! {
    Lookup "LOOKUP" = 1;
    Forget "FORGET" = 2;
    Getattr "GETATTR" = 3;
    Setattr "SETATTR" = 4;
    Readlink "READLINK" = 5;
    Symlink "SYMLINK" = 6;
    Mknod "MKNOD" = 8;
    Mkdir "MKDIR" = 9;
    Unlink "UNLINK" = 10;
    Rmdir "RMDIR" = 11;
    Rename "RENAME" = 12;
    Link "LINK" = 13;
    Open "OPEN" = 14;
    Read "READ" = 15;
    Write "WRITE" = 16;
    Statfs "STATFS" = 17;
    Release "RELEASE" = 18;
    Fsync "FSYNC" = 20;
    Setxattr "SETXATTR" = 21;
    Getxattr "GETXATTR" = 22;
    Listxattr "LISTXATTR" = 23;
    Removexattr "REMOVEXATTR" = 24;
    Flush "FLUSH" = 25;
    Init "INIT" = 26;
    Opendir "OPENDIR" = 27;
    Readdir "READDIR" = 28;
    Releasedir "RELEASEDIR" = 29;
    Fsyncdir "FSYNCDIR" = 30;
    Getlk "GETLK" = 31;
    Setlk "SETLK" = 32;
    Setlkw "SETLKW" = 33;
    Access "ACCESS" = 34;
    Create "CREATE" = 35;
    Interrupt "INTERRUPT" = 36;
    Bmap "BMAP" = 37;
    Destroy "DESTROY" = 38;
    Ioctl "IOCTL" = 39;
    Poll "POLL" = 40;
    NotifyReply "NOTIFY_REPLY" = 41;
    BatchForget "BATCH_FORGET" = 42;
    Fallocate "FALLOCATE" = 43;
    Readdirplus "READDIRPLUS" = 44;
    Rename2 "RENAME2" = 45;
    Lseek "LSEEK" = 46;
    CopyFileRange "COPY_FILE_RANGE" = 47;
    Setupmapping "SETUPMAPPING" = 48;
    Removemapping "REMOVEMAPPING" = 49;
    Syncfs "SYNCFS" = 50;
    Tmpfile "TMPFILE" = 51;
    Statx "STATX" = 52;
    CopyFileRange64 "COPY_FILE_RANGE_64" = 53;
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_is_found_by_its_number_and_fits_the_table() {
        assert!(Opcode::ALL.is_sorted());
        for &opcode in Opcode::ALL {
            assert_eq!(Opcode::from_wire(opcode.to_wire()), Some(opcode));
            assert!(opcode.index() < Opcode::TABLE_LEN);
        }
        assert_eq!(Opcode::TABLE_LEN, 54);
    }

    #[test]
    fn unused_and_foreign_numbers_are_no_opcodes() {
        for number in [0, 7, 19, 54, 4096, 26 << 24, u32::MAX] {
            assert_eq!(Opcode::from_wire(number), None, "{number}");
        }
    }
}
