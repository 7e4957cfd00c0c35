//! The log on Apache Kafka: reading in a group, writing, compacted topics, and topics that are made as they must be.

mod client;
mod committed;
mod compacted;
mod consumer;
mod cursor;
mod error;
mod follower;
mod membership;
mod options;
mod prober;
mod publisher;
mod queue;
mod reader;
mod topics;
mod view;
mod writer;

pub use committed::committed;
pub use compacted::{Compacted, Latest};
pub use consumer::KafkaSource;
pub use follower::{Change, Follower};
pub use options::{KafkaOptions, SaslMechanism, SaslOptions, TlsOptions, TopicNames};
pub use publisher::{KafkaPublisher, PLACE_UNTOLD};
pub use topics::{Topics, create_topics};
pub use view::{ClusterView, TopicView};
