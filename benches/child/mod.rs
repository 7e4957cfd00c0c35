//! Runs the binary and meters it from outside: CPU seconds and the peak of resident memory, read from /proc until it
//! ends.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, fs};

/// Clock ticks a second in /proc (USER_HZ), 100 on every Linux platform Rust supports.
const TICKS_PER_S: f64 = 100.0;

/// What a run of the binary took and said.
pub(crate) struct Metered {
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
    pub(crate) peak_mib: f64,
    pub(crate) stdout: String,
}

impl fmt::Display for Metered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.2} CPU s, {:.2} s, {:.0} MiB", self.cpu_s, self.wall_s, self.peak_mib)
    }
}

/// Runs `trainwarden` with the arguments.
pub(crate) fn run(arguments: &[&str]) -> Metered {
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainwarden"));
    let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().expect("the binary was built");
    let mut out = child.stdout.take().expect("stdout is piped");
    let reader = thread::spawn(move || std::io::read_to_string(&mut out).expect("output is text"));
    let (mut ticks, mut peak_kib) = (0, 0);
    let (stat, status) = (format!("/proc/{}/stat", child.id()), format!("/proc/{}/status", child.id()));
    while child.try_wait().expect("the child is ours").is_none() {
        if let Ok(text) = fs::read_to_string(&stat) {
            // After the name in parentheses: field 12 and 13 are user and system time (man 5 proc).
            let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let used: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
            ticks = ticks.max(used);
        }
        if let Ok(text) = fs::read_to_string(&status) {
            let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
            peak_kib = peak_kib.max(peak.trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0));
        }
        thread::sleep(Duration::from_millis(2));
    }
    let stdout = reader.join().expect("the reader does not panic");
    let (cpu_s, peak_mib) = (ticks as f64 / TICKS_PER_S, peak_kib as f64 / 1024.0);
    Metered { cpu_s, wall_s: begun.elapsed().as_secs_f64(), peak_mib, stdout }
}
