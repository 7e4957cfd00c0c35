//! How detector state is written: one version byte, then MessagePack with field names.
//!
//! A self-describing format, because evidence leaves out what it does not know.

use serde::{Serialize, de::DeserializeOwned};

use crate::DetectError;

/// Writes `state` under `version`.
pub(crate) fn save<T: Serialize>(detector: &'static str, version: u8, state: &T) -> Result<Vec<u8>, DetectError> {
    let mut bytes = vec![version];
    rmp_serde::encode::write_named(&mut bytes, state).map_err(|source| DetectError::Snapshot { detector, source })?;
    Ok(bytes)
}

/// Reads what [`save`] wrote under the same version.
pub(crate) fn load<T: DeserializeOwned>(detector: &'static str, version: u8, bytes: &[u8]) -> Result<T, DetectError> {
    let wrong = || DetectError::Restore { detector, version };
    let (first, body) = bytes.split_first().ok_or_else(wrong)?;
    if *first != version {
        return Err(wrong());
    }
    rmp_serde::from_slice(body).map_err(|_| wrong())
}
