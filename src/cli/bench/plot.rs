//! A drawing of a run, as SVG: throughput and latencies over time, and how latencies are spread.

use std::{error::Error, ops::Range};

use plotters::prelude::*;

use super::{
    measure::{Latencies, Point, microseconds},
    report::{Report, time_text},
};

const SIZE: (u32, u32) = (960, 1080);
const FONT: &str = "sans-serif";
const LINE: RGBColor = RGBColor(31, 119, 180);
const MIDDLE: RGBColor = RGBColor(44, 160, 44);
const HIGH: RGBColor = RGBColor(214, 39, 40);
/// The spread is drawn up to this percentile, in nines: 99.999.
const NINES_MAX: f64 = 5.0;
const NINES_STEP: f64 = 0.05;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
/// A name, a colour, and what is drawn of each point.
type Curve = (&'static str, RGBColor, fn(&Point) -> f64);
type Area<'svg> = DrawingArea<SVGBackend<'svg>, plotters::coord::Shift>;

/// The whole drawing.
pub fn draw(report: &Report) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let titled = root.titled(&report.plan.describe(), (FONT, 20))?;
        let areas = titled.split_evenly((3, 1));
        if let [throughput, over_time, spread] = areas.as_slice() {
            draw_throughput(throughput, report)?;
            draw_latencies(over_time, &report.points)?;
            draw_spread(spread, &report.total.all())?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn draw_throughput(area: &Area<'_>, report: &Report) -> Result<()> {
    let batches = report.plan.batch_size.is_some();
    let of = |point: &Point| if batches { point.keys_per_second } else { point.requests_per_second };
    let points: Vec<_> = report.points.iter().map(|point| (point.at_s, of(point))).collect();
    let title = if batches { "keys a second" } else { "requests a second" };
    let highest = points.iter().map(|(_, rate)| *rate).fold(1.0, f64::max) * 1.1;
    let mut chart = chart(area, title).build_cartesian_2d(times(&report.points), 0.0..highest)?;
    chart.configure_mesh().x_desc("seconds").y_label_formatter(&|rate| format!("{rate:.0}")).draw()?;
    chart.draw_series(LineSeries::new(points, LINE.stroke_width(2)))?;
    Ok(())
}

fn draw_latencies(area: &Area<'_>, points: &[Point]) -> Result<()> {
    let series: [Curve; 3] = [
        ("p50", LINE, |point| point.latency_us.p50),
        ("p99", MIDDLE, |point| point.latency_us.p99),
        ("max", HIGH, |point| point.latency_us.max),
    ];
    let all = points.iter().filter(|point| point.requests > 0);
    let range = latency_range(all.flat_map(|point| [point.latency_us.p50, point.latency_us.max]));
    let mut chart = chart(area, "latency over time").build_cartesian_2d(times(points), range.log_scale())?;
    chart.configure_mesh().x_desc("seconds").y_label_formatter(&|us| time_text(*us)).draw()?;
    for (name, color, of) in series {
        let line = points.iter().filter(|point| point.requests > 0).map(|point| (point.at_s, of(point)));
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(())
}

/// Latency by percentile: each step to the right is a tenth of the requests that were left.
fn draw_spread(area: &Area<'_>, latencies: &Latencies) -> Result<()> {
    let steps = (0..).map(|step| f64::from(step) * NINES_STEP).take_while(|nines| *nines <= NINES_MAX);
    // Beyond one request in so many there is nothing to see.
    let known = (latencies.len().max(1) as f64).log10();
    let at = |nines: f64| (nines, microseconds(latencies.value_at_quantile(1.0 - 10f64.powf(-nines))));
    let line: Vec<_> = steps.filter(|nines| *nines <= known + NINES_STEP).map(at).collect();
    let range = latency_range(line.iter().map(|(_, us)| *us));
    let mut chart = chart(area, "latency by percentile").build_cartesian_2d(0.0..NINES_MAX, range.log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .x_labels(NINES_MAX as usize + 1)
        .x_label_formatter(&|nines| percentile_text(*nines))
        .y_label_formatter(&|us| time_text(*us))
        .draw()?;
    chart.draw_series(LineSeries::new(line, LINE.stroke_width(2)))?;
    Ok(())
}

fn chart<'area, 'svg>(area: &'area Area<'svg>, title: &str) -> ChartBuilder<'area, 'svg, SVGBackend<'svg>> {
    let mut chart = ChartBuilder::on(area);
    chart.caption(title, (FONT, 16)).margin(10).x_label_area_size(36).y_label_area_size(72);
    chart
}

fn times(points: &[Point]) -> Range<f64> {
    0.0..points.last().map_or(1.0, |point| point.at_s).max(1.0)
}

/// Wide enough for all, and not empty.
fn latency_range(all: impl Iterator<Item = f64>) -> Range<f64> {
    let (lowest, highest) = all.fold((f64::MAX, 0.0), |(low, high): (f64, f64), us| (low.min(us), high.max(us)));
    let lowest = lowest.min(highest).max(1.0);
    lowest * 0.8..highest.max(lowest) * 1.25
}

/// 0, 90, 99, 99.9, …
fn percentile_text(nines: f64) -> String {
    let text = format!("{:.3}", 100.0 - 100.0 * 10f64.powf(-nines));
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
