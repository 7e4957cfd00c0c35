//! Compacted topics.

use trainwarden_ingest::kafka::Compacted;

use crate::spoil::{Spoil, spoil_batches};
use crate::{PATIENCE, cluster, options};

#[test]
fn a_compacted_topic_gives_the_latest_values_and_then_the_changes() {
    let options = options(cluster(), "latest");
    let state = Compacted::open(&options, &options.topics.state).unwrap();
    assert_eq!(state.partitions(), 4);
    assert!(state.read(&[0, 1, 2, 3], PATIENCE).unwrap().is_empty());

    let large = vec![9; 1 << 20];
    state.write(1, &[("a", Some(b"1")), ("b", Some(b"2")), ("a", Some(&large)), ("c", Some(b"3"))]).unwrap();
    state.write(1, &[("b", None)]).unwrap();
    state.write(2, &[("a", Some(b"other"))]).unwrap();
    let latest = state.read(&[0, 1, 2, 3], PATIENCE).unwrap();
    let key = |partition, key: &str| (partition, key.to_owned());
    assert_eq!(latest.keys().cloned().collect::<Vec<_>>(), [key(1, "a"), key(1, "c"), key(2, "a")]);
    assert_eq!(latest[&key(1, "a")], large);
    assert_eq!(state.read(&[2], PATIENCE).unwrap().len(), 1);

    let mut follower = state.follow(&[1]).unwrap();
    let mut changes = Vec::new();
    while changes.len() < 5 {
        changes.extend(follower.next(PATIENCE).unwrap());
    }
    state.write(1, &[("d", Some(b"4"))]).unwrap();
    let change = follower.next(PATIENCE).unwrap().unwrap();
    assert_eq!((change.partition, change.key.as_str(), change.value.as_deref()), (1, "d", Some(&b"4"[..])));
    assert!(changes.iter().all(|earlier| earlier.offset < change.offset));

    // One that cannot be read costs its own keys, not those behind it.
    for key in ["x", "y", "z"] {
        state.write(3, &[(key, Some(b"value"))]).unwrap();
    }
    spoil_batches(&cluster().segment(0, &options.topics.state, 3), Spoil::Checksum, &[1]);
    let latest = state.read(&[3], PATIENCE).unwrap();
    assert_eq!(latest.keys().cloned().collect::<Vec<_>>(), [key(3, "x"), key(3, "z")]);
}
