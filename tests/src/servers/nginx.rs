//! nginx: pages of known content, uploads, and its own access log as the count of what it served.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::wait_listening;
use crate::body;
use crate::client;
use crate::dir::RunDir;
use crate::host;
use crate::netns::Namespace;
use crate::poll;
use crate::process::Process;

/// Which side a server is on; its answers say so in `X-Served-By`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// On premises.
    Local,
    /// Beyond Direct Connect.
    Cloud,
}

impl Site {
    /// Its name in headers, logs and file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cloud => "cloud",
        }
    }

    /// The site of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Local, Self::Cloud].into_iter().find(|site| site.name() == name)
    }
}

/// A service and where nginx listens for it.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name, in `X-Service` and in the access log.
    pub service: &'static str,
    /// Addresses and ports.
    pub at: Vec<SocketAddr>,
}

/// What the access log says of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests answered.
    pub requests: u64,
    /// Of these, with a status of 400 or more.
    pub errors: u64,
    /// Of these, the first on their connection: connections that asked for anything.
    pub connections: u64,
}

/// What stub_status says, of all services together and of the status requests themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StubStatus {
    /// Connections open now.
    pub active: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Requests since the start.
    pub requests: u64,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    /// The master process.
    pub process: Process,
    access_log: PathBuf,
    /// Status address, as reached from within its namespace.
    status: SocketAddr,
    read: Mutex<Progress>,
}

/// How far the access log was read, and what was in it.
#[derive(Debug, Default)]
struct Progress {
    offset: u64,
    counts: BTreeMap<String, Counts>,
}

impl Nginx {
    /// Starts nginx in a namespace, with its prefix in `dir`, and waits until it listens. stub_status is at `/` of
    /// `status`.
    ///
    /// # Errors
    /// When it does not start, with its log.
    pub fn start(
        namespace: &Namespace,
        dir: &RunDir,
        site: Site,
        listeners: &[Listener],
        status: SocketAddr,
    ) -> Result<Self> {
        let name = format!("nginx-{}", site.name());
        let prefix = dir.subdir(&name)?;
        dir.subdir(&format!("{name}/www/upload"))?;
        dir.subdir(&format!("{name}/temp"))?;
        dir.write(&format!("{name}/www/big"), body::bytes(body::BIG_SEED, body::BIG))?;
        dir.write(&format!("{name}/www/stream"), body::bytes(body::STREAM_SEED, body::STREAM))?;
        let config = dir.write(&format!("{name}/nginx.conf"), config(site, listeners, status))?;

        host::require_programs(&[host::NGINX])?;
        let mut command = namespace.command("nginx");
        command.arg("-p").arg(&prefix).arg("-c").arg(&config).args(["-e", "stderr"]);
        let mut process = Process::spawn(&name, command, dir)?;
        let mut wanted: Vec<_> = listeners.iter().flat_map(|listener| listener.at.clone()).collect();
        wanted.push(status);
        wait_listening(&mut process, namespace, &wanted)?;
        let status = if status.ip().is_unspecified() { ([127, 0, 0, 1], status.port()).into() } else { status };
        Ok(Self { process, access_log: prefix.join("access.log"), status, read: Mutex::default() })
    }

    /// What its access log says of a service so far. A request is logged when its answer was sent.
    ///
    /// # Errors
    /// When the log cannot be read or has a line that nginx's configuration here does not make.
    pub fn counts(&self, service: &str) -> Result<Counts> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = File::open(&self.access_log).context("opening the access log")?;
        file.seek(SeekFrom::Start(read.offset)).context("seeking in the access log")?;
        let mut text = String::new();
        file.read_to_string(&mut text).context("reading the access log")?;
        // A line may be half written.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            let (service, status, number) = parse_line(line)?;
            let counts = read.counts.entry(service.to_owned()).or_default();
            counts.requests += 1;
            counts.errors += u64::from(status >= 400);
            counts.connections += u64::from(number == 1);
        }
        read.offset += whole as u64;
        Ok(read.counts.get(service).copied().unwrap_or_default())
    }

    /// The same, once it says that so many requests were answered: a client may have the answer before nginx has
    /// written the line.
    ///
    /// # Errors
    /// As [`Self::counts`], and when there are fewer for five seconds.
    pub fn counts_of(&self, service: &str, requests: u64) -> Result<Counts> {
        poll::until(&format!("{requests} requests for {service} in the access log"), Duration::from_secs(5), || {
            Ok(Some(self.counts(service)?).filter(|counts| counts.requests >= requests))
        })
    }

    /// Asks stub_status, from within nginx's namespace.
    ///
    /// # Errors
    /// When it does not answer or its answer is not understood.
    pub fn status(&self, namespace: &Namespace) -> Result<StubStatus> {
        let text = client::fetch(namespace, self.status, "/")?;
        parse_status(&text).with_context(|| format!("stub_status answered {text:?}"))
    }
}

