//! Generates Rust from the contract, and from OpenTelemetry's, without protoc.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

/// Our contract.
const OURS: [&str; 2] = ["trainwarden/v1/telemetry.proto", "trainwarden/v1/service.proto"];
/// What OpenTelemetry sends metrics with; what it imports lies beside it.
const OTLP: &str = "opentelemetry/proto/collector/metrics/v1/metrics_service.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=trainwarden");
    println!("cargo::rerun-if-changed=opentelemetry");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let ours = protox::compile(OURS, ["."])?;
    std::fs::write(out.join("descriptors.bin"), ours.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(ours)?;
    let otlp = protox::compile([OTLP], ["."])?;
    std::fs::write(out.join("otlp_descriptors.bin"), otlp.encode_to_vec())?;
    // Comments there hold indented text, which rustdoc would run as examples.
    tonic_prost_build::configure().disable_comments(["."]).include_file("otlp.rs").compile_fds(otlp)?;
    Ok(())
}
