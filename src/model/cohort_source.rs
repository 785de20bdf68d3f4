//! Batches out of a cohort, as a recipe says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::feed::{self, Feed, Order};
use super::{Batch, BatchSize, Footprint, Genes, Patches, Recipe, Source};
use crate::data::{Bags, Cohort, Modality};
use crate::device::{Device, Gpu, memory_limit_bytes};
use crate::error::{Error, Result};
use crate::features::{FeatureType, Features};
use crate::nn::Noise;
use crate::ops::Gather;
use crate::rng::{Draws, name32};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// A cohort as a model sees it. Patients are indices into those of the cohort.
///
/// It gives batches on one device. Expression always lies there; features lie there too if there is room, so that a
/// batch is a list of offsets and a copy on the device, and come batch by batch if not.
#[derive(Debug)]
pub struct CohortSource<'a> {
    cohort: &'a Cohort,
    /// Scaled expression of all patients: a column for each gene of each signature, signature after signature.
    genes: Option<Tensor<f32>>,
    patches: Option<Store>,
    modality_dropout: f64,
    /// The patches of a patient that training shows at most.
    most: usize,
    /// The rows that training gives of a patient who has patches, at least.
    least: usize,
    /// The name of each patient, for draws.
    names: Arc<[u32]>,
    device: Device,
    footprint: Footprint,
    plan: Mutex<Plan>,
    /// The bytes that were free when a batch asked last.
    free: AtomicU64,
    /// The nanoseconds that batches waited for patch features.
    waited: AtomicU64,
}

/// Where features are.
#[derive(Debug)]
enum Store {
    /// The files.
    Files,
    /// All of them lie on the device.
    Device(Features),
    /// The files, by a worker that is a batch ahead.
    Feed(Box<Mutex<Feed>>),
}

/// The batches that were announced, and the one that was asked for last.
#[derive(Debug, Default)]
struct Plan {
    batches: usize,
    asked: usize,
    last: Vec<usize>,
    noise: Option<Noise>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> CohortSource<'a> {
    /// Scales the cohort as the recipe says and checks that the model can see it.
    ///
    /// # Errors
    /// Another width of patch features, missing genes, none of the model's modalities, or one that the model was
    /// trained without although nobody chose so.
    pub fn new(recipe: &Recipe, cohort: &'a Cohort) -> Result<CohortSource<'a>> {
        let name = || cohort.name.clone();
        let unseen = [
            (Modality::Genes, cohort.rna.is_some() && recipe.genes.is_none()),
            (Modality::Patches, cohort.slides.is_some() && recipe.patches.is_none()),
        ];
        if let Some(&(modality, _)) = unseen.iter().find(|(_, unseen)| *unseen && !recipe.modalities_chosen) {
            return Err(Error::UnseenModality { cohort: name(), source_cohort: recipe.source.clone(), modality });
        }
        let genes = match (&recipe.genes, &cohort.rna) {
            (Some(inputs), Some(rna)) => {
                let place: HashMap<&str, usize> =
                    inputs.scaler.genes().iter().enumerate().map(|(i, gene)| (gene.as_str(), i)).collect();
                let genes = inputs.signatures.iter().flat_map(|s| &s.genes);
                let column = |gene: &String| {
                    place.get(gene.as_str()).copied().ok_or_else(|| Error::SignatureGene { gene: gene.clone() })
                };
                let columns = genes.map(column).collect::<Result<Vec<usize>>>()?;
                let scaled = inputs.scaler.apply(&cohort.name, rna, inputs.missing)?;
                let rows = scaled.host().chunks(scaled.matrix().1.max(1));
                let values = rows.flat_map(|row| columns.iter().map(|&c| row[c])).collect();
                Some(Tensor::new(&[cohort.len(), columns.len()], values)?)
            }
            _ => None,
        };
        let patches = match (&recipe.patches, &cohort.slides) {
            (Some(inputs), Some(bags)) if inputs.width != bags.width() => {
                let (want, got) = (inputs.width, bags.width());
                return Err(Error::PatchWidth { cohort: name(), source_cohort: recipe.source.clone(), want, got });
            }
            (Some(_), Some(_)) => Some(Store::Files),
            _ => None,
        };
        if genes.is_none() && patches.is_none() {
            return Err(Error::NoInputs { cohort: name() });
        }
        let dtype = cohort.slides.as_ref().map_or(FeatureType::F32, |bags| bags.dtype());
        Ok(CohortSource {
            cohort,
            genes,
            patches,
            modality_dropout: 0.0,
            most: usize::MAX,
            least: 0,
            names: cohort.patients.iter().map(|patient| name32(&patient.case)).collect(),
            device: Device::Cpu,
            footprint: Footprint::new(recipe, dtype),
            plan: Mutex::default(),
            free: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        })
    }

    /// The same source, hiding one modality of a patient who has both with this probability in training.
    #[must_use]
    pub fn hiding(self, modality_dropout: f64) -> CohortSource<'a> {
        CohortSource { modality_dropout, ..self }
    }

