//! The program itself: what its end leaves behind, however it comes.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// Starts the runner on stand-ins that write their process numbers and wait.
fn start(name: &str) -> (PathBuf, Child) {
    let dir = env::temp_dir().join(format!("virtio-fs-signals-{}-{name}", std::process::id()));
    fs::create_dir_all(dir.join("tools/bin")).unwrap();
    for program in ["qemu-system-x86_64", "virtiofsd"] {
        let path = dir.join("tools/bin").join(program);
        fs::write(
            &path,
            "#!/bin/sh\necho $$ >\"$0.new\"; mv \"$0.new\" \"$0.pid\"; exec sleep 1000\n",
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let child = Command::new(env!("CARGO_BIN_EXE_virtio-fs-run"))
        .args(["--cmd", "true", "--share"])
        .arg(&dir)
        .arg("--kernel")
        .arg(env::current_exe().unwrap())
        .env("CARGO_TARGET_DIR", &dir)
        .env_remove("QEMU")
        .env_remove("VIRTIOFSD")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (dir, child)
}

/// The stand-ins' processes, once both have said them.
fn pids(dir: &Path) -> Vec<String> {
    let files =
        ["qemu-system-x86_64.pid", "virtiofsd.pid"].map(|file| dir.join("tools/bin").join(file));
    for _ in 0..500 {
        let pids: Vec<_> = files
            .iter()
            .filter_map(|file| fs::read_to_string(file).ok())
            .collect();
        if pids.len() == 2 {
            return pids.iter().map(|pid| pid.trim().to_owned()).collect();
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the stand-ins did not start");
}

fn all_gone(pids: &[String]) -> bool {
    let runs = |pid: &String| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    (0..250).any(|_| {
        thread::sleep(Duration::from_millis(20));
        !pids.iter().any(runs)
    })
}

#[test]
fn every_signal_takes_the_children_along() {
    for (signal, status) in [
        ("INT", Some(130)),
        ("TERM", Some(143)),
        ("HUP", Some(129)),
        ("KILL", None),
    ] {
        let (dir, mut child) = start(signal);
        let pids = pids(&dir);
        let id = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &id])
                .status()
                .unwrap()
                .success()
        );
        let end = child.wait().unwrap();
        assert_eq!(end.code(), status, "{signal}");
        assert_eq!(end.signal(), status.is_none().then_some(9), "{signal}");
        assert!(all_gone(&pids), "{signal} left a child");
        let sockets = fs::read_to_string("/proc/net/unix").unwrap();
        assert!(
            !sockets.contains(&format!("@virtio-fs-{id}-")),
            "{signal} left a socket"
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
