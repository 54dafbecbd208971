//! Questions to the kernel, each with a deadline.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use super::device::Device;
use super::neighbour::{self, Neighbour, Request};
use super::routes;
use crate::kernel::PRIVILEGES;

/// The kernel answers in microseconds, unless its one lock for network configuration is held: creating and deleting many
/// devices holds it for a second or more.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// A dump during which something changed is incomplete and asked for again, so many times.
const DUMPS: usize = 4;

/// Why the kernel could not be asked, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// No such device.
    #[error("device {name:?} does not exist in this network namespace; `ip -br link` lists those that do")]
    NoDevice {
        /// Its name in the configuration.
        name: String,
    },
    /// The kernel said no.
    #[error("the kernel refused to {what}: {source}{}", privileges(source))]
    Refused {
        /// What it was asked.
        what: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The kernel said nothing.
    #[error("the kernel did not answer within {DEADLINE:?} when asked to {what}")]
    Deadline {
        /// What it was asked.
        what: String,
    },
    /// The connection to the kernel ended.
    #[error("the netlink connection closed when the kernel was asked to {what}")]
    Closed {
        /// What it was asked.
        what: String,
    },
    /// A switch of the kernel could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Sysctl {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What to do when the kernel refused for lack of privilege, on a line of its own.
fn privileges(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied { format!("\n  fix: {PRIVILEGES}") } else { String::new() }
}

impl Error {
    /// Whether the kernel refused for lack of privilege (CAP_NET_ADMIN).
    #[must_use]
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    fn is_errno(&self, errno: i32) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(errno))
    }
}

