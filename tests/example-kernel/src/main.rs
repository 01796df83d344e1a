//! A kernel with tests of its own, in the table of the test kernel.
//!
//! ```sh
//! make runner tools
//! cargo build --manifest-path tests/example-kernel/Cargo.toml --profile kernel --target-dir target/example
//! target/release/virtio-fs-run test --kernel target/example/kernel/example-kernel \
//!     --share /usr/share/doc --junit results.xml
//! ```
//!
//! The status is 0 if every test passed. `--only example` leaves out the test kernel's own tests.
#![cfg_attr(panic = "abort", no_std, no_main)]

extern crate alloc;

use alloc::{format, string::String, vec};

use virtio_fs::{
    conn::Config,
    error::Error,
    fs::{At, MountOptions, Symlinks},
    wire::OpenFlags,
};
use virtio_fs_boot::{
    Kernel, Program, check,
    cmdline::Key,
    kernel, println,
    selftest::{self, Test},
    suite, virtiofs,
};

kernel!(Program {
    keys: &[
        // What the runner says: the share to mount, and which tests.
        Key::any("tag", "of the share"),
        Key::any("test", "1 runs all tests, a word those that contain it"),
        // A word of our own; the runner passes it on with --append depth=4.
        Key {
            name: "depth",
            help: "how deep the directories of a test are (8)",
            valid: |word| matches!(word.parse(), Ok(1..=64u32)),
        },
    ],
    main: run,
});

/// Our tests. Each gets the kernel and fails by returning a reason.
const TESTS: &[Test] = &[
    Test {
        name: "example: the share's root is a directory with entries",
        run: root,
    },
    Test {
        name: "example: a file at the end of a deep path is read back",
        run: deep,
    },
];

fn run(kernel: &'static Kernel) -> u8 {
    let Some(filter) = kernel.arguments.get("test") else {
        println!("this kernel only runs tests: test=1");
        return 64;
    };
    // Those of the test kernel, and of the driver on this share, and ours.
    let mut tables = suite::tables(kernel);
    tables.push(TESTS);
    selftest::run(kernel, &tables, filter)
}

fn mount(kernel: &Kernel) -> Result<virtiofs::Mounted, String> {
    let tag = kernel.arguments.get("tag");
    virtiofs::mount(tag, Config::default(), MountOptions::default())
}

fn text(error: Error) -> String {
    format!("{error}")
}

fn root(kernel: &'static Kernel) -> Result<(), String> {
    let mounted = mount(kernel)?;
    let process = mounted.process();
    let fd = process
        .open(At::Cwd, b"/", OpenFlags::DIRECTORY, 0)
        .map_err(text)?;
    let mut names = 0;
    process
        .read_dir(fd, |_| {
            names += 1;
            true
        })
        .map_err(text)?;
    process.close(fd).map_err(text)?;
    drop(process);
    mounted.unmount();
    check!(names >= 2, "{names} names, but . and .. are always there");
    Ok(())
}

fn deep(kernel: &'static Kernel) -> Result<(), String> {
    let depth = kernel.arguments.get("depth").unwrap_or("8");
    let depth: usize = depth.parse().map_err(|_| "depth is no number")?;
    let mounted = mount(kernel)?;
    let process = mounted.process();
    let top = b"example-kernel";
    let mut path = top.to_vec();
    for _ in 0..depth {
        process.mkdir(At::Cwd, &path, 0o755).map_err(text)?;
        path.extend_from_slice(b"/down");
    }
    let flags = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::EXCL;
    let fd = process.open(At::Cwd, &path, flags, 0o644).map_err(text)?;
    process.write_all(fd, b"here").map_err(text)?;
    let mut back = vec![0; 16];
    let len = process.pread(fd, &mut back, 0).map_err(text)?;
    process.close(fd).map_err(text)?;
    process.unlink(At::Cwd, &path).map_err(text)?;
    while path != top {
        path.truncate(path.len() - b"/down".len());
        process.rmdir(At::Cwd, &path).map_err(text)?;
    }
    let gone = process.stat(At::Cwd, top, Symlinks::NoFollow).is_err();
    drop(process);
    mounted.unmount();
    check!(
        &back[..len] == b"here",
        "read {}",
        back[..len].escape_ascii()
    );
    check!(gone, "the directory is still there");
    Ok(())
}
