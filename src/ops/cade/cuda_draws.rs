//! The draws of CADE on a CUDA device: made there, or copied there.

use super::draws::Mixing;
use super::{Bandwidth, Cade, Statistics};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::error::Result;
use crate::ops::tokens::BagDraws;
use crate::shape::Ragged;
use crate::tensor::Tensor;

kernels! { "cade_draws":
    /// How many words of the donors fall in each bucket.
    fn cade_count(offset: In<u32> = bags + 1, patients: In<u32> = bags, gates: In<u8> = bags,
        keep: Option<In<u8>> = rows, counts: Out<u32> = buckets, rows: u32, bags: u32, buckets: u32, seed: u64, epoch: u32,
        purpose: u32);
    /// Where each bucket starts, which bags mix, how many of their donors live, where the last needed bucket ends.
    fn cade_scan(offset: In<u32> = bags + 1, receivers: In<u32> = bags + 1, gates: In<u8> = bags,
        counts: Out<u32> = buckets, starts: Out<u32> = buckets, active: Out<u8> = bags, alive: Out<u32> = bags,
        limit: Out<u32> = bags, bags: u32, buckets: u32);
    /// The words and tokens of the needed buckets.
    fn cade_scatter(offset: In<u32> = bags + 1, receivers: In<u32> = bags + 1, patients: In<u32> = bags,
        gates: In<u8> = bags, keep: Option<In<u8>> = rows, starts: In<u32> = buckets, counts: Out<u32> = buckets,
        words: Out<u32> = rows, tokens: Out<u32> = rows, rows: u32, bags: u32, buckets: u32, seed: u64, epoch: u32,
        purpose: u32);
    /// The first of each bag's donors, in the order of their words.
    fn cade_order(offset: In<u32> = bags + 1, receivers: In<u32> = bags + 1, starts: In<u32> = buckets,
        limit: In<u32> = bags, words: In<u32> = rows, tokens: In<u32> = rows, order: Out<u32> = rows, rows: u32, bags: u32,
        buckets: u32);
    /// Share and donor of each receiver, and the list of each donor's takers.
    fn cade_shares(offset: In<u32> = bags + 1, donor_offset: In<u32> = bags + 1, patients: In<u32> = bags,
        active: In<u8> = bags, alive: In<u32> = bags, order: In<u32> = givers, lambda: Out<f64> = rows,
        donor: Out<u32> = rows, begin: Option<Out<u32>> = givers, times: Option<Out<u32>> = givers,
        takers: Option<Out<u32>> = rows, rows: u32, givers: u32, bags: u32, seed: u64, epoch: u32, purpose: u32,
        alpha: f64);
    /// The logarithms of weights: 0 for tokens that live, minus infinity for others.
    fn cade_weights(keep: In<u8> = rows, log_weight: Out<f32> = rows, rows: u32);
}

/// Words of a bucket, and of a block that draws them: `FULL` in the kernels, and four a thread.
const FULL: usize = 16;
const WORDS: usize = 512;

/// How one set receives: [`Mixing`] on the device. Of a bag that is not active, nothing else is there.
pub(super) struct Table {
    pub(super) active: Tensor<u8>,
    pub(super) donor: Tensor<u32>,
    pub(super) lambda: Tensor<f64>,
    pub(super) log_weight: Option<Tensor<f32>>,
    /// For gradients through statistics.
    pub(super) takers: Option<Takers>,
}

/// Who took from each donor: `times` receivers of its bag, from entry `begin` of the bag's part of `list` on.
pub(super) struct Takers {
    pub(super) begin: Tensor<u32>,
    pub(super) times: Tensor<u32>,
    pub(super) list: Tensor<u32>,
}

fn uses_weights(op: &Cade) -> bool {
    !matches!(op.bandwidth, Bandwidth::None | Bandwidth::Fixed(0.0))
}

