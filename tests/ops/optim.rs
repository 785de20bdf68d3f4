//! Optimisers, schedules and clipping: against the published trajectories, the formulas and their own laws.

use onkos::optim::{
    AdamW, AdamWConfig, Decay, Optimizer, OptimizerConfig, Parameter, RAdam, RAdamConfig, Schedule, ScheduleConfig,
    clip_global_norm,
};
use onkos::{Device, Error, Real, Tensor};
use proptest::prelude::*;

use crate::golden::{self, Tensors};
use crate::harness::*;

fn parameter(name: &str, shape: &[usize], decay: bool) -> Parameter {
    Parameter { name: name.into(), shape: shape.to_vec(), decay }
}

/// The README of the golden files: the worst difference to an independent formula is about 1e-12.
const AGREEMENT: f64 = 1e-12;

/// A step on the device under test of tensors that are on the CPU before and after.
fn step<T: Real>(
    optimizer: &mut (impl Optimizer<T> + ?Sized),
    lr: f64,
    params: &mut [Tensor<T>],
    grads: &[Option<Tensor<T>>],
) {
    let mut there: Vec<_> = params.iter().map(placed).collect();
    let grads: Vec<_> = grads.iter().map(|g| g.as_ref().map(placed)).collect();
    optimizer.step(lr, &mut there, &grads).unwrap();
    params.iter_mut().zip(&there).for_each(|(param, there)| *param = fetched(there));
}

/// What a run of the golden objective, `x A x / 2 - b x` over both parameters, went through.
struct Run<T> {
    p0: Vec<T>,
    p1: Vec<T>,
    grads: Vec<f64>,
    state: Vec<(String, Tensor<T>)>,
}

fn follow<T: Real>(file: &Tensors, case: &str) -> Run<T> {
    let hyper = file.get(&format!("in.{case}.hyper"));
    let (beta1, beta2, eps, weight_decay) = (hyper[1], hyper[2], hyper[3], hyper[4]);
    // The published rule decays the second group with its own learning rate and moves it with that of the first.
    let second = if case == "twogroups" { hyper[7] } else { 1.0 };
    let config = |factor: f64| RAdamConfig { beta1, beta2, eps, weight_decay: weight_decay * factor };
    let mut first = RAdam::<T>::new(config(1.0), vec![parameter("p0", &[5], true)]).unwrap();
    let mut other = RAdam::<T>::new(config(second), vec![parameter("p1", &[2, 3], true)]).unwrap();
    let read = |name: &str, shape: &[usize]| {
        let values = file.get(name);
        Tensor::from_fn(shape, |i| T::of(values[i]))
    };
    let (a, b) = (read("in.A", &[11, 11]), read("in.b", &[11]));
    let (mut p0, mut p1) = ([read("in.p0", &[5])], [read("in.p1", &[2, 3])]);
    let mut run = Run { p0: p0[0].host().to_vec(), p1: p1[0].host().to_vec(), grads: vec![], state: vec![] };
    for &lr in file.get(&format!("out.{case}.f64.lr")) {
        let x: Vec<T> = p0[0].host().iter().chain(p1[0].host()).copied().collect();
        let row = |i: usize| (0..11).map(|j| a.host()[i * 11 + j] * x[j]).sum::<T>() - b.host()[i];
        let grad: Vec<T> = (0..11).map(row).collect();
        run.grads.extend(grad.iter().map(|g| g.f64()));
        let (g0, g1) = grad.split_at(5);
        step(&mut first, lr, &mut p0, &[Some(Tensor::new(&[5], g0.to_vec()).unwrap())]);
        step(&mut other, lr, &mut p1, &[Some(Tensor::new(&[2, 3], g1.to_vec()).unwrap())]);
        run.p0.extend(p0[0].host());
        run.p1.extend(p1[0].host());
    }
    run.state = first.state();
    run
}

