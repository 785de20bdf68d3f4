//! A mask over tokens, drawn where it is needed.

use std::sync::{Arc, OnceLock};

use super::{Rescue, cpu, cuda};
use crate::device::{Device, Gpu};
use crate::error::Result;
use crate::ops::tokens::BagDraws;
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// A drawn mask that another op applies as tokens enter it: see [`Sdir::mask`](super::Sdir::mask). Cheap to clone.
///
/// It is drawn when it is first asked for, on the device that asks; the bits are the same on each.
#[derive(Clone, Debug)]
pub struct Mask {
    inner: Arc<Inner>,
    factor: f64,
}

#[derive(Debug)]
struct Inner {
    bags: Ragged,
    rule: Rule,
    host: OnceLock<Box<[bool]>>,
    device: OnceLock<Tensor<u8>>,
}

/// What decides over a token.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// Nothing: every token passes.
    Pass,
    /// The bytes on the host.
    Given,
    /// The word of its patient's stream.
    Draw { p: f64, rescue: Rescue, draws: BagDraws },
}

impl Mask {
    pub(super) fn new(bags: &Ragged, rule: Rule, factor: f64) -> Mask {
        let inner = Inner { bags: bags.clone(), rule, host: OnceLock::new(), device: OnceLock::new() };
        Mask { inner: Arc::new(inner), factor }
    }

    /// The mask with these entries, one a row of the bags.
    pub(crate) fn of(bags: &Ragged, keep: &[bool]) -> Mask {
        let mask = Mask::new(bags, Rule::Given, 1.0);
        let _ = mask.inner.host.set(keep.into());
        mask
    }

    /// Which tokens are kept, one entry a row.
    pub fn keep(&self) -> &[bool] {
        if let Some(keep) = self.inner.host.get() {
            return keep;
        }
        // Not inside the cell: a worker that waits for its share of the draw may take up another task that asks for
        // the mask, and would wait for itself. Two who ask at once both draw, the same bits.
        let keep = match &self.inner.rule {
            Rule::Draw { p, rescue, draws } => cpu::keep_mask(*p, *rescue, &self.inner.bags, draws).into(),
            Rule::Pass | Rule::Given => vec![true; self.rows()].into(),
        };
        self.inner.host.get_or_init(|| keep)
    }

    /// [`keep`](Self::keep) on a device, drawn there; `None` if every token passes.
    pub(crate) fn on(&self, gpu: Gpu) -> Result<Option<Tensor<u8>>> {
        if !self.may_drop() {
            return Ok(None);
        }
        if let Some(keep) = self.inner.device.get()
            && keep.device() == Device::Cuda(gpu)
        {
            return Ok(Some(keep.clone()));
        }
        let keep = match &self.inner.rule {
            Rule::Draw { .. } => self.lottery(gpu)?.keep(gpu, self.rows())?,
            Rule::Pass | Rule::Given => {
                let bytes: Vec<u8> = self.keep().iter().map(|keep| u8::from(*keep)).collect();
                gpu.upload(&[bytes.len()], &bytes)?
            }
        };
        // The first device keeps it; a second one is served, and forgotten.
        let _ = self.inner.device.set(keep.clone());
        Ok(Some(keep))
    }

    /// How kernels draw it, token by token. Of a mask that was given, there is none.
    pub(super) fn lottery(&self, gpu: Gpu) -> Result<cuda::Lottery> {
        match &self.inner.rule {
            Rule::Draw { p, rescue, draws } => cuda::Lottery::new(gpu, *p, *rescue, &self.inner.bags, draws),
            Rule::Pass | Rule::Given => cuda::Lottery::everybody(gpu, &self.inner.bags),
        }
    }

    /// The bags of its tokens.
    pub(super) fn bags(&self) -> &Ragged {
        &self.inner.bags
    }

    /// The number of tokens.
    pub(crate) fn rows(&self) -> usize {
        self.inner.bags.rows()
    }

    /// What kept tokens are multiplied by.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// The same mask for tokens that [`Sdir::forward`](super::Sdir::forward) has masked and scaled already: to mask
    /// twice changes nothing, to scale twice would.
    pub fn applied(&self) -> Mask {
        Mask { factor: 1.0, ..self.clone() }
    }

    /// Whether every token passes as it is.
    pub fn is_identity(&self) -> bool {
        !self.may_change() || self.factor == 1.0 && !self.keep().contains(&false)
    }

    /// Whether a token might not pass as it is, by the rule alone, without a draw.
    pub(crate) fn may_change(&self) -> bool {
        self.factor != 1.0 || self.may_drop()
    }

    fn may_drop(&self) -> bool {
        match self.inner.rule {
            Rule::Pass => false,
            Rule::Given => true,
            Rule::Draw { p, .. } => p > 0.0,
        }
    }
}

/// Masks are equal if their entries and factors are.
impl PartialEq for Mask {
    fn eq(&self, other: &Mask) -> bool {
        self.factor == other.factor && self.keep() == other.keep()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::spawn;
    use std::time::Duration;

    use rayon::ThreadPoolBuilder;
    use rayon::prelude::*;

    use super::*;
    use crate::rng::Draws;

    /// Workers that wait for each other hang, so this asks from beside and does not wait for ever.
    #[test]
    fn every_worker_may_be_the_first_to_ask() {
        let bags = Ragged::uniform(1, 20_000);
        let pool = ThreadPoolBuilder::new().num_threads(5).build().unwrap();
        let (done, all) = channel();
        spawn(move || {
            for epoch in 0..2000 {
                let draws = BagDraws::new(Draws::new(0, epoch, "mask"), vec![1]);
                let mask = Mask::new(&bags, Rule::Draw { p: 0.3, rescue: Rescue::Uniform, draws }, 1.0);
                let ask = |row: usize| mask.keep()[row];
                let asked: Vec<bool> = pool.install(|| (0..bags.rows()).into_par_iter().map(ask).collect());
                assert_eq!(asked, mask.keep());
            }
            done.send(()).unwrap();
        });
        assert!(all.recv_timeout(Duration::from_secs(120)).is_ok(), "the workers wait for each other, or one panicked");
    }
}