impl Table {
    /// Draws on the device what [`Cade::draw`] draws on the host: the same gates, donors and words; the shares are as
    /// good as the device's logarithms.
    ///
    /// `set` is the letter of the receivers, `from` that of the donors; `keep` says which donors live, `gates` which
    /// bags have tokens on both sides and a gate that fired.
    pub(super) fn draw(
        gpu: Gpu,
        op: &Cade,
        [(receivers, set), (donors, from)]: [(&Ragged, &str); 2],
        keep: Option<&Tensor<u8>>,
        gates: &Tensor<u8>,
        draws: &BagDraws,
    ) -> Result<Table> {
        let (n, rows, givers) = (donors.bags(), receivers.rows(), donors.rows());
        let (offset, donor_offset, patients) = (receivers.on(gpu)?, donors.on(gpu)?, draws.patients_on(gpu)?);
        let buckets = givers / FULL + 2 * n;
        let (mut counts, mut starts) = (gpu.zeros::<u32>(&[buckets])?, gpu.alloc::<u32>(&[buckets])?);
        let (mut active, mut alive, mut limit) = (gpu.alloc(&[n])?, gpu.alloc::<u32>(&[n])?, gpu.alloc::<u32>(&[n])?);
        let [mut words, mut tokens, mut order] =
            [gpu.alloc::<u32>(&[givers])?, gpu.alloc(&[givers])?, gpu.alloc(&[givers])?];
        let (b, g, k) = (n as u32, givers as u32, buckets as u32);

        let of = draws.part(".donors.").part(from).draws();
        let (seed, epoch, purpose) = (of.seed, of.epoch, of.purpose);
        let grid = Grid::new(n, (WORDS / 4) as u32).times(donors.longest().div_ceil(WORDS));
        cade_count(gpu, grid, &donor_offset, &patients, gates, keep, &mut counts, g, b, k, seed, epoch, purpose)?;
        cade_scan(
            gpu,
            Grid::new(n, 256),
            &donor_offset,
            &offset,
            gates,
            &mut counts,
            &mut starts,
            &mut active,
            &mut alive,
            &mut limit,
            b,
            k,
        )?;
        cade_scatter(
            gpu,
            grid,
            &donor_offset,
            &offset,
            &patients,
            gates,
            keep,
            &starts,
            &mut counts,
            &mut words,
            &mut tokens,
            g,
            b,
            k,
            seed,
            epoch,
            purpose,
        )?;
        let grid = Grid::new(n, 256).times(donors.longest().div_ceil(256));
        cade_order(gpu, grid, &donor_offset, &offset, &starts, &limit, &words, &tokens, &mut order, g, b, k)?;

        let (mut lambda, mut donor) = (gpu.alloc(&[rows])?, gpu.alloc(&[rows])?);
        let mut takers = match op.statistics {
            Statistics::Detached => None,
            Statistics::Differentiated => {
                Some(Takers { begin: gpu.alloc(&[givers])?, times: gpu.zeros(&[givers])?, list: gpu.alloc(&[rows])? })
            }
        };
        let (begin, times, list) = match &mut takers {
            Some(Takers { begin, times, list }) => (Some(begin), Some(times), Some(list)),
            None => (None, None, None),
        };
        let of = draws.part(".lambda.").part(set).draws();
        cade_shares(
            gpu,
            Grid::new(n, 256).times(receivers.longest().div_ceil(256)),
            &offset,
            &donor_offset,
            &patients,
            &active,
            &alive,
            &order,
            &mut lambda,
            &mut donor,
            begin,
            times,
            list,
            rows as u32,
            g,
            b,
            of.seed,
            of.epoch,
            of.purpose,
            op.alpha,
        )?;
        let log_weight = match keep.filter(|_| uses_weights(op)) {
            Some(keep) => {
                let mut log_weight = gpu.alloc(&[givers])?;
                cade_weights(gpu, Grid::over(givers, 256, 256), keep, &mut log_weight, g)?;
                Some(log_weight)
            }
            None => None,
        };
        Ok(Table { active, donor, lambda, log_weight, takers })
    }

    /// Explicit draws, copied to the device.
    pub(super) fn given(gpu: Gpu, op: &Cade, mixing: &Mixing) -> Result<Table> {
        let bytes: Vec<u8> = mixing.active().iter().map(|active| u8::from(*active)).collect();
        let logs = |w: &[f64]| w.iter().map(|w| w.ln() as f32).collect::<Vec<f32>>();
        let log_weight = mixing.weight().filter(|_| uses_weights(op)).map(logs);
        Ok(Table {
            active: gpu.upload(&[bytes.len()], &bytes)?,
            donor: mixing.donor.on(gpu)?,
            lambda: mixing.lambda.on(gpu)?,
            log_weight: log_weight.map(|w| gpu.upload(&[w.len()], &w)).transpose()?,
            takers: match op.statistics {
                Statistics::Detached => None,
                Statistics::Differentiated => Some(Takers::of(gpu, mixing)?),
            },
        })
    }
}

impl Takers {
    /// The receivers in the order of their donors, those of one in their own order.
    fn of(gpu: Gpu, mixing: &Mixing) -> Result<Takers> {
        let (receivers, donors) = (mixing.receivers(), mixing.donors());
        let (mut begin, mut times) = (vec![0u32; donors.rows()], vec![0u32; donors.rows()]);
        let mut list = vec![0u32; receivers.rows()];
        for bag in (0..receivers.bags()).filter(|bag| mixing.active()[*bag]) {
            let (rows, there) = (receivers.bag(bag), donors.bag(bag));
            let (begin, times) = (&mut begin[there.clone()], &mut times[there]);
            let taken = &mixing.donor()[rows.clone()];
            taken.iter().for_each(|d| times[*d as usize] += 1);
            let mut end = 0;
            for (begin, times) in begin.iter_mut().zip(&*times) {
                *begin = end;
                end += times;
            }
            let mut next = begin.to_vec();
            let list = &mut list[rows];
            for (i, d) in (0u32..).zip(taken) {
                list[next[*d as usize] as usize] = i;
                next[*d as usize] += 1;
            }
        }
        let place = |x: &[u32]| gpu.upload(&[x.len()], x);
        Ok(Takers { begin: place(&begin)?, times: place(&times)?, list: place(&list)? })
    }
}
