//! Chromium without a window, spoken to over two pipes: the DevTools protocol, one JSON message after the other, each
//! ended by a zero byte.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// Names of the browser on Debian and elsewhere.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser, ended when it is dropped.
pub(crate) struct Browser {
    child: Child,
    orders: File,
    answers: BufReader<File>,
    number: u64,
    session: String,
    /// What happened in the page since it was asked last.
    events: VecDeque<Value>,
}

impl Browser {
    /// Starts the browser with one empty page; `None` where none is installed.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let is_there = |name: &&&str| {
            let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        };
        let name = NAMES.iter().find(is_there)?;
        let (orders, answers) = (dir.join("orders"), dir.join("answers"));
        let made = Command::new("mkfifo").args([&orders, &answers]).status().expect("mkfifo runs");
        assert!(made.success(), "pipes can be made");
        let script = format!(
            "exec {name} --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
             --disable-component-update --disable-sync --disable-dev-shm-usage --user-data-dir=\"$1/profile\" \
             --remote-debugging-pipe 3<\"$1/orders\" 4>\"$1/answers\" about:blank"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("a shell runs");
        let orders = OpenOptions::new().write(true).open(&orders).expect("the browser reads");
        let answers = BufReader::new(File::open(&answers).expect("the browser writes"));
        let mut browser = Self { child, orders, answers, number: 0, session: String::new(), events: VecDeque::new() };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.ask("Target.attachToTarget", target);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Log", "Runtime", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Gives an order and waits for its answer.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut order = json!({"id": self.number, "method": method, "params": params});
        if !self.session.is_empty() {
            order["sessionId"] = json!(self.session);
        }
        let mut bytes = order.to_string().into_bytes();
        bytes.push(0);
        self.orders.write_all(&bytes).expect("the browser lives");
        loop {
            let message = self.next();
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push_back(message);
        }
    }

    fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).expect("the browser lives");
        assert_eq!(bytes.pop(), Some(0), "the browser ended");
        serde_json::from_slice(&bytes).expect("the browser speaks JSON")
    }

    /// Opens a file and waits until it is loaded; gives what happened meanwhile.
    pub(crate) fn open(&mut self, file: &Path) -> Vec<Value> {
        self.events.clear();
        self.ask("Page.navigate", json!({"url": format!("file://{}", file.display())}));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let message = self.next();
            self.events.push_back(message);
        }
        // An answer after the load: what the load logged has come before it.
        self.value("document.readyState");
        self.events.drain(..).collect()
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        self.ask("Runtime.evaluate", params)["result"]["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
