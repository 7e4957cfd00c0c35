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

/// Metrics of OpenTelemetry (OTLP), as generated from `opentelemetry/proto/**/*.proto` of opentelemetry-proto 1.10 (Apache-2.0).
pub mod otlp {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::clone_on_ref_ptr,
        rustdoc::invalid_html_tags,
        reason = "generated; the .proto files are the page"
    )]
    include!(concat!(env!("OUT_DIR"), "/otlp.rs"));

    pub use opentelemetry::proto::collector::metrics::v1 as collector;
    pub use opentelemetry::proto::common::v1 as common;
    pub use opentelemetry::proto::metrics::v1 as metrics;
    pub use opentelemetry::proto::resource::v1 as resource;

    /// The contract as a serialised `FileDescriptorSet`, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/otlp_descriptors.bin"));
}
