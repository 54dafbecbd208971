//! How far it is, on standard error, if that is a terminal.

use std::io::{IsTerminal, Write, stderr};

/// Packets between two looks.
const EVERY: u64 = 4096;
/// Columns of the bar.
const WIDTH: usize = 40;

/// A line that is written over.
pub(super) struct Progress {
    terminal: bool,
    shown: Option<u64>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: stderr().is_terminal(), shown: None }
    }

    /// Shows how many packets were put, and how much of the file that is (0–1), if it is known and worth a line.
    pub(super) fn show(&mut self, packets: u64, part: impl Fn() -> Option<f64>) {
        if !self.terminal || !packets.is_multiple_of(EVERY) {
            return;
        }
        let part = part();
        // Without a size every look is shown, with one every thousandth.
        let step = part.map_or(packets, |part| (part * 1000.0) as u64);
        if self.shown == Some(step) {
            return;
        }
        self.shown = Some(step);
        // A terminal that went away is no reason to stop.
        let _ = write!(stderr(), "\r{}", line(packets, part));
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn line(packets: u64, part: Option<f64>) -> String {
    let Some(part) = part else { return format!("{packets} packets") };
    let full = (part.clamp(0.0, 1.0) * WIDTH as f64) as usize;
    format!("[{}{}] {:5.1} %  {packets} packets", "#".repeat(full), ".".repeat(WIDTH - full), part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn the_bar_is_as_long_as_the_part() {
        assert_eq!(line(8192, Some(0.5)), format!("[{}{}]  50.0 %  8192 packets", "#".repeat(20), ".".repeat(20)));
        assert_eq!(line(1, Some(1.0)), format!("[{}] 100.0 %  1 packets", "#".repeat(40)));
        assert_eq!(line(7, None), "7 packets");
    }
}
