//! JSON files.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{FileError, read, replace};

/// Value in the file at `path`; `None` if there is no file.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let Some(content) = read(path)? else { return Ok(None) };
    parse(path, &content).map(Some)
}

/// Value in `content`, which was read from `path`.
pub fn parse<T: DeserializeOwned>(path: &Path, content: &[u8]) -> Result<T, FileError> {
    serde_json::from_slice(content).map_err(|error| damaged(path, &error))
}

/// Puts `value` at `path` in one atomic step, indented for people.
pub fn store<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| damaged(path, &error))?;
    replace(path, &text)
}

/// Text of `value` in one line, for the file at `path`.
pub fn line<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, FileError> {
    let mut text = serde_json::to_vec(value).map_err(|error| damaged(path, &error))?;
    text.push(b'\n');
    Ok(text)
}

fn damaged(path: &Path, error: &serde_json::Error) -> FileError {
    FileError::Damaged { path: path.to_owned(), reason: error.to_string() }
}