/// A connection to the kernel, for questions and requests. It is of the network namespace of the thread that opened it.
/// Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens a connection. Must be called within a tokio runtime, which then serves it until the last clone is dropped.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The device of a name.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when there is none, else the kernel's.
    pub async fn device(&self, name: &str) -> Result<Device, Error> {
        let no_device = || Error::NoDevice { name: name.to_owned() };
        // Longer names (IFNAMSIZ, 16 bytes with the NUL) are refused with an error that says less.
        if name.is_empty() || name.len() > 15 {
            return Err(no_device());
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let what = || format!("describe device {name:?}");
        let answer = self.ask((RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST), what).await;
        match answer {
            Ok(messages) => links(&messages).next().ok_or_else(no_device),
            Err(error) if error.is_errno(libc::ENODEV) => Err(no_device()),
            Err(error) => Err(error),
        }
    }

    /// All devices.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let request = (RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST | NLM_F_DUMP);
        Ok(links(&self.ask(request, || "list devices".to_owned()).await?).collect())
    }

    /// The addresses of a device with their prefix lengths, host bits kept.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn addresses(&self, ifindex: u32) -> Result<Vec<IpNet>, Error> {
        let request = (RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_REQUEST | NLM_F_DUMP);
        let messages = self.ask(request, || "list addresses".to_owned()).await?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(message) if message.header.index == ifindex => address(message),
                _ => None,
            })
            .collect())
    }

    /// Index of the device that the routing table sends an address by; `None` where it sends it nowhere, or to this host.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn way(&self, to: IpAddr) -> Result<Option<u32>, Error> {
        Ok(self.route(to, None).await?.map(|(device, _)| device))
    }

    /// The way that the routing table sends an address, where `by` is given of what is bound to that device: index of the
    /// device, and the router, if any. `None` where it sends it nowhere, or to this host. Bound to a device that has no route
    /// to it, the kernel takes an IPv4 address for a neighbour: that is a way without a router.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn route(&self, to: IpAddr, by: Option<u32>) -> Result<Option<(u32, Option<IpAddr>)>, Error> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes.push(RouteAttribute::Destination(to.into()));
        message.attributes.extend(by.map(RouteAttribute::Oif));
        let what = || format!("look up the route to {to}");
        match self.ask((RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST), what).await {
            Ok(messages) => Ok(messages.iter().find_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Unicast => {
                    Some((oif(route)?, routes::gateway(route)))
                }
                _ => None,
            })),
            // None, and what unreachable, prohibit and blackhole routes answer (fib_props in net/ipv4/fib_semantics.c).
            Err(error) if NO_ROUTE.iter().any(|&errno| error.is_errno(errno)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entry of a neighbour, if there is one.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn neighbour(&self, ifindex: u32, address: IpAddr) -> Result<Option<Neighbour>, Error> {
        match self.ask(neighbour::get(ifindex, address), || format!("look up neighbour {address}")).await {
            Ok(messages) => Ok(neighbours(&messages).next()),
            Err(error) if error.is_errno(libc::ENOENT) || error.is_errno(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel resolve a neighbour and keep it fresh, unless somebody else takes care of it; answers with the
    /// entry as it is then.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn keep_neighbour(&self, ifindex: u32, address: IpAddr) -> Result<Option<Neighbour>, Error> {
        let known = self.neighbour(ifindex, address).await?;
        let Some(request) = neighbour::keep(ifindex, address, known.as_ref()) else { return Ok(known) };
        match self.ask(request, || format!("resolve neighbour {address}")).await {
            Ok(_) => {}
            // It appeared, or went, since it was looked up: the next round sees it as it is.
            Err(error) if error.is_errno(libc::EEXIST) || error.is_errno(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
        self.neighbour(ifindex, address).await
    }

    /// Takes back what burst did to one neighbour.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn release_neighbour(&self, ifindex: u32, address: IpAddr) -> Result<(), Error> {
        let entry = self.neighbour(ifindex, address).await?;
        match entry.as_ref().and_then(neighbour::release) {
            Some(request) => self.ask(request, || format!("let go of neighbour {address}")).await.map(drop),
            None => Ok(()),
        }
    }

    /// Takes back what burst did to neighbours, on all devices of the namespace: removes the entries it added, and
    /// leaves those it only marked to the kernel's ordinary care. Answers with how many there were.
    ///
    /// # Errors
    /// The kernel's, after all were tried.
    pub async fn release_neighbours(&self) -> Result<usize, Error> {
        let entries = self.ask(neighbour::dump(), || "list neighbours".to_owned()).await?;
        let (mut released, mut failed) = (0, None);
        for entry in neighbours(&entries) {
            let Some(request) = neighbour::release(&entry) else { continue };
            match self.ask(request, || format!("let go of neighbour {}", entry.address)).await {
                Ok(_) => released += 1,
                Err(error) if error.is_errno(libc::ENOENT) || error.is_errno(libc::ENODEV) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(released), Err)
    }

    /// Sends a request and collects the answers; an interrupted dump is asked for again.
    async fn ask(
        &self,
        (message, flags): Request,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 1..DUMPS {
            let (answers, whole) = self.ask_once(message.clone(), flags, &what).await?;
            if whole {
                return Ok(answers);
            }
        }
        // Devices come and go without end: what may be missing will be announced by an event.
        Ok(self.ask_once(message, flags, &what).await?.0)
    }

    /// The answers, and whether they are whole: false when it was a dump that something changed under.
    async fn ask_once(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &impl Fn() -> String,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let closed = || Error::Closed { what: what() };
        let mut answers = self.handle.clone().request(request).map_err(|_| closed())?;
        let collect = async {
            let (mut messages, mut whole) = (Vec::new(), true);
            while let Some(answer) = answers.next().await {
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => messages.push(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(Error::Refused { what: what(), source: error.to_io() });
                    }
                    _ => {}
                }
            }
            Ok((messages, whole))
        };
        tokio::time::timeout(DEADLINE, collect).await.map_err(|_| Error::Deadline { what: what() })?
    }
}

/// Answers to a lookup that finds no way.
const NO_ROUTE: [i32; 5] = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL, libc::EAGAIN];

fn oif(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}

fn links(messages: &[RouteNetlinkMessage]) -> impl Iterator<Item = Device> {
    messages.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(message) => Device::parse(message, None),
        _ => None,
    })
}

fn neighbours(messages: &[RouteNetlinkMessage]) -> impl Iterator<Item = Neighbour> {
    messages.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewNeighbour(message) => Neighbour::parse(message),
        _ => None,
    })
}

/// IFA_LOCAL is the device's own address; IFA_ADDRESS is the same, or the far end's on point-to-point devices.
fn address(message: &AddressMessage) -> Option<IpNet> {
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    IpNet::new(own.or(any)?, message.header.prefix_len).ok()
}