/// Service, status and number of the request on its connection, of a line as `log_format` below makes it.
fn parse_line(line: &str) -> Result<(&str, u16, u64)> {
    let mut fields = line.split(' ').skip(1);
    let mut next = || fields.next();
    let (Some(service), Some(status), Some(number)) = (next(), next(), next()) else {
        bail!("access log: {line:?} has too few fields");
    };
    let status = status.parse().with_context(|| format!("access log: status in {line:?}"))?;
    let number = number.parse().with_context(|| format!("access log: number in {line:?}"))?;
    Ok((service, status, number))
}

fn parse_status(text: &str) -> Option<StubStatus> {
    let mut lines = text.lines();
    let active = lines.next()?.strip_prefix("Active connections:")?.trim().parse().ok()?;
    // "server accepts handled requests", then the three numbers.
    let mut numbers = lines.nth(1)?.split_whitespace().map(|word| word.parse().ok());
    Some(StubStatus { active, accepted: numbers.next()??, requests: numbers.nth(1)?? })
}

fn config(site: Site, listeners: &[Listener], status: SocketAddr) -> String {
    let site = site.name();
    let mut text = format!(
        "# Written by the testbed.
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    log_format counts '$msec $server_name $status $connection_requests $remote_addr $remote_port $server_addr '
                      '$server_port $request_method $uri $body_bytes_sent';
    access_log access.log counts;
    default_type application/octet-stream;
    client_max_body_size 64m;
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    keepalive_timeout 600s;
    keepalive_requests 100000000;
    reset_timedout_connection off;
    server_tokens off;
    add_header X-Served-By {site} always;
    server {{
        listen {status};
        server_name status;
        access_log off;
        location / {{ stub_status; }}
    }}
"
    );
    for listener in listeners {
        let service = listener.service;
        let mut listens = String::new();
        for at in &listener.at {
            let v6 = if at.is_ipv6() { " ipv6only=on" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(listens, "        listen {at} backlog=16384{v6};");
        }
        let small = String::from_utf8_lossy(body::SMALL).replace('\n', "\\n");
        let _ = write!(
            text,
            "    server {{
{listens}        server_name {service};
        root www;
        add_header X-Served-By {site} always;
        add_header X-Service {service} always;
        location = / {{ return 200 \"{small}\"; }}
        location = /big {{ }}
        location = /stream {{ limit_rate 64k; }}
        location /upload/ {{ dav_methods PUT DELETE; }}
    }}
"
        );
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stub_status_is_understood() {
        let text = "Active connections: 291 \nserver accepts handled requests\n 16630948 16630945 31070465 \n\
                    Reading: 6 Writing: 179 Waiting: 106 \n";
        let expected = StubStatus { active: 291, accepted: 16_630_948, requests: 31_070_465 };
        assert_eq!(parse_status(text), Some(expected));
        assert_eq!(parse_status("404 Not Found\n"), None);
    }

    #[test]
    fn a_line_of_the_log_is_understood() {
        let line = "1700000000.123 payment 200 7 198.51.100.10 40000 203.0.113.10 443 GET / 57";
        assert_eq!(parse_line(line).expect("a good line"), ("payment", 200, 7));
        assert!(parse_line("1700000000.123 payment").is_err());
        assert!(parse_line("1700000000.123 payment ok 7").is_err());
    }
}
