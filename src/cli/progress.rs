//! The bar of a training.

use std::io::Write;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::device::Device;
use crate::evaluate::Figure;
use crate::study::{Event, Plan};
use crate::train::{EpochRecord, Progress};

/// One bar over all epochs: loss, rate and time left; a line an epoch where there is no terminal.
pub(super) struct Bar {
    bar: ProgressBar,
    epochs: u32,
    plain: bool,
}

impl Bar {
    /// `quiet` draws nothing at all.
    pub(super) fn new(epochs: u32, quiet: bool) -> Bar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let plain = !quiet && bar.is_hidden();
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} batches  {per_sec}  {eta} left  {msg}");
        bar.set_style(style.expect("a valid template"));
        Bar { bar, epochs, plain }
    }

    /// Shows what a training tells.
    pub(super) fn show(&self, progress: &Progress<'_>) {
        match progress {
            Progress::Start { device, resident } => {
                if self.plain {
                    let _ = writeln!(std::io::stderr(), "{}", started(*device, *resident));
                } else {
                    self.bar.println(started(*device, *resident));
                }
            }
            Progress::Batch { epoch, batch, batches, loss } => {
                self.bar.set_length(*batches as u64 * u64::from(self.epochs));
                self.bar.set_position((u64::from(*epoch) - 1) * *batches as u64 + *batch as u64);
                self.bar.set_message(format!("epoch {epoch}/{}  loss {loss:.4}", self.epochs));
            }
            Progress::Epoch(record) => {
                // A log wants some lines, not thousands.
                let every = self.epochs.div_ceil(20);
                if self.plain && (record.epoch % every == 0 || record.epoch == self.epochs || record.epoch == 1) {
                    // Whoever closed standard error wants no lines; that is no reason to stop a training.
                    let _ = writeln!(std::io::stderr(), "{}", self.line(record));
                }
            }
        }
    }

    fn line(&self, record: &EpochRecord) -> String {
        let validation = record.validation.as_ref().map_or(String::new(), |v| {
            let c = match &v.concordance {
                Figure::Value(c) => format!("{c:.3}"),
                Figure::Undefined { .. } => "-".into(),
            };
            format!("  validation loss {:.4}  C {c}", v.loss)
        });
        let (epoch, seconds) = (record.epoch, record.seconds);
        format!("epoch {epoch}/{}  loss {:.4}{validation}  {seconds:.2} s", self.epochs, record.loss)
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// One bar over the trainings of a study; a line a training where there is no terminal.
pub(super) struct Cells {
    bar: ProgressBar,
    plain: bool,
}

impl Cells {
    /// `quiet` draws nothing at all.
    pub(super) fn new(quiet: bool) -> Cells {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let plain = !quiet && bar.is_hidden();
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} trainings  {eta} left  {msg}");
        bar.set_style(style.expect("a valid template"));
        Cells { bar, plain }
    }

    /// Shows what a study tells. Several trainings may tell at a time.
    pub(super) fn show(&self, plan: &Plan, event: Event<'_>) {
        match event {
            Event::Start { finished, cells } => {
                self.bar.set_length(cells as u64);
                self.bar.set_position(finished as u64);
                // What was there before says nothing about the time that is left.
                self.bar.reset_eta();
                if self.plain {
                    let _ = writeln!(std::io::stderr(), "training {} of {cells}", cells - finished);
                }
            }
            Event::Training { cell, progress: Progress::Epoch(record) } => {
                let epochs = plan.config(cell).train.epochs;
                self.bar.set_message(format!("{}  epoch {}/{epochs}", plan.names(cell).join("/"), record.epoch));
            }
            Event::Training { .. } => {}
            Event::Done { cell } => {
                self.bar.inc(1);
                if self.plain {
                    let _ = writeln!(std::io::stderr(), "training {} ended", plan.names(cell).join("/"));
                }
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Where a training runs.
fn started(device: Device, resident: u64) -> String {
    match device {
        Device::Cpu => "training on the CPU".into(),
        Device::Cuda(gpu) => {
            let stay = match resident {
                0 => String::new(),
                bytes => format!(", {:.2} GiB of features stay there", gib(bytes)),
            };
            let products = gpu.products_version().map_or(String::new(), |version| format!(", cuBLASLt {version}"));
            format!("training on {gpu} ({}, {}{products}){stay}", gpu.name(), gpu.precision())
        }
    }
}

/// Bytes as people read them.
pub(super) fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}
