//! Our topics, made as they must be.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::error::{is_refusal, source_error};
use super::options::KafkaOptions;
use super::writer::Writer;
use crate::limits::{METADATA_WAIT, TOPIC_WAIT};
use crate::source::SourceError;

/// The longest record that our topics take, in bytes.
const MESSAGE_BYTES_MAX: &str = "8388608";
/// What a topic of records looks like: the brokers' clock decides, so a sender cannot steer retention or windows.
pub(super) const RECORDS: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("message.timestamp.type", "LogAppendTime"),
    ("max.message.bytes", MESSAGE_BYTES_MAX),
];
/// What a topic of latest values looks like.
pub(super) const LATEST: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("message.timestamp.type", "LogAppendTime"),
    ("max.message.bytes", MESSAGE_BYTES_MAX),
];

/// Our topics, as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Partitions of the telemetry topic, and so of state and incidents.
    pub partitions: u32,
    /// How many topics were made just now.
    pub created: usize,
}

/// Makes those of our topics that are missing, and looks whether the others are as they must be.
///
/// # Errors
/// [`SourceError::Unreachable`] when no broker answers; [`SourceError::Refused`] when we may not make a topic, or one
/// exists with another number of partitions or another clock than the brokers'.
pub fn create_topics(options: &KafkaOptions) -> Result<Topics, SourceError> {
    let admin: AdminClient<DefaultClientContext> =
        options.client()?.create().map_err(|error| source_error(&options.brokers, "make topics", &error))?;
    let names = &options.topics;
    let mut created = create(&admin, options, &names.telemetry, options.partitions, RECORDS)?;
    let writer = Writer::open(options)?;
    let partitions = writer.partitions(&names.telemetry, TOPIC_WAIT)?;
    for (name, partitions, settings) in
        [(&names.events, 1, RECORDS), (&names.state, partitions, LATEST), (&names.incidents, partitions, LATEST)]
    {
        created += create(&admin, options, name, partitions, settings)?;
        let found = writer.partitions(name, TOPIC_WAIT)?;
        if found != partitions {
            let reason = format!("topic `{name}` has {found} partitions and must have {partitions}");
            return Err(SourceError::Refused { log: options.brokers.clone(), act: "use a topic", reason });
        }
    }
    check_clock(&admin, options)?;
    Ok(Topics { partitions, created: created.into() })
}

/// Makes a topic; 0 when it is there already.
fn create(
    admin: &AdminClient<DefaultClientContext>,
    options: &KafkaOptions,
    name: &str,
    partitions: u32,
    settings: &[(&str, &str)],
) -> Result<u8, SourceError> {
    // Minus one is "as the brokers are set".
    let copies = options.replication.map_or(-1, i32::from);
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let limits = AdminOptions::new().request_timeout(Some(TOPIC_WAIT)).operation_timeout(Some(TOPIC_WAIT));
    let answers = wait_for(admin.create_topics([&topic], &limits));
    let answers = answers.map_err(|error| source_error(&options.brokers, "make a topic", &error))?;
    match answers.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(0),
        Some(Err((name, code))) if is_refusal(code) => {
            let reason = format!("topic `{name}`: {code}");
            Err(SourceError::Refused { log: options.brokers.clone(), act: "make a topic", reason })
        }
        Some(Err((name, code))) => {
            Err(SourceError::Unreachable { log: options.brokers.clone(), reason: format!("topic `{name}`: {code}") })
        }
        Some(Ok(_)) | None => Ok(1),
    }
}

/// Refuses a telemetry topic that is stamped by its senders. Without the right to look, it is taken on trust.
fn check_clock(admin: &AdminClient<DefaultClientContext>, options: &KafkaOptions) -> Result<(), SourceError> {
    let topic = ResourceSpecifier::Topic(&options.topics.telemetry);
    let limits = AdminOptions::new().request_timeout(Some(METADATA_WAIT));
    let Ok(answers) = wait_for(admin.describe_configs([&topic], &limits)) else {
        return Ok(());
    };
    let described = answers.into_iter().find_map(Result::ok);
    let clock = described.and_then(|topic| topic.get("message.timestamp.type").and_then(|entry| entry.value.clone()));
    match clock {
        Some(clock) if clock != "LogAppendTime" => {
            let name = &options.topics.telemetry;
            let reason = format!("topic `{name}` has message.timestamp.type={clock}, and needs LogAppendTime");
            Err(SourceError::Refused { log: options.brokers.clone(), act: "use a topic", reason })
        }
        _ => Ok(()),
    }
}

/// Wakes the thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an answer of the admin client, whose own thread completes it.
pub(super) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}
