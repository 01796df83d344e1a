//! Ids are found in every request that has them, and nothing else is changed.

extern crate std;

use std::vec;
use std::vec::Vec;

use super::*;
use crate::wire::*;

fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

/// Encodes `request` twice, as it is and with its ids replaced by others, and
/// compares that with `expected`, which was made with those.
fn replaced<R: Request>(request: &R, expected: &R) {
    let encoded = |request: &R| {
        let mut bytes = vec![0; 4096];
        let dialect = Dialect::INITIAL;
        let len = encode(
            request,
            Unique::nth(0),
            Credentials::DRIVER,
            dialect,
            &mut bytes,
        );
        bytes.truncate(len.unwrap().args);
        bytes
    };
    let mut bytes = encoded(request);
    replace_in_request(R::OPCODE, &mut bytes, |id| match id {
        Id::Node(node) => Some(node.get() + 100),
        Id::Handle(node, fh) => Some(fh.0 + 1000 * node.get()),
    })
    .unwrap();
    assert_eq!(bytes, encoded(expected), "{request}");
    // Whatever is missing is named.
    let mut seen = Vec::new();
    let result = replace_in_request(R::OPCODE, &mut encoded(request), |id| {
        seen.push(id);
        None
    });
    assert_eq!(result.err(), seen.first().copied(), "{request}");
}

#[test]
fn nodes_and_handles_are_replaced_wherever_they_stand() {
    let name = Name::new(b"name").unwrap();
    let rename = |parent, new_parent| Rename {
        parent: node(parent),
        name,
        new_parent: node(new_parent),
        new_name: name,
    };
    replaced(&rename(2, 3), &rename(102, 103));
    let link = |id, new_parent| Link {
        node: node(id),
        new_parent: node(new_parent),
        new_name: name,
    };
    replaced(&link(2, 3), &link(102, 103));
    let read = |id, fh| Read {
        node: node(id),
        fh: FileHandle(fh),
        offset: 7,
        size: 8,
        lock_owner: None,
        flags: OpenFlags::RDONLY,
    };
    replaced(&read(2, 5), &read(102, 2005));
    let getattr = |id, fh: Option<u64>| Getattr {
        node: node(id),
        fh: fh.map(FileHandle),
    };
    replaced(&getattr(2, None), &getattr(102, None));
    replaced(&getattr(2, Some(0)), &getattr(102, Some(2000)));
    let setattr = |id, fh: Option<u64>| {
        let mut request = Setattr::new(node(id));
        request.fh = fh.map(FileHandle);
        request.size = Some(9);
        request
    };
    replaced(&setattr(2, None), &setattr(102, None));
    replaced(&setattr(2, Some(4)), &setattr(102, Some(2004)));
    let copy = |node_in, fh_in, node_out, fh_out| {
        CopyFileRange(CopyRange {
            node_in: node(node_in),
            fh_in: FileHandle(fh_in),
            offset_in: 1,
            node_out: node(node_out),
            fh_out: FileHandle(fh_out),
            offset_out: 2,
            len: 3,
            flags: 0,
        })
    };
    replaced(&copy(2, 4, 3, 5), &copy(102, 2004, 103, 3005));
    let map = |id, fh| Setupmapping {
        node: node(id),
        fh,
        file_offset: 0,
        len: 4096,
        flags: MappingFlags::READ,
        window_offset: 0,
    };
    replaced(&map(2, FileHandle::NONE), &map(102, FileHandle::NONE));
    replaced(&map(2, FileHandle(1)), &map(102, FileHandle(2001)));
}

#[test]
fn requests_about_no_node_are_left_alone() {
    replaced(&Destroy, &Destroy);
    let short = &mut [1u8; 39][..];
    assert_eq!(
        replace_in_request(Opcode::Read, short, |_| panic!("no id there")),
        Ok(())
    );
}

#[test]
fn a_request_cut_short_is_left_alone() {
    for len in 40..80 {
        let mut bytes = vec![9u8; len];
        let _ = replace_in_request(Opcode::CopyFileRange, &mut bytes, |_| Some(1));
        assert_eq!(bytes.len(), len);
    }
}