    /// The same source, showing at most so many patches of a patient in training; 0 shows all.
    ///
    /// A bag with more is cut to a sample without replacement, each as likely as any other, by Floyd's method
    /// ([`Stream::sample`](crate::rng::Stream::sample)): anew each epoch, and from seed, epoch and patient alone, so that
    /// neither the batch nor the number of threads matters, and a second pass over an epoch sees the same patches. They keep
    /// their order. Without noise all patches are shown.
    #[must_use]
    pub fn showing(self, patches_per_patient: usize) -> CohortSource<'a> {
        CohortSource { most: if patches_per_patient == 0 { usize::MAX } else { patches_per_patient }, ..self }
    }

    /// The same source, giving at least so many rows of a patient who has patches in training: rows of zeros, of the features as they
    /// are stored, behind fewer patches; 0 pads nothing. To the model they are patches. Without noise there are none.
    ///
    /// # Panics
    /// If the features lie on a device already, where the zeros lie behind them: to be said before [`on`](Self::on).
    #[must_use]
    pub fn padding(self, pad_to: usize) -> CohortSource<'a> {
        assert!(!matches!(self.patches, Some(Store::Device(_))), "the features are on the device already");
        CohortSource { least: pad_to, ..self }
    }

    /// The patches of patient `p` that a training pass shows, with those of zeros, to compose its batches by.
    pub fn training_patches(&self, p: usize) -> usize {
        match self.patches(p) {
            0 => 0,
            patches => patches.min(self.most).max(self.least),
        }
    }

    /// The same source with its batches on a device. Features that take at most `room` bytes are copied there now and
    /// stay; with more, or without room, and on the CPU, a batch is fetched while the one before it is calculated with,
    /// as [`upcoming`](Source::upcoming) has announced them.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if not even the expression fits, [`Error::Cuda`] of the device.
    pub fn on(self, device: Device, room: u64) -> Result<CohortSource<'a>> {
        let genes = self.genes.as_ref().map(|genes| genes.to(device)).transpose()?;
        let patches = match (&self.patches, device, &self.cohort.slides) {
            (Some(_), Device::Cuda(gpu), Some(bags)) => {
                Some(Store::of(gpu, bags, self.names.clone(), room, self.least)?)
            }
            (Some(_), Device::Cpu, Some(bags)) => Some(Store::feed(device, bags, self.names.clone())?),
            _ => None,
        };
        let footprint = self.footprint.clone().on(device);
        Ok(CohortSource { genes, patches, device, footprint, ..self })
    }

    /// How long all batches so far waited for patch features, after what was fetched while others were calculated with.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// The bytes of features that lie on a device and stay there.
    pub fn resident(&self) -> u64 {
        match &self.patches {
            Some(Store::Device(features)) => self.footprint.feature_bytes(features.rows()),
            _ => 0,
        }
    }

    /// The room that [`on`](Self::on) may use on a device if batches of these patients are trained on and others are
    /// predicted, of which all patches are shown: what is left when the largest has twice what it needs by
    /// [`Footprint::bytes`], with a sixteenth of the memory for what that does not count: kernels, and sums of theirs.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn room(&self, device: Device, trained: &[Vec<usize>], predicted: &[Vec<usize>]) -> Result<u64> {
        let Device::Cuda(gpu) = device else { return Ok(0) };
        let footprint = self.footprint.clone().on(device);
        let bytes = |batch: &Vec<usize>, training| footprint.bytes(self.size(batch, training), training);
        let (trained, predicted) = (trained.iter().map(|b| bytes(b, true)), predicted.iter().map(|b| bytes(b, false)));
        let largest = trained.chain(predicted).max().unwrap_or(0);
        let (_, total) = gpu.memory()?;
        let genes = self.genes.as_ref().map_or(0, |genes| 4 * genes.len() as u64);
        Ok(gpu.available()?.saturating_sub(2 * largest + total / 16 + genes))
    }

    fn shown_patches(&self, p: usize, training: bool) -> usize {
        if training { self.training_patches(p) } else { self.patches(p) }
    }

    fn size(&self, patients: &[usize], training: bool) -> BatchSize {
        let patches = patients.iter().map(|&p| self.shown_patches(p, training)).sum();
        BatchSize { patients: patients.len(), patches }
    }

    /// The bytes that a batch needs besides what lies on the device already. While the features of a batch are used, a
    /// worker brings those of the next; it has had its turn if they are of one size.
    fn need(&self, patients: &[usize], noise: Option<Noise>) -> u64 {
        let size = self.size(patients, noise.is_some());
        let ahead = match &self.patches {
            Some(Store::Feed(_)) => self.footprint.feature_bytes(size.patches),
            _ => 0,
        };
        // Which rows are sampled, and where each goes, while they are gathered: two numbers a row, before anything else
        // but the features is there.
        let gathered = match &self.patches {
            Some(Store::Device(_)) => self.footprint.feature_bytes(size.patches) + 8 * (size.patches as u64 + 1),
            _ => 0,
        };
        self.footprint.bytes(size, noise.is_some()).max(gathered) + ahead
    }

    /// Refuses a batch that will not fit, before anything of it is launched.
    fn check_memory(&self, gpu: Gpu, patients: &[usize], noise: Option<Noise>) -> Result<()> {
        let need = self.need(patients, noise);
        // The question costs more than a small batch. If another program takes what was free, an allocation fails.
        if need <= self.free.load(Ordering::Relaxed) / 2 {
            return Ok(());
        }
        let free = gpu.available()?;
        self.free.store(free, Ordering::Relaxed);
        if need <= free {
            return Ok(());
        }
        // What is freed in the order of the stream is not free before the stream has come there.
        gpu.synchronize()?;
        let free = gpu.available()?;
        if need <= free { Ok(()) } else { Err(self.too_large(need, free)) }
    }

    /// Refuses batches in this order of which one takes more than this process may: the system would end it without a word.
    fn check_host_memory(&self, batches: &[Vec<usize>], noise: Option<Noise>) -> Result<()> {
        let Some(limit) = memory_limit_bytes() else { return Ok(()) };
        let sizes: Vec<BatchSize> = batches.iter().map(|batch| self.size(batch, noise.is_some())).collect();
        // While a batch is calculated with, the features of the next are fetched.
        let ahead = |at: usize| sizes.get(at + 1).map_or(0, |next| self.footprint.feature_bytes(next.patches));
        let need = |at: usize| self.footprint.bytes(sizes[at], noise.is_some()) + ahead(at);
        let Some((need, at)) = (0..batches.len()).map(|at| (need(at), at)).max() else { return Ok(()) };
        if need <= limit {
            return Ok(());
        }
        {
            let mut plan = lock(&self.plan);
            (plan.asked, plan.last) = (at + 1, batches[at].clone());
        }
        Err(self.too_large(need, limit))
    }

    fn too_large(&self, bytes: u64, free: u64) -> Error {
        let plan = lock(&self.plan);
        let number = match (plan.asked.checked_sub(1), plan.batches) {
            (Some(at), batches) if batches > 0 => format!("batch {} of {batches}", at % batches + 1),
            _ => "a batch".into(),
        };
        let place = match plan.noise {
            Some(noise) => format!("{number} of epoch {}", noise.epoch + 1),
            None => format!("{number} of cohort {}", self.cohort.name),
        };
        let shown = |p: usize| self.shown_patches(p, plan.noise.is_some());
        let BatchSize { patients, patches } = self.size(&plan.last, plan.noise.is_some());
        let most = plan.last.iter().copied().max_by_key(|&p| shown(p)).filter(|&p| shown(p) > 0);
        let largest = most.map(|p| (self.cohort.patients[p].case.clone(), shown(p)));
        let device = match self.device {
            Device::Cuda(gpu) => Some(gpu.to_string()),
            Device::Cpu => None,
        };
        Error::BatchMemory { device, place, patients, patches, largest, bytes, free }
    }

    /// The features of the named patients of a batch, whose bags have these rows.
    fn features(
        &self,
        bags: &Bags,
        from: &Store,
        patients: &[usize],
        rows: &Ragged,
        noise: Option<Noise>,
    ) -> Result<Features> {
        // A hidden bag is an empty one.
        let shown = patients.iter().zip(rows.iter()).filter(|(_, bag)| !bag.is_empty());
        let order = self.order(shown.map(|(&p, _)| p).collect(), noise);
        match from {
            Store::Files => Ok(bags.gather_parts(&order.parts(bags, &self.names))?.0),
            Store::Device(all) => {
                // Each run of consecutive rows is gathered as a bag of its own.
                let (mut starts, mut lengths) = (Vec::new(), Vec::new());
                for part in order.parts(bags, &self.names) {
                    let bag = bags.ragged().bag(part.patient);
                    let mut push = |start: usize, length: usize| {
                        starts.push(start);
                        lengths.push(length);
                    };
                    match part.rows {
                        None => push(bag.start, bag.len()),
                        Some(rows) => {
                            let runs = rows.chunk_by(|row, next| row + 1 == *next);
                            runs.for_each(|run| push(bag.start + run[0], run.len()));
                        }
                    }
                    if part.padding > 0 {
                        push(bags.ragged().rows(), part.padding);
                    }
                }
                Gather.features(all, &starts, &Ragged::from_lengths(lengths))
            }
            Store::Feed(feed) => lock(feed).take(order),
        }
    }

    fn order(&self, patients: Vec<usize>, noise: Option<Noise>) -> Order {
        Order { patients, noise, most: self.most, least: self.least }
    }

    fn has_genes(&self, p: usize) -> bool {
        self.genes.is_some() && self.cohort.rna.as_ref().is_some_and(|rna| rna.present[p])
    }

    /// Whether this pass shows genes and patches of a patient.
    fn shown(&self, p: usize, name: u32, noise: Option<Noise>) -> (bool, bool) {
        let has = (self.has_genes(p), self.patches(p) > 0);
        let Some(noise) = noise.filter(|_| self.modality_dropout > 0.0 && has == (true, true)) else { return has };
        let stream = Draws::new(noise.seed, noise.epoch, "modality.dropout").of(name);
        if stream.uniform(0) >= self.modality_dropout {
            return has;
        }
        let genes = stream.uniform(1) < 0.5;
        (genes, !genes)
    }

    /// What of a batch a pass shows the patches of.
    fn visible(&self, batch: &[usize], noise: Option<Noise>) -> Order {
        let shown = batch.iter().filter(|&&p| self.patches(p) > 0 && self.shown(p, self.name(p), noise).1);
        self.order(shown.copied().collect(), noise)
    }

    fn name(&self, p: usize) -> u32 {
        self.names[p]
    }
}

