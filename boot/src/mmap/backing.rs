//! What is mapped: a file of the driver's, without its types.

use virtio_fs::{
    Result,
    fs::{Durable, Fault, File, PageUse, Run},
    platform::Platform,
};

/// A file behind a mapping.
pub(super) trait Backing: Send + Sync {
    /// The name under which the driver takes its pages back. `None` if it has
    /// none to give.
    fn mapping(&self) -> Option<u64>;

    /// Calls `enter` with what is mapped around byte `offset` while it cannot go
    /// away. False if the page cannot be mapped. Blocks.
    fn fault(&self, offset: u64, want: PageUse, enter: &mut dyn FnMut(Run)) -> Result<bool>;

    /// Reads until `buf` is full or the file ends. Blocks.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// Makes what was stored durable. Blocks.
    fn sync(&self) -> Result<()>;
}

impl<P: Platform> Backing for File<P> {
    fn mapping(&self) -> Option<u64> {
        self.inode().mapping()
    }

    fn fault(&self, offset: u64, want: PageUse, enter: &mut dyn FnMut(Run)) -> Result<bool> {
        match self.inode().fault(offset, want)? {
            Fault::Page(page) => {
                enter(page.run());
                Ok(true)
            }
            Fault::Unmappable => Ok(false),
        }
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(offset + done as u64, &mut buf[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn sync(&self) -> Result<()> {
        File::sync(self, Durable::Data)
    }
}
