//! Batches: the same bits from the mapped files, from a cohort that lies on the device, and one batch ahead.

use half::f16;
use onkos::Device;
use onkos::data::Cohort;
use onkos::model::{Batch, CohortSource, Recipe, Source};
use onkos::nn::Noise;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

use crate::gpu;
use crate::study::*;

fn recipe(cohort: &Cohort) -> Recipe {
    Recipe::fit(&config(1), cohort, &(0..cohort.len()).collect::<Vec<_>>()).unwrap()
}

#[track_caller]
fn assert_same(got: &Batch<f32>, want: &Batch<f32>, what: &str) {
    let here = got.to(Device::Cpu).unwrap();
    assert_eq!(here.patients, want.patients, "{what}");
    let genes = |batch: &Batch<f32>| batch.genes.as_ref().map(|g| (g.values.clone(), g.rows.clone()));
    assert!(genes(&here) == genes(want), "{what}: expression");
    let patches = |batch: &Batch<f32>| batch.patches.as_ref().map(|p| (p.features.clone(), p.bags.clone()));
    assert!(patches(&here) == patches(want), "{what}: patches");
}

/// Batches of unequal size, some patients in several.
fn plan(patients: usize) -> Vec<Vec<usize>> {
    let order: Vec<usize> = (0..3 * patients).map(|i| i * 7 % patients).collect();
    let mut batches: Vec<Vec<usize>> = order.chunks(5).map(<[usize]>::to_vec).collect();
    batches.insert(2, vec![3]);
    batches
}

#[test]
fn batches_have_the_same_bits_wherever_the_features_lie() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(24);
    let cohort = study.north();
    let recipe = recipe(&cohort);
    let shortest = cohort.slides.as_ref().unwrap().ragged().iter().map(|bag| bag.len()).min().unwrap();
    let longest = cohort.slides.as_ref().unwrap().ragged().longest();
    let kinds = [
        (u64::MAX, "resident", 0, 0),
        (0, "streamed", 0, 0),
        (u64::MAX, "sampled", shortest, 0),
        (0, "sampled", shortest, 0),
        (u64::MAX, "padded", 0, longest),
        (0, "padded", 0, longest + 9),
        (u64::MAX, "sampled and padded", longest - 1, longest - 1),
        (0, "sampled and padded", longest - 1, longest - 1),
    ];
    for (room, name, most, least) in kinds {
        let source = || CohortSource::new(&recipe, &cohort).unwrap().hiding(0.5).showing(most).padding(least);
        let files = source();
        let there = source().on(Device::Cuda(gpu), room).unwrap();
        assert_eq!(there.resident() > 0, room > 0, "{name}");
        for (noise, passes) in [(None, 1), (Some(Noise { seed: 1, epoch: 0 }), 2)] {
            let plan = plan(cohort.len());
            there.upcoming(&plan, passes, noise).unwrap();
            for (number, batch) in (0..passes).flat_map(|_| &plan).enumerate() {
                let what = format!("{name}, batch {number}, {noise:?}");
                assert_same(&there.batch(batch, noise).unwrap(), &files.batch(batch, noise).unwrap(), &what);
            }
        }
    }
}

#[test]
fn batches_that_were_not_announced_are_given_too() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(12);
    let cohort = study.north();
    let recipe = recipe(&cohort);
    let files = CohortSource::new(&recipe, &cohort).unwrap();
    let there = CohortSource::new(&recipe, &cohort).unwrap().on(Device::Cuda(gpu), 0).unwrap();
    let check = |batch: &[usize]| {
        assert_same(&there.batch(batch, None).unwrap(), &files.batch(batch, None).unwrap(), &format!("{batch:?}"));
    };
    check(&[4, 1]);
    there.upcoming(&[vec![0, 1], vec![2], vec![5, 6, 7]], 1, None).unwrap();
    // Another than was announced, one of the announced ones twice, the rest, and one too many; then a plan is given up.
    [&[9usize][..], &[0, 1], &[0, 1], &[2], &[5, 6, 7], &[8], &[]].iter().for_each(|batch| check(batch));
    there.upcoming(&[vec![3], vec![4]], 1, None).unwrap();
    there.upcoming(&[vec![10, 11]], 1, None).unwrap();
    check(&[10, 11]);
}

