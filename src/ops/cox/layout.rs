//! A plan as the kernels read it.

use std::sync::OnceLock;

use super::plan::Plan;
use super::scaled::cover;
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

/// Beside the end of a window: who it is of dies at that moment.
const DIES: u32 = 1 << 31;

/// A truncated plan: the window of each patient, and the patients of each node of a tree over the moments.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    /// Patients of all nodes together: at most two nodes a level for each, and one for a death.
    pub(super) members: usize,
    /// The members; the first moment at which each patient is at risk; the moment after the last that they survive, and
    /// whether they [die](DIES) at it; where the members of each node begin, and the end of the last. Node `i` of the tree
    /// covers nodes `2 i` and `2 i + 1`, moment `e` is node `moments + e`. Node `2 moments + e` is no part of it: it has
    /// who dies at moment `e`.
    pub(super) table: Mirror<u32>,
    /// The weight of each patient, and of the deaths of each moment.
    pub(super) weights: Option<Mirror<f64>>,
}

/// The layout of a plan, made when a device asks for it. It follows from the rest, so all are equal.
#[derive(Clone, Debug, Default)]
pub(super) struct Lazy(OnceLock<Layout>, OnceLock<Windows>);

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

    /// Of one that is.
    pub(super) fn windows(&self, plan: &Plan) -> &Windows {
        self.1.get_or_init(|| Windows::new(plan))
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

impl Windows {
    fn new(plan: &Plan) -> Windows {
        let moments = plan.moments.len();
        // Calls `visit` for each node that each patient is a member of, in the order of the patients.
        let each = |visit: &mut dyn FnMut(usize, usize)| {
            for (patient, row) in plan.rows.iter().enumerate().filter(|(_, row)| row.weight > 0.0) {
                cover(moments, row.first, row.end, |node| visit(node, patient));
                if row.dies {
                    visit(2 * moments + row.end, patient);
                }
            }
        };
        let mut starts = vec![0usize; 3 * moments + 1];
        each(&mut |node, _| starts[node + 1] += 1);
        (0..3 * moments).for_each(|node| starts[node + 1] += starts[node]);
        let count = starts[3 * moments];
        let (mut place, mut members) = (starts.clone(), vec![0u32; count]);
        each(&mut |node, patient| {
            members[place[node]] = patient as u32;
            place[node] += 1;
        });
        let word = |x: usize| u32::try_from(x).expect("fewer than four billion members of nodes");
        let firsts = plan.rows.iter().map(|row| row.first as u32);
        let ends = plan.rows.iter().map(|row| row.end as u32 | if row.dies { DIES } else { 0 });
        let starts = starts.into_iter().map(word);
        let table = members.into_iter().chain(firsts).chain(ends).chain(starts).collect::<Vec<u32>>();
        let weights = plan.weight.as_ref().map(|weight| {
            weight.iter().copied().chain(plan.moments.iter().map(|m| m.weight)).collect::<Vec<f64>>().into()
        });
        Windows { members: count, table: table.into(), weights }
    }
}
