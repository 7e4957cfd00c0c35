//! The wire contract `trainwarden.v1`, as generated from `trainwarden/v1/*.proto`.
//!
//! Fields and their meaning are told in the `.proto` files; how they may change in `docs/wire.md`.

/// Version 1.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::clone_on_ref_ptr,
        reason = "generated; the .proto files are the page"
    )]
    tonic::include_proto!("trainwarden.v1");

    /// The contract as a serialised `FileDescriptorSet`, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
