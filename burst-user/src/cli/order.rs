//! `burst override`: an order by hand, with an end.

use std::time::Duration;

use clap::Args;

use crate::api::Client;
use crate::api::types::{OverrideRequest, OverrideResponse};
use crate::exit::{Exit, Failure};

use super::render::{percent, span};

/// Arguments of `burst override`.
#[derive(Clone, Debug, Args)]
pub struct OrderArgs {
    /// The class.
    pub class: String,
    /// Share of new flows that leaves, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, required_unless_present = "clear")]
    pub offsite: Option<f64>,
    /// When the order ends by itself, for example 30m or 2h; at most 7days.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, required_unless_present = "clear")]
    pub lasting: Option<Duration>,
    /// Why; it goes on record.
    #[arg(long, value_name = "TEXT", required_unless_present = "clear")]
    pub reason: Option<String>,
    /// End the order now.
    #[arg(long, conflicts_with_all = ["offsite", "lasting", "reason"])]
    pub clear: bool,
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
    match (&response.ordered, &response.previous) {
        (Some(now), _) => format!(
            "{class}: {} of new flows leave for {}, by order of uid {}: {}\n",
            percent(now.offsite),
            span(now.remaining_s as f64),
            now.uid,
            now.reason
        ),
        (None, Some(_)) => format!("{class}: the order is ended; burst decides again\n"),
        (None, None) => format!("{class}: there was no order; burst decides\n"),
    }
}

/// A share in percent. The sign is asked for: 0.4 and 40 are both likely to be meant as 40 %.
fn parse_percent(text: &str) -> Result<f64, String> {
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
    use crate::api::types::Override;
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
            (&["promo", "--offsite", "40%", "--reason", "x"], "--for <TIME>"),
            (&["promo", "--offsite", "40%", "--for", "30m"], "--reason <TEXT>"),
            (&["promo", "--clear", "--offsite", "40%"], "cannot be used with"),
            (&["promo"], "required"),
            (&["--clear"], "<CLASS>"),
        ] {
            let error = parse(line).expect_err("refused");
            assert!(error.contains(said), "{line:?}: {error}");
        }
        let long = parse(&["promo", "--offsite", "40%", "--for", "8days", "--reason", "x"]).unwrap();
        assert_eq!(request(&long).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn what_is_in_force_is_said() {
        let order = Override { offsite: 0.4, reason: "campaign".into(), uid: 1000, remaining_s: 1800 };
        let response = |ordered, previous| OverrideResponse { class: "promo".into(), ordered, previous };
        for (response, text) in [
            (
                response(Some(order.clone()), None),
                "promo: 40.0 % of new flows leave for 30m, by order of uid 1000: campaign\n",
            ),
            (response(None, Some(order)), "promo: the order is ended; burst decides again\n"),
            (response(None, None), "promo: there was no order; burst decides\n"),
        ] {
            assert_eq!(said(&response), text);
        }
    }
}
