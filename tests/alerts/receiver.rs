//! A receiver of HTTP on a loopback port, which keeps what it gets and answers as it is told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) path: String,
    /// By name in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// When it had come whole.
    #[allow(dead_code, reason = "the bench of alerts measures with it")]
    pub(crate) at: Instant,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a notice is JSON")
    }

    pub(crate) fn id(&self) -> String {
        self.headers.get("webhook-id").expect("every webhook has an id").clone()
    }
}

/// The receiver; its thread ends with the tests.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    got: Mutex<Vec<Got>>,
    status: AtomicU16,
    thinks_ms: AtomicU64,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State { status: AtomicU16::new(200), ..State::default() });
        let receiver = Self { address, state: Arc::clone(&state) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                // A sender that is killed in the middle of a request has sent nothing.
                std::thread::spawn(move || stream.ok().and_then(|stream| serve(stream, &state)));
            }
        });
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on every request is answered so.
    pub(crate) fn answer(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
    }

    /// From now on an answer comes so long after what it answers was taken.
    pub(crate) fn think(&self, milliseconds: u64) {
        self.state.thinks_ms.store(milliseconds, Ordering::SeqCst);
    }

    /// What was accepted until now.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.state.got.lock().expect("no thread panics with it").clone()
    }
}

fn serve(stream: TcpStream, state: &State) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let path = line.split(' ').nth(1)?.to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let answered = state.status.load(Ordering::SeqCst);
        if (200..300).contains(&answered) {
            let body = String::from_utf8(body).ok()?;
            state.got.lock().expect("no thread panics with it").push(Got { path, headers, body, at: Instant::now() });
            std::thread::sleep(Duration::from_millis(state.thinks_ms.load(Ordering::SeqCst)));
        }
        let asked = match answered {
            302 => "Location: http://127.0.0.1:9/\r\n",
            429 => "Retry-After: 1\r\n",
            _ => "",
        };
        write!(stream, "HTTP/1.1 {answered} Said\r\n{asked}Content-Length: 2\r\n\r\nok").ok()?;
    }
}
