//! The folders of log, state and archive: are they writable, is there room, and is the disk here.

use std::fs;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::Config;

const GROUP: &str = "disk";
/// State and its next version side by side, and the segment in hand.
const SPARE_BYTES: u64 = 512 << 20;
/// Kinds of file systems that are elsewhere, as the mount table names them.
const NETWORK: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "lustre", "9p", "fuse.sshfs"];

/// Looks at folders.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut needs =
        vec![Need { name: "data", folder: config.data.clone(), bytes_max: SPARE_BYTES + log_bytes(config) }];
    if config.archive.url.is_none() {
        let folder = config.archive.folder(&config.data);
        needs.push(Need { name: "archive", folder, bytes_max: config.archive.bytes_max });
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    needs.iter().flat_map(|need| need.look(&mounts)).collect()
}

/// What the embedded log may grow to.
fn log_bytes(config: &Config) -> u64 {
    #[cfg(feature = "kafka")]
    if config.kafka.is_some() {
        return 0;
    }
    u64::from(config.log.partitions) * (config.log.kept_mb << 20)
}

/// A folder, and what it may grow to; 0 = without bound.
struct Need {
    name: &'static str,
    folder: PathBuf,
    bytes_max: u64,
}

impl Need {
    fn look(&self, mounts: &str) -> Vec<Finding> {
        let shown = self.folder.display();
        let Some(place) = self.folder.ancestors().find(|path| path.exists()).map(existing) else {
            return vec![Finding::wrong(GROUP, format!("`{shown}` has no parent"), "name a folder on a disk")];
        };
        // Made and gone again at once: nothing is left, and a read-only mount is told as well as missing rights.
        if let Err(error) = tempfile::tempfile_in(&place) {
            let what = format!("the {} folder `{shown}` cannot be written: {error}", self.name);
            return vec![Finding::wrong(
                GROUP,
                what,
                "give its owner the user that runs the service, or name another one",
            )];
        }
        let mut findings = vec![self.room(&place)];
        if let Some(kind) = kind_of(&place, mounts).filter(|kind| NETWORK.contains(kind)) {
            let what = format!("the {} folder `{shown}` is on a network file system ({kind})", self.name);
            let advice = "its locks and syncs may not hold: a receipt would promise too much; use a local disk";
            findings.push(Finding::warning(GROUP, what, advice));
        }
        findings
    }

    fn room(&self, place: &Path) -> Finding {
        let shown = self.folder.display();
        match rustix::fs::statvfs(place) {
            Ok(told) => self.room_of(told.f_bavail.saturating_mul(told.f_frsize), size_of(&self.folder)),
            Err(error) => {
                let what = format!("the room for the {} folder `{shown}` cannot be told: {error}", self.name);
                Finding::warning(GROUP, what, "look at it with `df`")
            }
        }
    }

    /// * `free`: bytes that may be written.
    /// * `used`: bytes that the folder has already.
    fn room_of(&self, free: u64, used: u64) -> Finding {
        let (name, shown) = (self.name, self.folder.display());
        let needed = self.bytes_max.saturating_sub(used).max(SPARE_BYTES / 8);
        let what = format!("the {name} folder `{shown}` has {} MiB of room", free >> 20);
        if free < SPARE_BYTES / 8 {
            return Finding::wrong(GROUP, what, "make room: the service stops acknowledging when the disk is full");
        }
        if free < needed {
            let what = format!("{what}, and may grow by {} MiB", needed >> 20);
            let advice = match name {
                "archive" => "lower `archive.bytes_max`, or give it a larger disk",
                _ => "lower `log.kept_mb`, or give it a larger disk",
            };
            return Finding::warning(GROUP, what, advice);
        }
        Finding::good(GROUP, what)
    }
}

fn existing(path: &Path) -> PathBuf {
    // The parent of a plain name is empty, and means here.
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() }
}

/// Bytes of the files below a folder; what cannot be read counts nothing.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(told) if told.is_dir() => size_of(&entry.path()),
            Ok(told) => told.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The kind of the file system that a path is on.
///
/// * `mounts`: as `/proc/self/mounts`.
fn kind_of<'a>(path: &Path, mounts: &'a str) -> Option<&'a str> {
    let path = path.canonicalize().ok()?;
    let lines = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(place).then_some((place.len(), kind))
    });
    lines.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn need(folder: &Path, bytes_max: u64) -> Need {
        Need { name: "data", folder: folder.to_owned(), bytes_max }
    }

    #[test]
    fn room_is_compared_with_what_may_come() {
        let need = need(Path::new("d"), 10 << 30);
        assert_eq!(need.room_of(20 << 30, 0).verdict, Verdict::Good);
        assert_eq!(need.room_of(2 << 30, 9 << 30).verdict, Verdict::Good, "most of it is there already");
        assert_eq!(need.room_of(2 << 30, 0).verdict, Verdict::Warning);
        assert_eq!(need.room_of(1 << 20, 0).verdict, Verdict::Wrong);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_wrong_and_one_that_is_to_be_made_is_not() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(need(&dir.path().join("a/b"), 1).look("")[0].verdict, Verdict::Good);
        assert!(!dir.path().join("a").exists(), "nothing is made");
        let file = dir.path().join("file");
        fs::write(&file, "x").expect("written");
        let found = need(&file.join("below"), 1).look("");
        assert!(found[0].verdict == Verdict::Wrong && found[0].what.contains("cannot be written"), "{found:?}");
    }

    #[test]
    fn a_disk_that_is_elsewhere_is_told() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().canonicalize().expect("it exists");
        let mounts = format!("/dev/sda1 / ext4 rw 0 0\nserver:/x {} nfs4 rw 0 0\n", place.display());
        assert_eq!(need(&place, 1).look(&mounts).last().map(|found| found.verdict), Some(Verdict::Warning));
        assert_eq!(kind_of(Path::new("/"), &mounts), Some("ext4"));
    }
}
