//! What `explain` and `replay` have in common: which instance is asked, and what is assumed.

use std::path::PathBuf;

use clap::Args;

use crate::config::{self, Loaded};
use crate::exit::Failure;
use crate::inspect::{Request, Specimen, open};

use super::order::parse_percent;

/// Which instance is asked.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// The configuration to ask about; no daemon is needed. If the daemon runs just this, live maps are copied.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory of a daemon's pins; that of the configuration, or /run/burst/bpf, when it is left out.
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// Device that packets arrive on; it need not exist where only a configuration is asked. The first client device when it
    /// is left out.
    #[arg(long = "in", value_name = "DEVICE")]
    pub device: Option<String>,
    /// What share of a class's flows is to be in the cloud, for example promo=40%; they go to its first tier.
    #[arg(long, value_name = "CLASS=PERCENT", value_parser = parse_offsite)]
    pub offsite: Vec<(String, f64)>,
    /// MAC address of a link's next hop, for example dx-1=02:00:00:00:00:01.
    #[arg(long, visible_alias = "neighbor", value_name = "LINK=MAC", value_parser = parse_neighbour)]
    pub neighbour: Vec<(String, [u8; 6])>,
}

impl AskArgs {
    /// Opens the instance. The calling thread may be in another network namespace afterwards.
    ///
    /// # Errors
    /// When the configuration is refused, or there is nothing to ask.
    pub(super) fn open(&self, any_mac: bool) -> Result<Specimen, Failure> {
        let loaded = self.config.as_deref().map(config::load).transpose()?;
        let config = self.config.as_deref().zip(loaded.as_ref().map(|Loaded { config, .. }| config));
        if let Some((_, config)) = config {
            for (name, share) in &self.offsite {
                let class = config.classes.iter().find(|class| class.name == *name);
                let most = class.and_then(|class| class.burst.as_ref()).map_or(1.0, |burst| burst.max_offsite_share);
                if *share > most + 1e-9 {
                    let (class, most) = (name.as_str(), super::render::percent(most));
                    tracing::warn!(
                        class,
                        max_offsite_share = most,
                        "--offsite is more than the daemon would send away"
                    );
                }
            }
        }
        Ok(open(&Request {
            config,
            pin_dir: self.pin_dir.as_deref(),
            device: self.device.as_deref(),
            any_mac,
            offsite: &self.offsite,
            neighbours: &self.neighbour,
        })?)
    }
}

fn parse_offsite(text: &str) -> Result<(String, f64), String> {
    let (class, share) = named(text, "CLASS=PERCENT, for example promo=40%")?;
    let share = match share.trim().parse::<f64>() {
        // Here a plain number can only be meant as percent, but for those below one.
        Ok(number) if number > 0.0 && number < 1.0 => Err(format!("write {number}% or {}%", number * 100.0)),
        Ok(_) => parse_percent(&format!("{}%", share.trim())),
        Err(_) => parse_percent(share),
    };
    Ok((class, share?))
}

fn parse_neighbour(text: &str) -> Result<(String, [u8; 6]), String> {
    const EXAMPLE: &str = "LINK=MAC, for example dx-1=02:00:00:00:00:01";
    let (link, mac) = named(text, EXAMPLE)?;
    let bytes: Option<Vec<u8>> = mac
        .split([':', '-'])
        .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten())
        .collect();
    let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    match mac {
        // The lowest bit of the first byte marks a group (IEEE 802, section 8.2).
        Some(mac) if mac[0] & 1 != 0 || mac == [0; 6] => Err("it is not the address of one host".to_owned()),
        Some(mac) => Ok((link, mac)),
        None => Err(format!("a MAC address has six bytes in hexadecimal; write {EXAMPLE}")),
    }
}

fn named<'a>(text: &'a str, form: &str) -> Result<(String, &'a str), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value)),
        _ => Err(format!("write {form}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent_with_and_without_the_sign() {
        for (text, share) in
            [("promo=40%", 0.4), ("promo=40", 0.4), ("promo=0", 0.0), ("promo=100", 1.0), ("promo=0.4%", 0.004)]
        {
            assert_eq!(parse_offsite(text), Ok(("promo".to_owned(), share)), "{text}");
        }
        for (text, said) in [
            ("promo", "write CLASS=PERCENT"),
            ("=40%", "write CLASS=PERCENT"),
            ("promo=", "write it with a percent sign"),
            ("promo=0.4", "write 0.4% or 40%"),
            ("promo=101", "between 0% and 100%"),
            ("promo=-1%", "between 0% and 100%"),
            ("promo=NaN", "between 0% and 100%"),
            ("promo=many%", "write a number"),
        ] {
            let error = parse_offsite(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_next_hop_is_one_host() {
        let mac = [2, 0, 0, 0xab, 0, 1];
        for text in ["dx-1=02:00:00:ab:00:01", "dx-1=02-00-00-AB-00-01"] {
            assert_eq!(parse_neighbour(text), Ok(("dx-1".to_owned(), mac)), "{text}");
        }
        for text in ["dx-1", "dx-1=", "dx-1=02:00:00:00:00", "dx-1=2:0:0:0:0:1", "dx-1=02:00:00:00:00:0g"] {
            assert!(parse_neighbour(text).expect_err(text).contains("write LINK=MAC"), "{text}");
        }
        for text in ["dx-1=ff:ff:ff:ff:ff:ff", "dx-1=00:00:00:00:00:00"] {
            assert!(parse_neighbour(text).expect_err(text).contains("one host"), "{text}");
        }
    }
}
