//! A plan as the kernels read it.

use std::sync::OnceLock;

use super::plan::Plan;
use crate::device::Mirror;

/// Beside the place where the deaths of a moment begin: no moment of its stratum comes before it.
const FIRST: u32 = 1 << 31;

/// The patients in the order in which risk sets grow, so that each is the patients of its stratum up to some place: the
/// moments one after the other, back in time, and at each first those who survive it and no later one, then those who
/// die at it. Those who were never at risk at a death come last.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Patients who are at risk at some death.
    pub(super) at_risk: usize,
    /// The patient at each place; the moment of each place of those at risk; the place where each moment starts, and of
    /// its end for the last; the place of the first death of each moment, and whether it is the [`FIRST`].
    pub(super) table: Mirror<u32>,
    /// The weight at each place of those at risk, and of the deaths of each moment.
    pub(super) weights: Option<Mirror<f64>>,
}

/// The layout of a plan, made when a device asks for it. It follows from the rest, so all are equal.
#[derive(Clone, Debug, Default)]
pub(super) struct Lazy(OnceLock<Layout>);

impl PartialEq for Lazy {
    fn eq(&self, _: &Lazy) -> bool {
        true
    }
}

impl Lazy {
    /// Of a plan that is not truncated.
    pub(super) fn of(&self, plan: &Plan) -> &Layout {
        self.0.get_or_init(|| Layout::new(plan))
    }
}

impl Layout {
    fn new(plan: &Plan) -> Layout {
        let (n, moments) = (plan.slots.len(), plan.moments.len());
        let absent = 2 * moments;
        let mut count = vec![0u32; absent + 1];
        plan.slots.iter().for_each(|&slot| count[slot as usize] += 1);
        let at_risk = n - count[absent] as usize;
        // Where the patients of each slot begin.
        let mut place = vec![at_risk as u32; absent + 1];
        let (mut starts, mut deaths, mut end) = (Vec::with_capacity(moments + 1), Vec::with_capacity(moments), 0);
        for e in (0..moments).rev() {
            starts.push(end);
            (place[2 * e], place[2 * e + 1]) = (end, end + count[2 * e]);
            deaths.push(end + count[2 * e]);
            end += count[2 * e] + count[2 * e + 1];
        }
        starts.push(end);
        for stratum in plan.strata.iter().filter(|stratum| !stratum.moments.is_empty()) {
            deaths[moments - stratum.moments.end] |= FIRST;
        }
        let mut order = vec![0; n];
        let mut group = vec![0; at_risk];
        for (patient, &slot) in plan.slots.iter().enumerate() {
            let to = &mut place[slot as usize];
            order[*to as usize] = patient as u32;
            if let Some(group) = group.get_mut(*to as usize) {
                *group = moments as u32 - 1 - slot / 2;
            }
            *to += 1;
        }
        let weights = plan.weight.as_ref().map(|weight| {
            let of_places = order[..at_risk].iter().map(|&i| weight[i as usize]);
            of_places.chain(plan.moments.iter().rev().map(|m| m.weight)).collect::<Vec<f64>>().into()
        });
        Layout { at_risk, table: [order, group, starts, deaths].concat().into(), weights }
    }
}
