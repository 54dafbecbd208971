//! Text with a unit → a number: durations, bandwidths, rates, shares, ports, prefixes.
//!
//! Each says what it could not read and what it would have read. Ranges that depend on the key are checked by the
//! caller.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Why a value cannot be read, and how to put it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong, with the value.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Complaint {
    /// A complaint.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A duration such as `120s`, `5m`, `1h 30m`, `250ms`.
///
/// # Errors
/// On anything else.
pub fn duration(text: &str) -> Result<Duration, Complaint> {
    humantime::parse_duration(text).map_err(|_| {
        Complaint::new(
            format!("`{text}` is not a duration"),
            "write a number and a unit, such as \"120s\", \"5m\" or \"250ms\"",
        )
    })
}

/// A number and what stands behind it; `None` when no finite, non-negative number stands in front.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let number: f64 = text[..end].replace('_', "").parse().ok()?;
    number.is_finite().then(|| (number, text[end..].trim()))
}

/// The factor of a decimal prefix and the unit behind it. `unit` in `kunit`, `Munit`, `Gunit`, `Tunit` or bare.
fn factor(text: &str, units: &[&str]) -> Option<f64> {
    let known = |rest: &str| units.contains(&rest);
    if known(text) {
        return Some(1.0);
    }
    let (prefix, rest) = text.split_at_checked(1)?;
    let factor = match prefix {
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return None,
    };
    known(rest.trim_start()).then_some(factor)
}

/// A bandwidth such as `10Gbit`, `500 Mbit/s`: bits per second, at least 1.
///
/// # Errors
/// On anything else.
pub fn bandwidth(text: &str) -> Result<u64, Complaint> {
    let bps = split(text).and_then(|(number, unit)| Some(number * factor(unit, &["bit", "bit/s", "bps"])?));
    match bps {
        Some(bps) if bps >= 1.0 => Ok(bps as u64),
        _ => Err(Complaint::new(
            format!("`{text}` is not a bandwidth"),
            "write bits per second with a unit, such as \"10Gbit\" or \"500Mbit\"",
        )),
    }
}

/// A rate of new flows such as `20k flows/s`: flows per second, above 0.
///
/// # Errors
/// On anything else, zero and bits per second included.
pub fn rate(text: &str) -> Result<f64, Complaint> {
    const HELP: &str = "write new flows per second, such as \"20k flows/s\"";
    let (number, unit) = split(text).ok_or_else(|| Complaint::new(format!("`{text}` is not a rate"), HELP))?;
    match factor(unit, &["flows/s", "flow/s"]) {
        Some(_) if number == 0.0 => {
            Err(Complaint::new(format!("`{text}` is no capacity at all"), "write a rate above 0"))
        }
        Some(factor) => Ok(number * factor),
        None if factor(unit, &["bit", "bit/s", "bps"]).is_some() => Err(Complaint::new(
            format!("`{text}`: a capacity in bits per second is not supported by this version"),
            HELP,
        )),
        None => Err(Complaint::new(format!("`{text}` is not a rate"), HELP)),
    }
}

/// A share such as `95%` or `0.95`: a fraction of 1. Not bounded above.
///
/// # Errors
/// On anything else.
pub fn share(text: &str) -> Result<f64, Complaint> {
    match split(text) {
        Some((number, "")) => Ok(number),
        Some((number, "%")) => Ok(number / 100.0),
        _ => Err(Complaint::new(
            format!("`{text}` is not a share"),
            "write a number from 0 to 1, or a percentage such as \"95%\"",
        )),
    }
}

/// A share per second such as `5%/s` or `0.05`.
///
/// # Errors
/// On anything else.
pub fn share_per_second(text: &str) -> Result<f64, Complaint> {
    let bare = text.trim().strip_suffix("/s").unwrap_or(text);
    share(bare).map_err(|_| {
        Complaint::new(format!("`{text}` is not a share per second"), "write a percentage per second, such as \"5%/s\"")
    })
}

/// A port: 1–65535.
///
/// # Errors
/// On anything else.
pub fn port(text: &str) -> Result<u16, Complaint> {
    // `u16` would take "+80" and "080", which are the same port under another name.
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    match text.parse() {
        Ok(port) if canonical => Ok(port),
        _ => Err(Complaint::new(format!("`{text}` is not a port"), "write a number from 1 to 65535")),
    }
}

/// A port range such as `8440-8449`, or one port: first and last, both included.
///
/// # Errors
/// On anything else, a backwards range included.
pub fn ports(text: &str) -> Result<(u16, u16), Complaint> {
    let Some((first, last)) = text.split_once('-') else {
        return port(text).map(|port| (port, port));
    };
    let bad = || {
        Complaint::new(
            format!("`{text}` is not a port range"),
            "write the first and the last port, such as \"8440-8449\"",
        )
    };
    let (first, last) = (port(first.trim()).map_err(|_| bad())?, port(last.trim()).map_err(|_| bad())?);
    if first > last {
        return Err(Complaint::new(
            format!("the port range `{text}` runs backwards"),
            format!("write \"{last}-{first}\""),
        ));
    }
    Ok((first, last))
}

