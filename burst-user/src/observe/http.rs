//! A GET over HTTP/1.1 in clear, on a connection that is kept.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::Error;
use super::text::shorten;

/// The largest answer that is read (bytes).
pub(super) const MOST: usize = 8 << 20;

/// A client of one address.
#[derive(Debug)]
pub(super) struct Client {
    url: String,
    host: String,
    port: u16,
    authority: String,
    path: String,
    connection: Option<Connection>,
}

/// An open connection and the task that drives it; dropping it ends both.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Url { url: url.into(), why: why.into() };
        let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| wrong(&error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("only http is spoken"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        // An IPv6 address stands in brackets, which belong to the URL only.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            url: url.into(),
            host,
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            connection: None,
        })
    }

    /// The body of a successful answer. Cancelled (by a deadline), it leaves no connection behind.
    pub(super) async fn get(&mut self) -> Result<Bytes, Error> {
        // A kept connection may have been closed by the other side while it was idle; that is no failure of the source.
        if let Some(mut kept) = self.connection.take()
            && kept.sender.ready().await.is_ok()
        {
            match self.exchange(kept).await {
                Err(Error::Http { source, .. }) if source.is_canceled() || source.is_incomplete_message() => {}
                result => return result,
            }
        }
        let connection = self.connect().await?;
        self.exchange(connection).await
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let what = format!("connecting to {}:{}", self.host, self.port);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(Error::io(what))?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|source| self.http(source))?;
        // What ends the connection is seen by the request on it.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Connection { sender, driver })
    }

    async fn exchange(&mut self, mut connection: Connection) -> Result<Bytes, Error> {
        let request = Request::get(&self.path)
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("burst/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "text/plain;version=0.0.4")
            .body(Empty::new())
            .map_err(|error| Error::Url { url: self.url.clone(), why: error.to_string() })?;
        let answer = connection.sender.send_request(request).await.map_err(|source| self.http(source))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST).collect().await.map_err(|error| {
            let why = if error.is::<http_body_util::LengthLimitError>() {
                format!("it is larger than {MOST} bytes")
            } else {
                error.to_string()
            };
            Error::Answer(format!("GET {}: reading the answer: {why}", self.url))
        })?;
        let body = body.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            let first = text.lines().next().unwrap_or_default();
            return Err(Error::Answer(format!("GET {}: {status}: {}", self.url, shorten(first))));
        }
        self.connection = Some(connection);
        Ok(body)
    }

    fn http(&self, source: hyper::Error) -> Error {
        Error::Http { url: self.url.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server on loopback that answers each connection with the next of `answers` for every request on it, then closes.
    async fn serve(answers: Vec<Vec<Vec<u8>>>) -> (u16, JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let mut requests = 0;
            for answers in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    requests += 1;
                    // The client may hang up on an answer that is too large.
                    drop(stream.write_all(&answer).await);
                }
            }
            requests
        });
        (port, server)
    }

    fn ok(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_replaced_when_the_other_side_closed_it() {
        let (port, server) = serve(vec![vec![ok("one"), ok("two")], vec![ok("three")]]).await;
        let mut client = Client::new(&format!("http://127.0.0.1:{port}/metrics?x=1")).unwrap();
        for body in ["one", "two", "three"] {
            assert_eq!(client.get().await.unwrap(), body);
        }
        assert_eq!(server.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn answers_that_are_none_are_named() {
        let mut large = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MOST + 1).into_bytes();
        large.resize(large.len() + MOST + 1, b'x');
        let rows = [
            (b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nnope\n".to_vec(), "404 Not Found: nope"),
            (large, "larger than 8388608 bytes"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec(), "reading the answer"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), "GET http://127.0.0.1:"),
        ];
        for (answer, expected) in rows {
            let (port, _server) = serve(vec![vec![answer]]).await;
            let error = Client::new(&format!("http://127.0.0.1:{port}/")).unwrap().get().await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error} instead of {expected}");
        }
        for url in ["https://192.0.2.1/", "/metrics", "http://", "ftp://192.0.2.1/", "http://a b/"] {
            let error = Client::new(url).unwrap_err().to_string();
            assert!(error.contains("http://HOST:PORT/PATH"), "{url}: {error}");
        }
        assert_eq!(Client::new("http://[2001:db8::1]:9100").unwrap().host, "2001:db8::1");
    }
}
