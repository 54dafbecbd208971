//! Aligned columns.

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

enum Line<const N: usize> {
    Row([String; N]),
    Note(String),
}

/// A table of `N` columns; its lines end without blanks.
pub(super) struct Table<const N: usize> {
    aligns: [Align; N],
    lines: Vec<Line<N>>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [(&str, Align); N]) -> Self {
        Self { aligns: head.map(|(_, align)| align), lines: vec![Line::Row(head.map(|(title, _)| title.to_owned()))] }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.lines.push(Line::Row(cells));
    }

    /// A line across all columns.
    pub(super) fn note(&mut self, text: String) {
        self.lines.push(Line::Note(text));
    }

    pub(super) fn render(&self, indent: &str) -> String {
        let mut widths = [0; N];
        for line in &self.lines {
            if let Line::Row(cells) = line {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = cell.chars().count().max(*width);
                }
            }
        }
        let mut out = String::new();
        for line in &self.lines {
            let text = match line {
                Line::Note(text) => text.clone(),
                Line::Row(cells) => {
                    let padded = cells.iter().zip(widths).zip(self.aligns).map(|((cell, width), align)| match align {
                        Align::Left => format!("{cell:<width$}"),
                        Align::Right => format!("{cell:>width$}"),
                    });
                    padded.collect::<Vec<_>>().join("  ")
                }
            };
            out += indent;
            out += text.trim_end();
            out += "\n";
        }
        out
    }
}