#[test]
fn radam_follows_the_published_trajectories() {
    let file = Tensors::read(&golden::path("models/radam.safetensors"));
    for case in ["wd", "nowd_beta99", "cosine", "twogroups"] {
        let want = |what: &str| file.get(&format!("out.{case}.{what}"));
        let run = follow::<f64>(&file, case);
        assert_golden(case, &run.p0, want("f64.p0"), AGREEMENT);
        assert_golden(case, &run.p1, want("f64.p1"), AGREEMENT);
        assert_golden(case, &run.grads, want("f64.grads"), AGREEMENT);
        let state = |name: &str| run.state.iter().find(|(n, _)| n == name).unwrap().1.host();
        assert_golden(case, state("radam.mean.p0"), want("f64.exp_avg_p0"), AGREEMENT);
        assert_golden(case, state("radam.square.p0"), want("f64.exp_avg_sq_p0"), AGREEMENT);

        // The published run in f32 is plain arithmetic, that in f64 the oracle.
        let run = follow::<f32>(&file, case);
        let single = |what: &str| want(what).iter().map(|x| *x as f32).collect::<Vec<_>>();
        assert_as_good_as_plain(case, &run.p0, &single("f32.p0"), want("f64.p0"));
        assert_as_good_as_plain(case, &run.p1, &single("f32.p1"), want("f64.p1"));
    }
}

#[test]
fn radam_moves_from_its_first_step_and_is_rectified_from_the_sixth() {
    // A constant gradient of size c: momentum moves by lr c, the rectified step by an amount that c cancels from.
    let moves = |c: f64| {
        let mut radam = RAdam::new(RAdamConfig::default(), vec![parameter("p", &[], false)]).unwrap();
        let mut p = [Tensor::scalar(0.0)];
        let mut one = || {
            let before = p[0].host()[0];
            step(&mut radam, 1e-3, &mut p, &[Some(Tensor::scalar(c))]);
            before - p[0].host()[0]
        };
        (0..12).map(|_| one()).collect::<Vec<f64>>()
    };
    let (small, large) = (moves(2.0), moves(200.0));
    for step in 0..12 {
        let ratio = large[step] / small[step];
        let want = if step < 5 { 100.0 } else { 1.0 };
        // The root of the second moment is at least c sqrt(1 - beta2^6) when it counts; eps beside it is the difference.
        let RAdamConfig { beta2, eps, .. } = RAdamConfig::default();
        let bound = eps / (2.0 * (1.0 - beta2.powi(6)).sqrt()) * want + AGREEMENT * want;
        assert_within(&format!("step {step}"), &[ratio], &[want], bound);
    }
}

/// AdamW as Loshchilov and Hutter write it, in the type itself.
fn naive_adamw<T: Real>(config: AdamWConfig, lr: f64, decay: bool, start: &[T], grads: &[Vec<T>]) -> Vec<T> {
    let [b1, b2, eps, wd, lr] = [config.beta1, config.beta2, config.eps, config.weight_decay, lr].map(T::of);
    let one = T::one();
    let (mut p, mut m, mut v) = (start.to_vec(), vec![T::zero(); start.len()], vec![T::zero(); start.len()]);
    for (t, grad) in grads.iter().enumerate() {
        let t = t as i32 + 1;
        for i in 0..p.len() {
            m[i] = b1 * m[i] + (one - b1) * grad[i];
            v[i] = b2 * v[i] + (one - b2) * grad[i] * grad[i];
            let (mean, square) = (m[i] / (one - b1.powi(t)), v[i] / (one - b2.powi(t)));
            let pull = if decay { wd * p[i] } else { T::zero() };
            p[i] -= lr * (mean / (square.sqrt() + eps) + pull);
        }
    }
    p
}

fn adamw<T: Real>(decay: bool, n: usize) -> AdamW<T> {
    AdamW::new(AdamWConfig::default(), vec![parameter("p", &[n], decay)]).unwrap()
}

fn grads_of<T: Real>(steps: usize, n: usize) -> Vec<Vec<T>> {
    (0..steps).map(|t| normal::<T>(&format!("grad {t}"), &[n]).host().to_vec()).collect()
}

