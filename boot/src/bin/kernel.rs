//! The test kernel: mounts a virtio-fs share and gives a shell on it, runs
//! commands, or runs tests.
#![cfg_attr(panic = "abort", no_std, no_main)]

extern crate alloc;

use alloc::{format, sync::Arc};

use virtio_fs::{
    conn::{Config, DataCache},
    fs::{CachePolicy, MountOptions},
};
use virtio_fs_boot::{
    Kernel, Program,
    cmdline::Key,
    files::{COMMANDS, Files},
    kernel, println, selftest,
    shell::{self, Shell},
    suite, virtiofs,
};

kernel!(Program {
    keys: &[
        Key::any(
            "tag",
            "of the share to mount; not needed if there is only one"
        ),
        Key {
            name: "policy",
            help: "what the driver may cache: none, auto (the default), always, metadata",
            valid: |word| policy(word).is_some(),
        },
        Key {
            name: "data",
            help: "how data of files are cached: none, through (the default), back",
            valid: |word| data(word).is_some(),
        },
        Key::any(
            "cmd",
            "\"COMMANDS\" for the shell; the kernel ends with their status"
        ),
        Key::any(
            "test",
            "1 runs all tests, a word those whose name contains it"
        ),
        virtiofs::RESTART,
        suite::SEED,
        suite::ROUNDS,
        suite::TORTURE,
        suite::DURABLE,
        Key::any(
            "crash",
            "crashes on purpose: panic, fault, jump, divide, constant or overflow"
        ),
    ],
    main: run,
});

/// What the kernel ends with when there is nothing to mount.
const NO_MOUNT: u8 = 72;

fn run(kernel: &'static Kernel) -> u8 {
    if let Some(how) = kernel.arguments.get("crash") {
        selftest::crash(how);
    }
    if let Some(filter) = kernel.arguments.get("test") {
        return suite::run(kernel, filter);
    }
    let options = MountOptions {
        cache: kernel
            .arguments
            .get("policy")
            .and_then(policy)
            .unwrap_or(CachePolicy::Auto),
        // Nothing else here wants much memory.
        page_cache: (kernel.memory.usable_bytes() / 2) as usize,
        ..MountOptions::default()
    };
    let config = Config {
        data_cache: kernel
            .arguments
            .get("data")
            .and_then(data)
            .unwrap_or(DataCache::WriteThrough),
        ..virtiofs::config(kernel)
    };
    let mounted = match virtiofs::mount(kernel.arguments.get("tag"), config, options) {
        Ok(mounted) => Arc::new(mounted),
        Err(error) => {
            println!("kernel: {error}");
            return NO_MOUNT;
        }
    };
    let mut shell = Shell::new(COMMANDS);
    let mut files = Files::new(mounted.clone());
    let status = match kernel.arguments.get("cmd") {
        Some(commands) => shell.run(commands, &mut files),
        None => {
            println!(
                "{} is mounted; help lists the commands",
                mounted.connection.device().tag
            );
            shell::interact(&mut shell, &mut files, |files| {
                format!("{}> ", files.prompt())
            })
        }
    };
    drop(files);
    if let Some(mounted) = Arc::into_inner(mounted) {
        mounted.unmount();
    }
    status
}

fn data(word: &str) -> Option<DataCache> {
    Some(match word {
        "none" => DataCache::None,
        "through" => DataCache::WriteThrough,
        "back" => DataCache::WriteBack,
        _ => return None,
    })
}

fn policy(word: &str) -> Option<CachePolicy> {
    Some(match word {
        "none" => CachePolicy::None,
        "auto" => CachePolicy::Auto,
        "always" => CachePolicy::Always,
        "metadata" => CachePolicy::Metadata,
        _ => return None,
    })
}
