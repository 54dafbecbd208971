//! TOML value → typed value: the leaves of a configuration, each with its type and range.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::read::{nearest, wrong_type};
use super::units::{self, Complaint};

/// What a leaf reader yields.
pub(super) type Leaf<T> = Result<T, Complaint>;

/// A string.
pub(super) fn string(value: &DeValue<'_>) -> Leaf<String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(wrong_type("a string", other)),
    }
}

/// A string that says something.
pub(super) fn words(value: &DeValue<'_>) -> Leaf<String> {
    let text = string(value)?;
    if text.trim().is_empty() {
        Err(Complaint::new("the text is empty", "write at least one letter"))
    } else {
        Ok(text)
    }
}

/// Letters in a name, at most: `class/tier/address` must fit [`burst_common::meta::NAME_LEN`].
const NAME_MAX: usize = 40;
const _: () = assert!(
    2 * NAME_MAX + "//".len() + "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len() <= burst_common::meta::NAME_LEN
);

/// Checks a name.
pub(super) fn check_name(text: &str) -> Leaf<()> {
    const HELP: &str = "use 1 to 40 of the letters A-Z a-z 0-9 . _ -";
    if text.is_empty() || text.len() > NAME_MAX {
        return Err(Complaint::new(format!("the name `{text}` has {} letters", text.chars().count()), HELP));
    }
    match text.chars().find(|c| !c.is_ascii_alphanumeric() && !".-_".contains(*c)) {
        Some(bad) => Err(Complaint::new(format!("the name `{}` holds {bad:?}", text.escape_debug()), HELP)),
        None => Ok(()),
    }
}

/// A name.
pub(super) fn name(value: &DeValue<'_>) -> Leaf<String> {
    let text = string(value)?;
    check_name(&text).map(|()| text)
}

/// A device name as the kernel takes it (`dev_valid_name`: 1–15 bytes, no `/`, `:` or white space, not `.` or `..`).
pub(super) fn device(value: &DeValue<'_>) -> Leaf<String> {
    let text = string(value)?;
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(bad) {
        return Err(Complaint::new(
            format!("`{}` is not a device name", text.escape_debug()),
            "write the name that `ip link` shows, of 1 to 15 letters",
        ));
    }
    Ok(text)
}

/// An absolute path.
pub(super) fn path(value: &DeValue<'_>) -> Leaf<PathBuf> {
    let text = string(value)?;
    let path = PathBuf::from(&text);
    if path.is_absolute() && !text.contains('\0') {
        return Ok(path);
    }
    Err(Complaint::new(
        format!("`{}` is not an absolute path", text.escape_debug()),
        "write a path that starts with \"/\"",
    ))
}

/// The path of a Unix socket: `sun_path` is 108 bytes, the last of them NUL (unix(7)).
pub(super) fn socket(value: &DeValue<'_>) -> Leaf<PathBuf> {
    let path = path(value)?;
    let len = path.as_os_str().len();
    if len > 107 {
        return Err(Complaint::new(
            format!("the path is {len} bytes long"),
            "a Unix socket's path has at most 107 bytes",
        ));
    }
    Ok(path)
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Leaf<bool> {
    match value {
        DeValue::Boolean(value) => Ok(*value),
        other => Err(wrong_type("true or false", other)),
    }
}

/// An integer from `min` to `max`.
pub(super) fn integer(min: i64, max: i64) -> impl Fn(&DeValue<'_>) -> Leaf<i64> {
    move |value| match value {
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => {
                Err(Complaint::new(format!("{integer} is out of range"), format!("write a number from {min} to {max}")))
            }
        },
        other => Err(wrong_type("an integer", other)),
    }
}

/// A finite number, integer or not.
fn number(value: &DeValue<'_>) -> Leaf<f64> {
    let number = match value {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64),
        DeValue::Float(float) => float.as_str().parse().ok().filter(|n: &f64| n.is_finite()),
        other => return Err(wrong_type("a number", other)),
    };
    number.ok_or_else(|| Complaint::new("the number is not finite or too large", "write a finite number"))
}

/// A finite number above 0.
pub(super) fn positive(value: &DeValue<'_>) -> Leaf<f64> {
    match number(value)? {
        n if n > 0.0 => Ok(n),
        n => Err(Complaint::new(format!("{n} is out of range"), "write a number above 0")),
    }
}

