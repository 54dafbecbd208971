//! The timeline of a demo run as an SVG: requests per second of each kind on each side, and the local load beneath.
//! It draws; what it draws is measured elsewhere.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use plotters::prelude::*;

/// Width and height of the picture in pixels.
const SIZE: (u32, u32) = (1200, 720);
/// Share of the height that the upper chart takes.
const UPPER: f64 = 0.68;

const PAYMENT_LOCAL: RGBColor = RGBColor(0x1b, 0x6e, 0x3c);
const PAYMENT_OFFSITE: RGBColor = RGBColor(0xc0, 0x1c, 0x28);
const PROMOTION_LOCAL: RGBColor = RGBColor(0x1c, 0x71, 0xd8);
const PROMOTION_OFFSITE: RGBColor = RGBColor(0xe6, 0x61, 0x00);
const LOAD: RGBColor = RGBColor(0x61, 0x35, 0x83);
const TARGET: RGBColor = RGBColor(0x77, 0x76, 0x7b);

/// One moment, usually a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Seconds since the start; grows from point to point.
    pub at: f64,
    /// Payment per second, answered on premises.
    pub payment_local: f64,
    /// Payment per second, answered in the cloud.
    pub payment_offsite: f64,
    /// Promotion per second, answered on premises.
    pub promotion_local: f64,
    /// Promotion per second, answered in the cloud.
    pub promotion_offsite: f64,
    /// Load of the premises; 1 is their limit.
    pub load: f64,
}

/// A run to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Heading.
    pub title: String,
    /// What the numbers per second count, such as "requests/s".
    pub unit: String,
    /// Load that the controller aims at, drawn as a line.
    pub target: f64,
    /// Moments worth a mark: seconds since the start, and what happened.
    pub marks: Vec<(f64, String)>,
    /// At least two.
    pub points: Vec<Point>,
}

