//! One probe: a TCP connection through a device, and a GET on it.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::outcome::Outcome;
use crate::config::model::Probe;

/// The clock that latencies are taken by.
#[expect(clippy::disallowed_methods, reason = "how long a probe takes is known only where it is made")]
fn clock() -> Instant {
    Instant::now()
}

/// Probes `to` through a device, within a deadline. The source address is the kernel's choice.
///
/// # Errors
/// When this host could not send it: that says nothing of the endpoint.
pub(super) async fn probe(to: SocketAddr, device: &str, probe: &Probe, deadline: Duration) -> io::Result<Outcome> {
    let begun = clock();
    let until = begun + deadline;
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind_device(Some(device.as_bytes()))?;
    let stream = match timeout_at(until, socket.connect(to)).await {
        Err(_) => return Ok(Outcome::Timeout),
        Ok(Err(error)) => return of(&error).ok_or(error),
        Ok(Ok(stream)) => stream,
    };
    let Probe::Http { path, .. } = probe else { return Ok(Outcome::Ok(clock() - begun)) };
    Ok(match timeout_at(until, get(stream, to, path)).await {
        Err(_) => Outcome::Slow,
        Ok(Ok(200..=399)) => Outcome::Ok(clock() - begun),
        Ok(Ok(status)) => Outcome::Status(status),
        Ok(Err(error)) => {
            let os = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            os.and_then(of).unwrap_or(Outcome::Garbled)
        }
    })
}

/// What an error of the kernel's says; `None`: that the fault is on this host.
fn of(error: &io::Error) -> Option<Outcome> {
    match error.raw_os_error()? {
        libc::ECONNREFUSED => Some(Outcome::Refused),
        libc::ECONNRESET | libc::EPIPE => Some(Outcome::Reset),
        libc::ETIMEDOUT => Some(Outcome::Timeout),
        // What routers' ICMP errors come to (icmp_err_convert in net/ipv4/icmp.c), and a next hop that does not answer.
        libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENONET | libc::ENOPROTOOPT => {
            Some(Outcome::Unreachable)
        }
        _ => None,
    }
}

/// The status of the answer to a GET. The body is not read.
async fn get(stream: TcpStream, to: SocketAddr, path: &str) -> hyper::Result<u16> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(HOST, to.to_string())
        .header(USER_AGENT, concat!("burst/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    // The configuration's paths are such as a request takes.
    let Ok(request) = request else { return Ok(0) };
    let exchange = sender.send_request(request);
    tokio::select! {
        biased;
        answer = exchange => answer.map(|answer| answer.status().as_u16()),
        // It ends by itself only when the other side does; what that means is in the answer.
        () = async { drop(connection.await); std::future::pending().await } => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// What a server on loopback does with a connection.
    #[derive(Clone, Copy, Debug)]
    enum Does {
        Say(&'static str),
        Hang,
        Close,
        Reset,
    }

    async fn server(does: Does) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"GET /healthz?deep=1 HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
            match does {
                Does::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                Does::Hang => std::future::pending().await,
                Does::Close => {}
                Does::Reset => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
            }
        });
        at
    }

    #[tokio::test]
    async fn each_answer_is_told_from_the_others() {
        let http = Probe::Http { port: 0, path: "/healthz?deep=1".into() };
        let rows = [
            (Does::Say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot read"), "well"),
            (Does::Say("HTTP/1.0 302 Found\r\n\r\n"), "well"),
            (Does::Say("HTTP/1.1 404 Not Found\r\n\r\n"), "HTTP status 404"),
            (Does::Say("HTTP/1.1 503 Service Unavailable\r\n\r\n"), "HTTP status 503"),
            (Does::Say("SSH-2.0-OpenSSH_9.2\r\n\r\n"), "its answer is no HTTP"),
            (Does::Close, "its answer is no HTTP"),
            (Does::Hang, "no answer within the deadline"),
            (Does::Reset, "connection reset"),
        ];
        for (does, expected) in rows {
            let at = server(does).await;
            let found = probe(at, "lo", &http, Duration::from_millis(300)).await.unwrap();
            assert_eq!(found.to_string(), expected, "{does:?}");
        }
    }

    #[tokio::test]
    async fn a_port_that_listens_is_well_and_one_that_does_not_refuses() {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let tcp = Probe::Tcp { port: at.port() };
        let found = probe(at, "lo", &tcp, Duration::from_secs(1)).await.unwrap();
        assert!(matches!(found, Outcome::Ok(latency) if latency < Duration::from_secs(1)), "{found:?}");
        drop(listener);
        assert_eq!(probe(at, "lo", &tcp, Duration::from_secs(1)).await.unwrap(), Outcome::Refused);
        assert!(probe(at, "no-such-device", &tcp, Duration::from_secs(1)).await.is_err(), "of this host");
    }
}
