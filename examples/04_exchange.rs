//! Inputs and results of a few ops in one safetensors file, for another program to compare.
//!
//! `cargo run --release --example 04_exchange cuda:0 exchange.safetensors`

use std::collections::HashMap;
use std::path::Path;

use half::bf16;
use onkos::device::Precision;
use onkos::ops::cox::{Cox, Outcomes, Plan};
use onkos::ops::{Affine, AttentionMil};
use onkos::rng::Draws;
use onkos::{Device, Element, Features, Ragged, Result, Tape, Tensor};
use safetensors::tensor::{Dtype, View};

/// One tensor of the file.
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Entry {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.bytes).into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn entry<T: Element>(dtype: Dtype, x: &Tensor<T>) -> Result<Entry> {
    Ok(Entry { dtype, shape: x.shape().to_vec(), bytes: bytemuck::cast_slice(&x.read()?).to_vec() })
}

fn normal(name: &str, shape: &[usize], scale: f64) -> Tensor<f32> {
    let stream = Draws::new(0, 0, name).of(0);
    Tensor::from_fn(shape, |i| (scale * stream.normal(i as u64)) as f32)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, path] = &arguments[..] else { panic!("usage: 04_exchange DEVICE FILE") };
    let device = Device::parse(device)?;
    let mut file: HashMap<String, Entry> = HashMap::new();

    let (lengths, l, d) = ([1, 31, 0, 500, 2000, 1468], 1024, 256);
    let bags = Ragged::from_lengths(lengths);
    let n = bags.rows();
    let scale = |columns: usize| 1.0 / (columns as f64).sqrt();
    let [v, u, w] = [("v", d, l), ("u", d, l), ("w", 1, d)].map(|(name, r, c)| normal(name, &[r, c], scale(c)));
    for (name, p) in [("v", &v), ("u", &u), ("w", &w)] {
        file.insert(format!("attention.{name}"), entry(Dtype::F32, p)?);
    }
    let offsets = Tensor::new(&[lengths.len() + 1], bags.offsets().iter().map(|&o| o as u32).collect())?;
    file.insert("attention.offsets".into(), entry(Dtype::U32, &offsets)?);
    let x = normal("x", &[n, l], 1.0);
    let narrow: Tensor<bf16> = Tensor::from_fn(&[n, l], |i| bf16::from_f32(x.host()[i]));
    let modes = [
        ("f32", Precision::F32, Features::F32(x.clone()), entry(Dtype::F32, &x)?),
        ("bf16", Precision::Bf16, Features::Bf16(narrow.clone()), entry(Dtype::BF16, &narrow)?),
    ];
    for (mode, precision, x, stored) in modes {
        let device = device.with_precision(precision);
        let tape = Tape::inference(device);
        let [v, u, w] = [&v, &u, &w].map(|p| p.to(device).map(|p| tape.leaf(p)));
        let (v, u, w) = (v?, u?, w?);
        let map = |weight| Affine { weight, bias: None };
        let op = AttentionMil { v: map(&v), u: Some(map(&u)), w: map(&w) };
        let out = op.forward(&tape, &x.to(device)?, &bags)?;
        file.insert(format!("attention.{mode}.x"), stored);
        file.insert(format!("attention.{mode}.pooled"), entry(Dtype::F32, out.pooled.value())?);
    }

    let patients = 5000;
    let stream = Draws::new(0, 0, "outcomes").of(0);
    let time: Vec<f64> = (0..patients).map(|i| f64::from(1 + stream.below(2 * i, 365))).collect();
    let event: Vec<bool> = (0..patients).map(|i| stream.uniform(2 * i + 1) < 0.3).collect();
    let plan = Plan::new(&Outcomes::new(&time, &event))?;
    let log_risk = normal("log_risk", &[time.len()], 1.0);
    let tape = Tape::recording(device);
    let x = tape.leaf(log_risk.to(device)?);
    let loss = Cox::default().forward(&tape, &x, &plan)?;
    file.insert("cox.loss".into(), entry(Dtype::F32, loss.value())?);
    let grads = tape.backward(&[(&loss, Tensor::scalar(1.0).to(device)?)])?;
    file.insert("cox.gradient".into(), entry(Dtype::F32, grads.of(&x).expect("the loss depends on it"))?);
    file.insert("cox.log_risk".into(), entry(Dtype::F32, &log_risk)?);
    let events = event.iter().map(|&e| f64::from(u8::from(e))).collect();
    for (name, column) in [("cox.time", time), ("cox.event", events)] {
        file.insert(name.into(), entry(Dtype::F64, &Tensor::new(&[column.len()], column)?)?);
    }

    safetensors::serialize_to_file(&file, None, Path::new(path)).expect("the file can be written");
    println!("{} tensors from {device} in {path}", file.len());
    Ok(())
}