/// A prefix such as `203.0.113.0/24`, or an address, which is a prefix of full length. Host bits must be zero.
///
/// # Errors
/// On anything else.
pub fn prefix(text: &str) -> Result<IpNet, Complaint> {
    let parsed =
        if text.contains('/') { text.parse().ok() } else { text.parse().ok().map(|addr: IpAddr| IpNet::from(addr)) };
    let Some(prefix): Option<IpNet> = parsed else {
        return Err(Complaint::new(
            format!("`{text}` is not an address prefix"),
            "write an address and a prefix length, such as \"203.0.113.10/32\" or \"2001:db8::/64\"",
        ));
    };
    if prefix.addr() != prefix.network() {
        let host = IpNet::from(prefix.addr());
        return Err(Complaint::new(
            format!("`{text}` has bits set behind its prefix length"),
            format!("write \"{}\" for the network, or \"{host}\" for the one address", prefix.trunc()),
        ));
    }
    Ok(prefix)
}

/// An IP address.
///
/// # Errors
/// On anything else.
pub fn address(text: &str) -> Result<IpAddr, Complaint> {
    text.parse().map_err(|_| {
        let help = match text.split_once('/') {
            Some((bare, _)) if bare.parse::<IpAddr>().is_ok() => format!("write \"{bare}\", without a prefix length"),
            _ => "write an IPv4 or IPv6 address, such as \"10.20.0.10\"".to_owned(),
        };
        Complaint::new(format!("`{text}` is not an address"), help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for (text, bps) in [("10Gbit", 10_000_000_000), ("500 Mbit/s", 500_000_000), ("1.5kbps", 1500), ("64bit", 64)] {
            assert_eq!(bandwidth(text), Ok(bps), "{text}");
        }
        for (text, flows) in
            [("20k flows/s", 20e3), ("1_500 flows/s", 1500.0), ("1 flow/s", 1.0), ("0.5kflows/s", 500.0)]
        {
            assert_eq!(rate(text), Ok(flows), "{text}");
        }
        for (text, expected) in [("95%", 0.95), ("0.95", 0.95), ("1", 1.0), ("150%", 1.5)] {
            assert_eq!(share(text), Ok(expected), "{text}");
        }
        assert_eq!(share_per_second("5%/s"), Ok(0.05));
        assert_eq!(share_per_second("0.05"), Ok(0.05));
        assert_eq!(ports("8440-8449"), Ok((8440, 8449)));
        assert_eq!(ports("443"), Ok((443, 443)));
        assert_eq!(prefix("203.0.113.10").map(|p| p.to_string()), Ok("203.0.113.10/32".to_owned()));
        assert_eq!(prefix("2001:db8::/64").map(|p| p.to_string()), Ok("2001:db8::/64".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let message = |complaint: Complaint| complaint.message;
        for text in ["", "12", "s", "-1s", "1 parsec"] {
            assert_eq!(duration(text).map_err(message), Err(format!("`{text}` is not a duration")));
        }
        for text in ["", "10", "Gbit", "-1Gbit", "10GB", "0bit", "1e9bit", "1..2bit", "10Ébit"] {
            assert_eq!(bandwidth(text).map_err(message), Err(format!("`{text}` is not a bandwidth")));
        }
        for text in ["", "20k", "flows/s", "-1 flows/s", "20 flows", "20 flows/min", "nan flows/s", "é"] {
            assert_eq!(rate(text).map_err(message), Err(format!("`{text}` is not a rate")));
        }
        assert_eq!(rate("0 flows/s").map_err(message), Err("`0 flows/s` is no capacity at all".to_owned()));
        for text in ["", "%", "-1", "1%%", "half"] {
            assert_eq!(share(text).map_err(message), Err(format!("`{text}` is not a share")));
        }
        for text in ["", "0", "65536", "-1", "+80", "080", " 80", "http"] {
            assert_eq!(port(text).map_err(message), Err(format!("`{text}` is not a port")));
        }
        assert_eq!(ports("9-7").map_err(|c| c.help), Err("write \"7-9\"".to_owned()));
        assert_eq!(ports("1-2-3").map_err(message), Err("`1-2-3` is not a port range".to_owned()));
        assert_eq!(
            prefix("203.0.113.7/24").map_err(|c| c.help),
            Err("write \"203.0.113.0/24\" for the network, or \"203.0.113.7/32\" for the one address".to_owned())
        );
        assert_eq!(
            prefix("203.0.113.0/33").map_err(message),
            Err("`203.0.113.0/33` is not an address prefix".to_owned())
        );
        assert_eq!(
            address("10.0.0.1/32").map_err(|c| c.help),
            Err("write \"10.0.0.1\", without a prefix length".to_owned())
        );
    }
}
