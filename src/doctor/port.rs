//! The port: is it free, or whose is it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::Finding;
use crate::config::Config;
use crate::serve::Running;

const GROUP: &str = "port";
/// A service on loopback answers faster.
const WAIT: Duration = Duration::from_secs(2);

/// Looks at the port.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let address = config.listen;
    vec![match TcpListener::bind(address) {
        Ok(_) => Finding::good(GROUP, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => in_use(address, Running::find(&config.data)),
        Err(error) => {
            let what = format!("{address} cannot be listened on: {error}");
            Finding::wrong(GROUP, what, "choose another `listen`, or ask for the right to use this one")
        }
    }]
}

fn in_use(address: SocketAddr, running: Option<Running>) -> Finding {
    let answers = get(address, "/livez").is_some_and(|answer| answer.ends_with("ok\n"));
    if let Some(running) = running.filter(|running| running.address == address && answers) {
        return Finding::good(
            GROUP,
            format!("{address} is that of the running service of this folder, process {}", running.pid),
        );
    }
    let whose = owner(address).map(|owner| format!(" by {owner}")).unwrap_or_default();
    let what = match answers {
        true => format!("{address} is in use{whose}: a service of another data folder answers there"),
        false => format!("{address} is in use{whose}"),
    };
    Finding::wrong(GROUP, what, "stop what is there, or choose another `listen`")
}

/// The answer to a GET; nothing where nobody answers in time.
pub(super) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT).ok()?;
    stream.set_read_timeout(Some(WAIT)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.take(1 << 16).read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The process that listens, as Linux tells it to those who may know: name and number.
fn owner(address: SocketAddr) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = tables.iter().find_map(|table| listening_inode(table, address.port()))?;
    let socket = format!("socket:[{inode}]");
    let is_process = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().parse::<u32>().is_ok();
    for process in fs::read_dir("/proc").ok()?.flatten().filter(is_process) {
        let holds = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut links = holds.filter_map(|entry| fs::read_link(entry.path()).ok());
        if links.any(|link| link.as_os_str() == socket.as_str()) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("`{}`, process {}", name.trim(), process.file_name().to_string_lossy()));
        }
    }
    None
}

/// The inode of the socket that listens on a port.
///
/// * `table`: as `/proc/net/tcp`: the second field is the address with the port in hexadecimal, the fourth is 0A for a
///   socket that listens, the tenth its inode.
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    let end = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&end) && *fields.get(3)? == "0A";
        fields.get(9).copied().filter(|_| is_it)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_free_port_is_good_and_one_in_use_is_told_with_its_owner() {
        let held = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let mut config = Config { listen: held.local_addr().expect("it is bound"), ..Config::default() };
        config.data = tempfile::tempdir().expect("a temporary folder").path().to_owned();
        // It accepts and closes, as something that is no HTTP server would.
        let accepting = std::thread::spawn(move || {
            drop(held.accept());
            held
        });
        let found = look(&config);
        assert_eq!(found[0].verdict, Verdict::Wrong, "{found:?}");
        if cfg!(target_os = "linux") {
            assert!(found[0].what.contains(&format!("process {}", std::process::id())), "{found:?}");
        }
        drop(accepting.join().expect("it ends"));
        assert_eq!(look(&config)[0].verdict, Verdict::Good);
    }
}
