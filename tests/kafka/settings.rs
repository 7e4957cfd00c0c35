//! Names, passwords and topics as they may be configured.

use std::time::{Duration, Instant};

use trainwarden_ingest::kafka::{
    KafkaPublisher, KafkaSource, SaslMechanism, SaslOptions, TlsOptions, Topics, create_topics,
};
use trainwarden_ingest::{Source, SourceError};

use crate::source_suite::{begin_all, numbers, publish_all, take, wait_assigned};
use crate::{PATIENCE, broker, cluster, options};

#[test]
fn passwords_and_certificates_open_the_secure_port_and_a_wrong_password_does_not() {
    let mut options = options(cluster(), "secure");
    options.brokers = cluster().secure_brokers();
    options.tls = Some(TlsOptions { ca: Some(cluster().ca()), ..TlsOptions::default() });
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), format!("{}\n", broker::PASSWORD)).unwrap();
    for (mechanism, run) in [(SaslMechanism::Plain, "a"), (SaslMechanism::ScramSha512, "b")] {
        options.group = format!("secure-{run}");
        options.sasl = Some(SaslOptions {
            mechanism,
            username: broker::USER.to_owned(),
            password_file: Some(password.path().to_owned()),
            password_env: None,
        });
        let publisher = KafkaPublisher::open(&options).unwrap();
        let first = publish_all(&publisher, 0, 0..3)[0];
        let mut source = KafkaSource::open(&options).unwrap();
        wait_assigned(&mut source, 4);
        source.begin(0, first).unwrap();
        assert_eq!(numbers(&take(&mut source, 3)), [0, 1, 2]);
    }
    std::fs::write(password.path(), "guess").unwrap();
    let mut source = KafkaSource::open(&options).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match source.next(Duration::from_millis(100)) {
            Err(error @ SourceError::Refused { .. }) => break assert!(!error.to_string().contains("guess")),
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
}

#[test]
fn topics_that_do_not_fit_are_refused() {
    let mut options = options(cluster(), "unfit");
    assert_eq!(create_topics(&options).unwrap(), Topics { partitions: 4, created: 0 });
    let state = std::mem::replace(&mut options.topics.state, options.topics.events.clone());
    let narrow = create_topics(&options).unwrap_err();
    assert!(narrow.to_string().contains("`unfit.events` has 1 partitions and must have 4"), "{narrow}");
    options.topics.state = state;
    options.topics.telemetry = "unfit.stamped".to_owned();
    let create = ["--create", "--topic", "unfit.stamped", "--partitions", "4"];
    cluster().tool("org.apache.kafka.tools.TopicCommand", &create);
    let stamped = create_topics(&options).unwrap_err();
    assert!(stamped.to_string().contains("LogAppendTime"), "{stamped}");
}

#[test]
fn a_named_member_keeps_its_partitions_over_a_restart_and_has_one_body() {
    let mut options = options(cluster(), "member");
    options.member = Some("worker-7".to_owned());
    let publisher = KafkaPublisher::open(&options).unwrap();
    publish_all(&publisher, 2, 0..3);
    let mut source = KafkaSource::open(&options).unwrap();
    begin_all(&mut source, 4);
    take(&mut source, 3);
    drop(source);
    let mut source = KafkaSource::open(&options).unwrap();
    begin_all(&mut source, 4);
    take(&mut source, 3);
    // A second one of the same name is a mistake of whoever configured it: the first is told, and reads no more.
    let mut double = KafkaSource::open(&options).unwrap();
    wait_assigned(&mut double, 4);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match source.next(Duration::from_millis(100)) {
            Err(SourceError::Refused { .. }) => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
}
