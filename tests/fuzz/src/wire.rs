//! Replies: a header and a payload of any bytes, held against any expectation, in any dialect.

use virtio_fs::wire::*;
use virtio_fs_calls::Source;

use crate::input::Input;

/// Checks the header, splits the payload and decodes it.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let dialect = Dialect {
        minor: input.below(50) as u32,
        flags: InitFlags::from_bits_retain(input.number()),
    };
    let kind = input.below(KINDS.len());
    let unique = Unique::new(2 * (1 + input.below(3) as u64)).expect("not 0");
    let silence = input.of(&[Silence::TrustHeader, Silence::Refuse, Silence::Accept]);
    let (shape, decode) = KINDS[kind];
    let capacity = shape.fixed_area() + input.below(400);
    let wish = input.below(8);
    let (used, mut header) = (
        input.number() as u32,
        input.fixed::<16>().unwrap_or([0; 16]),
    );
    let body = input.take(usize::MAX);
    // Most headers fit, so that the payload is looked at.
    let len = (REPLY_HEADER + body.len()) as u32;
    if wish & 1 == 0 {
        header[..4].copy_from_slice(&len.to_le_bytes());
        header[8..].copy_from_slice(&unique.get().to_le_bytes());
    }
    if wish & 6 != 0 {
        header[4..8].fill(0);
    }
    let used = if wish & 2 == 0 { len } else { used };

    let expected = Expected {
        unique,
        shape,
        capacity,
        silence,
    };
    if let Ok(payload) = check_reply(&header, used, &expected) {
        let area = capacity.saturating_sub(REPLY_HEADER);
        assert!(payload <= area, "{payload} of {expected:?}");
        let mut bytes = body.to_vec();
        bytes.resize(area, 0);
        if shape != ReplyShape::None {
            match Payload::split(shape, &bytes, payload) {
                Ok(split) => {
                    assert_eq!(split.fixed.len() + split.data, payload);
                    decode(split, &dialect);
                }
                // Silence that was accepted has no payload to split.
                Err(_) => assert_eq!(payload, 0, "{expected:?}"),
            }
        }
    }
    others(body);
}

/// What is no reply to a request.
fn others(bytes: &[u8]) {
    if let Ok(Notification::Prune(list)) = Notification::parse(bytes) {
        assert!(list.count() * 8 <= bytes.len());
    }
    let names = XattrList::new(bytes).count();
    assert!(names <= bytes.len() + 1);
    if let Ok(name) = Name::new(bytes) {
        check_name(name);
    }
}

type Decode = fn(Payload<'_>, &Dialect);

/// Decodes as the reply to an `R`, and looks at what comes out.
fn decode<R: Request>(payload: Payload<'_>, dialect: &Dialect, look: impl Fn(&R::Reply)) {
    if let Ok(reply) = R::decode(payload, dialect) {
        look(&reply);
    }
}

macro_rules! kinds {
    ($($request:ty $(: $look:expr)?),* $(,)?) => {
        /// Every operation with its shape.
        const KINDS: &[(ReplyShape, Decode)] = &[$((
            <$request>::REPLY,
            |payload, dialect| {
                let looks: &[fn(&<$request as Request>::Reply)] = &[$($look)?];
                decode::<$request>(payload, dialect, |reply| looks.iter().for_each(|look| look(reply)));
            },
        )),*];
    };
}

kinds! {
    Lookup<'static>: |found| if let Found::Entry(entry) = found { check_entry(entry) },
    Getattr: |reply| check_attr(&reply.attr),
    Setattr: |reply| check_attr(&reply.attr),
    Create<'static>: |reply| check_entry(&reply.entry),
    Tmpfile<'static>: |reply| check_entry(&reply.entry),
    Mknod<'static>: check_entry,
    Mkdir<'static>: check_entry,
    Symlink<'static>: check_entry,
    Link<'static>: check_entry,
    Statx: |reply| if let Some(attr) = &reply.attr { check_attr(attr) },
    Setupmapping,
    Removemapping<'static>,
    Readdir,
    Readdirplus,
    Flush,
    Fsync,
    Fsyncdir,
    Statfs,
    Syncfs,
    Access,
    Init,
    Destroy,
    Read,
    Write,
    Ioctl,
    Poll,
    Bmap,
    Unlink<'static>,
    Rmdir<'static>,
    Rename<'static>,
    Rename2<'static>,
    Readlink,
    Getlk,
    Setlk,
    Setlkw,
    Forget,
    BatchForget<'static>,
    Interrupt,
    NotifyReply,
    Open,
    Opendir,
    Release,
    Releasedir,
    Lseek,
    Fallocate,
    CopyFileRange,
    CopyFileRange64,
    Setxattr<'static>,
    Getxattr<'static>,
    GetxattrSize<'static>,
    Listxattr,
    ListxattrSize,
    Removexattr<'static>,
}

pub(crate) fn check_entry(entry: &Entry) {
    assert_ne!(entry.node, NodeId::ROOT);
    if let Ok(attr) = &entry.attr {
        check_attr(attr);
    }
}

fn check_attr(attr: &Attr) {
    assert!(attr.size <= SIZE_MAX);
    assert!(attr.blksize().is_power_of_two());
    for time in [attr.atime, attr.mtime, attr.ctime] {
        assert!(time.nsec < 1_000_000_000);
    }
}

fn check_name(name: &Name) {
    let bytes = name.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= NAME_MAX);
    assert!(!bytes.contains(&0) && !bytes.contains(&b'/'));
    assert!(bytes != b"." && bytes != b"..");
}
