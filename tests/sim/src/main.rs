//! quick
use virtio_fs_sim::contest::{Contestant, Limits};
use virtio_fs_sim::cost::Model;
use virtio_fs_sim::synthetic::{Shape, WORKLOADS};
struct L;
impl log::Log for L {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }
    fn log(&self, r: &log::Record) {
        if r.level() <= log::Level::Debug {
            eprintln!("{}", r.args())
        }
    }
    fn flush(&self) {}
}
fn main() {
    if std::env::var("DBG").is_ok() {
        let _ = log::set_logger(&L);
        log::set_max_level(log::LevelFilter::Debug);
    }

    let args: Vec<String> = std::env::args().collect();
    let n: usize = args.get(1).map_or(20000, |s| s.parse().unwrap());
    let w: u64 = args.get(2).map_or(32, |s| s.parse().unwrap());
    let filter = args.get(3).cloned().unwrap_or_default();
    let m = Model::MEASURED;
    for wl in WORKLOADS.iter().filter(|x| x.name.contains(&filter)) {
        for x in [1, 2, 4, 8, 32] {
            let t = wl
                .trace(Shape {
                    window: w,
                    working_set: (w * x / 2).max(1),
                    accesses: n,
                    seed: 1,
                })
                .prepare()
                .unwrap();
            let l = Limits::of(&t, &m);
            print!(
                "{:13} {:4} opt {:8.1}us/acc maps {:6} |",
                wl.name,
                x as f64 / 2.0,
                l.cost as f64 / 1e3 / t.accesses.len() as f64,
                l.maps
            );
            let f = Contestant::Fifo.run(&t, &m);
            for c in Contestant::ALL {
                let o = c.run(&t, &m);
                print!(
                    " {}:{:.2}/{}",
                    &c.name()[..4.min(c.name().len())],
                    o.cost as f64 / l.cost as f64,
                    o.maps
                );
                if c == Contestant::Ours {
                    print!(
                        "({} ahead){}{}",
                        o.ahead,
                        if o.cost > f.cost { " WORSE" } else { "" },
                        if o.cost as f64 > 1.5 * l.cost as f64 {
                            " OVER"
                        } else {
                            ""
                        }
                    );
                }
            }
            println!();
        }
    }
}
