//! What a load came to: a table for people, or one JSON document.

use std::{collections::BTreeMap, time::Duration};

use indicatif::HumanCount;
use serde::Serialize;

use super::{
    measure::{Percentiles, Point, Tally, rounded},
    plan::Plan,
};

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    pub plan: Plan,
    pub total: Tally,
    pub points: Vec<Point>,
    /// From when measuring began to the last answer.
    pub elapsed: Duration,
    /// What this program itself took of the processor meanwhile.
    pub cpu: Duration,
    /// It was stopped before its time.
    pub interrupted: bool,
}

#[derive(Debug, Serialize)]
struct ReportJson<'report> {
    version: &'static str,
    settings: &'report Plan,
    interrupted: bool,
    elapsed_s: f64,
    requests: u64,
    keys: u64,
    errors: BTreeMap<&'report str, u64>,
    requests_per_second: f64,
    keys_per_second: f64,
    latency_us: Percentiles,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_latency_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_latency_us: Option<Percentiles>,
    /// How late this program itself was, in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    late_us: Option<Percentiles>,
    client_cpu_us_per_request: f64,
    time_series: &'report [Point],
}

impl Report {
    /// One document.
    pub fn json(&self) -> impl Serialize {
        let mixed = self.plan.read_ratio.is_some();
        let (reads, writes, late) = (&self.total.reads, &self.total.writes, &self.total.late);
        ReportJson {
            version: env!("CARGO_PKG_VERSION"),
            settings: &self.plan,
            interrupted: self.interrupted,
            elapsed_s: (self.elapsed.as_secs_f64() * 1e6).round() / 1e6,
            requests: self.total.requests(),
            keys: self.total.keys,
            errors: self.total.errors.iter().map(|(reason, errors)| (reason.as_str(), errors.count)).collect(),
            requests_per_second: self.per_second(self.total.requests()),
            keys_per_second: self.per_second(self.total.keys),
            latency_us: Percentiles::of(&self.total.all()),
            read_latency_us: (mixed && !reads.is_empty()).then(|| Percentiles::of(reads)),
            write_latency_us: (mixed && !writes.is_empty()).then(|| Percentiles::of(writes)),
            late_us: self.plan.rate.map(|_| Percentiles::of(late)),
            client_cpu_us_per_request: self.cpu_us(),
            time_series: &self.points,
        }
    }

    /// Lines for people.
    pub fn table(&self) -> Vec<String> {
        let mut lines = vec![self.plan.describe()];
        let counted = |what: &str, count: u64| {
            format!(
                "{what:<10}{:>14}{:>14}/s",
                HumanCount(count).to_string(),
                HumanCount(self.per_second(count) as u64).to_string()
            )
        };
        lines.push(format!(
            "{} keys of {} bytes with values of {}, {:.1} s measured{}",
            HumanCount(self.plan.keys),
            self.plan.key_bytes,
            self.plan.value_bytes,
            self.elapsed.as_secs_f64(),
            if self.interrupted { ", then interrupted" } else { "" },
        ));
        lines.push(String::new());
        lines.push(counted("requests", self.total.requests()));
        if self.plan.batch_size.is_some() {
            lines.push(counted("keys", self.total.keys));
        }
        lines.push(format!("{:<10}{:>14}", "errors", HumanCount(self.total.failed()).to_string()));
        for (reason, errors) in &self.total.errors {
            lines.push(format!("  {reason} {}: {}", HumanCount(errors.count), errors.said));
        }
        lines.push(String::new());
        let names = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
        lines.push(format!("{:<10}{}", "latency", names.map(|name| format!("{name:>10}")).concat()));
        let (reads, writes) = (&self.total.reads, &self.total.writes);
        let mut rows = vec![("all", self.total.all())];
        if self.plan.read_ratio.is_some() {
            rows.extend([("reads", reads.clone()), ("writes", writes.clone())]);
        }
        if self.plan.rate.is_some() {
            rows.push(("sent late", self.total.late.clone()));
        }
        for (name, latencies) in rows {
            let of = Percentiles::of(&latencies);
            let times = [of.p50, of.p90, of.p99, of.p99_9, of.p99_99, of.max];
            lines.push(format!("{name:<10}{}", times.map(|us| format!("{:>10}", time_text(us))).concat()));
        }
        lines.push(String::new());
        lines.push(format!("this program took {:.1} us of the processor for each request", self.cpu_us()));
        lines
    }

    /// How many of the requests failed and why, if any did, or that there were none.
    pub fn complaint(&self) -> Option<String> {
        let (requests, failed) = (self.total.requests(), self.total.failed());
        let (reason, errors) = match self.total.errors.iter().max_by_key(|(_, errors)| errors.count) {
            Some(most) => most,
            None if requests == 0 => {
                return Some("NOTHING_MEASURED: no request was answered: give it more time by --duration".to_owned());
            }
            None => return None,
        };
        Some(format!("{reason}: {failed} of {} requests failed, most of them so: {}", requests + failed, errors.said))
    }

    fn per_second(&self, count: u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { rounded(count as f64 / seconds) } else { 0.0 }
    }

    fn cpu_us(&self) -> f64 {
        let requests = (self.total.requests() + self.total.failed()).max(1);
        (self.cpu.as_secs_f64() * 1e8 / requests as f64).round() / 100.0
    }
}

/// Microseconds as people read them.
pub fn time_text(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e4 => format!("{:.2} ms", us / 1e3),
        us if us < 1e5 => format!("{:.1} ms", us / 1e3),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}
