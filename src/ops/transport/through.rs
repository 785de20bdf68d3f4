//! The gradient that goes through the plan, on the CPU: in f64, bags side by side and the patches of a bag in chunks.

use rayon::prelude::*;

use super::Transport;
use super::cpu::{CHUNK, shifted};
use crate::element::Real;
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// What the plan of a bag owes to its tokens.
struct Owed {
    genes: Vec<f64>,
    patches: Vec<f64>,
}

/// Adds what goes through the plan to the gradient of the patches, and gives that of the gene tokens.
pub(super) fn backward<T: Real>(
    op: &Transport,
    tokens: [&Tensor<T>; 2],
    bags: &[Ragged; 2],
    plan: &Tensor<T>,
    grad: &Tensor<T>,
    of_patches: &mut Tensor<T>,
) -> Tensor<T> {
    let (columns, width) = (grad.matrix().1, plan.matrix().1);
    let of_bag = |bag: usize| {
        let rows = [0, 1].map(|i| bags[i].bag(bag));
        let part = |i: usize, x: &Tensor<T>| -> Vec<f64> {
            x.host()[rows[i].start * columns..rows[i].end * columns].iter().map(|x| x.f64()).collect()
        };
        let count = rows[0].len();
        let own = plan.host()[rows[1].start * width..rows[1].end * width].chunks(width.max(1));
        let plan: Vec<f64> = own.flat_map(|row| row[..count].iter().map(|x| x.f64())).collect();
        of_one(op, [part(0, tokens[0]), part(1, tokens[1])], &plan, &part(0, grad), columns)
    };
    let each: Vec<Owed> = (0..bags[0].bags()).into_par_iter().map(of_bag).collect();
    let add = |to: &mut [T], from: &mut dyn Iterator<Item = f64>| {
        to.iter_mut().zip(from).for_each(|(to, x)| *to += T::of(x));
    };
    add(of_patches.host_mut(), &mut each.iter().flat_map(|owed| owed.patches.iter().copied()));
    let mut of_genes = Tensor::zeros(tokens[0].shape());
    add(of_genes.host_mut(), &mut each.iter().flat_map(|owed| owed.genes.iter().copied()));
    of_genes
}

/// Of one bag: its gene tokens and patches, its plan, and what is owed to what the gene tokens got.
fn of_one(op: &Transport, tokens: [Vec<f64>; 2], plan: &[f64], grad: &[f64], columns: usize) -> Owed {
    let [genes, patches] = tokens;
    if plan.is_empty() || columns == 0 {
        return Owed { genes: vec![0.0; genes.len()], patches: vec![0.0; patches.len()] };
    }
    let (count, rows) = (genes.len() / columns, patches.len() / columns);
    let bare = |x: &[f64]| {
        let mut bare = vec![0.0; x.len()];
        x.chunks(columns).zip(bare.chunks_mut(columns)).for_each(|(x, to)| shifted(x, to));
        bare
    };
    let bare_genes = bare(&genes);
    // Costs, and what is owed to the logarithm of each element of the plan.
    let mut both = vec![[0.0; 2]; rows * count];
    let chunks = patches.par_chunks(CHUNK * columns).zip(plan.par_chunks(CHUNK * count));
    chunks.zip(both.par_chunks_mut(CHUNK * count)).for_each(|((patches, plan), both)| {
        let bare = bare(patches);
        let each = patches.chunks(columns).zip(bare.chunks(columns)).zip(plan.chunks(count));
        for (((x, bare), plan), both) in each.zip(both.chunks_mut(count)) {
            for (j, both) in both.iter_mut().enumerate() {
                let of = j * columns..(j + 1) * columns;
                let cost = bare.iter().zip(&bare_genes[of.clone()]).map(|(x, y)| (x - y) * (x - y)).sum();
                let dot: f64 = x.iter().zip(&grad[of]).map(|(x, g)| x * g).sum();
                *both = [cost, dot * plan[j]];
            }
        }
    });
    let owed = of_costs(op, plan, &both, count);
    // The squares go back, patches in chunks, what they give to gene tokens joined in order.
    let mut to_patches = vec![0.0; patches.len()];
    let chunks = to_patches.par_chunks_mut(CHUNK * columns).zip(patches.par_chunks(CHUNK * columns));
    let parts: Vec<Vec<f64>> = chunks
        .zip(owed.par_chunks(CHUNK * count))
        .map(|((to, patches), owed)| {
            let mut to_genes = vec![0.0; genes.len()];
            let bare = bare(patches);
            let each = to.chunks_mut(columns).zip(patches.chunks(columns)).zip(bare.chunks(columns));
            for (((to, x), bare), owed) in each.zip(owed.chunks(count)) {
                for (j, owed) in owed.iter().enumerate() {
                    let of = j * columns..(j + 1) * columns;
                    let gene = to_genes[of.clone()].iter_mut().zip(&bare_genes[of]);
                    for ((to, x), (gene, y)) in to.iter_mut().zip(bare).zip(gene) {
                        let step = 2.0 * owed * (x - y);
                        *to += step;
                        *gene -= step;
                    }
                }
                off_the_least(to, x);
            }
            to_genes
        })
        .collect();
    let mut to_genes = vec![0.0; genes.len()];
    parts.iter().for_each(|part| to_genes.iter_mut().zip(part).for_each(|(to, x)| *to += x));
    to_genes.chunks_mut(columns).zip(genes.chunks(columns)).for_each(|(to, x)| off_the_least(to, x));
    Owed { genes: to_genes, patches: to_patches }
}

