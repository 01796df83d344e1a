//! Golden bytes of every message.
//!
//! The expected bytes are put together field by field from the tables of the
//! protocol (`linux/fuse.h`), not from the structs of [`abi`](super::abi), so
//! that the two check each other.

extern crate std;

use std::vec::Vec;

use super::*;

mod create;
mod dirents;
mod files;
mod notify;
mod random;
mod replies;
mod requests;

/// Collects little-endian fields.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn new() -> Self {
        Self::default()
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn str(mut self, text: &str) -> Self {
        self.0.extend(text.as_bytes());
        self
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn join(mut self, other: &Self) -> Self {
        self.0.extend(&other.0);
        self
    }
}

/// The dialect of a peer of today with these flags.
fn with(flags: InitFlags) -> Dialect {
    Dialect {
        flags,
        ..Dialect::INITIAL
    }
}

/// The dialect of an old peer.
fn minor(minor: u32) -> Dialect {
    Dialect {
        minor,
        flags: InitFlags::empty(),
    }
}

fn name(text: &str) -> &Name {
    Name::new(text.as_bytes()).unwrap()
}

fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

const CREDENTIALS: Credentials = Credentials {
    uid: 1000,
    gid: 100,
    pid: 42,
};
const FILL: u8 = 0xa5;

/// Checks that `request` becomes a header and `body` in a buffer of every size,
/// and leaves alone what lies behind.
#[track_caller]
fn encodes<R: Request>(request: &R, dialect: Dialect, extensions: usize, body: &Bytes) {
    let unique = Unique::new(0x1122_3344_5566_7788).unwrap();
    let len = 40 + body.0.len();
    let expected = Bytes::new()
        .u32((len + request.data_out()) as u32)
        .u32(R::OPCODE.to_wire())
        .u64(0x1122_3344_5566_7788)
        .u64(request.node().map_or(0, NodeId::get))
        .u32(1000)
        .u32(100)
        .u32(42)
        .u16((extensions / 8) as u16)
        .u16(0)
        .join(body);
    assert_eq!(encoded_len(request, dialect), len, "{request}");
    for size in 0..len + 9 {
        let mut buf = std::vec![FILL; size];
        let result = encode(request, unique, CREDENTIALS, dialect, &mut buf);
        if size < len {
            assert_eq!(
                result,
                Err(TooLong { needed: len }),
                "{request} in {size} bytes"
            );
            continue;
        }
        let encoded = Encoded {
            args: len,
            data: request.data_out(),
        };
        assert_eq!(result, Ok(encoded), "{request} in {size} bytes");
        assert_eq!(buf[..len], expected.0, "{request}");
        assert!(buf[len..].iter().all(|&b| b == FILL), "{request}");
    }
}

/// Checks a request that looks the same in every dialect.
#[track_caller]
fn plain<R: Request>(request: &R, body: Bytes) {
    encodes(request, Dialect::INITIAL, 0, &body);
    encodes(request, with(InitFlags::all()), 0, &body);
}

/// Parses `fixed` and `data` bytes of data as the reply to an `R`.
fn decode<R: Request>(dialect: &Dialect, fixed: &[u8], data: usize) -> Result<R::Reply, Malformed> {
    R::decode(Payload { fixed, data }, dialect)
}

/// Checks that `fixed` is the reply to an `R`, and that it is refused when it is
/// cut anywhere or goes on.
#[track_caller]
fn decodes<R>(dialect: Dialect, fixed: &Bytes, reply: R::Reply)
where
    R: Request,
    R::Reply: PartialEq + core::fmt::Debug,
{
    assert_eq!(decode::<R>(&dialect, &fixed.0, 0), Ok(reply));
    for len in 0..fixed.0.len() {
        let cut = decode::<R>(&dialect, &fixed.0[..len], 0);
        assert!(cut.is_err(), "{} takes {len} bytes", R::OPCODE);
    }
    let longer = fixed.clone().zeros(1);
    assert!(
        decode::<R>(&dialect, &longer.0, 0).is_err(),
        "{} takes one more",
        R::OPCODE
    );
}