/// Batches longer than what is copied at once, f16 and f32, in rows of no whole number of 16 bytes.
#[test]
fn long_batches_arrive_whole() {
    let Some((gpu, _one)) = gpu() else { return };
    for (rows, width, dtype) in [(700, 9000, Dtype::F32), (500, 30_001, Dtype::F16)] {
        let study = Study::new(4);
        let count = 4 * rows * width;
        let bytes: Vec<u8> = match dtype {
            Dtype::F32 => (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect(),
            _ => (0..count).flat_map(|i| f16::from_f32((i % 2039) as f32).to_le_bytes()).collect(),
        };
        let offsets: Vec<u8> = (0..=4i64).flat_map(|p| (p * rows as i64).to_le_bytes()).collect();
        let tensors = [
            ("features", TensorView::new(dtype, vec![4 * rows, width], &bytes).unwrap()),
            ("offsets", TensorView::new(Dtype::I64, vec![5], &offsets).unwrap()),
        ];
        let file = study.folder.path().join("north/bags.safetensors");
        std::fs::write(file, serialize(tensors, None).unwrap()).unwrap();
        let cohort = study.north();
        let recipe = recipe(&cohort);
        let files = CohortSource::new(&recipe, &cohort).unwrap();
        let there = CohortSource::new(&recipe, &cohort).unwrap().on(Device::Cuda(gpu), 0).unwrap();
        let plan = [vec![0, 1], vec![3], vec![2, 0, 3], vec![1]];
        there.upcoming(&plan, 1, None).unwrap();
        for batch in &plan {
            let what = format!("{dtype:?} {batch:?}");
            assert_same(&there.batch(batch, None).unwrap(), &files.batch(batch, None).unwrap(), &what);
        }
    }
}

#[test]
fn a_copy_that_nobody_wants_is_given_up_in_order() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(12);
    let cohort = study.north();
    let recipe = recipe(&cohort);
    let before = gpu.usage().bytes;
    for taken in 0..3 {
        let there = CohortSource::new(&recipe, &cohort).unwrap().on(Device::Cuda(gpu), 0).unwrap();
        let plan: Vec<Vec<usize>> = (0..6).map(|b| vec![2 * b, 2 * b + 1]).collect();
        there.upcoming(&plan, 1, None).unwrap();
        for batch in &plan[..taken] {
            there.batch(batch, None).unwrap();
        }
    }
    gpu.synchronize().unwrap();
    assert_eq!(gpu.usage().bytes, before, "all of it is freed");
}

#[test]
fn at_most_two_batches_of_a_plan_lie_on_the_device() {
    let Some((gpu, _one)) = gpu() else { return };
    let study = Study::new(24);
    let cohort = study.north();
    let recipe = recipe(&cohort);
    let there = CohortSource::new(&recipe, &cohort).unwrap().on(Device::Cuda(gpu), 0).unwrap();
    let plan: Vec<Vec<usize>> = (0..24).map(|p| vec![p]).collect();
    let bytes = |p: &usize| cohort.slides.as_ref().unwrap().gather(&[*p]).unwrap().0.matrix();
    let largest = (0..24).map(|p| bytes(&p)).map(|(rows, width)| 2 * rows * width).max().unwrap() as u64;
    let genes = 4 * 60 * 2;
    gpu.synchronize().unwrap();
    gpu.forget_peak();
    let before = gpu.usage().bytes;
    there.upcoming(&plan, 1, None).unwrap();
    for batch in &plan {
        there.batch(batch, None).unwrap();
    }
    let peak = gpu.usage().peak_bytes - before;
    assert!(peak <= 2 * largest + genes, "{peak} bytes at most, two batches of {largest}");
}