fn run_adamw<T: Real>(lr: f64, decay: bool, start: &Tensor<T>, grads: &[Vec<T>]) -> Tensor<T> {
    let mut optimizer = adamw(decay, start.len());
    let mut p = [start.clone()];
    for grad in grads {
        step(&mut optimizer, lr, &mut p, &[Some(Tensor::new(start.shape(), grad.clone()).unwrap())]);
    }
    let [p] = p;
    p
}

#[test]
fn adamw_is_as_good_as_plain_arithmetic() {
    for n in [0, 1, 33, 1025] {
        for decay in [false, true] {
            let start: Tensor<f32> = normal("start", &[n]);
            let (single, double) = (grads_of::<f32>(20, n), grads_of::<f64>(20, n));
            let wide: Tensor<f64> = cast(&start);
            let oracle = naive_adamw(AdamWConfig::default(), 0.05, decay, wide.host(), &double);
            let plain = naive_adamw(AdamWConfig::default(), 0.05, decay, start.host(), &single);
            let what = format!("{n}, decay {decay}");
            assert_as_good_as_plain(&what, run_adamw(0.05, decay, &start, &single).host(), &plain, &oracle);
            assert_golden(&what, run_adamw(0.05, decay, &wide, &double).host(), &oracle, AGREEMENT);
        }
    }
}

#[test]
fn adamw_moves_by_the_learning_rate_along_a_constant_gradient() {
    // Then both corrected means are exact at every step: lr g / (|g| + eps), whatever the betas.
    let (steps, lr, eps) = (50, 0.01, AdamWConfig::default().eps);
    let grad = vec![3.0, -0.5, 1e-8, 0.0];
    let end = run_adamw(lr, false, &Tensor::<f64>::zeros(&[4]), &vec![grad.clone(); steps]);
    let want: Vec<f64> = grad.iter().map(|g| -(steps as f64) * lr * g / (g.abs() + eps)).collect();
    assert_golden("constant", end.host(), &want, AGREEMENT);
}

#[test]
fn decay_alone_is_a_power_and_spares_who_is_told_to_be_spared() {
    let (lr, wd) = (0.5, AdamWConfig::default().weight_decay);
    let start = Tensor::<f64>::full(&[1], 2.0);
    let still = vec![vec![0.0]; 10];
    let want = 2.0 * (1.0 - lr * wd).powi(10);
    assert_golden("decays", run_adamw(lr, true, &start, &still).host(), &[want], AGREEMENT);
    assert_eq!(run_adamw(lr, false, &start, &still), start);
}

/// Both optimisers over two parameters, by way of the settings of a training file.
fn both() -> [(OptimizerConfig, Box<dyn Optimizer<f32>>); 2] {
    [OptimizerConfig::AdamW(AdamWConfig::default()), OptimizerConfig::RAdam(RAdamConfig::default())].map(|config| {
        let params = vec![parameter("weight", &[3, 4], true), parameter("bias", &[4], false)];
        (config, config.build(params).unwrap())
    })
}

/// Parameters and gradients on the device under test.
fn start() -> [Tensor<f32>; 2] {
    [placed(&normal("weight", &[3, 4])), placed(&normal("bias", &[4]))]
}

fn gradient(step: usize) -> [Option<Tensor<f32>>; 2] {
    [Some(placed(&normal(&format!("w {step}"), &[3, 4]))), Some(placed(&normal(&format!("b {step}"), &[4])))]
}

#[test]
fn a_parameter_without_a_gradient_is_left_alone_and_counts_no_step() {
    for (config, mut optimizer) in both() {
        let mut params = start();
        for step in 0..7 {
            let [weight, bias] = gradient(step);
            optimizer.step(0.1, &mut params, &[weight, if step < 3 { bias } else { None }]).unwrap();
        }
        let mut alone = config.build(vec![parameter("bias", &[4], false)]).unwrap();
        let mut bias = [start()[1].clone()];
        for step in 0..3 {
            alone.step(0.1, &mut bias, &gradient(step)[1..]).unwrap();
        }
        assert_eq!(params[1], bias[0], "{config:?}");
    }
}

