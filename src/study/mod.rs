//! A study across cancers: each host model with each plug-in, trained on each source and judged on cohorts that it never
//! saw.
//!
//! # The study file
//!
//! ```toml
//! sources = ["blca.toml", "brca.toml"]  # cohort files, relative to this file; each is trained on, and judged on the others
//! targets = ["luad.toml"]               # more cohorts to judge on, none of which is a source; may be absent
//! # others = false                      # judges on `targets` alone
//! seeds = [1, 2, 3]                     # each trains every model anew
//! plugins = ["none", "sdir", "cade", "both"]   # these four if absent; "mixstyle" is the fifth
//! mode = "strict"                       # or "published"; see [`Mode`]
//! preset = "onkos"                      # or "published"; see [`Preset`]
//! folds = 5                             # of the cross-validation inside a source; mode "strict"
//! replicates = 1000                     # of the bootstrap
//! resampling_seed = 0                   # of the bootstrap
//! patients = ["TCGA-AB-1234"]           # cases of targets whose gene groups and attention the report shows; none if absent
//! out = "study-results"                 # the folder of the results; `STUDY-results` if absent. `--out` goes before it
//!
//! [sdir]                                # as [model.sdir] of a run file; the same for all hosts
//! [cade]                                # as [model.cade]
//! [mixstyle]                            # as [model.mixstyle]: the unimodal ancestor of CADE, on patch tokens
//! [train]                               # as in a run file, for all hosts
//! [inputs]
//!
//! [[hosts]]
//! name = "fusion"                       # the model, unless `model.name` says so; then a name of your own
//! # plugins = ["none"]                  # instead of the list above; a model of slides alone has "mixstyle" besides, of genes alone nothing
//! # sdir = { patches = { p = 0.3 } }    # laid over [sdir]; cade and mixstyle likewise: one host a setting is an ablation
//! [hosts.model]                         # laid over the defaults of the model
//! [hosts.train]                         # laid over [train]
//! [hosts.inputs]
//! ```
//!
//! Everything that is wrong with it and with the cohorts is told in one list before anything is trained ([`Plan::open`]).
//!
//! # Modes and presets
//!
//! The mode says how models are judged, the preset what they are trained with; any pair of them is possible. A study has one
//! mode, and figures of two modes never stand in one table.
//!
//! | | mode `strict` | mode `published` |
//! |---|---|---|
//! | trained on | the source less its validation patients | the whole source |
//! | epoch | chosen by the validation patients | the last |
//! | expression of a target | scaled as the training patients of the source | by what is fitted on the target |
//! | figures inside the source | k-fold cross-validation; each fold has validation patients of its own, and C compares patients of one fold | of the training patients themselves |
//!
//! The preset `published` is the training script of arXiv 2507.08340: RAdam with 5e-4 and a weight decay of 1e-3, 100 epochs,
//! batches of one patient, cosine with one epoch of warm-up, discrete-time loss with alpha 1/2 and four bins, sampling balanced
//! over bins and censoring, 4,096 patches a patient in training (of more a sample, behind fewer rows of zeros, whatever the host),
//! one minimum and maximum for all genes. What of it cannot be said here:
//!
//! - Patients are sampled by the epoch in equal shares of each kind, as even as can be; the script draws with replacement.
//! - The endpoint is that of the cohort file: the script takes disease-specific survival (`endpoint = "dss"`).
//! - Patch features of a target are never standardised by the target; the script does not standardise them at all.
//! - Bins of a target play no part: C needs none.
//!
//! # Results
//!
//! The folder of the results holds `cells/SOURCE/HOST/PLUGIN/seed-N/PART`, one folder a training: `risks-COHORT.csv`,
//! `metrics.jsonl`, and `result.json`, which is written last and has the hash of all settings and inputs. A study that was
//! killed goes on: cells whose hash is right are kept, and others are made anew, also when settings or files have changed, a
//! target was added, or a file of the cell was touched. When all are there, `study.json`, `study.csv` and `report.html` are
//! made from them, the same to the last bit however often the study was killed and whatever `--jobs` was. The cell `whole` of the
//! first seed keeps its model and its run file, so that `onkos predict` and `onkos attend` take its folder for one of a run; the
//! other models go, as those of a large host fill a disk.
//!
//! - **C** is the mean over the seeds; its interval is a percentile bootstrap over patients of that mean, the same resamples
//!   for all models of a cohort ([`crate::metrics::Bootstrap`], keyed by `resampling_seed` and the name of the cohort). It says
//!   how much hangs on who was judged, not on seeds or on who was trained on; the deviation over the seeds stands beside it.
//! - **Comparisons** are of a plug-in with `none` of the same host, source, seeds and patients. The probability is that of the
//!   paired bootstrap, corrected by Holm's rule for all comparisons of the study, the means over all pairs of a source and a
//!   target included. With `R` replicates no probability is below `2 / (R + 1)`, so a study of `m` comparisons needs more than
//!   `40 m` replicates before one can be below 0.05 after the correction.
//! - **Ranks** are by C among all hosts with their plug-ins, averaged over the pairs of a source and a target.
//! - **Chosen patients** are shown by the models of the first seed that were trained on other cohorts: what the risk loses when
//!   the genes of one group are put to 0 after scaling ([`GroupChange`]), and on how few patches half of the attention lies.
//! - **High and low risk** are cut at the median risk of the training patients.

mod cell;
mod compare;
mod explain;
mod file;
mod grid;
mod plan;
mod preset;
mod report;
mod results;
mod tables;

use std::path::PathBuf;

pub use cell::{Epoch, Validation};
pub use compare::{Comparison, Difference, Rank};
pub use explain::{Explanation, GroupChange, PatchAttention};
pub use file::{Host, Settings};
pub use grid::{Event, Running};
pub use plan::{Cell, Part, Plan};
pub use preset::{Mode, Plugin, Preset};
pub use results::{CohortRow, ConcordanceRow, Domain, Groups, Results, Row, SeedRow, Training};

use crate::data::write_file;
use crate::error::Result;
use crate::run::write_json;

/// The names of the files of a study.
pub const JSON: &str = "study.json";
/// See [`JSON`].
pub const CSV: &str = "study.csv";
/// See [`JSON`].
pub const REPORT: &str = "report.html";

/// A study that is finished.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What it found.
    pub results: Results,
    /// The folder of the results.
    pub out: PathBuf,
    /// Trainings that this run made; the others were there already.
    pub trained: usize,
}

impl Plan {
    /// Trains every cell that is not finished, calculates all figures and writes tables and report.
    ///
    /// # Errors
    /// [`Error::Study`](crate::Error::Study) with every training that failed; those that did not are kept.
    /// [`Error::Io`](crate::Error::Io).
    pub fn run(&self, running: Running, observe: &(dyn Fn(Event<'_>) + Sync)) -> Result<Finished> {
        let (stored, trained) = self.fill(running, observe)?;
        let results = Results::of(self, &stored, running.device)?;
        write_json(&self.out.join(JSON), &results)?;
        tables::write_csv(&self.out.join(CSV), &results)?;
        let page = report::page(&results);
        write_file(&self.out.join(REPORT), |out| out.write_all(page.as_bytes()))?;
        Ok(Finished { results, out: self.out.clone(), trained })
    }
}
