//! Results: for people, for programs, and as a picture.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::statistics::Spread;

/// What was measured of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name.
    pub case: String,
    /// Nanoseconds over the program that does nothing; on a wire, of all that is done for a packet.
    pub net: Spread,
    /// Nanoseconds of the program that does nothing, with what restores the packet.
    pub base: Option<Spread>,
    /// Net nanoseconds it may cost.
    pub budget: Option<f64>,
    /// Instructions of a packet, exactly, over those of the program that does nothing.
    pub instructions: Option<u32>,
}

impl Line {
    /// Whether it costs more than it may.
    fn over(&self) -> bool {
        self.budget.is_some_and(|budget| self.net.median > budget)
    }
}

/// The table for people.
#[must_use]
pub fn table(lines: &[Line]) -> String {
    let mut text = String::new();
    let width = lines.iter().map(|line| line.case.len()).max().unwrap_or_default().max(4);
    let _ = writeln!(text, "{:width$}   net ns     p25..p75     baseline   budget", "case");
    for line in lines {
        let Spread { median, p25, p75 } = line.net;
        let _ = write!(text, "{:width$}  {median:7.1}  {p25:6.1}..{p75:<6.1}  ", line.case);
        let _ = match line.base {
            Some(base) => write!(text, "{:7.1}", base.median),
            None => write!(text, "       "),
        };
        if let Some(budget) = line.budget {
            let _ = write!(text, "  {budget:7.1}  {}", if line.over() { "OVER" } else { "ok" });
        }
        text.push('\n');
    }
    let budgets = lines.iter().filter(|line| line.budget.is_some()).count();
    let over = lines.iter().filter(|line| line.over()).count();
    let _ = writeln!(text, "{over} of {budgets} budgets exceeded");
    text
}

/// Writes the results as a list of objects.
///
/// # Errors
/// When the file cannot be written.
pub fn json(lines: &[Line], file: &Path) -> Result<()> {
    let object = |line: &Line| -> Value {
        json!({
            "case": line.case,
            "net_ns": tenths(line.net.median),
            "p25": tenths(line.net.p25),
            "p75": tenths(line.net.p75),
            "budget_ns": line.budget.map(tenths),
            "insns": line.instructions,
        })
    };
    let mut text = serde_json::to_string_pretty(&lines.iter().map(object).collect::<Vec<_>>())?;
    text.push('\n');
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// Nothing finer was measured.
fn tenths(ns: f64) -> f64 {
    (ns * 10.0).round() / 10.0
}
