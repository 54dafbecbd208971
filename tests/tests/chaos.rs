//! A minute of faults by chance under real traffic; `cargo xtask chaos` runs longer, with other seeds.

use std::time::Duration;

use anyhow::Result;
use burst_tests::chaos::{self, Settings};

/// Every run of the tests has the same schedule; other seeds are `cargo xtask chaos`'s.
const SEED: u64 = 20_260_101;

#[test]
fn a_minute_of_faults_by_chance_breaks_no_connection_and_no_payment_leaves() -> Result<()> {
    let settings = Settings { seed: SEED, length: Duration::from_secs(60), sabotage: false };
    let report = chaos::run(&settings)?;
    let text = report.text(&settings);
    println!("{text}");
    assert!(report.is_good(), "{text}");
    assert!(report.done.shares > 50 && report.done.kills > 2 && report.account.bodies > 20, "{text}");
    Ok(())
}

#[test]
fn what_breaks_and_what_leaks_is_seen_and_told() -> Result<()> {
    let settings = Settings { seed: SEED, length: Duration::from_secs(5), sabotage: true };
    let report = chaos::run(&settings)?;
    let account = &report.account;
    // Their connections were in the cloud: the local stack resets them.
    assert!(account.broken.iter().any(|text| text.contains("Reset")), "{account}");
    assert!(account.strays.iter().any(|text| text.starts_with("local reset")), "{account}");
    assert_eq!(account.leaked, 1, "{account}");
    let text = report.text(&settings);
    for wanted in [&format!("seed {SEED}"), "Share(", "burst wrote, in the end"] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    Ok(())
}
