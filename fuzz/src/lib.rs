//! What is fuzzed: for each kind of text or file that somebody else writes, a function that reads it and checks what must hold
//! whatever it says. `burst-user/tests/fuzz_corpus.rs` runs the same functions over the committed corpus.

use std::io::Cursor;
use std::path::Path;

use burst::capture::Reader;
use burst::config::model::Combine;
use burst::observe::answers;
use burst::policy::compile::compile;
use burst::policy::ids::{Ids, Names};

/// An error is for people and for one line of a log: whatever it quotes, it stays so short (bytes).
const LONGEST_ERROR: usize = 2000;

/// A configuration. Every text is refused in words or accepted; what is accepted compiles, to the same each time.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match burst::config::parse(text, "fuzz.toml") {
        Err(refused) => {
            let words = refused.to_string();
            assert!(words.contains("error"), "refused without an error: {words:?}");
        }
        Ok(loaded) => {
            let _ = loaded.warnings.to_string();
            let ids = Ids::assign(&loaded.config, &Names::default()).expect("a valid configuration has ids");
            let compiled = compile(&loaded.config, &ids).expect("a valid configuration compiles");
            let again = burst::config::parse(text, "fuzz.toml").expect("what was accepted is accepted");
            assert!(again.config == loaded.config, "the same text means the same");
            assert!(compile(&again.config, &ids).as_ref() == Ok(&compiled), "and compiles to the same");
        }
    }
}

/// The first line of the data is what is asked for, its words parted by spaces; the rest is the answer. What is asked
/// for is the operator's: no longer than names are, and printable.
fn question(data: &[u8]) -> Option<(Vec<&str>, &str)> {
    let (question, answer) = std::str::from_utf8(data).ok()?.split_once('\n')?;
    let sane = question.len() <= 200 && !question.chars().any(char::is_control);
    sane.then(|| (question.split(' ').collect(), answer))
}

fn short(error: &str) {
    assert!(error.len() <= LONGEST_ERROR, "an error of {} bytes: {error}", error.len());
    assert!(!error.chars().any(char::is_control), "an error with control characters: {error:?}");
}

/// An answer to HAProxy's `show stat`; asked for are a proxy, a server and a field.
pub fn haproxy(data: &[u8]) {
    let Some((words, answer)) = question(data) else { return };
    let [proxy, server, field] = words[..] else { return };
    match answers::haproxy(answer, proxy, server, field) {
        // A value is somewhere in the answer, as one cell of it.
        Ok(value) => {
            let cells = answer.split([',', '\n', '\r']).map(|cell| cell.trim_matches('"'));
            let same = |cell: &str| cell.parse::<f64>().is_ok_and(|cell| cell.to_bits() == value.to_bits());
            assert!(cells.into_iter().any(same) || answer.contains('"'), "{value} is nowhere in {answer:?}");
        }
        Err(error) => short(&error),
    }
}

/// A text in the Prometheus format; asked for is a metric, then how samples are combined, then labels, `name=value`.
pub fn metrics(data: &[u8]) {
    let Some((words, answer)) = question(data) else { return };
    let [metric, combine, ref labels @ ..] = words[..] else { return };
    let combine = match combine {
        "sum" => Combine::Sum,
        "max" => Combine::Max,
        _ => Combine::Avg,
    };
    let label = |word: &&str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let labels: Vec<_> = labels.iter().filter_map(label).collect();
    match answers::metrics(answer, metric, &labels, combine) {
        Ok(value) => {
            assert!(value.is_some(), "there was a sample, and there is no value");
            let other = answers::metrics(&format!("{answer}\n# EOF\n"), metric, &labels, combine);
            let bits = |value: Result<Option<f64>, String>| value.map(|value| value.map(f64::to_bits));
            assert_eq!(bits(other), bits(Ok(value)), "a comment behind it changes nothing");
        }
        Err(error) => short(&error),
    }
}

/// A capture, pcap or pcapng. It comes to an end, with fewer packets than bytes, and none is longer than what a record may be.
pub fn capture(data: &[u8]) {
    let read = || {
        let mut reader = match Reader::of(Path::new("fuzz.pcap"), Cursor::new(data.to_vec())) {
            Ok(reader) => reader,
            Err(error) => return (Vec::new(), Some(error.to_string())),
        };
        let mut packets = Vec::new();
        loop {
            match reader.next_packet() {
                Ok(Some(packet)) => {
                    assert!(packet.frame.len() <= data.len() + 14, "a frame of {} bytes", packet.frame.len());
                    packets.push((packet.frame.to_vec(), packet.original));
                }
                Ok(None) => return (packets, None),
                Err(error) => return (packets, Some(error.to_string())),
            }
            assert!(packets.len() <= data.len(), "more packets than bytes");
        }
    };
    let (packets, error) = read();
    if let Some(error) = &error {
        short(error);
    }
    assert!(read() == (packets, error), "the same bytes are read alike");
}
