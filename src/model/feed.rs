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
use crate::shape::Ragged;

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

/// The features of all patients on a device, `[N, L]`, and behind them so many rows of zeros: what is launched after this waits for
/// the copy.
pub(super) fn all(gpu: Gpu, bags: &Bags, padding: usize) -> Result<Features> {
    let mut parts: Vec<Part> = (0..bags.ragged().bags()).map(Part::all).collect();
    if let Some(last) = parts.last_mut() {
        last.padding = padding;
    }
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
    /// The rows that it gives of a patient at least: zeros behind fewer patches.
    pub(super) least: usize,
}

impl Order {
    /// The parts of the bags, given the name of each patient of the cohort: bags of too many patches are cut to a sample
    /// that depends on seed, epoch and patient alone.
    pub(super) fn parts(&self, bags: &Bags, names: &[u32]) -> Vec<Part> {
        let part = |&patient: &usize| {
            let all = bags.ragged().bag(patient).len();
            let noise = self.noise.filter(|_| all > self.most);
            let draws = noise.map(|noise| Draws::new(noise.seed, noise.epoch, "patches.sample"));
            let rows = draws.map(|draws| draws.of(names[patient]).sample(all, self.most));
            let shown = rows.as_ref().map_or(all, Vec::len);
            let padding = self.noise.map_or(0, |_| self.least.saturating_sub(shown));
            Part { patient, rows, padding }
        };
        self.patients.iter().map(part).collect()
    }

    /// The rows of all these parts.
    fn rows(&self, bags: &Ragged) -> usize {
        let (most, least) = if self.noise.is_some() { (self.most, self.least) } else { (usize::MAX, 0) };
        self.patients.iter().map(|&p| bags.bag(p).len().min(most).max(least)).sum()
    }
}

/// Batches that were handed out, on the CPU: their memory is written anew once they are done with.
///
/// Left to the allocator, the memory of each batch would be filled in by the kernel or with zeros first, which takes
/// longer than reading a file that the system holds.
#[derive(Default)]
struct Spares(VecDeque<Features>);

impl Spares {
    /// Batches that are there at once: one to calculate with, one ahead.
    const KEPT: usize = 2;

    fn gather(&mut self, bags: &Bags, parts: &[Part], room: usize) -> Result<Features> {
        // The older one goes first: the younger is most likely in use. What is in use is let go of.
        let spare = if self.0.len() < Spares::KEPT { None } else { self.0.pop_front() };
        let features = bags.gather_into(parts, spare, room)?;
        self.0.push_back(features.clone());
        Ok(features)
    }
}

/// What the worker is told.
struct Request {
    order: Order,
    /// When the features may come.
    after: Option<Moment>,
    /// The rows of the largest batch of the plan.
    room: usize,
}

