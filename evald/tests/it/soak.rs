//! Many samples on one daemon: what it holds stays what it was.
//!
//! `EVALD_SOAK_SAMPLES` (default 400) says how many; 100,000 take about ten minutes on two cores. The figures are printed;
//! throughput is for people to judge, memory and descriptors are held to their bounds.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use evald_proto::Verdict;

use crate::support::{Daemon, any_setting, job, python, resident_kib, wait_until};

/// The memory that a process has of its own and its share of what it shares, KiB; `None` once it has ended.
fn proportional_kib(pid: i32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// CPU time of a process and of those that it has waited for, in clock ticks (10 ms).
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(4));
    fields.into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// What the daemon and all below it hold between two samples.
#[derive(Debug, Clone, Copy)]
struct Held {
    daemon_kib: u64,
    all_rss_kib: u64,
    all_pss_kib: u64,
    processes: usize,
    daemon_files: usize,
    all_files: usize,
    ticks: u64,
}

impl Held {
    fn by(daemon: &Daemon, idle_processes: Option<usize>) -> Self {
        if let Some(idle) = idle_processes {
            wait_until("the last samples end", || daemon.descendants().len() == idle);
        }
        let below = daemon.descendants();
        let own = daemon.child.id() as i32;
        let all = || below.iter().copied().chain([own]);
        let files = |pid: i32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Self {
            daemon_kib: daemon.resident_kib(),
            all_rss_kib: all().filter_map(resident_kib).sum(),
            all_pss_kib: all().filter_map(proportional_kib).sum(),
            processes: below.len(),
            daemon_files: daemon.open_files(),
            all_files: all().map(files).sum(),
            ticks: all().map(ticks).sum(),
        }
    }
}

fn samples() -> usize {
    std::env::var("EVALD_SOAK_SAMPLES").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}

#[test]
fn many_samples_leave_memory_and_descriptors_as_they_were() {
    const STEPS: usize = 20;
    let Some(setting) = any_setting() else { return };
    let slots = std::thread::available_parallelism().map_or(1, usize::from);
    let env = format!("py={}", python().expect("python").display());
    let daemon = Daemon::start_with(setting, &env, &["--slots", &slots.to_string()]);
    let mut client = daemon.client();
    let per_step = samples().div_ceil(STEPS);
    let mut spent = 0;
    let (mut first, mut settled) = (None, None::<Held>);
    println!("{setting:?}, {slots} slots, {STEPS} steps of {per_step} samples");
    println!(
        "| samples | samples/s | CPU ms a sample | daemon RSS KiB | all RSS KiB | all PSS KiB | processes | daemon fds | all fds |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for step in 0..=STEPS {
        let begun = Instant::now();
        let mut wrong = Vec::new();
        // The first step warms up: slots are made, buffers grow to their size.
        let ran =
            client.run_all((0..per_step).map(|_| job("x = 1", "assert x == 1")), &|| false, |_, result| {
                if result.verdict != Verdict::Passed {
                    wrong.push(result);
                }
                ControlFlow::Continue(())
            });
        let seconds = begun.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
        assert!(ran.is_ok() && wrong.is_empty(), "{ran:?} {wrong:?}");
        let held = Held::by(&daemon, first.map(|first: Held| first.processes));
        println!(
            "| {} | {:.0} | {:.1} | {} | {} | {} | {} | {} | {} |",
            step * per_step,
            per_step as f64 / seconds,
            (held.ticks - spent) as f64 * 10.0 / per_step as f64,
            held.daemon_kib,
            held.all_rss_kib,
            held.all_pss_kib,
            held.processes,
            held.daemon_files,
            held.all_files
        );
        spent = held.ticks;
        let first = *first.get_or_insert(held);
        // The first quarter settles things: a slot comes to own the pages that its forks touch.
        if step == STEPS / 4 {
            settled = Some(held);
        }
        let Some(settled) = settled else { continue };
        // A tenth, and a megabyte for what an allocator keeps of short runs. The proportional figure is printed alone: it
        // also moves with what other programs of the host share.
        let flat = |now: u64, then: u64| now <= then + then / 10 + 1024;
        assert!(flat(held.daemon_kib, settled.daemon_kib), "{settled:?} -> {held:?}");
        assert!(flat(held.all_rss_kib, settled.all_rss_kib), "{settled:?} -> {held:?}");
        assert_eq!((held.daemon_files, held.all_files), (first.daemon_files, first.all_files), "step {step}");
    }
}
