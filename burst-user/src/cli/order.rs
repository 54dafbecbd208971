//! `burst override`: an order by hand, with an end.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::api::Client;
use crate::api::types::{Override, OverrideRequest, OverrideResponse};
use crate::exit::{Exit, Failure};

use super::render::{percent, span};

/// Arguments of `burst override`. An order is not written down: it ends when the daemon does.
#[derive(Clone, Debug, Args)]
pub struct OrderArgs {
    /// The class.
    pub class: String,
    /// Share of new flows that leaves, in percent; max_offsite_share still bounds it.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = parse_percent,
        allow_hyphen_values = true,
        required_unless_present = "clear"
    )]
    pub offsite: Option<f64>,
    /// When the order ends by itself, 1s to 7d, for example 30m or 2h. It also ends when the daemon ends or restarts.
    #[arg(
        long = "for",
        value_name = "TIME",
        value_parser = parse_lasting,
        allow_hyphen_values = true,
        required_unless_present = "clear"
    )]
    pub lasting: Option<Duration>,
    /// Why; it goes on record.
    #[arg(long, value_name = "TEXT", required_unless_present = "clear")]
    pub reason: Option<String>,
    /// End the order now.
    #[arg(long, conflicts_with_all = ["offsite", "lasting", "reason"])]
    pub clear: bool,
    /// The daemon's configuration, which names its socket.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Gives or ends an order, and prints what is in force then.
///
/// # Errors
/// When a value is out of its range, or the daemon refuses or does not answer.
pub async fn order(client: &Client, args: &OrderArgs, json: bool) -> Result<(), Failure> {
    let response = match request(args)? {
        Some(request) => client.set_override(&args.class, &request).await?,
        None => client.clear_override(&args.class).await?,
    };
    if json { super::print_json(&response) } else { super::print(&said(&response)) }
}

/// The order; `None` when it is to end.
fn request(args: &OrderArgs) -> Result<Option<OverrideRequest>, Failure> {
    let (Some(offsite), Some(lasting), Some(reason)) = (args.offsite, args.lasting, &args.reason) else {
        return Ok(None);
    };
    let request = OverrideRequest { offsite, for_s: lasting.as_secs(), reason: reason.clone() };
    request.check().map_err(|error| Exit::Usage.because(error))?;
    Ok(Some(request))
}

fn said(response: &OverrideResponse) -> String {
    let class = &response.class;
    let Some(now) = &response.ordered else {
        return match &response.previous {
            Some(former) => format!("{class}: the order ({}) is ended; burst decides again\n", order_text(former)),
            None => format!("{class}: there was no order; burst decides\n"),
        };
    };
    let left = span(now.remaining_s as f64);
    let most = response.max_offsite.filter(|most| *most < now.offsite);
    let share = most.unwrap_or(now.offsite);
    let mut text = format!(
        "{class}: {} of new flows leave for {left}, by order of uid {}: {}\n",
        percent(share),
        now.uid,
        now.reason
    );
    if let Some(most) = most {
        text += &format!("  asked for {}, max_offsite_share allows {}\n", percent(now.offsite), percent(most));
    }
    if let Some(former) = &response.previous {
        text += &format!("  in place of the order before: {}\n", order_text(former));
    }
    text
}

/// An order that was in force.
fn order_text(order: &Override) -> String {
    format!(
        "{} for another {}, by uid {}: {}",
        percent(order.offsite),
        span(order.remaining_s as f64),
        order.uid,
        order.reason
    )
}

/// A time in whole seconds. Fractions are refused: what is in force would be another time.
fn parse_lasting(text: &str) -> Result<Duration, String> {
    const RANGE: &str = "give 1s to 7d";
    let lasting =
        humantime::parse_duration(text).map_err(|error| format!("{error}; {RANGE}, for example 30m or 2h"))?;
    match lasting.as_secs() {
        _ if lasting.subsec_nanos() != 0 => Err(format!("it must be whole seconds; {RANGE}")),
        1..=OverrideRequest::LONGEST_S => Ok(lasting),
        _ => Err(RANGE.to_owned()),
    }
}

