//! Faults of the configuration file, in words that hold nothing of its content.
//!
//! The file holds the store's token, and the errors of a parser quote the line or the value that
//! they are about. Errors go into the logs of runtimes and into the events of pods. So they are
//! described here by what weft knows itself, which is its own keys, and by the number of the line.
//! A key that weft does not know may be a value in the wrong place, and is shown only if it is a
//! known one misspelt.

use toml::de::{DeTable, DeValue, Error};

/// Most letters by which a misspelt key differs from the one that was meant.
const TYPING_ERRORS: usize = 2;

/// The fault for which the file with this text cannot be read.
pub(super) fn of_parser(text: &str, error: &Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = line_at(text, at);
    let message = error.message();
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(_) if message.starts_with("duplicate key") => {
            return format!("line {line} sets a key that is set already; remove one of the two");
        }
        Err(_) => {
            return format!(
                "line {line} is not TOML; a line is `[section]` or `key = value`, text in quotes"
            );
        }
    };
    let found = find(&table, at);
    let section = found.section();
    if message.starts_with("unknown field ") {
        let known = named(expected(message).unwrap_or_default());
        let written = found.path.last().copied().unwrap_or_default();
        return match known.iter().find(|known| is_misspelt(written, known)) {
            Some(meant) => format!(
                "line {line}: there is no key `{written}` {section}; did you mean `{meant}`?"
            ),
            None => format!(
                "line {line}: an unknown key {section}; known are {}",
                known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
            ),
        };
    }
    let key = found.path.join(".");
    match expected(message) {
        Some(expected) => format!("line {line}: {key}: expected {expected}"),
        None => format!("line {line}: {key} cannot be used"),
    }
}

/// A fault that was found in a value after parsing, with the line of the key that it begins with.
pub(super) fn of_value(text: &str, fault: &str) -> String {
    let key = fault.split([':', ' ']).next().unwrap_or_default();
    match DeTable::parse(text).ok().and_then(|table| place(table.get_ref(), key)) {
        Some(at) => format!("line {}: {fault}", line_at(text, at)),
        None => fault.to_owned(),
    }
}

/// The number of the line with the byte `at`, counted from 1.
fn line_at(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.split(|byte| *byte == b'\n').count()
}

/// The place of a key with its sections, such as `store.token`.
fn place(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) =
        key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    match (rest, value.get_ref()) {
        (None, _) => Some(name.span().start),
        (Some(rest), DeValue::Table(inner)) => place(inner, rest),
        (Some(_), _) => None,
    }
}

/// A key with the sections that it is in.
#[derive(Default)]
struct Found<'a> {
    path: Vec<&'a str>,
}

impl Found<'_> {
    /// The section in words.
    fn section(&self) -> String {
        match self.path.split_last() {
            Some((_, sections)) if !sections.is_empty() => format!("in [{}]", sections.join(".")),
            _ => "outside of all sections".to_owned(),
        }
    }
}

/// The key whose name or value has the byte `at`.
fn find<'a>(table: &'a DeTable<'_>, at: usize) -> Found<'a> {
    let mut found = Found::default();
    let mut table = Some(table);
    while let Some(within) = table.take() {
        // A section that is written in several places has the span of its first head; the entries
        // in it are looked at first.
        let inner = |value: &'a DeValue<'_>| match value {
            DeValue::Table(inner) if !find(inner, at).path.is_empty() => Some(inner),
            _ => None,
        };
        let through = within.iter().find_map(|(name, value)| {
            inner(value.get_ref()).map(|inner| (name.get_ref().as_ref(), Some(inner)))
        });
        let own = || {
            let has = |(name, value): &(&'a toml::Spanned<_>, &'a toml::Spanned<DeValue<'_>>)| {
                name.span().contains(&at) || value.span().contains(&at)
            };
            within.iter().find(has).map(|(name, _)| (name.get_ref().as_ref(), None))
        };
        if let Some((name, next)) = through.or_else(own) {
            found.path.push(name);
            table = next;
        }
    }
    found
}

/// The end of a message of serde's that says what it wanted. The value that it got comes before.
fn expected(message: &str) -> Option<&str> {
    let by_serde = ["invalid type: ", "invalid value: ", "invalid length ", "unknown "];
    by_serde.iter().find(|start| message.starts_with(**start))?;
    message.rsplit_once(", expected ").map(|(_, expected)| expected)
}

/// The names in back quotes.
fn named(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).collect()
}

/// Returns whether `written` differs from `meant` by a few letters only.
fn is_misspelt(written: &str, meant: &str) -> bool {
    let (written, meant): (Vec<char>, Vec<char>) =
        (written.chars().collect(), meant.chars().collect());
    if written.len().abs_diff(meant.len()) > TYPING_ERRORS || meant.len() <= TYPING_ERRORS {
        return false;
    }
    // The distance of Levenshtein, row by row.
    let mut row: Vec<usize> = (0..=meant.len()).collect();
    for (i, letter) in written.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in meant.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[meant.len()] <= TYPING_ERRORS
}

#[cfg(test)]
mod tests;
