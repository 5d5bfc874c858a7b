//! Plots, as SVG.

use std::{error::Error, path::Path};

use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color as _, IntoDrawingArea as _, IntoFont as _, LineSeries, PathElement, RGBColor,
    SVGBackend, SeriesLabelPosition, WHITE,
};

/// The size of a panel.
const SIZE: (u32, u32) = (450, 320);

/// The colours of the first lines.
const COLORS: [RGBColor; 4] =
    [RGBColor(0x80, 0x80, 0x80), RGBColor(0x1b, 0x6c, 0xa8), RGBColor(0xc8, 0x55, 0x3d), RGBColor(0x3a, 0x7d, 0x44)];

/// A line of a panel.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
    has_dots: bool,
}

/// A plot with two axes, of which the vertical one begins at 0.
pub(crate) struct Panel {
    title: String,
    below: String,
    /// The names of the steps 0, 1 and so on of the horizontal axis; none if it shows numbers.
    steps: Vec<String>,
    lines: Vec<Curve>,
}

impl Panel {
    pub(crate) fn new(title: &str, below: &str) -> Self {
        Self { title: title.to_owned(), below: below.to_owned(), steps: Vec::new(), lines: Vec::new() }
    }

    /// A panel whose horizontal axis has steps of equal distance with these names.
    pub(crate) fn of_steps(title: &str, below: &str, steps: impl IntoIterator<Item = String>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::new(title, below) }
    }

    /// Adds a line with a value for each step.
    pub(crate) fn line(self, name: &str, values: Vec<f64>) -> Self {
        let points = (0..).map(f64::from).zip(values).collect();
        self.points(name, points)
    }

    /// Adds a line through these points.
    pub(crate) fn points(mut self, name: &str, points: Vec<(f64, f64)>) -> Self {
        let has_dots = points.len() < 20;
        self.lines.push(Curve { name: name.to_owned(), points, has_dots });
        self
    }
}

/// Writes the panels side by side to a file with this name in `docs`. On white, so that it can be read on dark pages too.
pub(crate) fn plot(name: &str, panels: &[Panel]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name).with_extension("svg");
    draw(&path, panels).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("plotted in docs/{name}.svg");
}

fn draw(path: &Path, panels: &[Panel]) -> Result<(), Box<dyn Error>> {
    let width = SIZE.0 * u32::try_from(panels.len())?;
    let root = SVGBackend::new(path, (width, SIZE.1)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let right = points().map(|point| point.0).fold(0.0, f64::max);
        let top = points().map(|point| point.1).fold(0.0, f64::max) * 1.3;
        // Steps keep a distance from the sides.
        let side = if panel.steps.is_empty() { 0.0 } else { 0.25 };
        let mut chart = ChartBuilder::on(area)
            .caption(&panel.title, ("sans-serif", 15).into_font())
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(44)
            .build_cartesian_2d(-side..right + side, 0.0..top)?;
        let step = |x: &f64| {
            let is_step = (x - x.round()).abs() < 0.01 && *x > -0.5;
            let number = (0..).zip(&panel.steps).find(|(number, _)| (f64::from(*number) - x).abs() < 0.01);
            if is_step { number.map_or_else(String::new, |(_, name)| name.clone()) } else { String::new() }
        };
        let number = |x: &f64| x.to_string();
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(WHITE).bold_line_style(RGBColor(0xdd, 0xdd, 0xdd)).x_desc(&panel.below);
        mesh.x_labels(if panel.steps.is_empty() { 9 } else { 2 * panel.steps.len() });
        if panel.steps.is_empty() {
            mesh.x_label_formatter(&number).draw()?;
        } else {
            mesh.x_label_formatter(&step).draw()?;
        }
        for (line, color) in panel.lines.iter().zip(COLORS.iter().cycle()) {
            let series = LineSeries::new(line.points.iter().copied(), color.stroke_width(2));
            let color = *color;
            chart
                .draw_series(series)?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
            if line.has_dots {
                chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
            }
        }
        let mut labels = chart.configure_series_labels();
        labels
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 12, &BLACK))
            .draw()?;
    }
    root.present()?;
    Ok(())
}