/// A share in percent. The sign is asked for: 0.4 and 40 are both likely to be meant as 40 %.
pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').ok_or("write it with a percent sign, for example 40%")?;
    match number.trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        Ok(_) => Err("it must be between 0% and 100%".to_owned()),
        Err(_) => Err("write a number before the percent sign, for example 40%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn parse(line: &[&str]) -> Result<OrderArgs, String> {
        let cli = Cli::try_parse_from(["burst", "override"].iter().chain(line)).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Override(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_order_is_read() {
        let args = parse(&["promo", "--offsite", "40%", "--for", "30m", "--reason", "campaign"]).unwrap();
        let wanted = OverrideRequest { offsite: 0.4, for_s: 1800, reason: "campaign".into() };
        assert_eq!(request(&args).unwrap(), Some(wanted));
        assert_eq!(request(&parse(&["promo", "--clear"]).unwrap()).unwrap(), None);
    }

    #[test]
    fn what_is_missing_or_ambiguous_is_refused() {
        for (line, said) in [
            (&["promo", "--offsite", "40", "--for", "30m", "--reason", "x"][..], "write it with a percent sign"),
            (&["promo", "--offsite", "140%", "--for", "30m", "--reason", "x"], "between 0% and 100%"),
            (&["promo", "--offsite", "NaN%", "--for", "30m", "--reason", "x"], "between 0% and 100%"),
            (&["promo", "--offsite", "%", "--for", "30m", "--reason", "x"], "write a number"),
            (&["promo", "--offsite", "-5%", "--for", "30m", "--reason", "x"], "between 0% and 100%"),
            (&["promo", "--offsite", "40%", "--for", "0s", "--reason", "x"], "give 1s to 7d"),
            (&["promo", "--offsite", "40%", "--for", "8days", "--reason", "x"], "give 1s to 7d"),
            (&["promo", "--offsite", "40%", "--for", "-1h", "--reason", "x"], "give 1s to 7d"),
            (&["promo", "--offsite", "40%", "--for", "1500ms", "--reason", "x"], "whole seconds"),
            (&["promo", "--offsite", "40%", "--reason", "x"], "--for <TIME>"),
            (&["promo", "--offsite", "40%", "--for", "30m"], "--reason <TEXT>"),
            (&["promo", "--clear", "--offsite", "40%"], "cannot be used with"),
            (&["promo"], "required"),
            (&["--clear"], "<CLASS>"),
        ] {
            let error = parse(line).expect_err("refused");
            assert!(error.contains(said), "{line:?}: {error}");
        }
        let long = parse(&["promo", "--offsite", "40%", "--for", "7d", "--reason", ""]).unwrap();
        assert_eq!(request(&long).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn what_is_in_force_is_said() {
        let order = Override { offsite: 0.4, reason: "campaign".into(), uid: 1000, remaining_s: 1800 };
        let response =
            |ordered, previous| OverrideResponse { class: "promo".into(), ordered, previous, max_offsite: Some(0.95) };
        let all = Override { offsite: 1.0, reason: "drill".into(), uid: 0, remaining_s: 60 };
        for (response, text) in [
            (
                response(Some(order.clone()), None),
                "promo: 40.0 % of new flows leave for 30m, by order of uid 1000: campaign\n",
            ),
            (
                response(Some(all), Some(order.clone())),
                "promo: 95.0 % of new flows leave for 1m, by order of uid 0: drill\n  \
                 asked for 100.0 %, max_offsite_share allows 95.0 %\n  \
                 in place of the order before: 40.0 % for another 30m, by uid 1000: campaign\n",
            ),
            (
                response(None, Some(order)),
                "promo: the order (40.0 % for another 30m, by uid 1000: campaign) is ended; burst decides again\n",
            ),
            (response(None, None), "promo: there was no order; burst decides\n"),
        ] {
            assert_eq!(said(&response), text);
        }
    }
}
