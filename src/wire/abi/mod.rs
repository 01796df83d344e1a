//! The structs of FUSE, byte for byte, under the names of `linux/fuse.h`.
//!
//! Every number is plain: no `bool` and no Rust enum stands where the other side
//! chooses the value. Padding is spelled out, so that no byte is undefined.
//! Size and offsets are given beside the fields and asserted when compiling;
//! they come from the header of protocol 7.38, and from 7.45 for what is newer.
//!
//! Nothing else in the driver needs these structs: requests are encoded from the
//! types of [`wire`](crate::wire) and replies are decoded into them. They are
//! public for whoever plays the other side, a server or a test.
//!
//! Byte order is the driver's by the specification (virtio 1.3, 5.11.6), and
//! every known server expects little endian.

#[cfg(target_endian = "big")]
compile_error!("no known virtio-fs server accepts requests in big-endian byte order");

/// Declares structs with the offset of each field, and checks them.
macro_rules! layout {
    ($(
        $(#[$doc:meta])*
        $name:ident = $c:literal, $size:literal {
            $($field:ident @ $offset:literal: $type:ty),* $(,)?
        }
    )*) => {
        $(
            $(#[$doc])*
            #[doc = concat!("\n\n`", $c, "`, ", $size, " bytes.")]
            #[derive(
                Clone, Copy, Debug, Default, PartialEq, Eq,
                zerocopy::FromBytes, zerocopy::IntoBytes,
                zerocopy::Immutable, zerocopy::KnownLayout,
            )]
            #[repr(C)]
            pub struct $name {
                $(
                    #[doc = concat!("`", stringify!($field), "` at byte ", $offset, ".")]
                    pub $field: $type,
                )*
            }

            const _: () = {
                assert!(size_of::<$name>() == $size);
                $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
            };
        )*

        /// The declared layouts, for comparison with a C compiler's.
        #[cfg(test)]
        pub(super) const LAYOUTS: &[super::Layout] = &[
            $(($c, $size, &[$((stringify!($field), $offset)),*])),*
        ];
    };
}

/// Name in C, size, fields with offsets.
#[cfg(test)]
type Layout = (&'static str, usize, &'static [(&'static str, usize)]);

mod attr;
mod data;
mod dir;
mod node;
mod notify;
mod session;

pub use attr::*;
pub use data::*;
pub use dir::*;
pub use node::*;
pub use notify::*;
pub use session::*;

#[cfg(test)]
mod tests;
