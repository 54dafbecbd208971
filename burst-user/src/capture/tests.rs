//! Captures of every form, built here byte by byte, and what is read of them; and what is written, read again.

use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;

/// A capture as bytes, of one byte order.
struct Build {
    big: bool,
    bytes: Vec<u8>,
}

impl Build {
    fn new(big: bool) -> Self {
        Self { big, bytes: Vec::new() }
    }

    fn word(mut self, word: u32) -> Self {
        self.bytes.extend(if self.big { word.to_be_bytes() } else { word.to_le_bytes() });
        self
    }

    fn half(mut self, half: u16) -> Self {
        self.bytes.extend(if self.big { half.to_be_bytes() } else { half.to_le_bytes() });
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// The header of a pcap file (pcap-savefile(5)).
    fn pcap(self, magic: u32, link_type: u32) -> Self {
        self.word(magic).half(2).half(4).word(0).word(0).word(65_535).word(link_type)
    }

    /// A record of a pcap file.
    fn packet(self, seconds: u32, fraction: u32, data: &[u8], original: u32) -> Self {
        self.word(seconds).word(fraction).word(data.len() as u32).word(original).raw(data)
    }

    /// A block of a pcapng file: type, length, body padded to words, length.
    fn block(self, kind: u32, body: Self) -> Self {
        let mut body = body.bytes;
        body.resize(body.len().next_multiple_of(4), 0);
        let length = body.len() as u32 + 12;
        self.word(kind).word(length).raw(&body).word(length)
    }

    fn section(self) -> Self {
        let body = Self::new(self.big).word(0x1a2b_3c4d).half(1).half(0).word(u32::MAX).word(u32::MAX);
        self.block(0x0a0d_0d0a, body)
    }

    /// An interface: link type, `if_tsresol` (option 9), snapshot length.
    fn interface(self, link_type: u16, resolution: u8, snaplen: u32) -> Self {
        let body = Self::new(self.big).half(link_type).half(0).word(snaplen);
        let body = body.half(9).half(1).raw(&[resolution, 0, 0, 0]).half(0).half(0);
        self.block(1, body)
    }

    fn enhanced(self, interface: u32, stamp: u64, data: &[u8], original: u32) -> Self {
        let body = Self::new(self.big).word(interface).word((stamp >> 32) as u32).word(stamp as u32);
        self.block(6, body.word(data.len() as u32).word(original).raw(data))
    }

    fn simple(self, data: &[u8], original: u32) -> Self {
        let body = Self::new(self.big).word(original).raw(data);
        self.block(3, body)
    }
}

type Row = (Time, Vec<u8>, usize);

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

fn read(path: &Path) -> (Vec<Row>, Result<(), CaptureError>) {
    let mut rows = Vec::new();
    let mut reader = match Reader::open(path) {
        Ok(reader) => reader,
        Err(error) => return (rows, Err(error)),
    };
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => rows.push((packet.time, packet.frame.to_vec(), packet.original)),
            Ok(None) => return (rows, Ok(())),
            Err(error) => return (rows, Err(error)),
        }
    }
}

fn at(seconds: u32, nanos: u32) -> Time {
    Time { seconds, nanos }
}

const FRAME: &[u8] = b"0123456789abXXpayload";

#[test]
fn pcap_of_either_byte_order_and_resolution_is_read() {
    for (big, magic, time) in [
        (false, 0xa1b2_c3d4, at(7, 5_000)),
        (true, 0xa1b2_c3d4, at(7, 5_000)),
        (false, 0xa1b2_3c4d, at(7, 5)),
        (true, 0xa1b2_3c4d, at(7, 5)),
    ] {
        let built = Build::new(big).pcap(magic, 1).packet(7, 5, FRAME, 21).packet(8, 0, &FRAME[..16], 1500);
        let file = file(&built.bytes);
        let (rows, end) = read(file.path());
        end.unwrap_or_else(|error| panic!("{magic:#x}: {error}"));
        assert_eq!(rows, [(time, FRAME.to_vec(), 21), (at(8, 0), FRAME[..16].to_vec(), 1500)], "{magic:#x} {big}");
    }
}

