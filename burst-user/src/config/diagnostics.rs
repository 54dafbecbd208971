//! What is wrong with a configuration, and where: collected, then rendered with the text pointed at.
//!
//! Holds no knowledge of what a configuration means.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// A place in the text: byte offsets, the end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// Whether a configuration can be run in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is taken, but not all of it is acted on.
    Warning,
}

/// One thing to say about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Where; an empty span at 0 is the file as a whole.
    pub span: Span,
    /// What is wrong, with the value.
    pub message: String,
    /// What is said beside the underlined value; may be empty.
    pub label: String,
    /// A second place that has to do with it, and what is said there.
    pub other: Option<(Span, String)>,
    /// How to put it right.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span, message: message.into(), label: String::new(), other: None, help: None }
    }

    /// A warning.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// With words beside the underlined value.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With a second place.
    #[must_use]
    pub fn other(mut self, span: Span, label: impl Into<String>) -> Self {
        self.other = Some((span, label.into()));
        self
    }

    /// With the way to put it right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A diagnostic for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Name of the file.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to put it right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Everything there is to say about one file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    file: String,
    text: String,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The diagnostics of `text`, which is shown as `file`.
    #[must_use]
    pub fn new(file: &str, text: &str, mut list: Vec<Diagnostic>) -> Self {
        // The renderer indexes the text: a span must lie in it, on character boundaries.
        let fit = |span: Span| {
            let floor = |at: usize| (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let start = floor(span.start);
            Span { start, end: floor(span.end).max(start) }
        };
        for diagnostic in &mut list {
            diagnostic.span = fit(diagnostic.span);
            if let Some((span, _)) = &mut diagnostic.other {
                *span = fit(*span);
            }
        }
        list.sort_by_key(|diagnostic| (diagnostic.span, diagnostic.severity));
        Self { file: file.to_owned(), text: text.to_owned(), list }
    }

    /// Each of them.
    #[must_use]
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many errors there are.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// For machines (`--json`).
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let problem = |diagnostic: &Diagnostic| {
            let before = &self.text[..diagnostic.span.start];
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            Problem {
                severity: diagnostic.severity,
                file: self.file.clone(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                message: diagnostic.message.clone(),
                help: diagnostic.help.clone(),
            }
        };
        self.list.iter().map(problem).collect()
    }

    /// For people, without colour.
    #[must_use]
    pub fn plain(&self) -> String {
        self.render(&Renderer::plain())
    }

    /// For people, with colour.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let report = |diagnostic: &Diagnostic| renderer.render(&[self.group(diagnostic)]);
        self.list.iter().map(report).collect::<Vec<_>>().join("\n\n")
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let primary = AnnotationKind::Primary.span(diagnostic.span.start..diagnostic.span.end);
        let primary = if diagnostic.label.is_empty() { primary } else { primary.label(&diagnostic.label) };
        let mut snippet = Snippet::source(&self.text).path(&self.file).annotation(primary);
        if let Some((span, label)) = &diagnostic.other {
            snippet = snippet.annotation(AnnotationKind::Context.span(span.start..span.end).label(label));
        }
        let group = level.primary_title(&diagnostic.message).element(snippet);
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help)),
            None => group,
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: usize, end: usize) -> Span {
        Span { start, end }
    }

    #[test]
    fn the_value_is_underlined_and_the_fix_stands_below() {
        let list = vec![
            Diagnostic::warning(span(14, 15), "b is old").other(span(4, 5), "as is this"),
            Diagnostic::error(span(4, 5), "a is 1").label("here").help("write 2"),
        ];
        let diagnostics = Diagnostics::new("f.toml", "a = 1\nbéé = 2\n", list);
        assert_eq!(diagnostics.errors(), 1);
        assert_eq!(
            diagnostics.plain(),
            "\
error: a is 1
 --> f.toml:1:5
  |
1 | a = 1
  |     ^ here
  |
  = help: write 2

warning: b is old
 --> f.toml:2:7
  |
1 | a = 1
  |     - as is this
2 | béé = 2
  |       ^"
        );
        assert!(diagnostics.coloured().contains('\u{1b}'));
        let problems = diagnostics.problems();
        assert_eq!((problems[1].line, problems[1].column), (2, 7), "columns are characters");
        assert_eq!(
            serde_json::to_string(&problems[0]).unwrap(),
            r#"{"severity":"error","file":"f.toml","line":1,"column":5,"message":"a is 1","help":"write 2"}"#
        );
    }

    #[test]
    fn a_span_outside_the_text_is_pulled_in() {
        for (start, end) in [(99, 100), (1, 99), (2, 1), (0, 0)] {
            let diagnostics = Diagnostics::new("f", "é=1", vec![Diagnostic::error(span(start, end), "x")]);
            assert!(diagnostics.plain().starts_with("error: x\n --> f:1:"), "{start}..{end}");
        }
        assert!(Diagnostics::new("f", "", vec![Diagnostic::error(span(0, 0), "x")]).plain().starts_with("error: x"));
    }
}
