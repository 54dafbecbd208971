//! HAProxy's stats socket: `show stat` → CSV → one field of one row.
//!
//! The format is in HAProxy's management guide, section 9.1 ("CSV format"): a header line that begins with `# `, then a
//! row per frontend, server and backend.

use std::path::PathBuf;

use csv::{ReaderBuilder, StringRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Error;
use super::http::MOST;
use super::text::{list, shorten};

/// One field of one row.
#[derive(Debug)]
pub(super) struct Haproxy {
    pub(super) socket: PathBuf,
    pub(super) proxy: String,
    pub(super) server: String,
    pub(super) field: String,
}

impl Haproxy {
    /// Asks once: a connection per question, which HAProxy closes after its answer.
    pub(super) async fn read(&self) -> Result<f64, Error> {
        let path = self.socket.display();
        let mut stream = UnixStream::connect(&self.socket).await.map_err(Error::io(format!("connecting to {path}")))?;
        stream.write_all(b"show stat\n").await.map_err(Error::io(format!("asking {path}")))?;
        let mut answer = String::new();
        let mut limited = stream.take(MOST as u64 + 1);
        limited.read_to_string(&mut answer).await.map_err(Error::io(format!("reading {path}")))?;
        if answer.len() > MOST {
            return Err(Error::Answer(format!("{path}: the answer is larger than {MOST} bytes")));
        }
        self.value(&answer).map_err(|why| Error::Answer(format!("{path}: {why}")))
    }

    /// The value in an answer.
    pub(super) fn value(&self, answer: &str) -> Result<f64, String> {
        let table = answer.trim_start().strip_prefix("# ").ok_or_else(|| {
            let first = answer.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            format!("no table of statistics: `{}`", shorten(first))
        })?;
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(table.as_bytes());
        let header = reader.headers().map_err(|error| error.to_string())?.clone();
        let column = |name: &str| header.iter().position(|field| field == name);
        let (Some(proxy), Some(server)) = (column("pxname"), column("svname")) else {
            return Err("the table has no columns `pxname` and `svname`".into());
        };
        let Some(field) = column(&self.field) else {
            // The header ends with a comma: its last name is empty.
            let names = list(header.iter().filter(|name| !name.is_empty()));
            return Err(format!("there is no field `{}`; there are {names}", self.field));
        };
        let mut rows = Vec::new();
        for row in reader.into_records() {
            let row = row.map_err(|error| error.to_string())?;
            let cell = |n: usize| row.get(n).unwrap_or_default();
            if (cell(proxy), cell(server)) == (&self.proxy, &self.server) {
                return self.number(&row, field);
            }
            rows.push(format!("{}/{}", cell(proxy), cell(server)));
        }
        let rows = list(rows.iter().map(String::as_str));
        Err(format!("there is no row {}/{}; there are {rows}", self.proxy, self.server))
    }

    fn number(&self, row: &StringRecord, field: usize) -> Result<f64, String> {
        let (place, text) = (format!("{}/{}", self.proxy, self.server), row.get(field).unwrap_or_default());
        if text.is_empty() {
            return Err(format!("field `{}` of {place} is empty: this kind of row has no such value", self.field));
        }
        text.parse().map_err(|_| format!("field `{}` of {place} is `{}`, no number", self.field, shorten(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From HAProxy 2.6, cut after the twelfth column as its own trailing comma does.
    const STAT: &str = "\
# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,last_chk,
shop,FRONTEND,,,3,4,100,250,1000,2000,0,,
shop-servers,s1,0,1,2,3,,120,500,1000,,\"Layer7 check passed, \"\"OK\"\"\",
shop-servers,s2,5,9,1,3,,130,500,1000,,,
shop-servers,BACKEND,5,9,3,6,10,250,1000,2000,0,,

";

    fn read(answer: &str, proxy: &str, server: &str, field: &str) -> Result<f64, String> {
        Haproxy { socket: "/s".into(), proxy: proxy.into(), server: server.into(), field: field.into() }.value(answer)
    }

    #[test]
    fn a_field_of_a_row_is_its_value_or_a_reason() {
        type Row<'a> = (&'a str, &'a str, &'a str, Result<f64, &'a str>);
        let rows: [Row<'_>; 8] = [
            ("shop-servers", "BACKEND", "scur", Ok(3.0)),
            ("shop-servers", "s1", "qmax", Ok(1.0)),
            ("shop-servers", "s2", "qcur", Ok(5.0)),
            ("shop", "FRONTEND", "slim", Ok(100.0)),
            (
                "shop",
                "FRONTEND",
                "qcur",
                Err("field `qcur` of shop/FRONTEND is empty: this kind of row has no such value"),
            ),
            (
                "shop-servers",
                "s1",
                "last_chk",
                Err("field `last_chk` of shop-servers/s1 is `Layer7 check passed, \"OK\"`, no number"),
            ),
            (
                "shop-servers",
                "BACKEND",
                "sessions",
                Err(
                    "there is no field `sessions`; there are pxname, svname, qcur, qmax, scur, smax, slim, stot, bin, bout, dreq, last_chk",
                ),
            ),
            (
                "shop-servers",
                "s3",
                "scur",
                Err(
                    "there is no row shop-servers/s3; there are shop/FRONTEND, shop-servers/s1, shop-servers/s2, shop-servers/BACKEND",
                ),
            ),
        ];
        for (proxy, server, field, expected) in rows {
            assert_eq!(read(STAT, proxy, server, field), expected.map_err(String::from), "{proxy}/{server} {field}");
        }
    }

    #[test]
    fn garbage_is_no_value() {
        let rows = [
            ("", "no table of statistics: ``"),
            ("Permission denied\n", "no table of statistics: `Permission denied`"),
            ("# a,b,c\n1,2,3\n", "the table has no columns `pxname` and `svname`"),
            (
                "# pxname,svname,scur\nshop,BACKEND\n",
                "field `scur` of shop/BACKEND is empty: this kind of row has no such value",
            ),
            ("# pxname,svname,scur\nshop,BACKEND,\u{7}\n", "field `scur` of shop/BACKEND is `?`, no number"),
            ("# pxname,svname,scur\n", "there is no row shop/BACKEND; there are "),
        ];
        for (answer, expected) in rows {
            assert_eq!(read(answer, "shop", "BACKEND", "scur"), Err(expected.into()), "{answer:?}");
        }
    }
}
