//! What a measurement prints.
#![allow(clippy::print_stdout, reason = "reports are this program's purpose")]

/// A goal for a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// The ratio must not be greater.
    AtMost(f64),
    /// The ratio must not be smaller.
    AtLeast(f64),
}

impl Goal {
    fn verdict(self, ratio: f64) -> String {
        let (sign, limit, reached) = match self {
            Self::AtMost(limit) => ("≤", limit, ratio <= limit),
            Self::AtLeast(limit) => ("≥", limit, ratio >= limit),
        };
        format!("{sign} {limit:.2} {}", if reached { "reached" } else { "MISSED" })
    }
}

/// Prints the heading of a table.
pub(crate) fn title(text: &str) {
    println!("\n{text}");
}

/// Prints one line: what was measured, weft's figure, the peer's, the ratio of the two and how it stands to the goal.
pub(crate) fn line(what: &str, unit: &str, weft: f64, peer: f64, goal: Option<Goal>) {
    let ratio = weft / peer;
    let goal = goal.map(|goal| goal.verdict(ratio)).unwrap_or_default();
    println!(
        "  {what:<28} weft {weft:>8.2} {unit:<6} peer {peer:>8.2} {unit:<6} ratio {ratio:>5.2}  {goal}"
    );
}
