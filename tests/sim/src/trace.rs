//! Traces: what a workload touches, and the text form to record them in.
//!
//! One access per line, fields separated by blanks:
//!
//! ```text
//! # anything after a hash is a remark
//! window 64          MiB, once, before the first access
//! file 3 536870912   file 3 has this many bytes (from here on)
//! r 3 4096 4096 0    read: file, offset, length, stream (open file)
//! w 3 8192 512 0     write inside the file
//! f 3 12288 4096 1   fault: the page itself is needed
//! ```
//!
//! A write counts like a read: both may go by request. Offsets and lengths are
//! decimal bytes. An access may cross range borders.

use std::collections::HashMap;
use std::fmt::Write as _;

use virtio_fs::dax::{Access, Chunk, Geometry, InodeKey, Kind, Stream};

/// One access of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The file.
    pub file: u64,
    /// The open file or mapped area it comes through.
    pub stream: u32,
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// Copy or fault.
    pub kind: Kind,
}

/// A workload over a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What the tables call it.
    pub name: String,
    /// Length of the window in bytes.
    pub window: u64,
    /// Size of each file in bytes.
    pub sizes: HashMap<u64, u64>,
    /// The accesses in order.
    pub touches: Vec<Touch>,
}

/// A trace as a policy sees it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The cut of the window.
    pub geometry: Geometry,
    /// The accesses, none of which crosses a range border.
    pub accesses: Vec<Access>,
    /// For each access, how many bytes of the next chunk can be mapped.
    pub next_lens: Vec<u32>,
}

impl Trace {
    /// Cuts the accesses at range borders and names the sequential ones.
    ///
    /// # Errors
    /// The window holds no range.
    pub fn prepare(&self) -> Result<Prepared, String> {
        let geometry = Geometry::new(self.window, 0);
        let geometry = geometry.map_err(|error| format!("{}: {error:?}", self.name))?;
        let accesses = self.accesses(&geometry);
        let next_len = |access: &Access| {
            let size = self.sizes.get(&access.inode.0).copied().unwrap_or(0);
            geometry.mappable(Chunk(access.chunk.0 + 1), size)
        };
        Ok(Prepared {
            geometry,
            next_lens: accesses.iter().map(next_len).collect(),
            accesses,
        })
    }

    fn accesses(&self, geometry: &Geometry) -> Vec<Access> {
        let mut streams: HashMap<(u64, u32), Stream> = HashMap::new();
        let mut accesses = Vec::with_capacity(self.touches.len());
        for touch in &self.touches {
            let stream = streams.entry((touch.file, touch.stream)).or_default();
            let size = self.sizes.get(&touch.file).copied().unwrap_or(0);
            let end = touch.offset.saturating_add(touch.len.into()).min(size);
            let mut offset = touch.offset;
            while offset < end {
                let (chunk, at) = geometry.locate(offset);
                let len = (end - offset).min(geometry.range_size() - u64::from(at));
                let chunk_len = geometry.mappable(chunk, size);
                let run = stream.run_at(offset);
                accesses.push(Access {
                    inode: InodeKey(touch.file),
                    chunk,
                    at,
                    len: len as u32,
                    chunk_len,
                    kind: touch.kind,
                    run,
                });
                stream.note(offset, len, run);
                offset += len;
            }
        }
        accesses
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// Says which line does not parse.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut trace = Self {
            name: name.to_owned(),
            window: 0,
            sizes: HashMap::new(),
            touches: Vec::new(),
        };
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let fields: Vec<&str> = line.split_whitespace().collect();
            trace
                .parse_line(&fields)
                .ok_or_else(|| format!("{name}:{}: cannot read {line:?}", number + 1))?;
        }
        if trace.window == 0 {
            return Err(format!("{name}: no window line"));
        }
        Ok(trace)
    }

    fn parse_line(&mut self, fields: &[&str]) -> Option<()> {
        match *fields {
            [] => {}
            ["window", mib] => self.window = mib.parse::<u64>().ok()?.checked_mul(1 << 20)?,
            ["file", file, size] => {
                self.sizes.insert(file.parse().ok()?, size.parse().ok()?);
            }
            [op @ ("r" | "w" | "f"), file, offset, len, stream] => self.touches.push(Touch {
                file: file.parse().ok()?,
                stream: stream.parse().ok()?,
                offset: offset.parse().ok()?,
                len: len.parse().ok()?,
                kind: if op == "f" { Kind::Fault } else { Kind::Copy },
            }),
            _ => return None,
        }
        Some(())
    }

    /// Writes the text form.
    pub fn print(&self) -> String {
        let mut text = format!("# {}\nwindow {}\n", self.name, self.window >> 20);
        let mut sizes: Vec<_> = self.sizes.iter().collect();
        sizes.sort();
        for (file, size) in sizes {
            let _ = writeln!(text, "file {file} {size}");
        }
        for touch in &self.touches {
            let op = match touch.kind {
                Kind::Copy => 'r',
                Kind::Fault => 'f',
            };
            let Touch {
                file,
                offset,
                len,
                stream,
                ..
            } = touch;
            let _ = writeln!(text, "{op} {file} {offset} {len} {stream}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a remark\nwindow 4\nfile 3 5000000 # grows no more\n\
                        r 3 2097000 1000 0\nw 3 2098000 10 0\nf 3 0 4096 1\n\n";

    #[test]
    fn text_form_survives_a_round_trip() {
        let trace = Trace::parse("t", TEXT).expect("parses");
        assert_eq!(trace.touches.len(), 3);
        assert_eq!(Trace::parse("t", &trace.print()), Ok(trace));
    }

    #[test]
    fn accesses_are_cut_at_borders_and_named_sequential() {
        let trace = Trace::parse("t", TEXT).expect("parses");
        let accesses = trace.prepare().expect("two ranges").accesses;
        let brief: Vec<_> = accesses
            .iter()
            .map(|a| (a.chunk, a.at, a.len, a.run))
            .collect();
        assert_eq!(
            brief,
            [
                (Chunk(0), 2_097_000, 152, 0),
                (Chunk(1), 0, 848, 152),
                (Chunk(1), 848, 10, 1000),
                (Chunk(0), 0, 4096, 0),
            ]
        );
    }

    #[test]
    fn nonsense_names_its_line() {
        let error = Trace::parse("t", "window 4\nr 1 2\n").expect_err("too few fields");
        assert!(error.contains("t:2"), "{error}");
        assert!(Trace::parse("t", "r 1 2 3 4\n").is_err(), "no window");
        assert!(Trace::parse("t", "window x\n").is_err());
    }
}