impl Timeline {
    /// Writes the picture, making the directory where there is none.
    ///
    /// # Errors
    /// With fewer than two points or a value that is no finite number, and when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let svg = self.draw()?;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        }
        std::fs::write(path, svg).with_context(|| format!("writing {}", path.display()))
    }

    /// The picture as text.
    ///
    /// # Errors
    /// With fewer than two points or a value that is no finite number.
    pub fn draw(&self) -> Result<String> {
        let ([first, .., last], points) = (&self.points[..], &self.points) else {
            return Err(anyhow!("a timeline needs at least two points, not {}", self.points.len()));
        };
        let values = points.iter().flat_map(|point| point.values().into_iter().chain([point.at, point.load]));
        ensure!(values.into_iter().chain([self.target]).all(f64::is_finite), "a timeline's values must be finite");
        ensure!(first.at < last.at, "a timeline must not end before it begins");
        let most = points.iter().flat_map(Point::values).fold(1.0, f64::max) * 1.08;
        let load = points.iter().map(|point| point.load).fold(self.target.max(1.0), f64::max) * 1.08;

        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            self.fill(&root, first.at..last.at, most, load).map_err(|error| anyhow!("drawing: {error}"))?;
        }
        Ok(svg)
    }

    fn fill<'a>(
        &self,
        root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
        seconds: std::ops::Range<f64>,
        most: f64,
        load: f64,
    ) -> Result<(), Box<dyn std::error::Error + 'a>> {
        type Of = fn(&Point) -> f64;
        root.fill(&WHITE)?;
        let area = root.titled(&self.title, ("sans-serif", 24))?;
        let (upper, lower) = area.split_vertically((f64::from(SIZE.1) * UPPER) as u32);

        let mut chart = ChartBuilder::on(&upper)
            .margin(12)
            .x_label_area_size(24)
            .y_label_area_size(64)
            .build_cartesian_2d(seconds.clone(), 0.0..most)?;
        chart
            .configure_mesh()
            .y_desc(&self.unit)
            .x_label_formatter(&|second| format!("{second:.0}"))
            .label_style(("sans-serif", 13))
            .light_line_style(TRANSPARENT)
            .draw()?;
        let series: [(&str, RGBColor, Of); 4] = [
            ("promotion, local", PROMOTION_LOCAL, |point| point.promotion_local),
            ("promotion, offsite", PROMOTION_OFFSITE, |point| point.promotion_offsite),
            ("payment, local", PAYMENT_LOCAL, |point| point.payment_local),
            ("payment, offsite", PAYMENT_OFFSITE, |point| point.payment_offsite),
        ];
        for (name, colour, of) in series {
            let line = self.points.iter().map(|point| (point.at, of(point)));
            chart
                .draw_series(AreaSeries::new(line, 0.0, colour.mix(0.08)).border_style(colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        }
        for (at, what) in &self.marks {
            chart.draw_series([PathElement::new([(*at, 0.0), (*at, most)], TARGET.mix(0.6))])?;
            chart.draw_series([Text::new(format!(" {what}"), (*at, most * 0.99), ("sans-serif", 13))])?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleRight)
            .background_style(WHITE.mix(0.8))
            .border_style(TARGET)
            .label_font(("sans-serif", 14))
            .draw()?;

        let mut chart = ChartBuilder::on(&lower)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(seconds.clone(), 0.0..load)?;
        chart
            .configure_mesh()
            .x_desc("seconds")
            .y_desc("local load")
            .y_labels(5)
            .x_label_formatter(&|second| format!("{second:.0}"))
            .label_style(("sans-serif", 13))
            .light_line_style(TRANSPARENT)
            .draw()?;
        let line = self.points.iter().map(|point| (point.at, point.load));
        chart.draw_series(AreaSeries::new(line, 0.0, LOAD.mix(0.15)).border_style(LOAD.stroke_width(2)))?;
        chart.draw_series(DashedLineSeries::new(
            [(seconds.start, self.target), (seconds.end, self.target)],
            6,
            4,
            TARGET.stroke_width(2),
        ))?;
        let label = format!(" target {:.2}", self.target);
        let above = self.target + load * 0.14;
        chart.draw_series([Text::new(label, (seconds.start, above), ("sans-serif", 13))])?;
        root.present()?;
        Ok(())
    }
}

impl Point {
    const fn values(&self) -> [f64; 4] {
        [self.payment_local, self.payment_offsite, self.promotion_local, self.promotion_offsite]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline() -> Timeline {
        let point = |at: f64| Point { at, promotion_local: 100.0, promotion_offsite: at * 30.0, ..Point::default() };
        Timeline {
            title: "A tide & its <ebb>".to_owned(),
            unit: "requests/s".to_owned(),
            target: 0.75,
            marks: vec![(3.0, "the campaign begins".to_owned())],
            points: (0..10).map(|second| point(f64::from(second))).collect(),
        }
    }

    #[test]
    fn all_series_and_marks_are_in_the_picture() {
        let svg = timeline().draw().expect("a picture");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in [
            "A tide &amp; its &lt;ebb&gt;",
            "promotion, offsite",
            "payment, offsite",
            "the campaign begins",
            "local load",
            "target 0.75",
        ] {
            assert!(svg.contains(text), "{text} is not in the picture");
        }
        // Each line of ten points: four series and the load.
        let lines = svg.matches("<polyline").count();
        assert!(lines >= 5, "{lines} lines");
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let mut short = timeline();
        short.points.truncate(1);
        assert!(short.draw().is_err_and(|error| error.to_string().contains("at least two points")));
        let mut broken = timeline();
        broken.points[4].load = f64::NAN;
        assert!(broken.draw().is_err_and(|error| error.to_string().contains("finite")));
        let mut backwards = timeline();
        backwards.points.reverse();
        assert!(backwards.draw().is_err_and(|error| error.to_string().contains("end before")));
    }

    #[test]
    fn the_file_is_written_with_its_directory() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("demo/timeline.svg");
        timeline().write(&path)?;
        assert_eq!(std::fs::read_to_string(path)?, timeline().draw()?);
        Ok(())
    }
}
