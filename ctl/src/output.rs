//! Tables for people, JSON for programs. The only place that writes to standard output.

use std::io::Write;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;
use weft_cluster::config::StoreConfig;

use crate::Session;

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people; they may change between releases
    Table,
    /// JSON for programs
    Json,
}

/// Says on standard error that there is none of a thing, where a table would be nothing but titles.
pub(crate) fn note_if_none<T>(session: &Session, items: &[T], things: &str) {
    if !items.is_empty() || session.output == Format::Json {
        return;
    }
    let below = match &session.config.store {
        StoreConfig::Consul(consul) => format!("below {} ", consul.prefix),
        StoreConfig::Local { .. } => String::new(),
    };
    let store = session.cluster.store().describe();
    eprintln!("weftctl: there are no {things} {below}in the {store}");
}

/// Renders `items` as JSON, or as the table that `row` makes of each.
pub(crate) fn list<T: Serialize, const N: usize>(
    format: Format,
    items: &[T],
    titles: [&str; N],
    row: impl Fn(&T) -> [String; N],
) -> anyhow::Result<String> {
    match format {
        Format::Json => json(&items),
        Format::Table => Ok(table(titles, items.iter().map(row))),
    }
}

/// Renders `value` as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(value).context("print as JSON")?;
    text.push('\n');
    Ok(text)
}

/// Renders columns under their titles.
pub(crate) fn table<const N: usize>(
    titles: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut lines: Vec<[String; N]> = vec![titles.map(str::to_owned)];
    lines.extend(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number of things in words.
pub(crate) fn count(number: usize, thing: &str) -> String {
    let ending = match number {
        1 => "",
        _ if thing.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {thing}{ending}")
}

/// Width of a bar, in characters.
const BAR: u64 = 10;

/// A part of a whole as a bar: `[#####.....] 50 %`. Only nothing looks like nothing, and only all
/// like all.
pub(crate) fn bar(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    let of = |parts: u64| {
        let share = u128::from(part.min(whole)) * u128::from(parts) / u128::from(whole);
        let share = u64::try_from(share).unwrap_or(parts);
        if part > 0 { share.max(1) } else { 0 }
    };
    let filled = of(BAR);
    let marks: String = (0..BAR).map(|i| if i < filled { '#' } else { '.' }).collect();
    format!("[{marks}] {} %", of(100))
}

/// Writes the result of a command. A reader that has gone away (`| head`) is no failure.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_empty_for_nothing_and_full_for_all_alone() {
        assert_eq!(bar(0, 16), "[..........] 0 %");
        assert_eq!(bar(8, 16), "[#####.....] 50 %");
        assert_eq!(bar(16, 16), "[##########] 100 %");
        assert_eq!(bar(1, u64::MAX), "[#.........] 1 %");
        assert_eq!(bar(u64::MAX - 1, u64::MAX), "[#########.] 99 %");
        assert_eq!(bar(0, 0), "–");
    }

    #[test]
    fn counts_agree_with_their_nouns() {
        assert_eq!(count(1, "address"), "1 address");
        assert_eq!(count(0, "address"), "0 addresses");
        assert_eq!(count(2, "block"), "2 blocks");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ovnet1".to_owned(), "10000".to_owned()], ["x".to_owned(), "1".to_owned()]];
        let text = table(["NAME", "VNI"], rows.into_iter());
        assert_eq!(text, "NAME    VNI\novnet1  10000\nx       1\n");
    }
}
