//! The one port: what a person does, the HTTP API, tokens and TLS, with foreign clients (`curl`, `openssl`).

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use trainwarden::simulation::{read_scenario, write};
use trainwarden_ingest::Format;

use crate::service::{Service, free_address, replayed, send_to, wait_told, wait_until};

mod recorded;
mod service;

/// What is never a token.
const TOKEN_TAIL: &str = "0123456789abcdef0123456789abcdef";

fn trainwarden(arguments: &[&str], environment: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainwarden"));
    command.args(arguments).envs(environment.iter().copied()).output().expect("the binary was built")
}

/// Status and body of what `curl` gets.
fn curl(arguments: &[&str]) -> (u16, String) {
    let output = Command::new("curl").args(["-s", "--max-time", "20", "-w", "\n%{http_code}"]).args(arguments).output();
    let text = String::from_utf8(output.expect("curl is installed").stdout).expect("text");
    let (body, code) = text.rsplit_once('\n').expect("curl writes the status");
    (code.parse().expect("a number"), body.to_owned())
}

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// A service that has judged a run that hangs, and what it tells.
fn judged(dir: &Path) -> (Service, String) {
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/hang.toml");
    let runs = dir.join("runs");
    write(&read_scenario(&scenario).expect("a scenario"), &runs, Format::Parquet).expect("written");
    let (service, expected) = (Service::start(&dir.join("data"), &[]), replayed(&runs));
    send_to(&runs, &service.url());
    wait_told(&service, &expected);
    (service, expected)
}

#[test]
fn what_a_person_does_is_told_everywhere_and_again_from_the_log() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut service, expected) = judged(dir.path());
    let open = expected.lines().map(json_of).find(|incident| incident["state"] == "open").expect("one is open");
    let (id, run) = (open["id"].as_str().expect("an id"), open["run"].as_str().expect("a run"));
    let api = format!("http://{}/api/v1", service.url());
    let watcher = Command::new("curl")
        .args(["-sN", "--max-time", "60", &format!("{api}/incidents/watch?run={run}")])
        .stdout(Stdio::piped())
        .spawn();
    let mut watcher = watcher.expect("curl is installed");
    let url = service.url();
    let acted = trainwarden(&["ack", id, "--url", &url, "--as", "oncall", "--reason", "node replaced"], &[]);
    let said = String::from_utf8_lossy(&acted.stdout).into_owned();
    assert!(acted.status.success() && said.starts_with(&format!("{id} is acknowledged (partition ")), "{acted:?}");
    let state = || json_of(&curl(&[&format!("{api}/incidents/{id}")]).1)["state"].clone();
    wait_until("it is acknowledged", || state() == "acknowledged");
    let listed = json_of(&curl(&[&format!("{api}/incidents?state=acknowledged&run={run}")]).1);
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["id"]), (Some(1), &open["id"]));
    // Everything else is as it was: the run has not begun again.
    let others = |text: &str| text.lines().filter(|line| !line.contains(id)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(others(&service.incidents()), others(&expected));
    watcher.kill().expect("it runs");
    let seen = String::from_utf8(watcher.wait_with_output().expect("it was ours").stdout).expect("text");
    let event = format!("event: acknowledged\nid: {id}\ndata: {{");
    assert!(seen.contains(&event), "server-sent events: {seen}");
    // The log alone has it too.
    let told = service.incidents();
    service.stop();
    std::fs::remove_file(service.data().join("state.redb")).expect("the state was there");
    service.restart();
    wait_told(&service, &told);
}

