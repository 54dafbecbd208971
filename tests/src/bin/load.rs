//! What loading the object takes, a line per policy: how long, how many instructions the verifier looked at, and how many it
//! left.

use std::time::Instant;

use anyhow::Result;
use burst_common::policy::{ROLE_CLIENT, ROLE_LINK};
use burst_tests::bench::policies::policies;
use burst_tests::golden::{Bed, Entry};
use burst_tests::topology::{CLIENT_DEVICE, DX_DEVICE};

fn main() -> Result<()> {
    for (prefixes, config) in policies() {
        let mut bed = Bed::new(&config)?;
        for (device, role, link, name) in [(CLIENT_DEVICE, ROLE_CLIENT, 0, "client"), (DX_DEVICE, ROLE_LINK, 1, "link")]
        {
            let begun = Instant::now();
            let info = bed.instance(Entry { device, role, link })?.program().info()?;
            println!(
                "load: {prefixes} prefixes, {name}: {} ms, {} verified, {} left",
                begun.elapsed().as_millis(),
                info.verified_instruction_count().unwrap_or_default(),
                info.size_translated().unwrap_or_default() / 8,
            );
        }
    }
    Ok(())
}
