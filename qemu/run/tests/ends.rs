//! Every way for a run to end, on stand-ins for QEMU and virtiofsd: shell scripts that do one thing
//! each. What the real ones do is tested by the suite in the guest.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};
use virtio_fs_run::{Error, Machine, Named, OnLoss, Outcome, Phase, Share};

/// A build folder with stand-ins in it, removed when dropped.
struct Bench(PathBuf);

impl Bench {
    fn new(name: &str, qemu: &str, daemon: &str) -> Self {
        let dir = env::temp_dir().join(format!("virtio-fs-run-{}-{name}", process::id()));
        fs::create_dir_all(dir.join("tools/bin")).unwrap();
        fs::create_dir_all(dir.join("share")).unwrap();
        for (program, script) in [("qemu-system-x86_64", qemu), ("virtiofsd", daemon)] {
            let path = dir.join("tools/bin").join(program);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir)
    }

    fn machine(&self) -> Machine {
        let mut machine = Machine::new();
        machine.tools.target.clone_from(&self.0);
        // The stand-ins, whatever who runs the tests has set.
        machine.tools.named = Named::Never;
        // Any whole image will do: nothing looks into it.
        machine.kernel = env::current_exe().unwrap();
        machine.shares.push(Share::new(self.0.join("share"), "t"));
        machine.timeout = Some(Duration::from_secs(20));
        machine
    }

    fn run(&self) -> Outcome {
        self.machine().run()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PATIENT: &str = "exec sleep 1000";

/// Whether a process runs; a zombie does not.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn the_guests_status_comes_back_whole() {
    for (exit, status) in [(3, 0), (5, 1), (17, 7), (255, 126)] {
        let bench = Bench::new(
            &format!("status-{exit}"),
            &format!("printf 'hi\\r\\n'; exit {exit}"),
            PATIENT,
        );
        let outcome = bench.run();
        assert_eq!(outcome.status.unwrap(), status);
        assert_eq!(outcome.serial, "hi\n");
    }
}

#[test]
fn an_end_without_a_status_is_a_crash() {
    let outcome = Bench::new("crash", "echo booting; exit 0", PATIENT).run();
    assert!(matches!(outcome.status, Err(Error::Crash(_))));
    assert_eq!(outcome.serial, "booting\n");
}

#[test]
fn qemus_own_failure_brings_its_words() {
    let outcome = Bench::new("qemu", "echo 'no such device' >&2; exit 1", PATIENT).run();
    let error = outcome.status.unwrap_err();
    assert!(matches!(error, Error::Qemu { .. }), "{error}");
    assert!(error.to_string().contains("no such device"), "{error}");
}

#[test]
fn a_daemon_that_dies_at_once_is_named_whoever_falls_first() {
    for (name, qemu) in [("waits", PATIENT), ("fails", "sleep 0.2; exit 1")] {
        let bench = Bench::new(
            &format!("daemon-{name}"),
            qemu,
            "echo 'cannot share this' >&2; exit 4",
        );
        let error = bench.run().status.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Daemon {
                    phase: Phase::Start,
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            error.to_string().contains("cannot share this") && error.to_string().contains('4'),
            "{error}"
        );
    }
}

#[test]
fn a_daemon_that_dies_later_ends_the_run() {
    let error = Bench::new("later", "echo up; exec sleep 1000", "sleep 0.5; exit 9")
        .run()
        .status
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Daemon {
                phase: Phase::Running,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_daemon_that_ends_just_before_qemu_is_no_fault() {
    let outcome = Bench::new("race", "sleep 0.3; exit 3", "sleep 0.2").run();
    assert_eq!(outcome.status.unwrap(), 0);
}

#[test]
fn time_is_limited_and_everything_dies() {
    let bench = Bench::new(
        "time",
        "echo $$; exec sleep 1000",
        "echo $$ >\"$0.pid\"; exec sleep 1000",
    );
    let mut machine = bench.machine();
    machine.timeout = Some(Duration::from_millis(700));
    let begun = Instant::now();
    let outcome = machine.run();
    assert!(matches!(outcome.status, Err(Error::Timeout(_))));
    assert!(begun.elapsed() < Duration::from_secs(10));
    let daemon = fs::read_to_string(bench.0.join("tools/bin/virtiofsd.pid")).unwrap();
    assert!(!runs(&outcome.serial) && !runs(&daemon));
}

#[test]
fn a_stopper_ends_the_run() {
    let running = Bench::new("stop", PATIENT, PATIENT)
        .machine()
        .start()
        .unwrap();
    let stopper = running.stopper();
    thread::spawn(move || stopper.stop(15));
    assert!(matches!(running.wait().status, Err(Error::Interrupted(15))));
}

#[test]
fn words_come_and_go_by_the_serial_port() {
    let bench = Bench::new(
        "talk",
        "echo ready; read -r line; echo \"got $line\"; exit 7",
        PATIENT,
    );
    let mut running = bench.machine().start().unwrap();
    let limit = Duration::from_secs(10);
    let at = running.wait_for("ready", 0, limit).unwrap();
    running.send(b"a word\n");
    running.wait_for("got a word", at, limit).unwrap();
    assert!(matches!(
        running.wait_for("more", at, limit),
        Err(Error::Crash(_))
    ));
    assert_eq!(running.wait().status.unwrap(), 2);
}

#[test]
fn a_daemon_may_be_killed_only_where_the_share_allows_it() {
    let bench = Bench::new("kill", "echo up; read -r line; exit 3", PATIENT);
    let mut machine = bench.machine();
    let mut running = machine.start().unwrap();
    assert!(running.kill_daemon(0).is_err() && running.kill_daemon(1).is_err());
    drop(running);
    machine.shares[0].on_loss = OnLoss::GoOn;
    let mut running = machine.start().unwrap();
    let pid = running.daemon_pid(0).unwrap().to_string();
    assert!(runs(&pid));
    running.kill_daemon(0).unwrap();
    assert!(!runs(&pid) && running.daemon_pid(0).is_none());
    running.send(b"go\n");
    assert_eq!(running.wait().status.unwrap(), 0);
}

#[test]
fn what_is_missing_is_named_before_anything_starts() {
    let bench = Bench::new("missing", "touch \"$0.started\"", "touch \"$0.started\"");
    let mut machine = bench.machine();
    machine.kernel = "/nonexistent".into();
    assert!(matches!(machine.run().status, Err(Error::Kernel { .. })));
    let mut machine = bench.machine();
    machine.shares[0].dir = "/nonexistent".into();
    assert!(matches!(machine.run().status, Err(Error::Share { .. })));
    assert!(
        !bench
            .0
            .join("tools/bin/qemu-system-x86_64.started")
            .exists()
    );
    assert!(!bench.0.join("tools/bin/virtiofsd.started").exists());
}
