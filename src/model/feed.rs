//! How patch features come out of their files batch by batch: a worker that is one batch ahead.
//!
//! While a batch is calculated with, the worker fetches the next: for the CPU into memory, for a device that cannot hold
//! all of a cohort through pinned memory on a stream of its own, where it starts when the batch before the current one is
//! done with, and the calling thread never waits for the device. Either way two batches at most are there at once.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use half::{bf16, f16};

use crate::data::Bags;
use crate::device::{Arriving, Device, Gpu, Moment, Uploader};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::features::{FeatureType, Features};

/// Features that were fetched, or are on their way to a device.
#[derive(Debug)]
enum Coming {
    Here(Features),
    F32(Arriving<f32>),
    F16(Arriving<f16>),
    Bf16(Arriving<bf16>),
}

impl Coming {
    fn start(uploader: &mut Uploader, bags: &Bags, patients: &[usize]) -> Result<Coming> {
        fn each<F: Element>(uploader: &mut Uploader, bags: &Bags, patients: &[usize]) -> Result<Arriving<F>> {
            let rows = patients.iter().map(|&p| bags.ragged().bag(p).len()).sum();
            let mut read = Ok(());
            let arriving = uploader.upload(&[rows, bags.width()], |first, to: &mut [F]| {
                // After a failure there is nothing worth reading: the upload is thrown away.
                if read.is_ok() {
                    read = bags.read(patients, first * size_of::<F>(), bytemuck::cast_slice_mut(to));
                }
            })?;
            read.map(|()| arriving)
        }
        Ok(match bags.dtype() {
            FeatureType::F32 => Coming::F32(each(uploader, bags, patients)?),
            FeatureType::F16 => Coming::F16(each(uploader, bags, patients)?),
            FeatureType::Bf16 => Coming::Bf16(each(uploader, bags, patients)?),
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
    let patients: Vec<usize> = (0..bags.ragged().bags()).collect();
    Ok(Coming::start(&mut Uploader::new(gpu)?, bags, &patients)?.land())
}

/// The patients of a batch, and when its features may come.
type Request = (Vec<usize>, Option<Moment>);

/// The batches of a plan, one ahead.
#[derive(Debug)]
pub(super) struct Feed {
    device: Device,
    /// What will be asked for, but for what the worker was told.
    queue: VecDeque<Vec<usize>>,
    /// What the worker was told.
    ahead: Option<Vec<usize>>,
    requests: Option<Sender<Request>>,
    answers: Receiver<Result<Coming>>,
    worker: Option<JoinHandle<()>>,
}

impl Feed {
    /// Of these bags, for a device.
    pub(super) fn new(device: Device, bags: &Bags) -> Result<Feed> {
        let mut uploader = match device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(Uploader::new(gpu)?),
        };
        let bags = bags.clone();
        let (requests, orders) = channel::<Request>();
        let (results, answers) = channel();
        let work = move || {
            for (patients, after) in orders {
                let coming = after.map_or(Ok(()), |after| after.wait()).and_then(|()| match &mut uploader {
                    Some(uploader) => Coming::start(uploader, &bags, &patients),
                    None => bags.gather(&patients).map(|(features, _)| Coming::Here(features)),
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
    pub(super) fn plan(&mut self, batches: impl Iterator<Item = Vec<usize>>) -> Result<()> {
        self.queue = batches.collect();
        if self.ahead.is_none() { self.order_next() } else { Ok(()) }
    }

    /// The features of the given patients, one after another. Fastest for the next batch of the plan.
    pub(super) fn take(&mut self, patients: &[usize]) -> Result<Features> {
        if self.ahead.as_deref().is_some_and(|ahead| ahead != patients) {
            // Planned and not wanted. A failure of it is none of this batch.
            let _ = self.answer();
        }
        if self.ahead.is_none() {
            if self.queue.front().is_some_and(|next| next == patients) {
                self.queue.pop_front();
            }
            self.order(patients.to_vec())?;
        }
        let features = self.answer()?.land();
        // Everything launched so far is of earlier batches: when that is done there is room for the next.
        self.order_next()?;
        Ok(features)
    }

    fn order_next(&mut self) -> Result<()> {
        self.queue.pop_front().map_or(Ok(()), |next| self.order(next))
    }

    fn order(&mut self, patients: Vec<usize>) -> Result<()> {
        let now = match self.device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(Moment::now(gpu)?),
        };
        let requests = self.requests.as_ref().expect("it is taken away by drop alone");
        requests.send((patients.clone(), now)).map_err(|_| gone())?;
        self.ahead = Some(patients);
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
