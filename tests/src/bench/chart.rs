//! Results as a picture: a bar per case, its quartiles, and its budget.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;

use super::report::Line;

const INSIDE: RGBColor = RGBColor(0x2f, 0x6f, 0x9f);
const OVER: RGBColor = RGBColor(0xb8, 0x3a, 0x3a);
const UNBOUNDED: RGBColor = RGBColor(0x88, 0x88, 0x88);
const WIDTH: u32 = 1100;
/// Height of a case.
const ROW: u32 = 18;

/// Draws the results into a file.
///
/// # Errors
/// When the file cannot be written.
pub fn write(lines: &[Line], file: &Path) -> Result<()> {
    std::fs::write(file, draw(lines)?).with_context(|| format!("writing {}", file.display()))
}

/// The picture as text.
///
/// # Errors
/// When nothing can be drawn.
pub fn draw(lines: &[Line]) -> Result<String> {
    let mut svg = String::new();
    {
        let size = (WIDTH, 90 + ROW * lines.len() as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        fill(&root, lines).map_err(|error| anyhow!("drawing: {error}"))?;
    }
    Ok(svg)
}

fn fill<'a>(
    root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error + 'a>> {
    root.fill(&WHITE)?;
    let most = lines.iter().flat_map(|line| [line.net.p75, line.budget.unwrap_or(0.0)]).fold(1.0, f64::max) * 1.05;
    let count = lines.len() as i32;
    let mut chart = ChartBuilder::on(root)
        .caption("Net nanoseconds of a packet, and what it may cost", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(190)
        .build_cartesian_2d(0.0..most, 0.0..f64::from(count))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc("ns over a program that does nothing")
        .y_labels(0)
        .label_style(("sans-serif", 12))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let label = ("sans-serif", 12).into_font();
    for (number, line) in lines.iter().enumerate() {
        let middle = f64::from(count - number as i32) - 0.5;
        let colour = match line.budget {
            None => UNBOUNDED,
            Some(budget) if line.net.median > budget => OVER,
            Some(_) => INSIDE,
        };
        let bar = [(0.0, middle - 0.35), (line.net.median.max(0.0), middle + 0.35)];
        chart.draw_series([Rectangle::new(bar, colour.mix(0.7).filled())])?;
        chart.draw_series([PathElement::new([(line.net.p25, middle), (line.net.p75, middle)], BLACK)])?;
        if let Some(budget) = line.budget {
            let mark = [(budget, middle - 0.45), (budget, middle + 0.45)];
            chart.draw_series([PathElement::new(mark, BLACK.stroke_width(2))])?;
        }
        let (x, y) = chart.backend_coord(&(0.0, middle));
        let width = line.case.len() as i32 * 6;
        root.draw_text(&line.case, &TextStyle::from(label.clone()), (x - width - 8, y - 7))?;
    }
    root.present()?;
    Ok(())
}