#[test]
fn the_api_is_what_its_description_says_and_refuses_in_words() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (service, expected) = judged(dir.path());
    let base = format!("http://{}", service.url());
    let id = json_of(expected.lines().next().expect("one"))["id"].as_str().expect("an id").to_owned();
    let description = json_of(&curl(&[&format!("{base}/api/v1/openapi.json")]).1);
    let mut operations = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        if path.ends_with("/watch") {
            continue; // It never ends, and the other test watches it.
        }
        let url = format!("{base}{}", path.replace("{id}", &id).replace("{run}", "some-run"));
        for (method, operation) in methods.as_object().expect("methods") {
            let body: &[&str] = if method == "post" { &["-d", "{\"actor\": \"x\", \"text\": \"y\"}"] } else { &[] };
            let kind = ["-X", &method.to_uppercase(), "-H", "content-type: application/json", &url];
            let (code, answer) = curl(&[&kind, body].concat());
            let answers = &operation["responses"];
            assert!(code != 404 && answers[code.to_string()].is_object(), "{method} {path}: {code} {answer}");
            operations += 1;
        }
    }
    assert_eq!(operations, 5);
    let listed = json_of(&curl(&[&format!("{base}/api/v1/incidents")]).1);
    assert_eq!(listed.as_array().map(Vec::len), Some(expected.lines().count()));
    assert_eq!(listed[0], json_of(expected.lines().next().expect("one")));
    let post = |path: &str, body: &str| {
        curl(&["-H", "content-type: application/json", "-d", body, &format!("{base}/api/v1/{path}")])
    };
    let refusals = [
        (
            curl(&[&format!("{base}/api/v1/incidents?state=lost")]),
            400,
            "`lost` is none of open, acknowledged, resolved",
        ),
        (curl(&[&format!("{base}/api/v1/incidents?since=soon")]), 400, "2026-01-31T12:00:00Z"),
        (curl(&[&format!("{base}/api/v1/incidents?colour=red")]), 400, "unknown field `colour`"),
        (curl(&[&format!("{base}/api/v1/incidents/inc_none")]), 404, "there is no incident `inc_none`"),
        (post("incidents/inc_none/acknowledge", "{}"), 404, "there is no incident `inc_none`"),
        (post("runs/r/annotations", "{}"), 400, "missing field `text`"),
        (post("runs/r/annotations", "{\"text\": \"x\", \"pause_from\": 9, \"pause_until\": 3}"), 400, "must be later"),
    ];
    for ((code, body), expected_code, words) in refusals {
        assert_eq!(code, expected_code, "{body}");
        assert!(json_of(&body)["error"].as_str().expect("a word").contains(words), "{body}");
    }
    let unknown = trainwarden(&["ack", "inc_none", "--url", &service.url()], &[]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no incident `inc_none`"));
    let nobody = trainwarden(&["annotate", "r", "x", "--data", &dir.path().join("none").display().to_string()], &[]);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no service runs on"), "{nobody:?}");
}

