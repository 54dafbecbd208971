//! `burst_return` attached to a device without an Ethernet header: packets go in at the device, and what comes out is what the
//! first client's wire shows.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::LinkOrder;
use aya::programs::tc::{TcAttachOptions, TcAttachType};

use super::kernel_return::KernelReturn;
use super::{Bed, Outcome, Row};
use crate::packet::checksum::{layout, sum};
use crate::poll;
use crate::sniffer::Sniffer;
use crate::topology::{CLIENT_DEVICE, CLIENT_MAC};
use crate::vpn::{self, HEADER, Offload, VPN_DEVICE};

/// How long a packet may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a packet's checksum comes in at the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrives {
    /// As it is.
    Whole,
    /// Yet to be computed, by whoever sends it on.
    Partial,
}

/// The device, and the first client's wire.
pub struct Bare<'a> {
    bed: &'a Bed,
    device: File,
    clients: Sniffer,
    /// Keeps the program attached.
    _program: KernelReturn,
}

impl Bed {
    /// Makes the device, with a program that carries one link.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bare(&self, link: u8) -> Result<Bare<'_>> {
        let device = vpn::open(&self.edge, Offload::All)?;
        self.edge.ip(&format!("link set {VPN_DEVICE} up"))?;
        let mut program = self.kernel_return_of(self.edge.ifindex(VPN_DEVICE)?, [0; 6], link)?;
        let classifier = program.program()?;
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        self.edge.run(|| classifier.attach_with_options(VPN_DEVICE, TcAttachType::Ingress, first))??;
        Ok(Bare {
            bed: self,
            device,
            clients: Sniffer::keeping(&self.far, CLIENT_DEVICE, |_| true)?,
            _program: program,
        })
    }
}

impl Bare<'_> {
    /// Puts a row's frame in at the device, without its Ethernet header, and holds what came out against what was to come: the
    /// frame on the client's wire, none where the row's is empty, and the counters. The bytes it is counted with are those
    /// without that header.
    ///
    /// # Errors
    /// When a packet cannot be sent, or nothing comes out of it.
    ///
    /// # Panics
    /// When bytes or counters differ, with the row's name and the differences.
    #[track_caller]
    pub fn check(&mut self, arrives: Arrives, row: &Row) -> Result<()> {
        let mut row = row.clone();
        for counter in row.moved.values_mut() {
            counter.bytes -= 14;
        }
        row.name += &format!(" ({arrives:?})");
        let before = self.bed.counters.read();
        drop(self.clients.take_kept());
        let packet = arrives.packet(&row.frame)?;
        ensure!(self.device.write(&packet)? == packet.len(), "{}: a packet is sent whole", row.name);
        let frame = match row.out.is_empty() {
            true => Vec::new(),
            false => {
                poll::until("a frame on the client's wire", PATIENCE, || Ok(self.arrived())).with_context(|| {
                    format!("{}: {:?}", row.name, self.bed.counters.moved(&before, &self.bed.counters.read()))
                })?
            }
        };
        let counted =
            || (self.bed.counters.moved(&before, &self.bed.counters.read()).len() >= row.moved.len()).then_some(());
        poll::until("the counters", PATIENCE, || Ok(counted())).with_context(|| row.name.clone())?;
        self.bed.judge(&row, &Outcome { action: row.verdict.number(), frame }, &before);
        Ok(())
    }

    /// A frame to the client itself; neighbours and routers speak to groups.
    fn arrived(&self) -> Option<Vec<u8>> {
        let mut incoming = self.clients.take_kept().into_iter().filter(|kept| kept.incoming).map(|kept| kept.frame);
        incoming.find(|frame| frame.starts_with(&CLIENT_MAC))
    }
}

impl Arrives {
    /// What the device is given for an Ethernet frame: `struct virtio_net_hdr`, and the IP packet.
    fn packet(self, frame: &[u8]) -> Result<Vec<u8>> {
        let mut header = [0u8; HEADER];
        let mut packet = frame[14..].to_vec();
        if self == Self::Partial {
            let at = layout(frame)?;
            let (transport, field) = (at.transport - 14, if at.protocol == 6 { 16 } else { 6 });
            // The sum over the pseudo-header, to which the rest is added (RFC 9293, section 3.1; RFC 8200, section 8.1).
            let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
            let length = u16::try_from(at.end - at.transport)?.to_be_bytes();
            let pseudo = sum(&[addresses, &[0, at.protocol], &length]).to_be_bytes();
            packet[transport + field..][..2].copy_from_slice(&pseudo);
            // VIRTIO_NET_HDR_F_NEEDS_CSUM, where the sum begins, and where it is to stand from there.
            header[0] = 1;
            header[6..8].copy_from_slice(&u16::try_from(transport)?.to_ne_bytes());
            header[8..10].copy_from_slice(&(field as u16).to_ne_bytes());
        }
        Ok([&header[..], &packet].concat())
    }
}