#[test]
fn pcapng_with_several_sections_interfaces_and_resolutions_is_read() {
    for big in [false, true] {
        let built = Build::new(big)
            .section()
            .interface(1, 6, 0)
            .interface(1, 9, 0)
            // 2⁻¹⁰ of a second.
            .interface(1, 0x8a, 0)
            .block(5, Build::new(big).word(0).word(0).word(0))
            .enhanced(0, 3_000_001, FRAME, 21)
            .enhanced(1, 3_000_000_001, FRAME, 22)
            .enhanced(2, 3 * 1024 + 512, FRAME, 21)
            .section()
            .interface(1, 6, 18)
            .simple(&FRAME[..18], 21)
            .enhanced(0, 0, &FRAME[..1], 1);
        let file = file(&built.bytes);
        let (rows, end) = read(file.path());
        end.unwrap_or_else(|error| panic!("{error}"));
        let wanted = [
            (at(3, 1000), FRAME.to_vec(), 21),
            (at(3, 1), FRAME.to_vec(), 22),
            (at(3, 500_000_000), FRAME.to_vec(), 21),
            (at(0, 0), FRAME[..18].to_vec(), 21),
            (at(0, 0), FRAME[..1].to_vec(), 1),
        ];
        assert_eq!(rows, wanted);
    }
}

#[test]
fn what_is_not_ethernet_gets_a_header() {
    let four = [&[0x45, 0][..], &[7; 18]].concat();
    let six = [&[0x60, 0][..], &[7; 38]].concat();
    let sll = |protocol: [u8; 2]| [&[0; 14][..], &protocol, &four].concat();
    let sll2 = |protocol: [u8; 2]| [&protocol[..], &[0; 18], &four].concat();
    for (link_type, packet, ethertype, rest) in [
        (101, four.clone(), [8, 0], &four),
        (101, six.clone(), [0x86, 0xdd], &six),
        (228, four.clone(), [8, 0], &four),
        (229, six.clone(), [0x86, 0xdd], &six),
        (113, sll([8, 0]), [8, 0], &four),
        (276, sll2([8, 0]), [8, 0], &four),
        // Bits above the sixteenth tell of frame check sequences (pcap-savefile(5)).
        (0x1400_0065, four.clone(), [8, 0], &four),
    ] {
        let built = Build::new(false).pcap(0xa1b2_c3d4, link_type).packet(0, 0, &packet, packet.len() as u32 + 5);
        let file = file(&built.bytes);
        let (rows, end) = read(file.path());
        end.unwrap_or_else(|error| panic!("{link_type}: {error}"));
        let frame = &rows[0].1;
        assert_eq!((&frame[12..14], &frame[14..]), (&ethertype[..], &rest[..]), "{link_type}");
        assert_eq!(rows[0].2, frame.len() + 5, "{link_type}");
    }
}

#[test]
fn what_cannot_be_read_is_told_apart() {
    let whole = || Build::new(false).pcap(0xa1b2_c3d4, 1).packet(0, 0, FRAME, 21);
    let one = Build::new(false).section().interface(1, 6, 0).enhanced(0, 0, FRAME, 21);
    let size = |build: &Build| build.bytes.len();
    for (bytes, packets, said) in [
        (vec![], 0, "is neither pcap nor pcapng: it is empty"),
        (b"GET / HTTP/1.1\r\n\r\n and so on".to_vec(), 0, "it does not begin as one"),
        (b"abc".to_vec(), 0, "it does not begin as one"),
        ([&[0x1f, 0x8b, 8][..], &[0; 40]].concat(), 0, "gunzip it first"),
        (whole().bytes[..size(&whole()) - 1].to_vec(), 0, "ends in the middle of packet 1;"),
        (whole().raw(&[0; 5]).bytes, 1, "ends in the middle of packet 2;"),
        (whole().packet(0, 0, FRAME, 21).bytes[..size(&whole()) + 20].to_vec(), 1, "ends in the middle of packet 2;"),
        (one.bytes[..size(&one) - 2].to_vec(), 0, "ends in the middle of packet 1;"),
        (whole().word(0).word(0).word(1 << 30).word(1 << 30).raw(&[0; 64]).bytes, 1, "is damaged at packet 2"),
        (whole().packet(0, 0, FRAME, 1 << 30).bytes, 1, "claims to have had 1073741824 bytes"),
        (Build::new(false).pcap(0xa1b2_c3d4, 105).packet(0, 0, FRAME, 21).bytes, 0, "packet 1 has link type 105;"),
        (Build::new(false).section().enhanced(0, 0, FRAME, 21).bytes, 0, "interface 0, which is not described"),
        (Build::new(false).section().interface(1, 20, 0).bytes, 0, "a time resolution of 0x14"),
    ] {
        let file = file(&bytes);
        let (rows, end) = read(file.path());
        let error = end.expect_err(said).to_string();
        assert!(error.contains(said) && error.contains(&file.path().display().to_string()), "{said}: {error}");
        assert_eq!(rows.len(), packets, "{said}");
    }
    let (_, end) = read(Path::new("/nonexistent/x.pcap"));
    assert!(end.unwrap_err().to_string().starts_with("cannot read the capture /nonexistent/x.pcap: No such file"));
    let (_, end) = read(Path::new("/"));
    assert!(end.unwrap_err().to_string().contains("directory"));
}

