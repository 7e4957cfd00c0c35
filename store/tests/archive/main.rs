//! What comes out of the archive is what went in, whatever fails on the way.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

#[cfg(feature = "s3")]
mod bucket;
mod faulty;
mod log;
mod parts;
mod readers;
mod stored;
