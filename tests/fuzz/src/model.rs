//! The same calls on a mount that caches all it can, in little room, by a DAX window perhaps, and on
//! one that asks each time:
//! results and error numbers must be the same, and so must both servers' trees in the end.
//!
//! The mount without caches is the model: what it says is what its server says. That in turn is
//! compared with a plain directory in `tests/host`, on a real server.

use virtio_fs::conn::Config;
use virtio_fs::fs::{CachePolicy, MountOptions, Process};
use virtio_fs::platform::Caller;
use virtio_fs_attack::{Guest, tree};
use virtio_fs_calls::{Call, Driver, Source};
use virtio_fs_fake::{Fake, FakePlatform, NodeIds, WindowRules};

use crate::input::Input;

/// Calls in one input, at most.
const CALLS: usize = 200;

fn mount(
    cache: CachePolicy,
    max_dentries: usize,
    node_ids: NodeIds,
    plus: bool,
    window: bool,
) -> Guest {
    let options = MountOptions {
        cache,
        max_dentries,
        ..MountOptions::default()
    };
    let fake = if window {
        // Two ranges, so that they are fought for.
        Fake::new().window(4 << 20, WindowRules::Spec)
    } else {
        Fake::new()
    };
    let fake = fake.fs(tree()).tune(|server| {
        server.node_ids = node_ids;
        if !plus {
            server.missing.insert(virtio_fs_fake::Op::READDIRPLUS);
        }
    });
    Guest::with(fake, Config::default(), options)
}

fn driver(
    process: &Process<FakePlatform>,
    platform: FakePlatform,
) -> Driver<'_, FakePlatform, impl FnMut(Caller, &[u32])> {
    Driver::new(process, move |caller, groups: &[u32]| {
        platform.set_caller(caller);
        platform.set_groups(groups);
    })
}

/// Runs one input.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let cache = input.of(&[
        CachePolicy::Always,
        CachePolicy::Auto,
        CachePolicy::Metadata,
    ]);
    let room = input.of(&[16_384, 64, 16]);
    let ids = input.of(&[NodeIds::Counter, NodeIds::Stable, NodeIds::Recycled]);
    let (plus, window) = (input.chance(2), input.chance(2));
    let (ours, model) = (
        mount(cache, room, ids, plus, window),
        mount(CachePolicy::None, 16_384, NodeIds::Counter, true, false),
    );
    {
        let mut cached = driver(&ours.process, ours.platform.clone());
        let mut asking = driver(&model.process, model.platform.clone());
        for number in 0..CALLS {
            if input.is_empty() {
                break;
            }
            let call = Call::choose(&mut input, cached.open());
            // Each works on the memory of its own fake.
            ours.fake.memory().attach();
            let left = cached.run(&call);
            model.fake.memory().attach();
            let right = asking.run(&call);
            if std::env::var_os("TRACE").is_some() {
                println!("{number} {call:?} {}", show(&right));
            }
            assert!(
                left == right,
                "call {number}, {call:?}: with a cache {}, without {}",
                show(&left),
                show(&right)
            );
        }
        let root = Call::Become(0, 0o022);
        assert_eq!(cached.run(&root), asking.run(&root));
        let trees = [&ours, &model].map(|guest| guest.fake.fs(|fs| fs.manifest()));
        let [left, right] = trees.map(|tree| {
            let line = |(path, stat): (String, virtio_fs_fake::Stat)| {
                (path, stat.mode, stat.nlink, stat.uid, stat.gid, stat.size)
            };
            tree.into_iter().map(line).collect::<Vec<_>>()
        });
        assert_eq!(left, right, "the trees");
    }
    for guest in [ours, model] {
        guest.fake.memory().attach();
        guest.platform.set_caller(Caller::ROOT);
        assert_eq!(guest.conn.counters().malformed_replies.get(), 0);
        guest.finish();
    }
}

fn show(outcome: &virtio_fs_calls::Outcome) -> String {
    match outcome {
        Ok((n, bytes)) => {
            let text = bytes[..bytes.len().min(200)].escape_ascii();
            format!("{n} \"{text}\" ({} bytes)", bytes.len())
        }
        Err(number) => format!("error {number}"),
    }
}
