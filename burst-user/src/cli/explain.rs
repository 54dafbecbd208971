//! `burst explain`: what becomes of a packet, and why.

use std::net::SocketAddr;

use clap::Args;

use super::ask::AskArgs;
use super::render::table::{Align, Table};
use crate::exit::Failure;
use crate::inspect::{self, Explained, Proto, Question};

/// Arguments of `burst explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Protocol of the packet.
    #[arg(long, value_enum)]
    pub proto: Proto,
    /// Where it comes from, for example `198.51.100.7:40000` or `[2001:db8::7]:40000`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub src: SocketAddr,
    /// Where it goes.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub dst: SocketAddr,
    /// A SYN, which opens its flow; otherwise a TCP packet is one of an established flow.
    #[arg(long)]
    pub syn: bool,
    /// VLAN id of the frame.
    #[arg(long, value_name = "ID")]
    pub vlan: Option<u16>,
    /// Bytes behind the transport header.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub payload: usize,
    /// Which instance is asked.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Asks, and prints the answer.
///
/// # Errors
/// When there is nothing to ask, such a packet cannot be, a privilege is missing, or program and tables disagree.
pub fn explain(args: &ExplainArgs, json: bool) -> Result<(), Failure> {
    let &ExplainArgs { proto, src, dst, syn, vlan, payload, .. } = args;
    if syn && proto != Proto::Tcp {
        let usage = anyhow::anyhow!("--syn is for TCP: UDP knows no openers");
        return Err(crate::exit::Exit::Usage.because(usage));
    }
    let mut specimen = args.ask.open(false)?;
    let explained = inspect::explain(&mut specimen, &Question { proto, src, dst, syn, vlan, payload })?;
    if json { super::print_json(&explained) } else { super::print(&render(&explained)) }
}

/// The answer for people.
fn render(explained: &Explained) -> String {
    let mut table = Table::new([("STEP", Align::Left), ("WHAT AND WHY", Align::Left)]);
    let mut before = "";
    for step in &explained.steps {
        let name = if step.step == before { "" } else { step.step };
        table.row([name.to_owned(), step.says.clone()]);
        before = step.step;
    }
    let mut text = format!("maps: {}\n\n{}", explained.source.text(), table.render(""));
    let counters: Vec<_> = explained
        .counters
        .iter()
        .map(|count| match &count.class {
            Some(class) => format!("{} of class {class}", count.counter),
            None => format!("{} of no class", count.counter),
        })
        .collect();
    text += &format!("\ncounted: {}\nnothing live was changed, nothing was sent\n", counters.join(", "));
    text
}
