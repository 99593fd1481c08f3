//! The ratios of a run as a bar chart.

use std::fmt::Write;

use crate::report::{Outcome, Turn};

const WIDTH: f64 = 900.0;
const LABEL: f64 = 260.0;
const ROW: f64 = 46.0;
/// Ratios are drawn on a logarithmic scale from 1/100 to 100.
const DECADES: f64 = 2.0;

/// An SVG with two bars a case: throughput and server CPU per request, ours relative to etcd's.
pub fn ratios(outcomes: &[Outcome]) -> String {
    let height = ROW * outcomes.len() as f64 + 70.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"10\" y=\"22\" font-size=\"16\">ours / etcd: requests a second (blue, longer to the right is better), \
         server CPU per request (orange, to the left is better)</text>"
    );
    for exponent in [-2, -1, 0, 1, 2] {
        let x = place(10f64.powi(exponent));
        let label = 10f64.powi(exponent);
        write!(
            svg,
            "<line x1=\"{x}\" x2=\"{x}\" y1=\"40\" y2=\"{height}\" stroke=\"#ccc\"/>\
             <text x=\"{x}\" y=\"54\" text-anchor=\"middle\" fill=\"#777\">{label}×</text>"
        )
        .expect("a string takes everything");
    }
    for (row, outcome) in outcomes.iter().enumerate() {
        let y = 66.0 + ROW * row as f64;
        write!(svg, "<text x=\"10\" y=\"{}\">{}</text>", y + 18.0, outcome.case)
            .expect("a string takes everything");
        svg.push_str(&bar(outcome.medians(|t| t.seen.rate()).2, y, "#3b78c3"));
        svg.push_str(&bar(outcome.medians(Turn::cpu_us).2, y + 16.0, "#e08b3a"));
    }
    svg.push_str("</svg>\n");
    svg
}

fn bar(ratio: f64, y: f64, colour: &str) -> String {
    if !ratio.is_finite() || ratio <= 0.0 {
        return String::new();
    }
    let (one, end) = (place(1.0), place(ratio));
    let (x, width) = (one.min(end), (one - end).abs().max(1.0));
    format!(
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"14\" fill=\"{colour}\"/>\
         <text x=\"{}\" y=\"{}\" font-size=\"11\">{ratio:.2}</text>",
        one.max(end) + 4.0,
        y + 11.0
    )
}

fn place(ratio: f64) -> f64 {
    let share = (ratio.log10().clamp(-DECADES, DECADES) + DECADES) / (2.0 * DECADES);
    LABEL + share * (WIDTH - LABEL - 50.0)
}
