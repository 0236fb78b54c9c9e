//! Output of a measurement.
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

/// Prints one line: what was measured, weft's figure, the peer's, the ratio of the two and how it
/// stands to the goal.
pub(crate) fn line(what: &str, unit: &str, weft: f64, peer: f64, goal: Option<Goal>) {
    compare(what, unit, ("weft", weft), ("peer", peer), goal);
}

/// Prints one line: two figures, what they are of, their ratio and how it stands to the goal.
pub(crate) fn compare(
    what: &str,
    unit: &str,
    (name, figure): (&str, f64),
    (other_name, other): (&str, f64),
    goal: Option<Goal>,
) {
    let ratio = figure / other;
    let digits = if ratio < 0.1 { 4 } else { 2 };
    let goal = goal.map(|goal| goal.verdict(ratio)).unwrap_or_default();
    println!(
        "  {what:<28} {name} {figure:>8.2} {unit:<6} {other_name} {other:>8.2} {unit:<6} \
         ratio {ratio:>6.digits$}  {goal}"
    );
}

/// Prints one line: a figure without a peer, and how it stands to the goal.
pub(crate) fn single(what: &str, unit: &str, figure: f64, goal: Goal) {
    println!("  {what:<28} weft {figure:>8.0} {unit:<6} {}", goal.verdict(figure));
}

/// Prints one line: a figure that needs decimals, and how it stands to the goal, if there is one.
pub(crate) fn figure(what: &str, unit: &str, figure: f64, goal: Option<Goal>) {
    let goal = goal.map(|goal| goal.verdict(figure)).unwrap_or_default();
    println!("  {what:<58} {figure:>9.2} {unit:<6} {goal}");
}

/// Prints one line that is not a figure.
pub(crate) fn note(text: &str) {
    println!("  {text}");
}
