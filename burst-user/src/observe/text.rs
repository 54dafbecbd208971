//! The Prometheus text format (and what OpenMetrics shares with it): lines → samples of one metric.
//!
//! Written for one question, the samples of a single name, so nothing is kept of the other lines but the check of
//! their names. Strict about the lines it is asked for: a sample that cannot be read is an error, not a smaller sum.
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

/// Labels of a sample, sorted by name.
pub(super) type Labels = Vec<(String, String)>;

/// One sample of the metric that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) labels: Labels,
    /// As written; may be NaN or infinite.
    pub(super) value: f64,
}

/// The samples of `metric` in `text`. Lines of other metrics are not judged.
pub(super) fn samples(text: &str, metric: &str) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let Some(rest) = line.strip_prefix(metric) else { continue };
        // A longer name that begins alike is another metric.
        if !rest.starts_with(['{', ' ', '\t']) {
            continue;
        }
        let sample = sample(rest).map_err(|why| format!("line {}: {why}: `{}`", number + 1, shorten(line)))?;
        samples.push(sample);
    }
    Ok(samples)
}

/// What follows the name: labels, value, and a timestamp or exemplar that is not looked at.
fn sample(rest: &str) -> Result<Sample, String> {
    let rest = rest.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next().ok_or("no value")?;
    // Go's spellings `NaN`, `+Inf`, `-Inf` are among those that Rust reads.
    let value = value.parse().map_err(|_| format!("`{}` is no number", shorten(value)))?;
    Ok(Sample { labels, value })
}

/// Labels up to the closing brace, and what is after it.
fn labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            labels.sort_unstable();
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once('=').ok_or("label without value")?;
        let (value, after) = quoted(after.trim_start())?;
        labels.push((name.trim().to_owned(), value));
        rest = after.trim_start();
        if let Some(after) = rest.strip_prefix(',') {
            rest = after;
        } else if !rest.starts_with('}') {
            return Err("labels do not end".into());
        }
    }
}

/// A quoted value with the escapes `\\`, `\"` and `\n`, and what is after it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let text = text.strip_prefix('"').ok_or("label value without quotes")?;
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, char @ ('\\' | '"'))) => value.push(char),
                // Not a known escape: both characters stand for themselves, as Prometheus reads it.
                Some((_, char)) => value.extend(['\\', char]),
                None => break,
            },
            _ => value.push(char),
        }
    }
    Err("label value does not end".into())
}

/// Names in `text` that resemble `metric`, for an error that helps: those that share its first word, at most eight.
pub(super) fn alike(text: &str, metric: &str) -> Vec<String> {
    let word = metric.split(['_', ':']).next().unwrap_or(metric);
    let mut names: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(word))
        .filter_map(|line| line.split(['{', ' ', '\t']).next())
        .map(shorten)
        .collect();
    names.dedup();
    names.truncate(8);
    names
}

/// Bytes that a list of names in an error may have.
const LIST: usize = 1000;

/// Names that somebody else wrote, as a list in an error: as many as fit, and how many there are beyond.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let (mut list, mut more) = (String::new(), 0);
    for name in names.into_iter().map(shorten) {
        if more > 0 || list.len() + name.len() > LIST {
            more += 1;
            continue;
        }
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(&name);
    }
    if more > 0 { format!("{list} and {more} more") } else { list }
}

/// At most sixty characters of a text that somebody else wrote, without control characters.
pub(super) fn shorten(text: &str) -> String {
    shorten_to(60, text)
}

/// As [`shorten`], with another length.
pub(super) fn shorten_to(most: usize, text: &str) -> String {
    let mut short: String = text.chars().take(most).map(|char| if char.is_control() { '?' } else { char }).collect();
    if text.chars().nth(most).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000
http_requests_total{method=\"post\",code=\"400\"}    3 1395066363000
# Escaping, a comma and a brace in label values:
msdos_file_access_time_seconds{path=\"C:\\\\DIR\\\\FILE.TXT\",error=\"Cannot find file:\\n\\\"FILE.TXT\\\", {a}\"} 1.458255915e9
metric_without_timestamp_and_labels 12.47
something_weird{problem=\"division by zero\"} +Inf -3982045
job:busy:ratio{ job = \"nginx\" , } 0.5
with_exemplar_total 7 # {trace_id=\"a\"} 1.0 1520879607.789
nan_metric NaN
http_requests_total_more 9
# EOF
";

    #[test]
    fn samples_are_read_as_they_are_written() {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        type Row = (&'static str, Vec<(Labels, f64)>);
        let rows: Vec<Row> = vec![
            (
                "http_requests_total",
                vec![
                    (vec![label("code", "200"), label("method", "post")], 1027.0),
                    (vec![label("code", "400"), label("method", "post")], 3.0),
                ],
            ),
            (
                "msdos_file_access_time_seconds",
                vec![(
                    vec![label("error", "Cannot find file:\n\"FILE.TXT\", {a}"), label("path", "C:\\DIR\\FILE.TXT")],
                    1.458255915e9,
                )],
            ),
            ("metric_without_timestamp_and_labels", vec![(vec![], 12.47)]),
            ("something_weird", vec![(vec![label("problem", "division by zero")], f64::INFINITY)]),
            ("job:busy:ratio", vec![(vec![label("job", "nginx")], 0.5)]),
            ("with_exemplar_total", vec![(vec![], 7.0)]),
            ("http_requests", vec![]),
            ("absent", vec![]),
        ];
        for (metric, expected) in rows {
            let found: Vec<_> = samples(TEXT, metric).unwrap().into_iter().map(|s| (s.labels, s.value)).collect();
            assert_eq!(found, expected, "{metric}");
        }
        assert!(samples(TEXT, "nan_metric").unwrap()[0].value.is_nan());
    }

    #[test]
    fn garbage_is_named_with_its_line() {
        let rows = [
            ("a", "a", 0),
            ("a ", "a", 1),
            ("a x", "a", 1),
            ("a{b=\"c\" 1", "a", 1),
            ("a{b=\"c} 1", "a", 1),
            ("a{b=c} 1", "a", 1),
            ("a{b} 1", "a", 1),
            ("a{b=\"c\\", "a", 1),
            ("a{b=\"c\"}", "a", 1),
            ("\0\u{1b}[2Jbinary", "a", 0),
            ("<html>a 1</html>", "a", 0),
            ("", "a", 0),
        ];
        for (text, metric, errors) in rows {
            let result = samples(&format!("# comment\n{text}"), metric);
            assert_eq!(result.is_err() as i32, errors, "{text:?}: {result:?}");
            if let Err(error) = result {
                assert!(error.starts_with("line 2: "), "{error}");
            }
        }
    }

    #[test]
    fn an_error_can_name_what_is_there() {
        assert_eq!(alike(TEXT, "http_request_total"), ["http_requests_total", "http_requests_total_more"]);
        assert_eq!(shorten(&"ab\u{1b}".repeat(30)).chars().count(), 61);
        assert_eq!(alike("a_\u{1b}[2J 1", "a_b"), ["a_?[2J"], "and clears no screen");
    }

    #[test]
    fn a_list_of_names_stays_short() {
        assert_eq!(list(["a", "b\u{7}"]), "a, b?");
        let long = list(std::iter::repeat_n("a name of twenty eight bytes", 100));
        assert!(long.ends_with(" more") && long.len() < LIST + 100, "{long}");
    }
}