#[test]
fn what_is_written_is_read_again() {
    for nanos in [true, false] {
        let file = NamedTempFile::new().expect("a file");
        let mut writer = Writer::create(file.path()).expect("made");
        writer.nanos(nanos);
        let long = vec![9; 70_000];
        for (time, frame, original) in [(at(1, 2_000), FRAME, 1500), (at(u32::MAX, 999_999_000), &long, 70_000)] {
            writer.packet(time, frame, original).expect("written");
        }
        writer.finish().expect("finished");
        let mut reader = Reader::open(file.path()).expect("opened");
        reader.next_packet().expect("read");
        assert_eq!(reader.nanos(), nanos);
        let (rows, end) = read(file.path());
        end.expect("whole");
        let wanted = [(at(1, 2_000), FRAME.to_vec(), 1500), (at(u32::MAX, 999_999_000), long.clone(), 70_000)];
        assert_eq!(rows, wanted);
    }
    let empty = NamedTempFile::new().expect("a file");
    Writer::create(empty.path()).expect("made").finish().expect("finished");
    let (rows, end) = read(empty.path());
    assert!(rows.is_empty() && end.is_ok());
    let error = Writer::create(Path::new("/nonexistent/out.pcap")).err().expect("refused").to_string();
    assert!(error.starts_with("cannot write /nonexistent/out.pcap: No such file"), "{error}");
}

#[test]
fn records_larger_than_the_buffer_are_read() {
    let large = vec![3; 3 << 20];
    let built = Build::new(false).pcap(0xa1b2_c3d4, 1).packet(0, 0, &large, 1).packet(1, 0, FRAME, 21);
    let file = file(&built.bytes);
    let (rows, end) = read(file.path());
    end.expect("whole");
    assert_eq!((rows[0].1.len(), rows[0].2, &rows[1].1[..]), (3 << 20, 3 << 20, FRAME));
}

proptest! {
    #[test]
    fn a_damaged_capture_is_an_error_or_less_of_it(
        cut in 0usize..400, flips in prop::collection::vec((0usize..400, any::<u8>()), 0..6), ng: bool, big: bool,
    ) {
        let built = if ng {
            Build::new(big).section().interface(1, 6, 0).enhanced(0, 9, FRAME, 21).simple(FRAME, 21).section()
                .interface(113, 9, 0).enhanced(0, 9, FRAME, 21)
        } else {
            Build::new(big).pcap(0xa1b2_c3d4, 1).packet(7, 5, FRAME, 21).packet(8, 0, FRAME, 21)
        };
        let mut bytes = built.bytes;
        for (at, byte) in flips {
            if let Some(place) = bytes.get_mut(at) {
                *place ^= byte;
            }
        }
        bytes.truncate(bytes.len().min(cut.max(1)));
        let file = file(&bytes);
        // Whatever comes of it, it comes to an end.
        let (rows, _) = read(file.path());
        prop_assert!(rows.len() <= bytes.len());
    }
}