/// The batches of a plan, one ahead.
#[derive(Debug)]
pub(super) struct Feed {
    device: Device,
    /// The rows of each bag, and of the largest batch of the plan.
    rows: Ragged,
    room: usize,
    /// What will be asked for, but for what the worker was told.
    queue: VecDeque<Order>,
    /// The batch that comes when the queue is empty, of whatever is planned next.
    then: Option<Order>,
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
        let (bags, rows) = (bags.clone(), bags.ragged().clone());
        let mut spares = Spares::default();
        let (requests, orders) = channel::<Request>();
        let (results, answers) = channel();
        let work = move || {
            for Request { order, after, room } in orders {
                let parts = order.parts(&bags, &names);
                let coming = after.map_or(Ok(()), |after| after.wait()).and_then(|()| match &mut uploader {
                    Some(uploader) => Coming::start(uploader, &bags, &parts),
                    None => spares.gather(&bags, &parts, room).map(Coming::Here),
                });
                if results.send(coming).is_err() {
                    return;
                }
            }
        };
        let worker = std::thread::Builder::new().name("features".into()).spawn(work);
        let worker = Some(worker.map_err(Error::io("a thread for features"))?);
        let queue = VecDeque::new();
        Ok(Feed { device, rows, room: 0, queue, then: None, ahead: None, requests: Some(requests), answers, worker })
    }

    /// What will be asked for, in order, instead of what was planned before.
    pub(super) fn plan(&mut self, batches: impl Iterator<Item = Order>) -> Result<()> {
        self.queue = batches.collect();
        self.room = self.queue.iter().map(|order| order.rows(&self.rows)).max().unwrap_or(0);
        if self.ahead.is_some() && self.ahead.as_ref() == self.queue.front() {
            self.queue.pop_front();
        }
        if self.ahead.is_none() { self.order_next() } else { Ok(()) }
    }

    /// What the next plan will begin with, to be fetched when this one is at its end.
    pub(super) fn then(&mut self, order: Order) {
        self.then = Some(order);
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
        let next = self.queue.pop_front().or_else(|| self.then.take());
        next.map_or(Ok(()), |next| self.order(next))
    }

    fn order(&mut self, order: Order) -> Result<()> {
        let now = match self.device {
            Device::Cpu => None,
            Device::Cuda(gpu) => Some(Moment::now(gpu)?),
        };
        let requests = self.requests.as_ref().expect("it is taken away by drop alone");
        let request = Request { order: order.clone(), after: now, room: self.room };
        requests.send(request).map_err(|_| gone())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Cohort, SyntheticStudy};

    /// The feed of a small cohort on the CPU, and its bags.
    fn feed() -> (tempfile::TempDir, Bags, Feed) {
        let folder = tempfile::tempdir().unwrap();
        let [file, _] = SyntheticStudy { seed: 3, patients: 12 }.write(folder.path()).unwrap();
        let bags = Cohort::open(file).unwrap().slides.unwrap();
        let feed = Feed::new(Device::Cpu, &bags, (0..12).collect()).unwrap();
        (folder, bags, feed)
    }

    fn order(patients: &[usize]) -> Order {
        Order { patients: patients.to_vec(), noise: None, most: usize::MAX, least: 0 }
    }

    fn address(features: &Features) -> usize {
        match features {
            Features::F16(x) => x.host().as_ptr() as usize,
            other => panic!("the study is in F16, not in {}", other.dtype()),
        }
    }

    #[test]
    fn memory_of_batches_that_are_done_with_is_written_anew_and_never_that_of_others() {
        let (_folder, bags, mut feed) = feed();
        let batches: Vec<Vec<usize>> = (0..6).map(|i| vec![2 * i, 2 * i + 1]).collect();
        feed.plan(batches.iter().map(|batch| order(batch))).unwrap();
        let mut seen = Vec::new();
        for batch in &batches {
            let features = feed.take(order(batch)).unwrap();
            assert_eq!(features, bags.gather(batch).unwrap().0);
            seen.push(address(&features));
        }
        // One to calculate with and one ahead, in turn.
        assert!(seen[0] != seen[1] && (2..6).all(|i| seen[i] == seen[i - 2]), "{seen:x?}");

        feed.plan(batches.iter().map(|batch| order(batch))).unwrap();
        let held: Vec<Features> = batches.iter().map(|batch| feed.take(order(batch)).unwrap()).collect();
        for (batch, features) in batches.iter().zip(&held) {
            assert_eq!(*features, bags.gather(batch).unwrap().0);
        }
    }

    #[test]
    fn the_first_batch_of_the_next_plan_is_fetched_at_the_end_of_this_one() {
        let (_folder, bags, mut feed) = feed();
        feed.then(order(&[4]));
        feed.plan([order(&[1, 2]), order(&[3])].into_iter()).unwrap();
        feed.take(order(&[1, 2])).unwrap();
        assert_eq!(feed.ahead, Some(order(&[3])));
        feed.take(order(&[3])).unwrap();
        assert_eq!(feed.ahead, Some(order(&[4])), "it is on its way before it was planned");
        feed.plan([order(&[4]), order(&[5])].into_iter()).unwrap();
        assert_eq!(feed.take(order(&[4])).unwrap(), bags.gather(&[4]).unwrap().0);
        assert_eq!(feed.ahead, Some(order(&[5])), "it is fetched once");
        // Something else than was said is given, too.
        feed.then(order(&[6]));
        feed.take(order(&[5])).unwrap();
        feed.plan([order(&[7])].into_iter()).unwrap();
        assert_eq!(feed.take(order(&[7])).unwrap(), bags.gather(&[7]).unwrap().0);
    }
}
