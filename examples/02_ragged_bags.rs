//! Attention pooling of bags of unequal length, straight from half-precision features.
//!
//! `cargo run --release --example 02_ragged_bags`

use half::f16;
use onkos::ops::{Affine, AttentionMil};
use onkos::rng::Draws;
use onkos::{Device, Features, Ragged, Tape, Tensor};

fn main() -> onkos::Result<()> {
    // Three slides of 4,000, 0 and 900 patches with 512 features each: rows of one array, nothing padded.
    let bags = Ragged::from_lengths([4000, 0, 900]);
    let normal = Draws::new(1, 0, "example").of(0);
    let patches = Tensor::from_fn(&[bags.rows(), 512], |i| f16::from_f64(normal.normal(i as u64)));
    let patches = Features::F16(patches);

    let tape = Tape::<f32>::recording(Device::Cpu);
    let weight = |name: &str, shape: &[usize]| {
        let normal = Draws::new(1, 0, name).of(0);
        tape.leaf(Tensor::from_fn(shape, |i| normal.normal(i as u64) as f32 * 0.04))
    };
    let (v, u, w) = (weight("v", &[128, 512]), weight("u", &[128, 512]), weight("w", &[1, 128]));
    let affine = |weight| Affine { weight, bias: None };
    let pooling = AttentionMil { v: affine(&v), u: Some(affine(&u)), w: affine(&w) }.forward(&tape, &patches, &bags)?;

    println!("pooled {:?}, attention {:?}", pooling.pooled.shape(), pooling.weights.shape());
    for (bag, rows) in bags.iter().enumerate() {
        let sum = pooling.weights.value().host()[rows.clone()].iter().fold(0.0, |sum, weight| sum + weight);
        println!("slide {bag}: {} patches, attention sums to {sum:.6}", rows.len());
    }

    let ones = Tensor::full(pooling.pooled.shape(), 1.0);
    let gradients = tape.backward(&[(&pooling.pooled, ones)])?;
    println!("gradient of V: {:?}", gradients.of(&v).expect("V was used").shape());
    Ok(())
}
