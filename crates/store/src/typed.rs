//! Records to values and back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Entry, StoreError};

/// The record in the value of `entry`. An error names the key.
pub fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| StoreError::BadValue { key: entry.key.clone(), reason: error.to_string() })
}

/// The value of `record`, as JSON.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::BadValue {
        key: "a new record".into(),
        reason: error.to_string(),
    })
}
