//! Metrics of OpenTelemetry (OTLP) as frames of table `samples`.
//!
//! Nothing is kept between requests: the same request makes the same frames, so that one which is sent again, through
//! whichever service or topic, is told apart by its frames and counts once.

mod labels;
mod points;
mod sender;

pub use points::Refused;
pub use sender::{OTLP_SENDER, OtlpFrames, OtlpSender};
