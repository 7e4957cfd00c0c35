//! The wire: rows into frames of the contract `trainwarden.v1`, and back.

mod batch_writer;
mod frame;
mod frame_error;
mod frame_rows;
mod frame_writer;
mod packed;
mod payload;
mod seen;

pub use batch_writer::BatchWriter;
pub use frame::{OpenedFrame, TrustedKeys};
pub use frame_error::FrameError;
pub use frame_writer::FrameWriter;
pub use seen::{Seen, Sight};
