//! What the programs beside the peers share. Criterion benches and side-by-side runs live in `benches/`.

#![forbid(unsafe_code)]

/// Ticks a second of /proc/self/stat on Linux, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

/// User and system time of this process.
///
/// # Errors
/// The kernel does not say.
pub fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name in brackets may hold spaces; user and system time are the 14th and 15th of all fields.
    let fields = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>())
        .unwrap_or_default();
    let ticks =
        |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).ok_or("/proc/self/stat");
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}
