//! Real Apache Kafka for tests: one node or three, on free loopback ports, gone with the test process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const PASSWORD_OF_KEYS: &str = "of-the-keys";

/// A node that is not ready by then never will be, also on a loaded machine.
const START_MAX: Duration = Duration::from_secs(90);

/// Runs a node and tells its pid. When its input ends, it ends the node and removes the folder of the cluster, unless it
/// was told to keep it.
const WATCHDOG: &str = r#"
exec 3<&0
"$@" > "$OUT" 2>&1 < /dev/null 3<&- & pid=$!
echo $pid
(
    read -r word
    while kill -9 $pid; do sleep 0.05; done
    [ "$word" = keep ] || rm -rf "$DIR"
) <&3 > /dev/null 2>&1 &
exec 3<&- > /dev/null
wait $pid 2> /dev/null
"#;

/// A cluster of Apache Kafka nodes, which are broker and controller in one.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    nodes: Vec<Node>,
    /// Port of the only node that wants TLS and a password.
    secure: u16,
}

/// Who may come in by the secure port.
pub(crate) const USER: &str = "worker";
/// Their password.
pub(crate) const PASSWORD: &str = "hush";

struct Node {
    port: u16,
    controller: u16,
    process: Option<Process>,
}

/// A running node and its watchdog: a shell that ends the node when our end of its input closes, also by a crash.
struct Process {
    watchdog: Child,
    pid: u32,
}

impl Cluster {
    /// Starts a cluster and waits until each node answers.
    pub(crate) fn start(nodes: usize) -> Self {
        fetch();
        // Held until all are known, so that no two are the same.
        let listeners: Vec<TcpListener> =
            (0..=2 * nodes).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has free ports")).collect();
        let ports: Vec<u16> = listeners.iter().map(|socket| socket.local_addr().expect("it is bound").port()).collect();
        let (secure, ports) = ports.split_first().expect("there is one more than the nodes need");
        let nodes = ports.chunks(2).map(|pair| Node { port: pair[0], controller: pair[1], process: None }).collect();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Self { dir, nodes, secure: *secure };
        drop(listeners);
        cluster.format();
        for node in 0..cluster.nodes.len() {
            cluster.launch(node);
        }
        for node in 0..cluster.nodes.len() {
            cluster.wait_ready(node);
        }
        cluster
    }

    /// Where clients begin: `host:port,…`.
    pub(crate) fn brokers(&self) -> String {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect::<Vec<_>>().join(",")
    }

    /// Where clients begin that use TLS and a password; only on a cluster of one node.
    pub(crate) fn secure_brokers(&self) -> String {
        assert_eq!(self.nodes.len(), 1, "one node has the secure port");
        format!("127.0.0.1:{}", self.secure)
    }

    /// The certificate that vouches for the secure port.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Runs one of the command-line tools of Apache Kafka on the cluster.
    pub(crate) fn tool(&self, class: &str, arguments: &[&str]) {
        let mut tool = java();
        tool.args([class, "--bootstrap-server", &self.brokers()]).args(arguments).stdout(Stdio::null());
        assert!(tool.status().expect("java starts").success(), "{class} {arguments:?} failed");
    }

    /// Ends a node as a power cut would.
    pub(crate) fn kill(&mut self, node: usize) {
        let process = self.nodes[node].process.take().expect("the node runs");
        signal("-KILL", process.pid);
        process.wait();
    }

    /// Starts a node that was ended, and waits until it answers.
    pub(crate) fn restart(&mut self, node: usize) {
        self.launch(node);
        self.wait_ready(node);
    }

    /// Holds a node still: its connections stay open and nothing answers.
    pub(crate) fn pause(&self, node: usize) {
        signal("-STOP", self.nodes[node].process.as_ref().expect("the node runs").pid);
    }

    /// Lets a paused node go on.
    pub(crate) fn resume(&self, node: usize) {
        signal("-CONT", self.nodes[node].process.as_ref().expect("the node runs").pid);
    }

    /// The first segment of a partition on a node's disk.
    pub(crate) fn segment(&self, node: usize, topic: &str, partition: u32) -> PathBuf {
        self.folder(node).join("log").join(format!("{topic}-{partition}")).join("00000000000000000000.log")
    }

    fn folder(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node{}", node + 1))
    }