/// The first least element of `x` was taken off all of them.
fn off_the_least(to: &mut [f64], x: &[f64]) {
    let total: f64 = to.iter().sum();
    let least = x.iter().enumerate().fold(0, |least, (i, x_i)| if *x_i < x[least] { i } else { least });
    to[least] -= total;
}

/// What is owed to the costs of a bag, by the implicit equations of its scalings. `both` has the costs, and what is owed to the
/// logarithms of the plan.
fn of_costs(op: &Transport, plan: &[f64], both: &[[f64; 2]], count: usize) -> Vec<f64> {
    let (power, rows) = (op.power(), plan.len() / count);
    let [mut mass, mut of_columns] = [vec![0.0; count], vec![0.0; count]];
    let (mut row_mass, mut of_rows) = (vec![0.0; rows], vec![0.0; rows]);
    for (i, (plan, both)) in plan.chunks(count).zip(both.chunks(count)).enumerate() {
        for (j, (p, [_, owed])) in plan.iter().zip(both).enumerate() {
            (mass[j], row_mass[i]) = (mass[j] + p, row_mass[i] + p);
            (of_columns[j], of_rows[i]) = (of_columns[j] + owed, of_rows[i] + owed);
        }
    }
    let (mut of_u, mut of_v) = (of_rows.clone(), of_columns.clone());
    for _ in 0..op.steps_back(1e-16) {
        let mut next = of_columns.clone();
        for (i, plan) in plan.chunks(count).enumerate() {
            let across = plan.iter().zip(&of_v).zip(&mass).map(|((p, v), mass)| p * v / mass);
            of_u[i] = of_rows[i] - power * across.sum::<f64>();
            let step = power * of_u[i] / row_mass[i];
            next.iter_mut().zip(plan).for_each(|(next, p)| *next -= step * p);
        }
        of_v = next;
    }
    let (mut most, mut scaled) = (0, 0.0);
    let mut owed = vec![0.0; plan.len()];
    for (at, (p, [cost, of_plan])) in plan.iter().zip(both).enumerate() {
        let (i, j) = (at / count, at % count);
        owed[at] = (power * p * (of_u[i] / row_mass[i] + of_v[j] / mass[j]) - of_plan) / op.reg;
        scaled += owed[at] * cost;
        most = if *cost > both[most][0] { at } else { most };
    }
    // Costs were divided by the largest of them.
    let largest = both[most][0];
    if largest > 0.0 {
        owed.iter_mut().for_each(|owed| *owed /= largest);
        owed[most] -= scaled / (largest * largest);
    } else {
        owed.fill(0.0);
    }
    owed
}
