//! The plot of a soak's memory: one line for each process, as SVG, and the samples as CSV.
//!
//! Measures nothing.

use std::{fmt::Write as _, fs, path::Path};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 50.0;
const POINTS_MAX: usize = 500;
const COLORS: [&str; 3] = ["#1b6ca8", "#c8553d", "#3a7d44"];

/// Writes `memory.csv` and `memory.svg` into a directory. Each sample has the resident bytes of each process, one sample a second.
pub fn write(directory: &Path, samples: &[[u64; 3]]) {
    fs::create_dir_all(directory).expect("the directory can be made");
    fs::write(directory.join("memory.csv"), csv(samples)).expect("it can be written");
    fs::write(directory.join("memory.svg"), svg(samples)).expect("it can be written");
}

fn csv(samples: &[[u64; 3]]) -> String {
    let mut text = "second,instance 0,instance 1,instance 2\n".to_owned();
    for (second, [first, second_instance, third]) in samples.iter().enumerate() {
        let _always_written = writeln!(text, "{second},{first},{second_instance},{third}");
    }
    text
}

fn svg(samples: &[[u64; 3]]) -> String {
    let most = samples.iter().flatten().max().map_or(1.0, |most| (mib(*most) / 10.0).ceil() * 10.0);
    let x = |second: usize| MARGIN + (WIDTH - 2.0 * MARGIN) * number(second) / number(samples.len().max(2));
    let y = |value: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * value / most;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"25\" font-size=\"13\">resident memory of three instances, MiB, over {} s</text>\n",
        samples.len()
    );
    for step in 0..=4_u32 {
        let value = most * f64::from(step) / 4.0;
        let (left, right, at) = (MARGIN, WIDTH - MARGIN, y(value));
        let _always_written = writeln!(
            text,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"8\" y=\"{:.1}\">{value:.0}</text>",
            at + 4.0
        );
        let second = samples.len() * usize::try_from(step).expect("it is small") / 4;
        let _always_written =
            writeln!(text, "<text x=\"{:.1}\" y=\"{:.1}\">{second} s</text>", x(second), HEIGHT - MARGIN + 18.0);
    }
    for (instance, color) in COLORS.iter().enumerate() {
        // One point for each group of samples: the largest.
        let group = samples.len().div_ceil(POINTS_MAX).max(1);
        let points: Vec<String> = samples
            .chunks(group)
            .enumerate()
            .map(|(place, samples)| {
                let most = samples.iter().map(|sample| sample[instance]).max().unwrap_or_default();
                format!("{:.1},{:.1}", x(place * group), y(mib(most)))
            })
            .collect();
        let _always_written =
            writeln!(text, "<polyline fill=\"none\" stroke=\"{color}\" points=\"{}\"/>", points.join(" "));
    }
    text + "</svg>\n"
}

/// Bytes in MiB.
pub fn mib(bytes: u64) -> f64 {
    number(usize::try_from(bytes >> 10).unwrap_or(usize::MAX)) / 1_024.0
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
