//! A reader of TOML tables that goes on after a mistake, so that all mistakes are reported at once.
//!
//! It knows keys, types and places; what the keys mean is the schema's. Serde would stop at the first mistake.

use std::cell::RefCell;
use std::ops::Deref;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnostics::{Diagnostic, Severity, Span};
use super::units::Complaint;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At<T> {
    /// The value.
    pub(super) value: T,
    /// Its place.
    pub(super) span: Span,
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Where diagnostics are collected.
#[derive(Default)]
pub(super) struct Sink(RefCell<Vec<Diagnostic>>);

impl Sink {
    /// Adds one.
    pub(super) fn push(&self, diagnostic: Diagnostic) {
        self.0.borrow_mut().push(diagnostic);
    }

    /// Adds what a value complains about.
    fn complain(&self, span: Span, key: &str, complaint: Complaint) {
        self.push(Diagnostic::error(span, format!("{key}: {}", complaint.message)).help(complaint.help));
    }

    /// Whether an error was collected.
    pub(super) fn failed(&self) -> bool {
        self.0.borrow().iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All that was collected.
    pub(super) fn into_list(self) -> Vec<Diagnostic> {
        self.0.into_inner()
    }
}

/// A table being read. Every key that is asked for is known; [`Table::finish`] reports the others.
pub(super) struct Table<'a> {
    table: &'a DeTable<'a>,
    /// Where it stands; of a `[header]`, the header.
    pub(super) span: Span,
    /// What it is, for messages: "link", "class `promo`".
    pub(super) what: String,
    /// Where to report.
    pub(super) sink: &'a Sink,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// A table, not yet read.
    pub(super) fn new(table: &'a DeTable<'a>, span: Span, what: impl Into<String>, sink: &'a Sink) -> Self {
        Self { table, span, what: what.into(), sink, known: Vec::new() }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Where a key stands, if it is there. The key is known from now on.
    pub(super) fn key(&mut self, key: &'static str) -> Option<Span> {
        self.known.push(key);
        self.table.keys().find(|name| name.get_ref() == key).map(|name| name.span().into())
    }

    /// The value of a key, if it is there and `read` takes it.
    pub(super) fn opt<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, Complaint>,
    ) -> Option<At<T>> {
        let value = self.value(key)?;
        let span = value.span().into();
        match read(value.get_ref()) {
            Ok(value) => Some(At { value, span }),
            Err(complaint) => {
                self.sink.complain(span, key, complaint);
                None
            }
        }
    }

    /// The value of a key that must be there; `example` is a line that would do.
    pub(super) fn req<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, Complaint>,
    ) -> Option<At<T>> {
        self.demand(key, example).then(|| self.opt(key, read)).flatten()
    }

    /// Reports a key that is missing; says whether it is there.
    pub(super) fn demand(&mut self, key: &'static str, example: &str) -> bool {
        self.known.push(key);
        let there = self.table.contains_key(key);
        if !there {
            let message = format!("{} has no `{key}`", self.what);
            self.sink.push(Diagnostic::error(self.span, message).help(format!("add a line such as `{example}`")));
        }
        there
    }

    /// The elements of an array, each read by `read`; `None` when the key is not there or any element is refused.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&'a DeValue<'a>) -> Result<T, Complaint>,
    ) -> Option<At<Vec<At<T>>>> {
        let elements = self.opt(key, array)?;
        let mut list = Vec::new();
        let mut failed = false;
        for element in elements.value.iter() {
            let span = element.span().into();
            match read(element.get_ref()) {
                Ok(value) => list.push(At { value, span }),
                Err(complaint) => {
                    self.sink.complain(span, key, complaint);
                    failed = true;
                }
            }
        }
        (!failed).then_some(At { value: list, span: elements.span })
    }

    /// The table under a key, as `what`.
    pub(super) fn sub(&mut self, key: &'static str, what: impl Into<String>) -> Option<Table<'a>> {
        let sink = self.sink;
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Table::new(table, value.span().into(), what, sink)),
            other => {
                sink.complain(value.span().into(), key, wrong_type("a table", other));
                None
            }
        }
    }

    /// The tables of an array under a key, each as `what`; `None` when the key is not there or no array.
    pub(super) fn subs(&mut self, key: &'static str, what: &str) -> Option<At<Vec<Table<'a>>>> {
        let sink = self.sink;
        let value = self.value(key)?;
        let span = value.span().into();
        let DeValue::Array(elements) = value.get_ref() else {
            let Complaint { message, .. } = wrong_type("an array of tables", value.get_ref());
            sink.complain(span, key, Complaint::new(message, "double the brackets of its header, as in [[link]]"));
            return None;
        };
        let mut tables = Vec::new();
        for element in elements.iter() {
            match element.get_ref() {
                DeValue::Table(table) => tables.push(Table::new(table, element.span().into(), what, sink)),
                other => sink.complain(element.span().into(), key, wrong_type("a table", other)),
            }
        }
        Some(At { value: tables, span })
    }

    /// All keys and values of a table whose keys are names, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(At<&'a str>, &'a Spanned<DeValue<'a>>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| (At { value: key.get_ref().as_ref(), span: key.span().into() }, value))
            .collect();
        entries.sort_by_key(|(key, _)| key.span);
        entries
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(mut self) {
        self.known.sort_unstable();
        self.known.dedup();
        for (key, _) in self.entries() {
            if self.known.contains(&key.value) {
                continue;
            }
            let help = match nearest(key.value, self.known.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.sink.push(Diagnostic::error(key.span, format!("{} has no key `{}`", self.what, key.value)).help(help));
        }
    }
}

/// The elements of an array.
fn array<'a>(value: &'a DeValue<'a>) -> Result<&'a DeArray<'a>, Complaint> {
    match value {
        DeValue::Array(elements) => Ok(elements),
        other => Err(wrong_type("an array", other)),
    }
}

/// A complaint about a value of another type.
pub(super) fn wrong_type(wanted: &str, found: &DeValue<'_>) -> Complaint {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    Complaint::new(format!("expected {wanted}, found {found}"), format!("write {wanted}"))
}

/// The candidate that `text` was most likely meant to be: at most a third of its letters differ.
pub(super) fn nearest<'c>(text: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let near = |candidate: &'c str| (distance(text, candidate), candidate);
    let (distance, candidate) = candidates.map(near).min()?;
    (distance * 3 <= candidate.chars().count().max(3)).then_some(candidate)
}

/// Levenshtein's distance: insertions, deletions and substitutions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let known = ["next_hop", "device", "mtu", "name"];
        for (text, expected) in [
            ("nexthop", Some("next_hop")),
            ("devcie", Some("device")),
            ("mtv", Some("mtu")),
            ("gateway", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, known.into_iter()), expected, "{text}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
