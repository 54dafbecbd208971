//! Aligned columns.

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Align {
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
pub(in crate::cli) struct Table<const N: usize> {
    aligns: [Align; N],
    lines: Vec<Line<N>>,
}

impl<const N: usize> Table<N> {
    pub(in crate::cli) fn new(head: [(&str, Align); N]) -> Self {
        Self { aligns: head.map(|(_, align)| align), lines: vec![Line::Row(head.map(|(title, _)| title.to_owned()))] }
    }

    pub(in crate::cli) fn row(&mut self, cells: [String; N]) {
        self.lines.push(Line::Row(cells));
    }

    /// A line across all columns.
    pub(in crate::cli) fn note(&mut self, text: String) {
        self.lines.push(Line::Note(text));
    }

    pub(in crate::cli) fn render(&self, indent: &str) -> String {
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
