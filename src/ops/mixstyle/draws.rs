//! What MixStyle draws: whether a batch is mixed, each bag's partner and its share.

use super::MixStyle;
use crate::device::Mirror;
use crate::error::{Error, Result};
use crate::ops::cade::beta;
use crate::ops::tokens::{BagDraws, Coin};

/// Which bag each bag takes statistics from, and how much of its own it keeps: checked when it is made.
///
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Blend {
    pub(super) partner: Mirror<u32>,
    pub(super) lambda: Mirror<f64>,
}

impl Blend {
    /// From explicit draws: the number of the partner of each bag, and the share of the bag's own statistics, in
    /// `[0, 1]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many of one as of the other, [`Error::Value`] for a partner that is no bag
    /// or a share outside its range.
    pub fn new(partner: Vec<u32>, lambda: Vec<f64>) -> Result<Blend> {
        let (op, bags) = ("mixstyle", partner.len());
        if lambda.len() != bags {
            let want = format!("[{bags}], one a bag");
            return Err(Error::Shape { op, arg: "lambda", want, got: vec![lambda.len()] });
        }
        if let Some(index) = partner.iter().position(|p| *p as usize >= bags) {
            let value = partner[index].into();
            return Err(Error::Value { op, arg: "partner", want: "the number of a bag", index, value });
        }
        if let Some(index) = lambda.iter().position(|l| !(0.0..=1.0).contains(l)) {
            let value = lambda[index];
            return Err(Error::Value { op, arg: "lambda", want: "between 0 and 1", index, value });
        }
        Ok(Blend { partner: partner.into(), lambda: lambda.into() })
    }

    /// The bag that each bag takes statistics from.
    pub fn partner(&self) -> &[u32] {
        &self.partner
    }

    /// The share of each bag's own statistics.
    pub fn lambda(&self) -> &[f64] {
        &self.lambda
    }
}

/// `None` if the gate of the batch does not fire, or there is nobody in it.
pub(super) fn blend(op: &MixStyle, draws: &BagDraws) -> Result<Option<Blend>> {
    let bags = draws.bags();
    let partners = draws.part(".partners");
    let order_by = |word: u64| {
        let mut keyed: Vec<(u32, u32)> = (0..bags).map(|b| (partners.of(b).word(word), b as u32)).collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, b)| b as usize)
    };
    let givers: Vec<usize> = order_by(0).collect();
    let Some(&first) = givers.first() else { return Ok(None) };
    if Coin::drops(op.p).keeps(draws.part(".gate").of(first).word(0)) {
        return Ok(None);
    }
    let mut partner = vec![0; bags];
    order_by(1).zip(givers).for_each(|(taker, giver)| partner[taker] = giver as u32);
    let shares = draws.part(".lambda");
    let lambda = (0..bags).map(|b| beta(op.alpha, &shares.of(b), 0)).collect();
    Blend::new(partner, lambda).map(Some)
}
