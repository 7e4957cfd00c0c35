//! A running `trainwarden serve`, as tests use it: the real binary on a folder and a port of its own.

#![allow(dead_code, reason = "each test target uses its part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use trainwarden::client::GrpcPublisher;
use trainwarden::replay::replay;
use trainwarden::send::{SendOptions, Sent, send};
use trainwarden::serve::Running;

use crate::recorded::json;

/// Longest wait for anything that must come; a loaded machine takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// A service, ended when it is dropped.
pub(crate) struct Service {
    data: PathBuf,
    address: SocketAddr,
    arguments: Vec<String>,
    child: Child,
}

impl Service {
    /// Starts a service and waits until it answers.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let address = free_address();
        let child = spawn(data, address, &arguments);
        let service = Self { data: data.to_owned(), address, arguments, child };
        service.wait_ready();
        service
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        self.address.to_string()
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was ours");
    }

    /// Starts it again on the same folder and port.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.data, self.address, &self.arguments);
        self.wait_ready();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        assert!(self.child.wait().expect("it was ours").success(), "it stops in peace");
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether its process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it was ours").is_none()
    }

    /// What it answers to a question in SQL: status, and body as bytes; 0 where it closes without a word.
    pub(crate) fn ask(&self, sql: &str, accept: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).expect("it answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
        let (path, length) = ("/api/v1/sql", sql.len());
        let head = format!("Host: localhost\r\nConnection: close\r\nContent-Type: application/sql\r\nAccept: {accept}");
        write!(stream, "POST {path} HTTP/1.0\r\n{head}\r\nContent-Length: {length}\r\n\r\n").expect("sent");
        // It may refuse a body that is too large before it has read it.
        let _ = stream.write_all(sql.as_bytes());
        let mut answer = Vec::new();
        // What was read before a reset is what there is.
        let _ = stream.read_to_end(&mut answer);
        let Some(split) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return (0, answer) };
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, answer[split + 4..].to_vec())
    }

    /// What it answers to a GET: status line and body.
    pub(crate) fn get(&self, path: &str) -> Option<(String, String)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.lines().next()?.to_owned(), body.to_owned()))
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (_, page) = self.get("/metrics").expect("it answers");
        let lines = page.lines().filter(|line| line.starts_with(&format!("trainwarden_{name}")));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// What `incidents list --output json` prints of it.
    pub(crate) fn incidents(&self) -> String {
        incidents(&["--url", &self.url()])
    }

    /// What `incidents list --output json` prints of its folder.
    pub(crate) fn incidents_of_folder(&self) -> String {
        incidents(&["--data", &self.data.display().to_string()])
    }

    /// The peak of its resident memory, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
        let kibibytes: u64 = peak.trim().trim_end_matches(" kB").trim().parse().expect("a number of KiB");
        kibibytes >> 10
    }

    /// CPU seconds that its threads of this name took; of all threads where it is empty.
    pub(crate) fn cpu_s(&self, name: &str) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        let named = stats.filter(|stat| name.is_empty() || stat.contains(&format!("({name})")));
        // User and system time; a hundred ticks a second on every Linux of today.
        let ticks = |stat: String| -> f64 {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<f64>().ok()).sum()
        };
        named.map(ticks).sum::<f64>() / 100.0
    }

    fn wait_ready(&self) {
        let pid = self.child.id();
        wait_until("the service answers", || {
            Running::find(&self.data).is_some_and(|running| running.pid == pid)
                && self.get("/readyz").is_some_and(|(status, _)| status.contains("200"))
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of loopback that nobody uses.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback has free ports")
}

fn spawn(data: &Path, address: SocketAddr, arguments: &[String]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_trainwarden"))
        .args(["serve", "--listen", &address.to_string(), "--data"])
        .arg(data)
        .args(arguments)
        .env("RUST_LOG", "warn")
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary was built")
}

fn incidents(from: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_trainwarden"))
        .args(["incidents", "list", "--output", "json"])
        .args(from)
        .output()
        .expect("the binary was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("JSON is UTF-8")
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so within {PATIENCE:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Waits until a service tells exactly this; what else it told last is in the failure.
pub(crate) fn wait_told(service: &Service, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = service.incidents();
        if told == expected {
            return;
        }
        if Instant::now() >= deadline {
            assert_eq!(told, expected, "within {PATIENCE:?}");
        }
        std::thread::sleep(PAUSE * 4);
    }
}

/// What `replay --json` prints of a folder.
pub(crate) fn replayed(folder: &Path) -> String {
    let (findings, _) = replay(&[folder.to_owned()], None).expect("the folder replays");
    json(&findings.incidents)
}

/// Sends a folder to a service, at once.
pub(crate) fn send_to(folder: &Path, url: &str) -> Sent {
    let publisher = GrpcPublisher::connect(url).expect("the service answers");
    send(&[folder.to_owned()], &publisher, &SendOptions::default()).expect("everything is durable").0
}