#[test]
fn a_run_that_is_resumed_has_the_bits_of_one_that_was_not() {
    for ((config, mut straight), (_, mut second)) in both().into_iter().zip(both()) {
        let mut params = start();
        let mut kept = None;
        for step in 0..12 {
            if step == 6 {
                kept = Some((params.clone(), straight.state()));
            }
            straight.step(0.1, &mut params, &gradient(step)).unwrap();
        }
        let (mut resumed, mut state) = kept.expect("kept at step 6");
        state.reverse();
        second.load_state(&state).unwrap();
        (6..12).for_each(|step| second.step(0.1, &mut resumed, &gradient(step)).unwrap());
        assert_eq!(params, resumed, "{config:?}");
        assert_eq!(straight.state(), second.state(), "{config:?}");
    }
}

#[test]
fn step_counts_beyond_the_whole_numbers_of_f32_are_kept() {
    for (_, mut optimizer) in both() {
        let mut state = optimizer.state();
        let steps = state.iter_mut().find(|(name, _)| name.ends_with(".steps")).unwrap();
        // 31 * 2^20 + 2^20 - 1: an odd number above 2^24.
        steps.1 = Tensor::new(&[2, 2], vec![31.0, 1_048_575.0, 31.0, 1_048_575.0]).unwrap();
        optimizer.load_state(&state).unwrap();
        optimizer.step(0.1, &mut start(), &gradient(0)).unwrap();
        let state = optimizer.state();
        let steps = state.iter().find(|(name, _)| name.ends_with(".steps")).unwrap();
        assert_eq!(steps.1.host(), [32.0, 0.0, 32.0, 0.0]);
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_changes_nothing() {
    for (config, mut optimizer) in both() {
        optimizer.step(0.1, &mut start(), &gradient(0)).unwrap();
        let good = optimizer.state();
        let mut refuse = |state: Vec<(String, Tensor<f32>)>, why: &str| {
            let error = optimizer.load_state(&state).unwrap_err();
            assert!(matches!(error, Error::State { .. }) && error.to_string().contains(why), "{config:?}: {error}");
            assert_eq!(optimizer.state(), good);
        };
        refuse(good[..good.len() - 1].to_vec(), "square.bias is missing");
        refuse([good.clone(), vec![("stray".into(), Tensor::scalar(0.0))]].concat(), "stray belongs to no parameter");
        let mut other = good.clone();
        other[1].1 = Tensor::zeros(&[4, 3]);
        refuse(other, "must have shape [3, 4], but has [4, 3]");
        let mut half = good.clone();
        half[0].1 = Tensor::full(&[2, 2], 0.5);
        refuse(half, "must hold whole numbers");
    }
}

#[test]
fn lists_and_tensors_of_the_wrong_size_are_refused_before_anything_moves() {
    for (_, mut optimizer) in both() {
        let mut params = start();
        let before = (params.clone(), optimizer.state());
        let error = optimizer.step(0.1, &mut params, &gradient(0)[..1]).unwrap_err();
        assert!(matches!(error, Error::Shape { arg: "grads", .. }));
        let error = optimizer.step(0.1, &mut params[..1], &gradient(0)).unwrap_err();
        assert!(matches!(error, Error::Shape { arg: "params", .. }));
        let [weight, _] = gradient(0);
        let error = optimizer.step(0.1, &mut params, &[weight, Some(Tensor::zeros(&[5]))]).unwrap_err();
        assert!(error.to_string().contains("a gradient must have shape [4] (bias), but has [5]"), "{error}");
        let mut turned = [params[1].clone(), params[0].clone()];
        let error = optimizer.step(0.1, &mut turned, &gradient(0)).unwrap_err();
        assert!(matches!(error, Error::Shape { arg: "a parameter", .. }));
        assert_eq!((params, optimizer.state()), before);
    }
}

#[test]
fn a_large_parameter_gets_the_bits_of_its_elements_on_any_number_of_threads() {
    let n = 100_000;
    let (start, grads) = (normal::<f32>("start", &[n]), grads_of::<f32>(3, n));
    assert_same_on_any_number_of_threads(|| run_adamw(0.1, true, &start, &grads));
    let end = run_adamw(0.1, true, &start, &grads);
    for i in [0, 40_000, n - 1] {
        let one = Tensor::new(&[1], vec![start.host()[i]]).unwrap();
        let grads: Vec<Vec<f32>> = grads.iter().map(|g| vec![g[i]]).collect();
        assert_eq!(run_adamw(0.1, true, &one, &grads).host()[0], end.host()[i]);
    }
}

#[test]
fn optimisers_are_read_by_kind_and_unknown_settings_are_refused() {
    let read = |text: &str| toml::from_str::<OptimizerConfig>(text);
    let adamw = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
    assert_eq!(read("kind = 'adamw'\nweight_decay = 0.1").unwrap(), OptimizerConfig::AdamW(adamw));
    assert_eq!(read("kind = 'radam'").unwrap(), OptimizerConfig::RAdam(RAdamConfig::default()));
    assert!(read("kind = 'adamw'\nmomentum = 0.9").unwrap_err().to_string().contains("momentum"));
    assert!(read("kind = 'sgd'").is_err());
    for config in [OptimizerConfig::default(), OptimizerConfig::RAdam(RAdamConfig::default())] {
        assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
    let schedule = toml::from_str::<ScheduleConfig>("decay = 'linear'").unwrap();
    assert_eq!(schedule, ScheduleConfig { decay: Decay::Linear, ..ScheduleConfig::default() });
    assert!(toml::from_str::<ScheduleConfig>("warmup = 3").is_err());
}

#[test]
fn settings_out_of_range_are_named() {
    let default = AdamWConfig::default();
    for (config, want) in [
        (AdamWConfig { beta1: 1.0, ..default }, "adamw.beta1 must be at least 0 and below 1, but is 1"),
        (AdamWConfig { beta2: -0.1, ..default }, "adamw.beta2 must be at least 0 and below 1, but is -0.1"),
        (AdamWConfig { eps: 0.0, ..default }, "adamw.eps must be finite and above 0, but is 0"),
        (
            AdamWConfig { weight_decay: f64::NAN, ..default },
            "adamw.weight_decay must be finite and not negative, but is NaN",
        ),
    ] {
        let error = OptimizerConfig::AdamW(config).build::<f32>(vec![]).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
    let config = RAdamConfig { beta2: 1.0, ..RAdamConfig::default() };
    assert!(OptimizerConfig::RAdam(config).build::<f32>(vec![]).is_err());
    let config = ScheduleConfig { warmup_epochs: -1.0, ..ScheduleConfig::default() };
    assert!(matches!(config.over(10, 10).unwrap_err(), Error::Setting { name: "schedule.warmup_epochs", .. }));
}

#[test]
fn schedules_are_the_published_ones_until_the_end_and_then_stay() {
    let file = Tensors::read(&golden::path("models/schedules.safetensors"));
    let names = file.names();
    assert_eq!(names.len(), 12);
    for name in names {
        let parts: Vec<&str> = name.trim_start_matches("out.").split('_').collect();
        let number = |i: usize, prefix: &str| parts[i].trim_start_matches(prefix).parse::<u64>().unwrap();
        let decay = match parts[0] {
            "constant" => Decay::Constant,
            "linear" => Decay::Linear,
            _ => Decay::Cosine,
        };
        let schedule = Schedule { decay, warmup: number(1, "warmup"), total: number(2, "total") };
        let want = file.get(name);
        // A warm-up as long as the training has one step of decay after its end, in the formula.
        let end = schedule.total.max(schedule.warmup + 1);
        let got: Vec<f64> = (0..=end).map(|step| schedule.factor(step)).collect();
        assert_golden(name, &got, &want[..=end as usize], 4.0 * f64::EPSILON);
        assert!((end..end + 5).all(|step| schedule.factor(step) == schedule.factor(end)), "{name}");
        if decay == Decay::Cosine {
            assert!(want[end as usize + 1] > schedule.factor(end + 1), "{name}: the published cosine rises again");
        }
    }
}

#[test]
fn epochs_become_steps() {
    let config = ScheduleConfig { decay: Decay::Cosine, warmup_epochs: 0.5 };
    let want = Schedule { decay: Decay::Cosine, warmup: 10, total: 200 };
    assert_eq!(config.over(10, 20).unwrap(), want);
}

proptest! {
    #[test]
    fn clipping_keeps_the_direction_and_bounds_the_norm(
        values in prop::collection::vec(-1e3..1e3f64, 1..60),
        max in 1e-3..1e4f64,
    ) {
        let cut = values.len() / 2;
        let part = |x: &[f64]| Some(Tensor::new(&[x.len()], x.to_vec()).unwrap());
        let mut grads = [part(&values[..cut]), None, part(&values[cut..])];
        let norm = clip_global_norm(&mut grads, max).unwrap();
        let want = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        // Each of n squares and additions rounds once.
        let rounding = (values.len() + 4) as f64 * f64::EPSILON;
        assert_within("norm", &[norm], &[want], rounding * want);
        prop_assert!(grads[1].is_none());
        let got: Vec<f64> = grads.iter().flatten().flat_map(|g| g.host().to_vec()).collect();
        if want <= max * (1.0 - rounding) {
            prop_assert_eq!(got, values);
        } else {
            let scaled: Vec<f64> = values.iter().map(|x| x * (max / want).min(1.0)).collect();
            assert_within("gradients", &got, &scaled, 2.0 * rounding * max);
        }
    }
}

#[test]
fn a_norm_that_is_not_finite_is_told_and_nothing_is_scaled() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut grads = [Some(placed(&Tensor::new(&[2], vec![bad, 5.0f32]).unwrap()))];
        assert!(!clip_global_norm(&mut grads, 1.0).unwrap().is_finite());
        assert_eq!(fetched(grads[0].as_ref().unwrap()).host()[1], 5.0);
    }
}

/// Parameters of several sizes, one of them empty and one longer than a block's share, and gradients of a few steps, one
/// of which leaves a parameter out.
fn mixed() -> (Vec<Parameter>, Vec<Tensor<f32>>, Vec<Vec<Option<Tensor<f32>>>>) {
    let sizes = [3usize, 0, 4096, 1, 9001, 4, 30];
    let name = |i: usize| format!("p{i}");
    let params = sizes.iter().enumerate().map(|(i, &n)| parameter(&name(i), &[n], i % 2 == 0)).collect();
    let start = sizes.iter().enumerate().map(|(i, &n)| normal(&name(i), &[n])).collect();
    let grad =
        |step: usize, i: usize, n: usize| (step != 3 || i != 4).then(|| normal(&format!("step {step} of {i}"), &[n]));
    let grads = (0..8).map(|step| sizes.iter().enumerate().map(|(i, &n)| grad(step, i, n)).collect()).collect();
    (params, start, grads)
}

/// What becomes of them, on a device, with and without a limit of the norm: parameters, state and norms.
fn run_mixed(
    config: OptimizerConfig,
    device: Device,
    most: Option<f64>,
) -> (Vec<Tensor<f32>>, Vec<Tensor<f32>>, Vec<f64>) {
    let (params, start, grads) = mixed();
    let mut optimizer = config.build(params).unwrap();
    let mut values: Vec<_> = start.iter().map(|p| p.to(device).unwrap()).collect();
    let mut norms = vec![];
    for grads in &grads {
        let mut grads: Vec<_> = grads.iter().map(|g| g.as_ref().map(|g| g.to(device).unwrap())).collect();
        let norm = optimizer.step_clipped(0.1, most, &mut values, &mut grads).unwrap();
        norms.extend(norm.map(|norm| norm.read().unwrap()));
    }
    let state = optimizer.state().iter().map(|(_, tensor)| fetched(tensor)).collect();
    (values.iter().map(fetched).collect(), state, norms)
}

#[test]
fn a_step_on_a_device_has_the_bits_of_the_cpu() {
    for (config, _) in both() {
        let cpu = run_mixed(config, Device::Cpu, None);
        assert_eq!(run_mixed(config, device::<f32>(), None), cpu, "{config:?}");
        // A limit that is not reached changes nothing either.
        let (values, state, norms) = run_mixed(config, device::<f32>(), Some(f64::INFINITY));
        assert_eq!((values, state), (cpu.0, cpu.1), "{config:?}");
        assert_eq!(norms.len(), 8);
    }
}

#[test]
fn a_clipped_step_is_one_with_clipped_gradients() {
    let most = 1.0;
    for (config, _) in both() {
        let (values, state, norms) = run_mixed(config, device::<f32>(), Some(most));
        assert_eq!(run_mixed(config, device::<f32>(), Some(most)), (values.clone(), state, norms.clone()), "twice");
        // By hand: the same device clips, then steps.
        let (params, start, grads) = mixed();
        let mut optimizer = config.build(params).unwrap();
        let mut want: Vec<_> = start.iter().map(placed).collect();
        for (grads, norm) in grads.iter().zip(norms) {
            let host: Vec<f64> = grads.iter().flatten().flat_map(|g| g.host().to_vec()).map(f64::from).collect();
            let oracle = host.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert_within("norm", &[norm], &[oracle], host.len() as f64 * f64::EPSILON * oracle);
            let mut grads: Vec<_> = grads.iter().map(|g| g.as_ref().map(placed)).collect();
            assert_eq!(clip_global_norm(&mut grads, most).unwrap(), norm);
            optimizer.step(0.1, &mut want, &grads).unwrap();
        }
        assert_eq!(values, want, "{config:?}");
    }
}

#[test]
fn a_step_whose_norm_is_not_finite_moves_nothing() {
    for (config, mut optimizer) in both() {
        let mut params = start();
        optimizer.step(0.1, &mut params, &gradient(0)).unwrap();
        let before = (params.clone(), optimizer.state()[1..].to_vec());
        let mut grads = gradient(1);
        grads[1] = Some(placed(&Tensor::full(&[4], f32::INFINITY)));
        let norm = optimizer.step_clipped(0.1, Some(1.0), &mut params, &mut grads).unwrap();
        assert!(!norm.expect("there is a limit").read().unwrap().is_finite());
        assert_eq!((params, optimizer.state()[1..].to_vec()), before, "{config:?}");
    }
}

#[test]
fn parameters_that_are_kept_elsewhere_stay_as_they_were() {
    // The best of a training so far is a clone that shares its memory, and so may be a state.
    for (config, mut optimizer) in both() {
        let mut params = start();
        optimizer.step(0.1, &mut params, &gradient(0)).unwrap();
        let (kept, state) = (params.clone(), optimizer.state());
        let copies: (Vec<_>, Vec<_>) =
            (kept.iter().map(fetched).collect(), state.iter().map(|(_, t)| fetched(t)).collect());
        optimizer.step(0.1, &mut params, &gradient(1)).unwrap();
        assert_ne!(params, kept);
        assert_eq!(copies.0, kept, "{config:?}");
        assert_eq!(copies.1, state.into_iter().map(|(_, t)| t).collect::<Vec<_>>(), "{config:?}");
    }
}

#[test]
fn the_norm_has_the_same_bits_on_any_number_of_threads() {
    let grads = [Some(normal::<f32>("a", &[100_000])), None, Some(normal::<f32>("b", &[7, 3]))];
    assert_same_on_any_number_of_threads(|| {
        let mut grads = grads.clone();
        (clip_global_norm(&mut grads, 0.5).unwrap(), grads)
    });
}
