//! What receivers are reached with: HTTP and programs, each with a limit of time.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use reqwest::Client;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use tracing::info;
use trainwarden_incidents::Notice;
use trainwarden_incidents::sinks::{Outside, Post, Reply, SinkError};

use super::Guard;
use crate::serve::desk::now_ns;

/// Of an answer so much is read.
const REPLY_BYTES_MAX: usize = 4 << 10;
/// Of what a program prints so much is kept.
const PRINTED_BYTES_MAX: u64 = 4 << 10;
/// What a program printed is waited for so long after its end.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);
/// How often a program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The world outside of one receiver.
#[derive(Debug)]
pub struct World {
    client: Client,
    guard: Guard,
    timeout: Duration,
    runtime: tokio::runtime::Handle,
}

impl World {
    /// A world with a guard before it, in which nothing takes longer than `timeout`.
    ///
    /// * `ca`: certificates in PEM to be trusted beside those of the system.
    ///
    /// # Errors
    /// When a certificate is none.
    pub fn new(guard: Guard, timeout: Duration, ca: Option<&[u8]>) -> Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().context("there is no runtime to send with")?;
        let mut builder = Client::builder()
            .dns_resolver(Arc::new(guard.clone()))
            // A redirect, or a proxy from the environment, would lead round the guard.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(timeout)
            .user_agent(concat!("trainwarden/", env!("CARGO_PKG_VERSION")));
        for certificate in
            ca.map(reqwest::Certificate::from_pem_bundle).transpose().context("no certificate")?.into_iter().flatten()
        {
            builder = builder.add_root_certificate(certificate);
        }
        let client = builder.build().context("TLS does not start")?;
        Ok(Self { client, guard, timeout, runtime })
    }

    async fn answer_to(&self, post: &Post) -> Result<Reply, SinkError> {
        let url = reqwest::Url::parse(post.url.reveal()).map_err(|error| unreachable(&error))?;
        // An address that is written as one is not resolved, so the resolver does not see it.
        let host = url.host_str().unwrap_or_default();
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            self.guard.check(host, address)?;
        }
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(post.body.clone());
        for (name, value) in &post.headers {
            let mut value =
                reqwest::header::HeaderValue::from_str(value.reveal()).map_err(|error| unreachable(&error))?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        let mut response = request.send().await.map_err(explained)?;
        let (status, headers) = (response.status().as_u16(), response.headers());
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        let retry_after = seconds.map(Duration::from_secs);
        let mut body = Vec::new();
        // What is not read of an answer is not missed.
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(REPLY_BYTES_MAX - body.len())]);
            if body.len() == REPLY_BYTES_MAX {
                break;
            }
        }
        Ok(Reply { status, retry_after, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

impl Outside for World {
    fn now(&self) -> i64 {
        now_ns()
    }

    fn post(&self, post: &Post) -> Result<Reply, SinkError> {
        self.runtime.block_on(self.answer_to(post))
    }

    fn run(&self, argv: &[String], input: &str) -> Result<String, SinkError> {
        run(argv, input, self.timeout)
    }

    fn log(&self, notice: &Notice, text: &str) {
        let incident = &notice.incident;
        info!(notice = notice.id, incident = incident.id.0, severity = incident.severity.as_str(), "{text}");
    }
}

fn unreachable(error: &dyn std::error::Error) -> SinkError {
    SinkError::Unreachable { why: error.to_string() }
}

/// The cause of a failed request, without its address: that may be secret.
fn explained(error: reqwest::Error) -> SinkError {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    let mut words = vec![cause.to_string()];
    while let Some(deeper) = cause.source() {
        if let Some(SinkError::Denied { host, address, range }) = deeper.downcast_ref::<SinkError>() {
            return SinkError::Denied { host: host.clone(), address: *address, range };
        }
        cause = deeper;
        words.push(cause.to_string());
    }
    words.dedup();
    SinkError::Unreachable { why: words.join(": ") }
}

/// Runs a program in a process group of its own, with nothing of our environment but where programs are.
fn run(argv: &[String], input: &str, timeout: Duration) -> Result<String, SinkError> {
    let (program, arguments) = argv.split_first().expect("checked with the configuration");
    let failed = |why: String| SinkError::Unreachable { why: format!("`{program}` {why}") };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| ["PATH", "HOME", "LANG", "TZ"].contains(&name.as_str())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // Threads of their own: a program may print before it reads, or never read.
    let input = input.to_owned();
    std::thread::spawn(move || {
        // A program that does not want to know more closes its input.
        stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))
    });
    let (stdout, stderr) = (beginning_of(stdout), beginning_of(stderr));
    let deadline = Instant::now() + timeout;
    let status = loop {
        match child.try_wait().map_err(|error| failed(format!("cannot be waited for: {error}")))? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                end_group(&mut child);
                return Err(failed(format!("did not end within {} s", timeout.as_secs_f64())));
            }
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    // Whoever else holds its pipes open is not waited for.
    let said = |stream: &Receiver<String>| stream.recv_timeout(LAST_WORDS_WAIT).unwrap_or_default();
    match status.success() {
        true => Ok(said(&stdout)),
        false => Err(SinkError::Exited {
            program: program.clone(),
            status: status.to_string(),
            text: said(&stderr).trim().to_owned(),
        }),
    }
}

/// Ends a program that runs, and what it has started.
fn end_group(child: &mut std::process::Child) {
    let group = format!("-{}", child.id());
    // It may end by itself in this moment.
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = child.kill();
    let _ = child.wait();
}

/// What comes out of a pipe first; the rest is read and forgotten.
fn beginning_of(stream: Option<impl std::io::Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let Some(mut stream) = stream else { return };
        // What it says is a help, no more.
        let _ = stream.by_ref().take(PRINTED_BYTES_MAX).read_to_end(&mut bytes);
        if bytes.len() as u64 == PRINTED_BYTES_MAX {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        // Nobody asks any more: then nobody is told.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_program_reads_the_notice_and_its_failure_is_told() {
        let second = Duration::from_secs(20);
        assert_eq!(run(&shell("cat"), "{}", second).expect("it ends"), "{}");
        let error = run(&shell("echo why >&2; exit 3"), "{}", second).expect_err("it fails").to_string();
        assert_eq!(error, "`sh` ended with exit status: 3: why");
        // One that does not read, and one that prints much.
        assert_eq!(run(&shell("exit 0"), &"x".repeat(1 << 20), second).expect("it ends"), "");
        let printed = run(&shell("head -c 1000000 /dev/zero"), "", second).expect("it ends");
        assert_eq!(printed.len() as u64, PRINTED_BYTES_MAX);
        assert!(run(&["/no/such/program".to_owned()], "", second).is_err());
        assert_eq!(run(&shell("echo \"$CARGO_PKG_NAME\""), "", second).expect("it ends"), "\n");
    }

    #[test]
    fn a_program_that_does_not_end_is_ended_with_its_children() {
        let error = run(&shell("sleep 1000 & sleep 1000"), "", Duration::from_millis(50)).expect_err("too long");
        assert_eq!(error.to_string(), "no answer: `sh` did not end within 0.05 s");
    }
}
