//! The building blocks of a packet path, each loaded with its map filled, and the programs that are subtracted.

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::Key;
use aya::maps::xdp::DevMapHash;
use aya::maps::{HashMap, LpmTrie, MapData};
use aya::programs::ProgramFd;
use burst_tests_ebpf::Replay;
use bytemuck::Zeroable as _;

use super::cases::{MANY, To};
use super::replay::{Shape, Side, object, program};
use crate::golden::Verdict;
use crate::netns::Namespace;

/// A building block.
pub(super) struct Block {
    /// What it is.
    name: &'static str,
    /// The program.
    program: &'static str,
    /// Its map and how many entries that gets: none where the program alone says.
    map: Option<(&'static str, u32)>,
    /// Whether it is also measured over many flows.
    many: bool,
}

const fn block(name: &'static str, program: &'static str, map: Option<(&'static str, u32)>, many: bool) -> Block {
    Block { name, program, map, many }
}

/// All of them.
pub(super) const BLOCKS: [Block; 12] = [
    block("verdict", "key", None, false),
    block("array", "array", Some(("ARRAY", 0)), true),
    block("per-cpu-array", "per_cpu_array", Some(("PER_CPU", 0)), true),
    block("hash", "hash", Some(("HASH", MANY)), true),
    block("lru", "lru", Some(("LRU", MANY)), true),
    block("lpm-16", "lpm", Some(("LPM", 16)), true),
    block("lpm-1000", "lpm", Some(("LPM", 1000)), true),
    block("clock", "clock", None, false),
    block("coarse-clock", "coarse_clock", None, false),
    block("cpu", "cpu", None, false),
    block("head-pair", "head", None, false),
    block("redirect", "redirect", None, false),
];

impl Block {
    /// Name and shape of its cases.
    pub(super) fn cases(&self) -> Vec<(String, Shape)> {
        let flows: &[u32] = if self.many { &[1, MANY] } else { &[1] };
        let case = |&flows: &u32| {
            let name = format!("block/{}/{}", self.name, if flows > 1 { "64k" } else { "1" });
            (name, Shape { frame: To::Other.frame(), flows, side: Side::Source })
        };
        flows.iter().map(case).collect()
    }

    /// Whether it takes the same instructions at every time and in every boot: not what reads a clock, nor what looks up in
    /// a hash map with many entries.
    pub(super) const fn is_steady(&self) -> bool {
        !matches!(self.program.as_bytes(), b"hash" | b"lru" | b"clock" | b"coarse_clock")
    }

    /// What is subtracted: most blocks read the packet first.
    pub(super) const fn baseline(&self) -> &'static str {
        match self.program.as_bytes() {
            b"key" | b"redirect" => "nothing",
            _ => "key",
        }
    }

    /// Its verdict.
    pub(super) const fn verdict(&self) -> u32 {
        match self.program.as_bytes() {
            b"redirect" => Verdict::Redirect("").number(),
            _ => Verdict::Pass.number(),
        }
    }

    /// Loads the program and fills its map; a redirect goes to a device of `home`.
    pub(super) fn load(&self, file: &[u8], home: &Namespace) -> Result<ProgramFd> {
        let large = self.map.map(|(map, _)| map);
        let mut ebpf = object(file, &Replay::zeroed(), large.as_slice())?;
        match self.map {
            Some(("HASH" | "LRU", entries)) => {
                let map = ebpf.map_mut(self.map.map_or("", |(map, _)| map)).context("no such map")?;
                let mut map: HashMap<&mut MapData, u64, u64> = map.try_into()?;
                for flow in 0..entries {
                    map.insert(u64::from(address(flow)), 1, 0)?;
                }
            }
            Some(("LPM", entries)) => {
                let mut map: LpmTrie<&mut MapData, [u8; 4], u32> =
                    ebpf.map_mut("LPM").context("no such map")?.try_into()?;
                map.insert(&Key::new(16, [198, 18, 0, 0]), 1, 0)?;
                for number in 1..entries {
                    // Some of the clients' own, others not.
                    let [_, _, high, low] = number.to_be_bytes();
                    let prefix = if number % 4 == 0 { [198, 18, low, 0] } else { [10, high, low, 0] };
                    map.insert(&Key::new(24, prefix), 1, 0)?;
                }
            }
            _ => {}
        }
        if self.program == "redirect" {
            let device = home.ifindex("lo")?;
            let mut to: DevMapHash<&mut MapData> = ebpf.map_mut("TO").context("no map TO")?.try_into()?;
            home.run(|| to.insert(0, device, None, 0))??;
        }
        Ok(program(&mut ebpf, self.program)?.fd()?.try_clone()?)
    }
}

/// The address of a flow's client as the program reads it: `n` is added to its last 16 bits as the machine has them.
const fn address(flow: u32) -> u32 {
    u32::from_ne_bytes([198, 18, 0, 0]) + (flow << 16)
}
