//! What the daemon counts, and its Prometheus text.
//!
//! The text is version 0.0.4 of the exposition format: `# HELP`, `# TYPE`, one sample a line, times in seconds. The
//! daemon speaks no HTTP; `evald metrics` prints the text, for example into a file of node_exporter's textfile collector.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use evald_proto::Verdict;

/// Upper bounds of the buckets, in microseconds. From a fork (some ms) to a queue behind a long run (minutes).
const BOUNDS_US: [u64; 14] = [
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
];

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One per bound and one for what is beyond all of them.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn write(&self, name: &str, out: &mut String) {
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS_US.iter().map(Some).chain([None])) {
            count += bucket.load(Ordering::Relaxed);
            match bound {
                Some(us) => line(out, name, &format!("_bucket{{le=\"{}\"}}", *us as f64 / 1e6), &count),
                None => line(out, name, "_bucket{le=\"+Inf\"}", &count),
            }
        }
        line(out, name, "_sum", &(self.sum_us.load(Ordering::Relaxed) as f64 / 1e6));
        line(out, name, "_count", &count);
    }
}

/// How many of something there are now.
#[derive(Debug, Default, Clone)]
pub struct Gauge(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

impl Gauge {
    /// Counts one more for as long as the guard lives.
    pub fn count(&self) -> Counted {
        self.0.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(&self.0))
    }

    /// How many there are.
    pub fn now(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Everything that is counted, from the daemon's start.
#[derive(Debug, Default)]
pub struct Metrics {
    verdicts: [AtomicU64; Verdict::ALL.len()],
    /// Jobs that ended without a verdict because their client cancelled them or went away.
    pub cancelled: AtomicU64,
    /// Connections that were turned away: another user's, or one too many.
    pub refused_connections: AtomicU64,
    /// Connections that are open.
    pub connections: Gauge,
    /// Jobs that were accepted and whose reply has not been written.
    pub in_flight: Gauge,
    /// Jobs that a slot runs.
    pub running: Gauge,
    /// From a job's acceptance to its slot.
    pub queue_wait: Histogram,
    /// From the fork of a sample to the start of its candidate, walls included.
    pub fork: Histogram,
    /// What the clock that killed a sample (CPU or wall) showed beyond its limit as the signal was sent.
    pub kill_overshoot: Histogram,
    /// CPU time from that signal to the end: the kernel frees the sample's memory.
    pub kill_teardown: Histogram,
}

impl Metrics {
    /// Counts a verdict.
    pub fn ended(&self, verdict: Verdict) {
        if let Some(index) = Verdict::ALL.iter().position(|known| *known == verdict) {
            self.verdicts[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The text, ready to be scraped.
    pub fn text(&self, tier: &str, slots: usize) -> String {
        let mut out = String::new();
        family(&mut out, "evald_info", "gauge", "What serves, always 1.");
        let labels = format!("{{version=\"{}\",tier=\"{}\"}}", env!("CARGO_PKG_VERSION"), escape(tier));
        line(&mut out, "evald_info", &labels, &1);
        family(&mut out, "evald_jobs_total", "counter", "Jobs that ended, by verdict.");
        for (verdict, count) in Verdict::ALL.iter().zip(&self.verdicts) {
            let labels = format!("{{verdict=\"{}\"}}", verdict.as_str());
            line(&mut out, "evald_jobs_total", &labels, &count.load(Ordering::Relaxed));
        }
        for (name, help, value) in [
            ("evald_jobs_cancelled_total", "Jobs without a verdict: cancelled.", &self.cancelled),
            ("evald_connections_refused_total", "Connections turned away.", &self.refused_connections),
        ] {
            family(&mut out, name, "counter", help);
            line(&mut out, name, "", &value.load(Ordering::Relaxed));
        }
        for (name, help, value) in [
            ("evald_slots", "Jobs that can run side by side.", slots),
            ("evald_connections", "Open connections.", self.connections.now()),
            ("evald_jobs_in_flight", "Jobs accepted and not answered.", self.in_flight.now()),
            ("evald_jobs_running", "Jobs that a slot runs.", self.running.now()),
        ] {
            family(&mut out, name, "gauge", help);
            line(&mut out, name, "", &value);
        }
        for (name, help, histogram) in [
            ("evald_queue_wait_seconds", "From a job's acceptance to its slot.", &self.queue_wait),
            ("evald_fork_seconds", "From a sample's fork to its candidate's start.", &self.fork),
            (
                "evald_kill_overshoot_seconds",
                "What the clock that killed showed beyond its limit.",
                &self.kill_overshoot,
            ),
            (
                "evald_kill_teardown_seconds",
                "CPU time from the kill to the end: freeing memory.",
                &self.kill_teardown,
            ),
        ] {
            family(&mut out, name, "histogram", help);
            histogram.write(name, &mut out);
        }
        out
    }
}

// Writing to a String cannot fail.
fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
}

fn line(out: &mut String, name: &str, suffix: &str, value: &dyn std::fmt::Display) {
    writeln!(out, "{name}{suffix} {value}").ok();
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(text: &'a str, sample: &str) -> &'a str {
        let found = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {sample} in\n{text}"))
    }

    #[test]
    fn buckets_are_cumulative_and_bounds_belong_to_their_bucket() {
        let metrics = Metrics::default();
        for us in [0, 500, 501, 20_000, 20_001, u64::MAX >> 20] {
            metrics.fork.observe(Duration::from_micros(us));
        }
        let text = metrics.text("T2", 2);
        for (bound, want) in
            [("0.0005", "2"), ("0.001", "3"), ("0.02", "4"), ("0.05", "5"), ("300", "5"), ("+Inf", "6")]
        {
            assert_eq!(value(&text, &format!("evald_fork_seconds_bucket{{le=\"{bound}\"}}")), want);
        }
        assert_eq!(value(&text, "evald_fork_seconds_count"), "6");
        assert_eq!(value(&text, "evald_queue_wait_seconds_sum"), "0");
    }

    #[test]
    fn every_verdict_has_its_counter() {
        let metrics = Metrics::default();
        for (times, verdict) in Verdict::ALL.iter().enumerate() {
            (0..times).for_each(|_| metrics.ended(*verdict));
        }
        let text = metrics.text("T2", 2);
        for (times, verdict) in Verdict::ALL.iter().enumerate() {
            let name = format!("evald_jobs_total{{verdict=\"{}\"}}", verdict.as_str());
            assert_eq!(value(&text, &name), times.to_string());
        }
    }

    #[test]
    fn gauges_fall_when_their_guards_go() {
        let metrics = Metrics::default();
        let guards = [metrics.running.count(), metrics.running.count()];
        assert_eq!(value(&metrics.text("T2", 2), "evald_jobs_running"), "2");
        drop(guards);
        assert_eq!(value(&metrics.text("T2", 2), "evald_jobs_running"), "0");
    }

    #[test]
    fn the_text_is_well_formed() {
        let text = Metrics::default().text("a \"tier\"\\\n", 3);
        assert!(text.ends_with('\n') && text.contains(r#"tier="a \"tier\"\\\n""#), "{text}");
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap_or_default().to_owned();
            } else if !line.starts_with("# HELP ") {
                assert!(line.starts_with(&family), "{line} outside its family {family}");
                let value = line.rsplit(' ').next().unwrap_or_default();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
