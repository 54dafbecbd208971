//! A usual frame from a link.

use burst_common::reason::Reason;

use crate::count::Account;
use crate::guard::Guarded;
use crate::home;
use crate::packet::Packet;
use crate::parse::Frame;
use crate::reply::{answer, write};
use crate::usual::Conclude;
use crate::{apply, leave, maps};

/// What became of a packet.
pub enum Step {
    /// The action.
    Done(u32),
    /// Nothing: it is no endpoint's answer.
    NotReturn,
    /// Nothing: it is for the way step by step.
    Rare,
}

/// Decides over a packet from the link `link` (0: one of several), and sends it to its client if it is an endpoint's answer; `act`
/// counts it and knows the action.
#[inline(always)]
pub fn home<A: Guarded>(packet: &Packet, frame: &Frame<A>, link: u32, act: &impl Conclude) -> Step {
    let mut account = Account::new(frame.bytes());
    match send(packet, frame, link, &mut account) {
        Ok(()) => Step::Done(act.conclude(&account, Reason::Returned)),
        Err(step) => step,
    }
}

#[inline(always)]
fn send<A: Guarded>(packet: &Packet, frame: &Frame<A>, link: u32, account: &mut Account) -> Result<(), Step> {
    let answer = match answer(frame, account) {
        Ok(answer) => answer,
        Err(Reason::NotReturn) => return Err(Step::NotReturn),
        Err(_) => return Err(Step::Rare),
    };
    (account.endpoint, account.link) = (answer.endpoint, link);
    if maps::control().is_none_or(|control| control.bypass != 0) {
        return Err(Step::Rare);
    }
    let Ok(way) = home::home(packet, frame, answer.row) else { return Err(Step::Rare) };
    // The routing table's own devices stand on others: those are found step by step.
    if frame.ttl <= 1 || way.vlan != 0 || !leave::to_client(way.ifindex) {
        return Err(Step::Rare);
    }
    account.device = way.ifindex;
    write(packet, frame, answer.row, answer.room).ok_or(Step::Rare)?;
    apply::macs(packet, &way.macs).ok_or(Step::Rare)?;
    Ok(())
}
