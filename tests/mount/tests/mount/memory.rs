//! A file system in memory, to see what the decoder makes of the kernel's
//! requests. It records the calls that leave no trace in the tree.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use virtio_fs::platform::{Platform, Signal};
use virtio_fs_host::platform::HostPlatform;
use virtio_fs_host::platform::Waiting;
use virtio_fs_mount::operations::{Context, Create, DirSink, Io, Operations};
use virtio_fs_mount::value::{
    Answer, Attr, Attributes, CopyEnd, DirEntry, Entry, Errno, Features, Lock, LockCall, Opened,
    Rename, SetAttr, Settings, Statfs,
};

const VALID: Duration = Duration::from_secs(60);
/// Inode numbers are this plus the node id: the two are not to be confused.
pub(crate) const INO: u64 = 1 << 40;

#[derive(Default)]
struct Node {
    attr: Attr,
    names: BTreeMap<Vec<u8>, u64>,
    data: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Look-ups that the kernel has not forgotten.
    lookups: u64,
}

#[derive(Default)]
pub(crate) struct State {
    nodes: BTreeMap<u64, Node>,
    pub(crate) calls: Vec<String>,
    pub(crate) destroyed: bool,
}

/// The file system.
pub(crate) struct Memory {
    state: Mutex<State>,
    changed: Condvar,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let mut root = Node::default();
        root.attr.mode = libc::S_IFDIR | 0o777;
        root.attr.nlink = 2;
        root.attr.ino = INO + 1;
        let mut state = State::default();
        state.nodes.insert(1, root);
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until `call` was made.
    pub(crate) fn await_call(&self, call: &str) {
        let state = self.state();
        let made = |state: &mut State| !state.calls.iter().any(|made| made == call);
        let limit = Duration::from_secs(10);
        let (state, _) = self.changed.wait_timeout_while(state, limit, made).unwrap();
        assert!(
            state.calls.iter().any(|made| made == call),
            "{:?}",
            state.calls
        );
    }

    fn record(&self, call: String) {
        self.state().calls.push(call);
        self.changed.notify_all();
    }

    fn make(&self, context: &Context, new: &Create<'_>, data: &[u8]) -> Answer<Entry> {
        let mut state = self.state();
        if let Some(group) = context.group {
            state.calls.push(format!("group {group}"));
        }
        let number = *state.nodes.last_key_value().unwrap().0 + 1;
        let node = Node {
            attr: Attr {
                ino: INO + number,
                size: data.len() as u64,
                mode: new.mode & !new.umask,
                nlink: 1,
                uid: context.uid,
                gid: context.gid,
                blksize: 4096,
                ..Attr::default()
            },
            data: data.to_vec(),
            ..Node::default()
        };
        if !new.name.is_empty() {
            let parent = state
                .nodes
                .get_mut(&new.parent)
                .ok_or(Errno(libc::ESTALE))?;
            if parent.names.contains_key(new.name) {
                return Err(Errno(libc::EEXIST));
            }
            parent.names.insert(new.name.to_vec(), number);
        }
        state.nodes.insert(number, node);
        state.entry(number)
    }
}

impl State {
    fn node(&mut self, node: u64) -> Answer<&mut Node> {
        self.nodes.get_mut(&node).ok_or(Errno(libc::ESTALE))
    }

    fn find(&mut self, parent: u64, name: &[u8]) -> Answer<u64> {
        let found = self.node(parent)?.names.get(name).copied();
        found.ok_or(Errno(libc::ENOENT))
    }

    fn entry(&mut self, node: u64) -> Answer<Entry> {
        let found = self.node(node)?;
        found.lookups += 1;
        Ok(Entry {
            node,
            generation: 7,
            name_valid: VALID,
            attr_valid: VALID,
            attr: found.attr,
        })
    }

    /// Look-ups that were never forgotten, of all nodes but the root.
    pub(crate) fn lookups(&self) -> u64 {
        self.nodes.values().map(|node| node.lookups).sum()
    }

    fn list(&mut self, node: u64) -> Answer<Vec<(Vec<u8>, u64)>> {
        let names = self.node(node)?.names.clone();
        let dots = [(b".".to_vec(), node), (b"..".to_vec(), 1)];
        Ok(dots.into_iter().chain(names).collect())
    }
}

impl Operations for Memory {
    fn init(&self, offered: Features) -> Settings {
        Settings {
            features: offered - Features::READDIRPLUS_AUTO,
            max_write: 1 << 20,
            time_granularity: 1,
        }
    }

    fn destroy(&self) {
        self.state().destroyed = true;
    }

