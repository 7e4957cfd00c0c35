//! Real Alertmanagers on free loopback ports, alone or as a cluster.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::service::{free_address, wait_until};

/// An Alertmanager that sends on to a receiver, ended when it is dropped.
pub(crate) struct RealAlertmanager {
    dir: PathBuf,
    address: SocketAddr,
    /// Where it speaks to the other members, and where those are; nothing where it is alone.
    cluster: Vec<SocketAddr>,
    child: Child,
}

impl RealAlertmanager {
    /// Starts one that sends what it is told to a webhook at once, also what has ended.
    pub(crate) fn start(dir: &Path, webhook: &str) -> Self {
        Self::start_in(Vec::new(), dir, webhook)
    }

    /// Starts the members of a cluster, each of which is told everything and one of which sends it on.
    pub(crate) fn start_cluster<const N: usize>(dir: &Path, webhook: &str) -> [Self; N] {
        let addresses: [SocketAddr; N] = std::array::from_fn(|_| free_address());
        std::array::from_fn(|member| {
            // Its own address first.
            let mut cluster = addresses.to_vec();
            cluster.swap(0, member);
            Self::start_in(cluster, &dir.join(format!("member{member}")), webhook)
        })
    }

    fn start_in(cluster: Vec<SocketAddr>, dir: &Path, webhook: &str) -> Self {
        let config = format!(
            "route: {{receiver: test, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 4h}}\n\
             receivers: [{{name: test, webhook_configs: [{{url: '{webhook}', send_resolved: true}}]}}]\n"
        );
        std::fs::create_dir_all(dir).expect("a temporary folder takes folders");
        std::fs::write(dir.join("alertmanager.yml"), config).expect("written");
        let address = free_address();
        let child = spawn(dir, address, &cluster);
        let started = Self { dir: dir.to_owned(), address, cluster, child };
        started.wait_ready();
        started
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it as a power cut would, and starts it again on the same folder and port.
    pub(crate) fn restart(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was ours");
        self.child = spawn(&self.dir, self.address, &self.cluster);
        self.wait_ready();
    }

    /// The alerts that are active.
    pub(crate) fn active(&self) -> Vec<Value> {
        let body = self.get("/api/v2/alerts?active=true").expect("it answers");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Members that it knows, itself among them.
    pub(crate) fn members(&self) -> usize {
        let status = self.get("/api/v2/status").expect("it answers");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        status["cluster"]["peers"].as_array().map_or(0, Vec::len)
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }

    fn wait_ready(&self) {
        wait_until("Alertmanager is ready", || self.get("/-/ready").is_some());
    }
}

impl Drop for RealAlertmanager {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, address: SocketAddr, cluster: &[SocketAddr]) -> Child {
    let words = match cluster {
        [] => vec!["--cluster.listen-address=".to_owned()],
        [own, others @ ..] => {
            let mut words = vec![
                format!("--cluster.listen-address={own}"),
                format!("--cluster.advertise-address={own}"),
                // Who is second waits so long whether the first one has sent.
                "--cluster.peer-timeout=3s".to_owned(),
                "--cluster.settle-timeout=500ms".to_owned(),
                "--cluster.gossip-interval=50ms".to_owned(),
            ];
            words.extend(others.iter().map(|other| format!("--cluster.peer={other}")));
            words
        }
    };
    let child = Command::new("prometheus-alertmanager")
        .arg(format!("--config.file={}", dir.join("alertmanager.yml").display()))
        .arg(format!("--storage.path={}", dir.join("storage").display()))
        .arg(format!("--web.listen-address={address}"))
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.unwrap_or_else(|error| panic!("Alertmanager does not start ({error}): run tests/needs"))
}
