//! What really passes a device, counted by flow from a packet socket: the independent witness for "no payment left".
//! On the receiving peer of a redirect it sees what XDP sent (on the sending device nothing of the kind would show).
//! It counts, and keeps the bytes only of frames it is asked to keep.

use std::collections::BTreeMap;
use std::io::Error;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};

use crate::netns::Namespace;
use crate::packet::checksum::{Layout, layout};

/// Receive buffer in bytes: a second of what the testbed can send.
const BUFFER: libc::c_int = 64 << 20;

/// Every Ethernet protocol, in network byte order as packet(7) wants it.
const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// A flow as it is on the wire, in one direction. Ports are 0 in fragments and where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Whether it came in at the device (else: went out).
    pub incoming: bool,
    /// IP protocol.
    pub protocol: u8,
    /// Source.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
}

/// Packets (as the stack has them: GRO may have merged several frames) of each flow.
pub type Flows = BTreeMap<Flow, u64>;

/// A frame that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whether it came in at the device (else: went out).
    pub incoming: bool,
    /// Its bytes, from the Ethernet header on.
    pub frame: Vec<u8>,
}

/// Whether the bytes of a frame are to be kept.
pub type Keep = fn(&[u8]) -> bool;

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    flows: Flows,
    kept: Vec<Kept>,
}

/// Watches one device until it is dropped.
#[derive(Debug)]
pub struct Sniffer {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Sniffer {
    /// Starts to watch a device of a namespace; what passes after this call is counted.
    ///
    /// # Errors
    /// When there is no such device or the kernel refuses.
    pub fn start(namespace: &Namespace, device: &str) -> Result<Self> {
        Self::keeping(namespace, device, |_| false)
    }

    /// As [`Self::start`], and keeps the frames that `keep` says.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn keeping(namespace: &Namespace, device: &str, keep: Keep) -> Result<Self> {
        let index = i32::try_from(namespace.ifindex(device)?).context("an index of a device")?;
        let socket = namespace.run(|| open(index))??;
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (shared, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let work = move || watch(&socket, keep, &shared, &stopped);
        let thread = std::thread::Builder::new().name("sniffer".to_owned()).spawn(work).context("a thread")?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// Flows so far. A packet may take 50 ms to get here.
    #[must_use]
    pub fn flows(&self) -> Flows {
        self.seen().flows.clone()
    }

    /// Frames kept so far, in the order in which they passed. A packet may take 50 ms to get here.
    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        self.seen().kept.clone()
    }

    /// Frames kept since this was asked last, in the order in which they passed.
    #[must_use]
    pub fn take_kept(&self) -> Vec<Kept> {
        std::mem::take(&mut self.seen().kept)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops, after what has arrived by now, and answers all flows.
    ///
    /// # Errors
    /// When the kernel had to leave out packets: the count would not be evidence.
    pub fn finish(mut self) -> Result<Flows> {
        self.end()?;
        Ok(self.flows())
    }

    /// Stops, after what has arrived by now, and answers all frames that were kept.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_kept(mut self) -> Result<Vec<Kept>> {
        self.end()?;
        Ok(self.kept())
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the sniffer panicked"))?
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("testbed: {error:#}");
        }
    }
}

/// A packet socket on a device of the calling thread's namespace.
fn open(index: i32) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "a packet socket: {}", Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&socket, libc::SO_RCVBUFFORCE, &BUFFER).context("a receive buffer")?;
    set(&socket, libc::SO_RCVTIMEO, &libc::timeval { tv_sec: 0, tv_usec: 50_000 }).context("a receive timeout")?;
    // SAFETY: all zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ALL;
    address.sll_ifindex = index;
    // With protocol 0 the socket received nothing; from here on it receives from this device only.
    // SAFETY: the address lives through the call and is as long as said.
    let result = unsafe {
        libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    ensure!(result == 0, "binding to device {index}: {}", Error::last_os_error());
    Ok(socket)
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> Result<()> {
    // SAFETY: the value lives through the call and is as long as said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    ensure!(result == 0, "{}", Error::last_os_error());
    Ok(())
}

/// Receives until it is told to stop and nothing more is there.
fn watch(socket: &OwnedFd, keep: Keep, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0_u8; 1 << 17];
    loop {
        // SAFETY: all zero is a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&from) as libc::socklen_t;
        // SAFETY: buffer and address live through the call and are as long as said.
        let received = unsafe {
            libc::recvfrom(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                std::ptr::from_mut(&mut from).cast(),
                &raw mut length,
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = Error::last_os_error();
            match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => {}
                // The device went down; it may come back.
                _ if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                _ => return Err(error).context("receiving from a packet socket"),
            }
            if stop.load(Ordering::Relaxed) {
                return complete(socket);
            }
            continue;
        };
        let (frame, incoming) = (&buffer[..received], from.sll_pkttype != libc::PACKET_OUTGOING);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flow) = flow(frame, incoming) {
            *seen.flows.entry(flow).or_default() += 1;
        }
        if keep(frame) {
            seen.kept.push(Kept { incoming, frame: frame.to_vec() });
        }
    }
}

/// Fails if the kernel left out packets since the socket was opened.
fn complete(socket: &OwnedFd) -> Result<()> {
    // `struct tpacket_stats`: packets, drops.
    let mut statistics = [0_u32; 2];
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the value lives through the call and is as long as said.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    ensure!(result == 0, "statistics of a packet socket: {}", Error::last_os_error());
    ensure!(statistics[1] == 0, "{} of {} packets were not seen", statistics[1], statistics[0]);
    Ok(())
}

/// The flow of a frame; `None` if it is neither IPv4 nor IPv6 or is shorter than it says.
pub(crate) fn flow(frame: &[u8], incoming: bool) -> Option<Flow> {
    let Layout { network, transport, end, protocol, fragment } = layout(frame).ok()?;
    let address = |from: usize, to: usize| -> Option<IpAddr> {
        let bytes = frame.get(network + from..network + to)?;
        Some(match <[u8; 4]>::try_from(bytes) {
            Ok(four) => four.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).ok()?.into(),
        })
    };
    let v4 = frame.get(network)? >> 4 == 4;
    let (source, destination) =
        if v4 { (address(12, 16)?, address(16, 20)?) } else { (address(8, 24)?, address(24, 40)?) };
    let has_ports = !fragment && matches!(protocol, 6 | 17) && end >= transport + 4;
    let port = |offset: usize| {
        let at = transport + offset;
        if has_ports { u16::from_be_bytes([frame[at], frame[at + 1]]) } else { 0 }
    };
    let [source, destination] = [SocketAddr::new(source, port(0)), SocketAddr::new(destination, port(2))];
    Some(Flow { incoming, protocol, source, destination })
}