    fn lookup(&self, _: &Context, parent: u64, name: &[u8]) -> Answer<Entry> {
        let mut state = self.state();
        let node = state.find(parent, name)?;
        state.entry(node)
    }

    fn forget(&self, node: u64, lookups: u64) {
        let mut state = self.state();
        if let Ok(node) = state.node(node) {
            node.lookups = node
                .lookups
                .checked_sub(lookups)
                .expect("a forget too many");
        }
    }

    fn getattr(&self, _: &Context, node: u64, _: Option<u64>) -> Answer<Attributes> {
        let attr = self.state().node(node)?.attr;
        Ok(Attributes { valid: VALID, attr })
    }

    fn setattr(&self, _: &Context, node: u64, change: &SetAttr) -> Answer<Attributes> {
        let mut state = self.state();
        state.calls.push(format!("setattr {change:?}"));
        let found = state.node(node)?;
        let attr = &mut found.attr;
        attr.mode = change
            .mode
            .map_or(attr.mode, |mode| attr.mode & libc::S_IFMT | mode & 0o7777);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        if let Some(size) = change.size {
            attr.size = size;
            found.data.resize(size as usize, 0);
        }
        if let Some(virtio_fs_mount::value::SetTime::To(time)) = change.mtime {
            found.attr.mtime = time;
        }
        Ok(Attributes {
            valid: VALID,
            attr: found.attr,
        })
    }

    fn readlink(&self, _: &Context, node: u64) -> Answer<Vec<u8>> {
        Ok(self.state().node(node)?.data.clone())
    }

    fn symlink(&self, context: &Context, new: &Create<'_>, target: &[u8]) -> Answer<Entry> {
        self.make(context, new, target)
    }

    fn mknod(&self, context: &Context, new: &Create<'_>, _: u32) -> Answer<Entry> {
        self.make(context, new, b"")
    }

    fn mkdir(&self, context: &Context, new: &Create<'_>) -> Answer<Entry> {
        let mode = new.mode | libc::S_IFDIR;
        self.make(context, &Create { mode, ..*new }, b"")
    }

    fn unlink(&self, _: &Context, parent: u64, name: &[u8]) -> Answer<()> {
        let mut state = self.state();
        let node = state.find(parent, name)?;
        state.node(parent)?.names.remove(name);
        state.node(node)?.attr.nlink -= 1;
        Ok(())
    }

    fn rmdir(&self, context: &Context, parent: u64, name: &[u8]) -> Answer<()> {
        self.unlink(context, parent, name)
    }

    fn rename(&self, _: &Context, rename: &Rename<'_>) -> Answer<()> {
        let mut state = self.state();
        state.calls.push(format!("rename {}", rename.flags));
        let node = state.find(rename.from, rename.name)?;
        state.node(rename.from)?.names.remove(rename.name);
        let names = &mut state.node(rename.to)?.names;
        names.insert(rename.new_name.to_vec(), node);
        Ok(())
    }

    fn link(&self, _: &Context, node: u64, parent: u64, name: &[u8]) -> Answer<Entry> {
        let mut state = self.state();
        state.node(node)?.attr.nlink += 1;
        state.node(parent)?.names.insert(name.to_vec(), node);
        state.entry(node)
    }

    fn open(&self, _: &Context, node: u64, _: u32) -> Answer<Opened> {
        // Handle 0 is as good as any.
        Ok(Opened {
            fh: node - 1,
            flags: 0,
        })
    }

    fn create(&self, context: &Context, new: &Create<'_>, flags: u32) -> Answer<(Entry, Opened)> {
        let entry = self.make(context, new, b"")?;
        Ok((entry, self.open(context, entry.node, flags)?))
    }

    fn tmpfile(&self, context: &Context, new: &Create<'_>, flags: u32) -> Answer<(Entry, Opened)> {
        self.record("tmpfile".into());
        self.create(context, new, flags)
    }

