//! `onkos pack`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::progress::gib;
use super::{Global, Outcome, print_json};
use crate::data::{Cohort, PackOptions, Packed, pack, verify};
use crate::error::{Error, Result};
use crate::features::FeatureType;

/// Packs the features of a cohort into a store, once, for fast reading.
#[derive(Clone, Debug, Args)]
pub(super) struct Pack {
    /// The cohort file
    #[arg(value_name = "COHORT.toml")]
    cohort: PathBuf,
    /// The folder of the store: made, or gone on with
    #[arg(long, value_name = "STORE")]
    out: PathBuf,
    /// The element type in the store [default: that of the files]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<Type>,
    /// GiB of features in a shard, at most, unless a slide has more
    #[arg(long, value_name = "GIB", default_value_t = 4.0)]
    shard: f64,
    /// Read the store back and compare every value with the files
    #[arg(long)]
    verify: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    F32,
    F16,
    Bf16,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Summary {
    store: PathBuf,
    #[serde(flatten)]
    packed: Packed,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_rows: Option<usize>,
}

impl Pack {
    pub(super) fn run(&self, global: &Global) -> Result<Outcome> {
        let start = std::time::Instant::now();
        let cohort = Cohort::open_unscanned_by(&self.cohort, global.reading())?;
        let dtype = self.dtype.map(|dtype| match dtype {
            Type::F32 => FeatureType::F32,
            Type::F16 => FeatureType::F16,
            Type::Bf16 => FeatureType::Bf16,
        });
        if !(self.shard.is_finite() && self.shard > 0.0) {
            return Err(Error::Setting { name: "--shard", want: "finite and positive", value: self.shard.to_string() });
        }
        let shard_bytes = (self.shard * (1u64 << 30) as f64) as u64;
        let packed = with_bar("packing", global.json, |show| {
            pack(&cohort, &self.out, PackOptions { dtype, shard_bytes }, show)
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let compare = || with_bar("comparing", global.json, |show| verify(&cohort, &self.out, show));
        let verified_rows = self.verify.then(compare).transpose()?;
        let summary = Summary { store: self.out.clone(), packed, seconds, verified_rows };
        if global.json {
            print_json(&summary)
        } else {
            print(&summary)
        }
        Ok(Outcome::Done)
    }
}

/// Runs `work` with a bar of the rows that it tells of.
fn with_bar<R>(what: &'static str, hidden: bool, work: impl FnOnce(&(dyn Fn(usize, usize) + Sync)) -> R) -> R {
    let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::no_length() };
    let style = ProgressStyle::with_template("{msg} {bar:40} {human_pos} of {human_len} rows, {eta} left");
    let bar = bar.with_message(what).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let result = work(&|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    result
}

fn print(summary: &Summary) {
    let p = &summary.packed;
    let (gib, kept) = (gib(p.bytes), p.kept);
    say!("{} slides, {} rows of {} {} features", p.slides, p.rows, p.width, p.dtype);
    say!("shards: {}, {gib:.2} GiB, {kept} of them as they were; {:.1} s", p.shards, summary.seconds);
    if p.rounded_to_zero > 0 {
        say!("warning: {} values are too small for {} and became 0", p.rounded_to_zero, p.dtype);
    }
    if let Some(rows) = summary.verified_rows {
        say!("read back: all {rows} rows are as in the files");
    }
    say!("store: {}; name it as store = \"...\" in [slides]", summary.store.display());
}
