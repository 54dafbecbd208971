//! A case as a file: a sentence, the state of the moment and the frame, and the configuration.
//!
//! ```text
//! A sentence that says what this is about, on as many lines as it needs.
//!
//! device client0
//! bypass
//! cached
//! link dx-1 down
//! slot burst-0 4 17 tier-0 0
//! slot burst-0 6 3 nowhere
//! frame 00005e0053010000…
//! ---
//! version = 1 …
//! ```

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::edge::PORTS;
use super::moment::Moment;
use crate::model::world::State;

/// Bytes of a frame on one line.
const LINE: usize = 40;

/// A case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it is about.
    pub sentence: String,
    /// The text of the configuration.
    pub config: String,
    /// The state of the moment.
    pub moment: Moment,
    /// Where the frame arrives.
    pub device: &'static str,
    /// The frame.
    pub frame: Vec<u8>,
}

impl Case {
    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\ndevice {}\n", self.sentence.trim(), self.device);
        if self.moment.bypass {
            text += "bypass\n";
        }
        if self.moment.cached {
            text += "cached\n";
        }
        for (link, state) in &self.moment.links {
            let word = match state {
                State::Up => "up",
                State::Down => "down",
                State::Out => "out",
            };
            let _ = writeln!(text, "link {link} {word}");
        }
        for ((class, v6, slot), place) in &self.moment.slots {
            let family = if *v6 { 6 } else { 4 };
            let place = place.as_ref().map_or("nowhere".to_owned(), |(tier, number)| format!("{tier} {number}"));
            let _ = writeln!(text, "slot {class} {family} {slot} {place}");
        }
        for line in self.frame.chunks(LINE) {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(text, "frame {hex}");
        }
        text + "---\n" + &self.config
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// When it is not such a text, with the line.
    pub fn parse(text: &str) -> Result<Self> {
        let (head, config) = text.split_once("\n---\n").context("no line `---` before the configuration")?;
        let (sentence, lines) = head.split_once("\n\n").context("no empty line behind the sentence")?;
        ensure!(!sentence.trim().is_empty(), "no sentence");
        let (mut moment, mut device, mut frame) = (Moment::default(), None, Vec::new());
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["device", name] => device = PORTS.iter().map(|port| port.name).find(|known| *known == name),
                ["bypass"] => moment.bypass = true,
                ["cached"] => moment.cached = true,
                ["link", link, word] => {
                    let state = match word {
                        "up" => State::Up,
                        "down" => State::Down,
                        "out" => State::Out,
                        _ => bail!("`{line}`: a link is up, down or out"),
                    };
                    moment.links.insert(link.to_owned(), state);
                }
                ["slot", class, family @ ("4" | "6"), slot, ref place @ ..] => {
                    let place = match place {
                        ["nowhere"] => None,
                        [tier, number] => Some(((*tier).to_owned(), number.parse().context("an endpoint's number")?)),
                        _ => bail!("`{line}`: a slot names a tier and a number, or nowhere"),
                    };
                    let slot = slot.parse().with_context(|| format!("`{line}`: a slot"))?;
                    moment.slots.insert((class.to_owned(), family == "6", slot), place);
                }
                ["frame", hex] => {
                    ensure!(hex.len() % 2 == 0 && hex.is_ascii(), "`{line}`: half a byte");
                    for at in (0..hex.len()).step_by(2) {
                        frame.push(u8::from_str_radix(&hex[at..at + 2], 16).with_context(|| format!("`{line}`"))?);
                    }
                }
                _ => bail!("`{line}`: not understood"),
            }
        }
        let device = device.context("no line `device` with a device of the host")?;
        ensure!(frame.len() >= 14, "a frame of {} bytes", frame.len());
        Ok(Self { sentence: sentence.to_owned(), config: config.to_owned(), moment, device, frame })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is not understood, with its name.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_survives_its_file() {
        let mut moment = Moment { bypass: true, cached: true, ..Moment::default() };
        moment.links.extend([("dx-1".to_owned(), State::Down), ("dx-2".to_owned(), State::Out)]);
        moment.slots.insert(("shop".to_owned(), true, 3), None);
        moment.slots.insert(("shop".to_owned(), false, 17), Some(("reserved".to_owned(), 1)));
        let case = Case {
            sentence: "Two lines\nof words.".to_owned(),
            config: "version = 1\n---\n".to_owned(),
            moment,
            device: PORTS[1].name,
            frame: (0..=255).collect(),
        };
        assert_eq!(Case::parse(&case.text()).unwrap(), case);
        for (from, to) in [("device", "devise"), ("frame 00", "frame 0"), ("down", "broken"), ("nowhere", "there")] {
            assert!(Case::parse(&case.text().replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