    fn read(&self, _: &Context, io: &Io, buffer: &mut [u8]) -> Answer<usize> {
        let mut state = self.state();
        let data = &state.node(io.node)?.data;
        let rest = data.get(io.offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write(&self, _: &Context, io: &Io, data: &[u8]) -> Answer<usize> {
        assert_eq!(
            data.as_ptr() as usize % 4096,
            0,
            "payload on a page boundary"
        );
        let mut state = self.state();
        let node = state.node(io.node)?;
        let end = io.offset as usize + data.len();
        if node.data.len() < end {
            node.data.resize(end, 0);
        }
        node.data[io.offset as usize..end].copy_from_slice(data);
        node.attr.size = node.data.len() as u64;
        Ok(data.len())
    }

    fn flush(&self, _: &Context, _: u64, _: u64, _: u64) -> Answer<()> {
        Ok(())
    }

    fn fsync(&self, _: &Context, node: u64, fh: u64, data_only: bool) -> Answer<()> {
        assert_eq!(fh, node - 1);
        self.record(format!("fsync {data_only}"));
        Ok(())
    }

    fn opendir(&self, context: &Context, node: u64, flags: u32) -> Answer<Opened> {
        self.open(context, node, flags)
    }

    fn readdir(
        &self,
        _: &Context,
        node: u64,
        _: u64,
        offset: u64,
        sink: &mut dyn DirSink,
    ) -> Answer<()> {
        let names = self.state().list(node)?;
        for ((name, node), next) in names.iter().zip(1..).skip(offset as usize) {
            let entry = DirEntry {
                ino: INO + node,
                next,
                kind: 0,
                name,
            };
            if !sink.add(entry) {
                break;
            }
        }
        Ok(())
    }

    fn readdirplus(
        &self,
        _: &Context,
        node: u64,
        _: u64,
        offset: u64,
        sink: &mut dyn DirSink,
    ) -> Answer<()> {
        let mut state = self.state();
        let names = state.list(node)?;
        for ((name, node), next) in names.iter().zip(1..).skip(offset as usize) {
            let mut found = state.entry(*node)?;
            let dots = name == b"." || name == b"..";
            if dots {
                found.node = 0;
            }
            let entry = DirEntry {
                ino: INO + node,
                next,
                kind: found.attr.mode >> 12,
                name,
            };
            let added = sink.add_plus(entry, &found);
            if dots || !added {
                state.node(*node)?.lookups -= 1;
            }
            if !added {
                break;
            }
        }
        Ok(())
    }

    fn statfs(&self, _: &Context, _: u64) -> Answer<Statfs> {
        Ok(Statfs {
            blocks: 1000,
            bfree: 500,
            bavail: 400,
            files: 300,
            ffree: 200,
            bsize: 4096,
            namelen: 255,
            frsize: 512,
        })
    }

    fn setxattr(
        &self,
        _: &Context,
        node: u64,
        name: &[u8],
        value: &[u8],
        _: u32,
        _: bool,
    ) -> Answer<()> {
        let mut state = self.state();
        state
            .node(node)?
            .xattrs
            .insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    fn getxattr(&self, _: &Context, node: u64, name: &[u8]) -> Answer<Vec<u8>> {
        let mut state = self.state();
        let value = state.node(node)?.xattrs.get(name).cloned();
        value.ok_or(Errno(libc::ENODATA))
    }

    fn listxattr(&self, _: &Context, node: u64) -> Answer<Vec<u8>> {
        let mut state = self.state();
        let names = state.node(node)?.xattrs.keys();
        Ok(names.flat_map(|name| [name, &b"\0"[..]].concat()).collect())
    }

    fn getlk(&self, _: &Context, _: u64, _: u64, _: u64, lock: &Lock) -> Answer<Lock> {
        Ok(*lock)
    }

    /// Every waiting lock waits until it is interrupted.
    fn setlk(&self, _: &Context, _: u64, _: u64, call: LockCall, _: &Lock) -> Answer<()> {
        if !call.wait {
            return Ok(());
        }
        self.record("wait".into());
        let platform = HostPlatform::new(Waiting::Sleep);
        while platform.signal() != Signal::Interrupt {
            platform.park(None);
        }
        self.record("interrupted".into());
        Err(Errno(libc::EINTR))
    }

    fn fallocate(
        &self,
        _: &Context,
        _: u64,
        _: u64,
        offset: u64,
        len: u64,
        mode: u32,
    ) -> Answer<()> {
        self.record(format!("fallocate {offset} {len} {mode}"));
        Ok(())
    }

    fn lseek(&self, _: &Context, _: u64, _: u64, offset: u64, whence: u32) -> Answer<u64> {
        self.record(format!("lseek {offset} {whence}"));
        Ok(offset + 5)
    }

    fn copy_file_range(&self, _: &Context, from: CopyEnd, to: CopyEnd, len: u64) -> Answer<u64> {
        let mut state = self.state();
        let at = from.offset as usize;
        let data = state.node(from.node)?.data[at..at + len as usize].to_vec();
        let target = state.node(to.node)?;
        target.data.splice(to.offset as usize.., data);
        target.attr.size = target.data.len() as u64;
        Ok(len)
    }
}
