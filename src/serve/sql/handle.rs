//! What a client carries for us between two of its calls: its statement. So nothing is kept here that could be forgotten.

use std::hash::{BuildHasher, RandomState};

use prost::Message;
use tonic::Status;
use trainwarden_query::{Form, Parameters, Request};

/// Bytes of a handle at most: statement, parameters, columns.
pub(super) const HANDLE_BYTES_MAX: usize = 256 << 10;
/// Bytes of the values of one execution.
const PARAMETERS_BYTES_MAX: usize = 64 << 10;

/// A statement on its way: a prepared one, or one with a ticket for its answer.
///
/// Who changes it asks something else, which is judged like every question.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Handle {
    #[prost(string, tag = "1")]
    pub(super) sql: String,
    /// One row of values as Arrow IPC; empty = none.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) parameters: Vec<u8>,
    /// Columns of the answer as an IPC message; empty = not known.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) columns: Vec<u8>,
    /// By which an answer is cancelled.
    #[prost(fixed64, tag = "4")]
    pub(super) ticket: u64,
}

impl Handle {
    /// A statement without more.
    pub(super) fn of(sql: String) -> Self {
        Self { sql, ..Self::default() }
    }

    /// What a client gives back.
    ///
    /// # Errors
    /// Where it never was ours.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Status> {
        Self::decode(bytes).map_err(|_| Status::invalid_argument("this ticket or handle is none of ours"))
    }

    /// The same with a number that no other ticket has, and that nobody can guess.
    pub(super) fn with_ticket(self) -> Self {
        // Its keys come from the system, and are new each time.
        Self { ticket: RandomState::new().hash_one(self.sql.len()), ..self }
    }

    /// Adds one message of values, as Flight brings it, to the stream that they are.
    ///
    /// * `header`, `body`: flatbuffer and buffers. In a stream a marker and the length of the header come before them, and
    ///   the header is filled up to eight bytes (Arrow columnar format, "Encapsulated message format").
    ///
    /// # Errors
    /// Where it gets too long.
    pub(super) fn add_values(&mut self, header: &[u8], body: &[u8]) -> Result<(), Status> {
        if header.is_empty() {
            return Ok(());
        }
        let filled = header.len().next_multiple_of(8);
        if self.parameters.len() + filled + body.len() > PARAMETERS_BYTES_MAX {
            return Err(Status::invalid_argument(format!("parameters have at most {PARAMETERS_BYTES_MAX} bytes")));
        }
        let stream = &mut self.parameters;
        stream.extend_from_slice(&u32::MAX.to_le_bytes());
        stream.extend_from_slice(&u32::try_from(filled).expect("it is below the bound").to_le_bytes());
        stream.extend_from_slice(header);
        stream.resize(stream.len() + filled - header.len(), 0);
        stream.extend_from_slice(body);
        Ok(())
    }

    /// The question.
    pub(super) fn request(self) -> Request {
        let parameters = (!self.parameters.is_empty()).then(|| Parameters::new(&self.parameters));
        Request { sql: self.sql, form: Form::Arrow, parameters, ..Request::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_comes_back_as_it_went_and_noise_is_refused() {
        let handle = Handle { columns: vec![1, 2], ..Handle::of("select 1".to_owned()) }.with_ticket();
        assert_eq!(Handle::read(&handle.encode_to_vec()).expect("ours"), handle);
        assert_ne!(handle.clone().with_ticket().ticket, handle.ticket);
        assert_eq!(Handle::read(b"\xff\xff\xff").expect_err("noise").code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn values_are_bounded_and_stand_on_eight_bytes() {
        let mut handle = Handle::default();
        handle.add_values(&[], &[1]).expect("a message without a header says nothing");
        assert!(handle.parameters.is_empty());
        handle.add_values(&[1, 2, 3], &[9; 8]).expect("short");
        assert_eq!(handle.parameters[..12], [255_u8, 255, 255, 255, 8, 0, 0, 0, 1, 2, 3, 0]);
        assert_eq!(handle.parameters.len(), 24);
        assert!(handle.add_values(&[1; 8], &[0; PARAMETERS_BYTES_MAX]).is_err());
    }
}