impl Store {
    /// Behind features that stay on the device lie so many rows of zeros.
    fn of(gpu: Gpu, bags: &Bags, names: Arc<[u32]>, room: u64, padding: usize) -> Result<Store> {
        let bytes = ((bags.ragged().rows() + padding) * bags.width() * bags.dtype().bytes()) as u64;
        if bytes <= room {
            match feed::all(gpu, bags, padding) {
                Ok(features) => return Ok(Store::Device(features)),
                // Somebody else took the room.
                Err(Error::DeviceMemory { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Store::feed(Device::Cuda(gpu), bags, names)
    }

    fn feed(device: Device, bags: &Bags, names: Arc<[u32]>) -> Result<Store> {
        Ok(Store::Feed(Box::new(Mutex::new(Feed::new(device, bags, names)?))))
    }
}

impl Source<f32> for CohortSource<'_> {
    fn patients(&self) -> usize {
        self.cohort.len()
    }

    fn patches(&self, p: usize) -> usize {
        self.cohort.slides.as_ref().filter(|_| self.patches.is_some()).map_or(0, |bags| bags.ragged().bag(p).len())
    }

    fn upcoming(&self, batches: &[Vec<usize>], passes: usize, noise: Option<Noise>) -> Result<()> {
        *lock(&self.plan) = Plan { batches: batches.len(), asked: 0, last: Vec::new(), noise };
        if self.device == Device::Cpu {
            self.check_host_memory(batches, noise)?;
        }
        let Some(Store::Feed(feed)) = &self.patches else { return Ok(()) };
        lock(feed).plan((0..passes).flat_map(|_| batches).map(|batch| self.visible(batch, noise)))
    }

    fn then(&self, batch: &[usize], noise: Option<Noise>) {
        if let Some(Store::Feed(feed)) = &self.patches {
            lock(feed).then(self.visible(batch, noise));
        }
    }

    fn explain(&self, error: Error) -> Error {
        match (error, self.device) {
            (Error::DeviceMemory { bytes, free, .. }, Device::Cuda(_)) => {
                let (last, noise) = {
                    let plan = lock(&self.plan);
                    (plan.last.clone(), plan.noise)
                };
                // What was asked for last is the least that it needs.
                self.too_large(self.need(&last, noise).max(bytes), free)
            }
            (other, _) => other,
        }
    }

    fn batch(&self, patients: &[usize], noise: Option<Noise>) -> Result<Batch<f32>> {
        {
            let mut plan = lock(&self.plan);
            (plan.last, plan.noise) = (patients.to_vec(), noise);
            plan.asked += 1;
        }
        if let Device::Cuda(gpu) = self.device {
            self.check_memory(gpu, patients, noise)?;
        }
        let names: Vec<u32> = patients.iter().map(|&p| self.name(p)).collect();
        let shown: Vec<(bool, bool)> =
            patients.iter().zip(&names).map(|(&p, &name)| self.shown(p, name, noise)).collect();
        let genes = self.genes.as_ref().map(|expression| {
            let rows = Ragged::from_lengths(shown.iter().map(|s| usize::from(s.0)));
            Gather.forward(expression, patients, &rows).map(|values| Genes { values, rows })
        });
        let patches = self.cohort.slides.as_ref().zip(self.patches.as_ref()).map(|(bags, from)| {
            let length =
                |(&p, shown): (&usize, &(bool, bool))| if shown.1 { self.shown_patches(p, noise.is_some()) } else { 0 };
            let rows = Ragged::from_lengths(patients.iter().zip(&shown).map(length));
            let start = Instant::now();
            let features = self.features(bags, from, patients, &rows, noise);
            self.waited.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            features.map(|features| Patches { features, bags: rows })
        });
        Ok(Batch { patients: names, genes: genes.transpose()?, patches: patches.transpose()? })
    }
}