    fn format(&self) {
        if self.nodes.len() == 1 {
            self.make_certificate();
        }
        let cluster_id = "dHJhaW53YXJkZW4tdGVzdA";
        let formats: Vec<Child> = (0..self.nodes.len())
            .map(|node| {
                let folder = self.folder(node);
                fs::create_dir_all(&folder).expect("the temporary folder takes folders");
                let properties = folder.join("server.properties");
                fs::write(&properties, self.properties(node)).expect("the temporary folder takes files");
                let mut format = java();
                format.args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"]).arg(&properties);
                if self.nodes.len() == 1 {
                    format.args(["--standalone", "--add-scram"]);
                    format.arg(format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"));
                }
                format.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("java starts")
            })
            .collect();
        for mut format in formats {
            assert!(format.wait().expect("java ends").success(), "the folder of a node could not be formatted");
        }
    }

    /// A key for the secure port, and its certificate, which vouches for itself.
    fn make_certificate(&self) {
        let store = self.dir.path().join("keys.p12");
        let common = ["-alias", "node", "-storepass", PASSWORD_OF_KEYS, "-keystore"];
        let keytool = |verb: &str, more: &[&str]| {
            let mut keytool = Command::new("keytool");
            keytool.arg(verb).args(common).arg(&store).args(more).stderr(Stdio::null());
            assert!(keytool.status().expect("keytool comes with java").success(), "keytool {verb} failed");
        };
        let san = "san=ip:127.0.0.1";
        keytool("-genkeypair", &["-keyalg", "EC", "-dname", "CN=node", "-validity", "30", "-ext", san]);
        keytool("-exportcert", &["-rfc", "-file", &self.ca().to_string_lossy()]);
    }

    /// What the secure port adds to the properties of the only node.
    fn secure_properties(&self) -> String {
        let modules = "org.apache.kafka.common.security";
        format!(
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL\n\
             listener.name.secure.ssl.keystore.location={store}\nlistener.name.secure.ssl.keystore.type=PKCS12\n\
             listener.name.secure.ssl.keystore.password={PASSWORD_OF_KEYS}\n\
             listener.name.secure.ssl.key.password={PASSWORD_OF_KEYS}\n\
             listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
             listener.name.secure.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required \
             user_{USER}=\"{PASSWORD}\";\n\
             listener.name.secure.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;\n",
            store = self.dir.path().join("keys.p12").display(),
        )
    }

    fn properties(&self, node: usize) -> String {
        let Node { port, controller, .. } = self.nodes[node];
        let mut listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        let mut secure = String::new();
        if self.nodes.len() == 1 {
            listeners += &format!(",SECURE://127.0.0.1:{}", self.secure);
            secure = self.secure_properties();
        }
        let quorum = if let [only] = &self.nodes[..] {
            format!("controller.quorum.bootstrap.servers=127.0.0.1:{}", only.controller)
        } else {
            let voters = self.nodes.iter().enumerate();
            let voters = voters.map(|(index, node)| format!("{}@127.0.0.1:{}", index + 1, node.controller));
            format!("controller.quorum.voters={}", voters.collect::<Vec<_>>().join(","))
        };
        let copies = self.nodes.len();
        let in_sync = copies.div_ceil(2);
        let common = include_str!("common.properties");
        format!(
            "process.roles=broker,controller\nnode.id={id}\nlisteners={listeners}\nadvertised.listeners={listeners}\n\
             controller.listener.names=CONTROLLER\n{quorum}\ninter.broker.listener.name=PLAINTEXT\nlog.dirs={log}\n\
             default.replication.factor={copies}\nmin.insync.replicas={in_sync}\n\
             offsets.topic.replication.factor={copies}\ntransaction.state.log.replication.factor={copies}\n\
             transaction.state.log.min.isr={in_sync}\nshare.coordinator.state.topic.replication.factor={copies}\n\
             share.coordinator.state.topic.min.isr={in_sync}\n{secure}{common}",
            id = node + 1,
            log = self.folder(node).join("log").display(),
        )
    }

    fn launch(&mut self, node: usize) {
        let folder = self.folder(node);
        let mut watchdog = Command::new("bash")
            .args(["-c", WATCHDOG, "node"])
            .args(java_words())
            .arg("kafka.Kafka")
            .arg(folder.join("server.properties"))
            .env("OUT", folder.join("out"))
            .env("DIR", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let mut pid = String::new();
        let told = watchdog.stdout.take().expect("it is piped");
        BufReader::new(told).read_line(&mut pid).expect("the watchdog tells the pid");
        let pid = pid.trim().parse().expect("a pid is a number");
        self.nodes[node].process = Some(Process { watchdog, pid });
    }

    fn wait_ready(&mut self, node: usize) {
        let deadline = Instant::now() + START_MAX;
        let address = ([127, 0, 0, 1], self.nodes[node].port).into();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let process = self.nodes[node].process.as_mut().expect("it was launched");
            let ended = process.watchdog.try_wait().expect("it is our child").is_some();
            assert!(!ended && Instant::now() < deadline, "node {node} did not start:\n{}", self.tail(node));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn tail(&self, node: usize) -> String {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(self.folder(node).join("out")) {
            let _ = file.read_to_string(&mut text);
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Process {
    /// Waits until the node is gone; its watchdog ends with it.
    fn wait(mut self) {
        let mut input = self.watchdog.stdin.take().expect("it is piped");
        // It may have ended already, with nobody left to be told.
        let _ = input.write_all(b"keep\n");
        drop(input);
        self.watchdog.wait().expect("the watchdog is our child");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_some() {
                self.kill(node);
            }
        }
    }
}

/// Fetches the jars once for all test processes, and Java where that is allowed.
fn fetch() {
    static FETCHED: OnceLock<()> = OnceLock::new();
    FETCHED.get_or_init(|| {
        let fetched = Command::new(here().join("broker")).arg("--fetch").status().expect("bash starts");
        assert!(fetched.success(), "Apache Kafka is not there; what to install is said above");
    });
}

fn java() -> Command {
    let words = java_words();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// A small Java machine that starts fast: one compiler, one collector.
fn java_words() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libs =
        std::env::var("TRAINWARDEN_KAFKA_LIBS").unwrap_or_else(|_| format!("{}/target/kafka/libs", root.display()));
    let logging = format!("-Dlog4j2.configurationFile={}", here().join("log4j2.properties").display());
    let words = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"];
    words.into_iter().map(str::to_owned).chain([format!("{libs}/*"), logging]).collect()
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka")
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill starts");
    assert!(sent.success(), "kill {name} {pid} failed");
}
