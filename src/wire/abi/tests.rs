//! The layouts against a second source: what a C compiler makes of the
//! machine's own `linux/fuse.h`.

extern crate std;

use std::format;
use std::process::Command;
use std::string::String;
use std::vec::Vec;

use super::{Layout, attr, data, dir, node, notify, session};

fn layouts() -> impl Iterator<Item = &'static Layout> {
    [
        attr::LAYOUTS,
        data::LAYOUTS,
        dir::LAYOUTS,
        node::LAYOUTS,
        notify::LAYOUTS,
        session::LAYOUTS,
    ]
    .into_iter()
    .flatten()
}

/// Needs `cc` and the header (Debian: linux-libc-dev). Structs that the
/// installed header is too old for are left out and named.
#[test]
#[ignore = "needs a C compiler and linux/fuse.h; run with --ignored"]
fn layouts_agree_with_the_c_header() {
    let header = std::fs::read_to_string("/usr/include/linux/fuse.h").expect("no linux/fuse.h");
    let mut program = String::from(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/fuse.h>\nint main(void) {\n",
    );
    let mut compared = 0;
    for (name, size, fields) in layouts() {
        if !header.contains(&format!("struct {name} {{")) {
            std::println!("header has no {name}");
            continue;
        }
        compared += 1;
        program += &format!("if (sizeof(struct {name}) != {size}) puts(\"{name}\");\n");
        for (field, offset) in *fields {
            let field = match *field {
                // Names that differ on purpose: `type` is a keyword, and the
                // header wraps the fields of statfs in a struct of their own.
                "kind" => "type",
                "unused" if *name == "fuse_init_out" => continue,
                "max_stack_depth" | "request_timeout" if !header.contains(field) => continue,
                "padding" if *name == "fuse_open_out" && header.contains("backing_id") => continue,
                field => field,
            };
            let inner = if *name == "fuse_statfs_out" {
                "st."
            } else {
                ""
            };
            program += &format!(
                "if (offsetof(struct {name}, {inner}{field}) != {offset}) puts(\"{name}.{field}\");\n"
            );
        }
    }
    program += "return 0; }\n";
    assert!(compared > 50, "only {compared} structs found in the header");

    let stem = std::env::temp_dir().join(format!("fuse-layout-{}", std::process::id()));
    let source = stem.with_extension("c");
    std::fs::write(&source, program).unwrap();
    let built = Command::new("cc")
        .arg(&source)
        .arg("-o")
        .arg(&stem)
        .status()
        .unwrap();
    let output = built
        .success()
        .then(|| Command::new(&stem).output().unwrap().stdout);
    let _ = std::fs::remove_file(&source);
    let _ = std::fs::remove_file(&stem);
    let output = String::from_utf8(output.expect("cc failed")).unwrap();
    let wrong: Vec<&str> = output.lines().collect();
    assert_eq!(wrong, [""; 0], "layouts that differ from the C header");
}
