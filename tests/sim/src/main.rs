//! Prints the tables. `--help` lists the options.

use std::process::ExitCode;

use virtio_fs_sim::cost::Model;
use virtio_fs_sim::report::{self, Row, Style};
use virtio_fs_sim::synthetic::{Shape, WORKLOADS};
use virtio_fs_sim::trace::Trace;

const HELP: &str = "\
Compares reclaim policies of the DAX window on traces.

  virtio-fs-sim [OPTIONS] [FILE...]

  FILE               replay recorded traces (format: src/trace.rs) instead of the synthetic ones
  --only NAME        only workloads whose name contains NAME
  --window RANGES    ranges of the window, 2 MiB each (32)
  --accesses N       accesses per synthetic trace, about (20000)
  --seed N           seed of the synthetic traces (1)
  --markdown         Markdown instead of aligned columns
  --document         print RESULTS.md
  --record NAME      print synthetic trace NAME in the text format, working set of one window
  --list             list the workloads
";

struct Options {
    shape: Shape,
    only: String,
    files: Vec<String>,
    style: Style,
    document: bool,
    record: Option<String>,
}

fn options() -> Result<Option<Options>, String> {
    let mut options = Options {
        shape: Shape {
            window: 32,
            working_set: 32,
            accesses: 20_000,
            seed: 1,
        },
        only: String::new(),
        files: Vec::new(),
        style: Style::Aligned,
        document: false,
        record: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        let number = |text: String| {
            text.parse::<u64>()
                .map_err(|e| format!("{arg} {text}: {e}"))
        };
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--list" => {
                for workload in WORKLOADS {
                    println!("{:<13} {}", workload.name, workload.about);
                }
                return Ok(None);
            }
            "--only" => options.only = value()?,
            "--window" => options.shape.window = number(value()?)?.max(1),
            "--accesses" => options.shape.accesses = number(value()?)?.max(1) as usize,
            "--seed" => options.shape.seed = number(value()?)?,
            "--markdown" => options.style = Style::Markdown,
            "--document" => options.document = true,
            "--record" => options.record = Some(value()?),
            _ if arg.starts_with('-') => return Err(format!("unknown option {arg}; try --help")),
            _ => options.files.push(arg),
        }
    }
    options.shape.working_set = options.shape.window;
    Ok(Some(options))
}

fn rows(options: &Options, model: &Model) -> Result<Vec<Row>, String> {
    if options.files.is_empty() {
        return report::synthetic(options.shape, &options.only, model);
    }
    let mut rows = Vec::new();
    for file in &options.files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        rows.extend(report::recorded(&Trace::parse(file, &text)?, model)?);
    }
    Ok(rows)
}

fn run() -> Result<(), String> {
    let Some(options) = options()? else {
        return Ok(());
    };
    let model = Model::MEASURED;
    if let Some(name) = &options.record {
        let workload = WORKLOADS.iter().find(|workload| workload.name == name);
        let workload = workload.ok_or(format!("no workload {name}; try --list"))?;
        print!("{}", workload.trace(options.shape).print());
        return Ok(());
    }
    let rows = rows(&options, &model)?;
    if options.document {
        print!("{}", report::document(&rows, options.shape, &model));
        return Ok(());
    }
    println!("seed {}", options.shape.seed);
    println!("\nmodelled cost, as a multiple of the optimum\n");
    print!("{}", report::costs(&rows, options.style));
    println!("\nmappings per MiB moved\n");
    print!("{}", report::maps(&rows, options.style));
    println!("\nrequests per access\n");
    print!("{}", report::requests(&rows, options.style));
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtio-fs-sim: {error}");
            ExitCode::FAILURE
        }
    }
}
