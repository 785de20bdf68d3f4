//! How patch features come out of their files batch by batch: a worker that is one batch ahead.
//!
//! While a batch is calculated with, the worker fetches the next: for the CPU into memory, for a device that cannot hold
//! all of a cohort through pinned memory on a stream of its own, where it starts when the batch before the current one is
//! done with, and the calling thread never waits for the device. Either way two batches at most are there at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use half::{bf16, f16};

use crate::data::{Bags, Part};
use crate::device::{Arriving, Device, Gpu, Moment, Uploader};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::features::{FeatureType, Features};
use crate::nn::Noise;
use crate::rng::Draws;

/// Features that were fetched, or are on their way to a device.
#[derive(Debug)]
enum Coming {
    Here(Features),
    F32(Arriving<f32>),
    F16(Arriving<f16>),
    Bf16(Arriving<bf16>),
}

impl Coming {
    fn start(uploader: &mut Uploader, bags: &Bags, parts: &[Part]) -> Result<Coming> {
        fn each<F: Element>(uploader: &mut Uploader, bags: &Bags, parts: &[Part]) -> Result<Arriving<F>> {
            let (rows, runs) = (parts.iter().map(|part| bags.rows(part)).sum(), bags.runs(parts));
            let mut read = Ok(());
            let arriving = uploader.upload(&[rows, bags.width()], |first, to: &mut [F]| {
                // After a failure there is nothing worth reading: the upload is thrown away.
                if read.is_ok() {
                    read = bags.read(&runs, first * size_of::<F>(), bytemuck::cast_slice_mut(to));
                }
            })?;
            read.map(|()| arriving)
        }
        Ok(match bags.dtype() {
            FeatureType::F32 => Coming::F32(each(uploader, bags, parts)?),
            FeatureType::F16 => Coming::F16(each(uploader, bags, parts)?),
            FeatureType::Bf16 => Coming::Bf16(each(uploader, bags, parts)?),
        })
    }

    fn land(self) -> Features {
        match self {
            Coming::Here(features) => features,
            Coming::F32(x) => Features::F32(x.land()),
            Coming::F16(x) => Features::F16(x.land()),
            Coming::Bf16(x) => Features::Bf16(x.land()),
        }
    }
}

/// The features of all patients on a device, `[N, L]`: what is launched after this waits for the copy.
pub(super) fn all(gpu: Gpu, bags: &Bags) -> Result<Features> {
    let parts: Vec<Part> = (0..bags.ragged().bags()).map(Part::all).collect();
    Ok(Coming::start(&mut Uploader::new(gpu)?, bags, &parts)?.land())
}

/// Whose patches a batch shows, and which of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    pub(super) patients: Vec<usize>,
    /// The draws of a training pass. Without them all patches are shown.
    pub(super) noise: Option<Noise>,
    /// The patches of a patient that a training pass shows at most.
    pub(super) most: usize,
}

impl Order {
    /// The parts of the bags, given the name of each patient of the cohort: bags of too many patches are cut to a sample
    /// that depends on seed, epoch and patient alone.
    pub(super) fn parts(&self, bags: &Bags, names: &[u32]) -> Vec<Part> {
        let part = |&patient: &usize| {
            let all = bags.ragged().bag(patient).len();
            let noise = self.noise.filter(|_| all > self.most);
            let draws = noise.map(|noise| Draws::new(noise.seed, noise.epoch, "patches.sample"));
            Part { patient, rows: draws.map(|draws| draws.of(names[patient]).sample(all, self.most)) }
        };
        self.patients.iter().map(part).collect()
    }
}

/// A batch, and when its features may come.
type Request = (Order, Option<Moment>);

/// The batches of a plan, one ahead.
#[derive(Debug)]
pub(super) struct Feed {
    device: Device,
    /// What will be asked for, but for what the worker was told.
    queue: VecDeque<Order>,
    /// What the worker was told.
    ahead: Option<Order>,
    requests: Option<Sender<Request>>,
    answers: Receiver<Result<Coming>>,
    worker: Option<JoinHandle<()>>,
}

impl Feed {
    /// Of these bags of patients of these names, for a device.
    pub(super) fn new(device: Device, bags: &Bags, names: Arc<[u32]>) -> Result<Feed> {
        let mut uploader = match device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(Uploader::new(gpu)?),
        };
        let bags = bags.clone();
        let (requests, orders) = channel::<Request>();
        let (results, answers) = channel();
        let work = move || {
            for (order, after) in orders {
                let parts = order.parts(&bags, &names);
                let coming = after.map_or(Ok(()), |after| after.wait()).and_then(|()| match &mut uploader {
                    Some(uploader) => Coming::start(uploader, &bags, &parts),
                    None => bags.gather_parts(&parts).map(|(features, _)| Coming::Here(features)),
                });
                if results.send(coming).is_err() {
                    return;
                }
            }
        };
        let worker = std::thread::Builder::new().name("features".into()).spawn(work);
        let worker = Some(worker.map_err(Error::io("a thread for features"))?);
        Ok(Feed { device, queue: VecDeque::new(), ahead: None, requests: Some(requests), answers, worker })
    }

    /// What will be asked for, in order, instead of what was planned before.
    pub(super) fn plan(&mut self, batches: impl Iterator<Item = Order>) -> Result<()> {
        self.queue = batches.collect();
        if self.ahead.is_none() { self.order_next() } else { Ok(()) }
    }

    /// The features of a batch, one patient after another. Fastest for the next of the plan.
    pub(super) fn take(&mut self, order: Order) -> Result<Features> {
        if self.ahead.as_ref().is_some_and(|ahead| *ahead != order) {
            // Planned and not wanted. A failure of it is none of this batch.
            let _ = self.answer();
        }
        if self.ahead.is_none() {
            if self.queue.front().is_some_and(|next| *next == order) {
                self.queue.pop_front();
            }
            self.order(order)?;
        }
        let features = self.answer()?.land();
        // Everything launched so far is of earlier batches: when that is done there is room for the next.
        self.order_next()?;
        Ok(features)
    }

    fn order_next(&mut self) -> Result<()> {
        self.queue.pop_front().map_or(Ok(()), |next| self.order(next))
    }

    fn order(&mut self, order: Order) -> Result<()> {
        let now = match self.device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(Moment::now(gpu)?),
        };
        let requests = self.requests.as_ref().expect("it is taken away by drop alone");
        requests.send((order.clone(), now)).map_err(|_| gone())?;
        self.ahead = Some(order);
        Ok(())
    }

    fn answer(&mut self) -> Result<Coming> {
        self.ahead = None;
        self.answers.recv().map_err(|_| gone())?
    }
}

/// The worker ends only by a panic of its own while there is someone to work for.
fn gone() -> Error {
    Error::io("the thread for features")(std::io::Error::other("it has ended"))
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
