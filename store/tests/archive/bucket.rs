//! The same archive in a bucket, of a real server that speaks S3.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use trainwarden_store::{Archive, ArchiveOptions, PartLimits};

use crate::log::{MIDNIGHT_NS, cuts, log};

const LIMITS: PartLimits = PartLimits { seconds: 900, bytes_max: 40_000 };
/// What the script exits with where Python or its packages cannot be had.
const NOT_HERE: i32 = 77;

/// The server and its port; `None` where it cannot be had.
fn server() -> Option<(Child, u16)> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/s3/run");
    let mut server =
        Command::new(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("told");
    if let Ok(port) = line.trim().parse() {
        return Some((server, port));
    }
    let status = server.wait().expect("ended");
    assert_eq!(status.code(), Some(NOT_HERE), "the server did not start");
    eprintln!("skipped: moto is not here");
    None
}

#[tokio::test]
async fn a_bucket_holds_the_parts_that_a_folder_holds_and_forgets_the_old_ones() {
    let Some((mut server, port)) = server() else { return };
    let settings = [
        ("endpoint", format!("http://127.0.0.1:{port}")),
        ("allow_http", "true".to_owned()),
        ("region", "us-east-1".to_owned()),
        ("access_key_id", "test".to_owned()),
        ("secret_access_key", "test".to_owned()),
    ];
    let settings: BTreeMap<String, String> = settings.map(|(name, value)| (name.to_owned(), value)).into();
    let url = Some("s3://archive/of/site".to_owned());
    let options = ArchiveOptions { url, settings, bytes_max: 1, ..ArchiveOptions::default() };
    let archive = Archive::open(options.clone(), "".as_ref()).expect("opened");
    let (cuts, _) = cuts(&log(6, 120), 0, LIMITS);
    let parts: Vec<_> = cuts.iter().flat_map(|cut| cut.encode().expect("encoded")).collect();
    archive.write(&parts).await.expect("written");
    archive.write(&parts).await.expect("written again");
    let stored = archive.parts().await.expect("listed");
    assert_eq!(stored.len(), parts.len());
    for part in &parts {
        assert!(archive.read(&part.name).await.expect("read") == part.bytes, "{}", part.name);
    }
    let removed = archive.retain(MIDNIGHT_NS).await.expect("retained");
    assert!(removed.failed.is_empty() && removed.parts.len() == parts.len() - 1, "{:?}", removed.failed);
    assert_eq!(archive.parts().await.expect("listed").len(), 1);

    drop(server.stdin.take());
    server.wait().expect("ended");
    let mut settings = options.settings.clone();
    settings.insert("client_max_retries".to_owned(), "0".to_owned());
    let unknown = Archive::open(ArchiveOptions { settings, ..options }, "".as_ref()).expect_err("refused").to_string();
    assert!(unknown.ends_with("the S3 client has no setting `client_max_retries`"), "{unknown}");
}
