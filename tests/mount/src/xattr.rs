//! Extended attributes, as requests to the server: the kernel asks for whole
//! values, whose size must be asked for first and may have changed by then.

use std::num::NonZeroU32;

use virtio_fs::conn::{Class, Connection};
use virtio_fs::device::Data;
use virtio_fs::wire::{
    self, Getxattr, GetxattrSize, Listxattr, ListxattrSize, NodeId, Removexattr, Setxattr,
    SetxattrFlags, XattrFlags, XattrName,
};
use virtio_fs_host::HostPlatform;

use crate::value::{Answer, Errno};

/// Room that most values fit, so that one request does.
const FIRST_TRY: u32 = 4096;
/// The largest value and list that Linux allows (XATTR_SIZE_MAX).
const LARGEST: u32 = 64 << 10;

fn name(bytes: &[u8]) -> Answer<&XattrName> {
    XattrName::new(bytes).map_err(|error| Errno(error.errno().get().into()))
}

/// Fetches with more and more room until all of it fits.
fn whole(
    fetch: impl Fn(NonZeroU32, &mut [u8]) -> virtio_fs::Result<usize>,
    size: impl Fn() -> virtio_fs::Result<u32>,
) -> Answer<Vec<u8>> {
    let mut room = FIRST_TRY;
    loop {
        let mut buffer = vec![0; room as usize];
        let wanted = NonZeroU32::new(room).unwrap_or(NonZeroU32::MAX);
        match fetch(wanted, &mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(error) if error.errno() == virtio_fs::Errno::ERANGE && room < LARGEST => {
                room = size()?.clamp(room + 1, LARGEST);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the value of an attribute.
pub(crate) fn get(
    conn: &Connection<HostPlatform>,
    node: NodeId,
    attribute: &[u8],
) -> Answer<Vec<u8>> {
    let name = name(attribute)?;
    let fetch = |size, buffer: &mut [u8]| {
        let request = Getxattr { node, name, size };
        conn.call(&request, Data::Sink(&mut [buffer]), Class::Normal)
    };
    whole(fetch, || conn.ask(&GetxattrSize { node, name }))
}

/// Returns the names of all attributes, each ended by a zero byte.
pub(crate) fn list(conn: &Connection<HostPlatform>, node: NodeId) -> Answer<Vec<u8>> {
    let fetch = |size, buffer: &mut [u8]| {
        let request = Listxattr { node, size };
        conn.call(&request, Data::Sink(&mut [buffer]), Class::Normal)
    };
    whole(fetch, || conn.ask(&ListxattrSize { node }))
}

/// Sets an attribute.
pub(crate) fn set(
    conn: &Connection<HostPlatform>,
    node: NodeId,
    attribute: &[u8],
    value: &[u8],
    flags: u32,
    kill_sgid: bool,
) -> Answer<()> {
    let mut ext_flags = SetxattrFlags::empty();
    ext_flags.set(SetxattrFlags::ACL_KILL_SGID, kill_sgid);
    let request = Setxattr {
        node,
        name: name(attribute)?,
        size: value.len() as u32,
        flags: XattrFlags::from_bits_retain(flags),
        ext_flags,
    };
    let data = match value {
        [] => Data::None,
        _ => Data::Source(&[value]),
    };
    Ok(conn.call(&request, data, Class::Normal)?)
}

/// Removes an attribute.
pub(crate) fn remove(
    conn: &Connection<HostPlatform>,
    node: NodeId,
    attribute: &[u8],
) -> Answer<()> {
    let name: &wire::XattrName = name(attribute)?;
    Ok(conn.ask(&Removexattr { node, name })?)
}