#[test]
fn a_planned_pause_is_listed_with_its_reason_and_who_planned_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut service = Service::start(&dir.path().join("data"), &[]);
    let url = service.url();
    let annotate = ["annotate", "llm-7b", "switch maintenance", "--as", "netops", "--url", &url];
    let pause = ["--pause-from", "2126-01-31T13:00:00Z", "--pause-until", "2126-01-31T14:00:00Z"];
    let note = trainwarden(&["annotate", "llm-7b", "new driver", "--url", &url], &[]);
    let planned = trainwarden(&[&annotate[..], &pause].concat(), &[]);
    assert!(note.status.success() && planned.status.success(), "{planned:?}");
    let words = "planned pause of llm-7b, 2126-01-31T13:00:00Z to 2126-01-31T14:00:00Z: switch maintenance (netops)\n";
    let listed = |arguments: &[&str]| {
        let output = trainwarden(&[arguments, &["--url", &url]].concat(), &[]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    wait_until("it is listed", || listed(&["incidents", "pauses"]) == words);
    assert!(listed(&["incidents", "list"]).ends_with(words), "what is not told meanwhile is told as such");
    assert_eq!(listed(&["incidents", "pauses", "--run", "other"]), "");
    let json = "{\"run\":\"llm-7b\",\"from\":4925538000000000000,\"until\":4925541600000000000,\
                \"reason\":\"switch maintenance\",\"actor\":\"netops\"}";
    assert_eq!(listed(&["incidents", "pauses", "--output", "json"]).trim_end(), json);
    assert_eq!(curl(&[&format!("http://{url}/api/v1/pauses?run=llm-7b")]), (200, format!("[{json}]")));
    // It is part of the state.
    service.kill();
    service.restart();
    wait_until("it is still listed", || listed(&["incidents", "pauses"]) == words);
}

#[test]
fn beyond_loopback_nothing_is_served_in_the_clear_or_to_everybody() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let data = dir.path().join("data").display().to_string();
    let refused = trainwarden(&["serve", "--listen", "0.0.0.0:0", "--data", &data], &[]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{words}");
    assert!(words.contains("set `tls` and `access.tokens`"), "{words}");
}

/// A service with TLS and a token of each role.
struct Guarded {
    child: Child,
    url: String,
    authority: PathBuf,
    dir: tempfile::TempDir,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guarded {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| dir.path().join(name);
        let (certificate, key) = (file("certificate.pem"), file("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
            .args(["-keyout"])
            .args([&key, Path::new("-out"), &certificate])
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl is installed").success());
        let mut config = format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
        for role in ["viewer", "responder"] {
            std::fs::write(file(role), format!("{role}-{TOKEN_TAIL}\n")).expect("written");
            config += &format!("[[access.tokens]]\nname = \"{role}\"\nrole = \"{role}\"\nfile = {:?}\n", file(role));
        }
        std::fs::write(file("config.toml"), config).expect("written");
        let address = free_address();
        let child = Command::new(env!("CARGO_BIN_EXE_trainwarden"))
            .args(["serve", "--listen", &address.to_string(), "--config"])
            .args([file("config.toml"), PathBuf::from("--data"), file("data")])
            .env("RUST_LOG", "warn")
            .spawn()
            .expect("the binary was built");
        let url = format!("https://localhost:{}", address.port());
        let guarded = Self { child, url, authority: certificate, dir };
        wait_until("the service answers", || guarded.ask("/readyz", &[]).0 == 200);
        guarded
    }

    fn ask(&self, path: &str, more: &[&str]) -> (u16, String) {
        let (authority, url) = (self.authority.display().to_string(), format!("{}{path}", self.url));
        curl(&[&["--http1.1", "--cacert", &authority, &url], more].concat())
    }

    fn list_with(&self, token: Option<&str>) -> (Option<i32>, String) {
        let token = token.map(|role| self.dir.path().join(role));
        let mut environment = vec![("TRAINWARDEN_CA_FILE", self.authority.as_path())];
        environment.extend(token.iter().map(|file| ("TRAINWARDEN_TOKEN_FILE", file.as_path())));
        let output = trainwarden(&["incidents", "list", "--url", &self.url], &environment);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn over_tls_each_token_opens_what_its_role_may() {
    let guarded = Guarded::start();
    let token = |role: &str| format!("Authorization: Bearer {role}-{TOKEN_TAIL}");
    let (viewer, responder) = (token("viewer"), token("responder"));
    let post = ["-H", "content-type: application/json", "-d", "{\"text\": \"maintenance\"}"];
    let (code, body) = guarded.ask("/api/v1/incidents", &[]);
    assert!(code == 401 && body.contains("a token is needed"), "{code} {body}");
    assert_eq!(guarded.ask("/api/v1/incidents", &["-H", &viewer]), (200, "[]".to_owned()));
    assert_eq!(guarded.ask("/metrics", &["-H", &viewer]).0, 200);
    let (code, body) = guarded.ask("/api/v1/runs/r/annotations", &[&["-H", &viewer], post.as_slice()].concat());
    assert!(code == 403 && body.contains("has the role viewer, and this needs responder"), "{code} {body}");
    let (code, _) = guarded.ask("/api/v1/runs/r/annotations", &[&["-H", &responder], post.as_slice()].concat());
    assert_eq!(code, 202);
    assert_eq!(guarded.list_with(Some("viewer")), (Some(0), String::new()));
    let (code, words) = guarded.list_with(None);
    assert!(code == Some(2) && words.contains("a token is needed"), "{code:?} {words}");
    let plain = curl(&[&format!("{}/livez", guarded.url.replace("https", "http"))]);
    assert_eq!(plain.0, 0, "nothing is answered in the clear");
}
