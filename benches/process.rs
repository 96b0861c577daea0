//! What the kernel says of processes, from `/proc`.

use anyhow::Context as _;
use std::time::Duration;

/// Clock ticks in a second, as Linux tells times to programs everywhere.
const TICKS: f64 = 100.0;

/// CPU seconds of this process so far.
pub(crate) fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    Ok(ticks(11).zip(ticks(12)).map(|(user, system)| user + system).context("/proc/self/stat")? / TICKS)
}

/// CPU seconds of this thread so far, to the nanosecond.
pub(crate) fn thread_cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = stat.split(' ').next().and_then(|field| field.parse::<f64>().ok());
    Ok(nanoseconds.context("/proc/thread-self/schedstat")? / 1e9)
}

/// The most memory that this process had resident, in MiB.
pub(crate) fn peak_mib() -> anyhow::Result<f64> {
    status_mib("VmHWM:")
}

/// How much of its program this process has resident, in MiB: it counts as memory too.
pub(crate) fn program_mib() -> anyhow::Result<f64> {
    status_mib("RssFile:")
}

fn status_mib(field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("/proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// How busy all processors are, measured over a second.
pub(crate) fn busy_percent() -> anyhow::Result<f64> {
    let (busy, all) = times()?;
    std::thread::sleep(Duration::from_secs(1));
    let (busy_then, all_then) = times()?;
    Ok(100.0 * (busy_then - busy) / (all_then - all).max(1.0))
}

fn times() -> anyhow::Result<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().context("/proc/stat")?;
    let fields: Vec<f64> = first.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let all: f64 = fields.iter().sum();
    let idle = fields.get(3).zip(fields.get(4)).map(|(idle, waiting)| idle + waiting).context("/proc/stat")?;
    Ok((all - idle, all))
}