/// A finite number, 0 or above.
pub(super) fn amount(value: &DeValue<'_>) -> Leaf<f64> {
    match number(value)? {
        n if n >= 0.0 => Ok(n),
        n => Err(Complaint::new(format!("{n} is out of range"), "write a number, 0 or above")),
    }
}

/// A share as a number or a text with `%`, from 0 to `max`; 0 itself only when `zero`.
pub(super) fn share(zero: bool, max: f64, text: fn(&str) -> Leaf<f64>) -> impl Fn(&DeValue<'_>) -> Leaf<f64> {
    move |value| {
        let (share, shown) = match value {
            DeValue::String(written) => (text(written)?, written.to_string()),
            other => number(other).map(|share| (share, share.to_string()))?,
        };
        if share > max || share < 0.0 || (share == 0.0 && !zero) {
            let from = if zero { "from 0" } else { "above 0" };
            let help = format!("write a share {from} and at most {max} ({}%)", max * 100.0);
            return Err(Complaint::new(format!("{shown} is out of range"), help));
        }
        Ok(share)
    }
}

/// A duration from `min` to `max`.
pub(super) fn duration(min: Duration, max: Duration) -> impl Fn(&DeValue<'_>) -> Leaf<Duration> {
    move |value| {
        let text = string(value)?;
        let duration = units::duration(&text)?;
        if !(min..=max).contains(&duration) {
            let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
            return Err(Complaint::new(
                format!("`{text}` is out of range"),
                format!("write a duration from {min} to {max}"),
            ));
        }
        Ok(duration)
    }
}

/// A text in a unit of [`units`].
pub(super) fn text<T>(read: fn(&str) -> Leaf<T>) -> impl Fn(&DeValue<'_>) -> Leaf<T> {
    move |value| read(&string(value)?)
}

/// A port as an integer, or ports as a text.
pub(super) fn ports(value: &DeValue<'_>) -> Leaf<(u16, u16)> {
    match value {
        DeValue::String(text) => units::ports(text),
        DeValue::Integer(integer) => units::port(&integer.to_string()).map(|port| (port, port)),
        other => Err(wrong_type("a port or a text such as \"8440-8449\"", other)),
    }
}

/// A port as an integer.
pub(super) fn port(value: &DeValue<'_>) -> Leaf<u16> {
    match value {
        DeValue::Integer(integer) => units::port(&integer.to_string()),
        other => Err(wrong_type("a port", other)),
    }
}

/// One of the words of `table`; a word without a value is known but not supported by this version.
pub(super) fn keyword<T: Copy>(table: &[(&'static str, Option<T>)]) -> impl Fn(&DeValue<'_>) -> Leaf<T> {
    move |value| {
        let text = string(value)?;
        let quoted: Vec<_> =
            table.iter().filter(|(_, value)| value.is_some()).map(|(word, _)| format!("\"{word}\"")).collect();
        let help = format!("write {}", quoted.join(" or "));
        match table.iter().find(|(word, _)| *word == text) {
            Some((_, Some(value))) => Ok(*value),
            Some((_, None)) => Err(Complaint::new(format!("\"{text}\" is not supported by this version"), help)),
            None => {
                let guess = nearest(&text, table.iter().filter(|(_, value)| value.is_some()).map(|(word, _)| *word));
                let help = guess.map_or(help, |word| format!("did you mean \"{word}\"?"));
                Err(Complaint::new(format!("\"{}\" is unknown", text.escape_debug()), help))
            }
        }
    }
}

/// A URL with one of `schemes` and a host.
pub(super) fn url(schemes: &'static [&'static str]) -> impl Fn(&DeValue<'_>) -> Leaf<String> {
    move |value| {
        let text = string(value)?;
        let uri = text.parse::<hyper::Uri>().ok();
        let good = uri.is_some_and(|uri| {
            uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if good {
            return Ok(text);
        }
        let help = format!("write a URL such as \"{}://127.0.0.1:9113/metrics\"", schemes[0]);
        Err(Complaint::new(format!("`{}` is not a URL of scheme {}", text.escape_debug(), schemes.join(" or ")), help))
    }
}
