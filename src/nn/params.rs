//! Named parameters, how they start, and how a pass sees them.

use std::collections::HashMap;

use crate::device::Device;
use crate::element::{Element, Real};
use crate::error::{Error, Result};
use crate::rng::Draws;
use crate::tape::{Gradients, Tape, Var};
use crate::tensor::Tensor;

/// The place of a parameter among those of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(usize);

/// All parameters of a model, in the order in which its layers were built.
#[derive(Clone, Debug)]
pub struct Params<T> {
    names: Vec<String>,
    decays: Vec<bool>,
    values: Vec<Tensor<T>>,
}

impl<T: Element> PartialEq for Params<T> {
    fn eq(&self, other: &Params<T>) -> bool {
        self.names == other.names && self.decays == other.decays && self.values == other.values
    }
}

impl<T: Real> Params<T> {
    /// The names, such as `patches.project.weight`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The values, in the order of the names.
    pub fn values(&self) -> &[Tensor<T>] {
        &self.values
    }

    /// The values for an optimiser.
    pub fn values_mut(&mut self) -> &mut [Tensor<T>] {
        &mut self.values
    }

    /// Which parameters weight decay acts on: the weights, not the biases.
    pub fn decays(&self) -> &[bool] {
        &self.decays
    }

    /// The same parameters on a device; they share memory with these where they lie there already.
    ///
    /// # Errors
    /// As [`Tensor::to`].
    pub fn to(&self, device: Device) -> Result<Params<T>> {
        let values = self.values.iter().map(|value| value.to(device)).collect::<Result<_>>()?;
        Ok(Params { names: self.names.clone(), decays: self.decays.clone(), values })
    }

    /// Where they lie, and so where a pass over them runs.
    pub fn device(&self) -> Device {
        self.values.first().map_or(Device::Cpu, Tensor::device)
    }

    /// The number of scalars.
    pub fn count(&self) -> usize {
        self.values.iter().map(Tensor::len).sum()
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<T>)> {
        self.names.iter().map(String::as_str).zip(&self.values)
    }
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
}

/// Collects the parameters of a model while its layers are built.
#[derive(Debug)]
pub struct Builder<T> {
    params: Params<T>,
    start: Start<T>,
    scope: String,
}

/// Where the values of parameters come from.
#[derive(Debug)]
enum Start<T> {
    Drawn { seed: u64 },
    Stored { tensors: HashMap<String, Tensor<T>>, wrong: Option<Error> },
}

impl<T: Real> Builder<T> {
    /// For a new model: the seed draws the initial values.
    pub fn new(seed: u64) -> Builder<T> {
        Builder::with(Start::Drawn { seed })
    }

    /// For a model that was saved: its tensors by name. Nothing is allocated for a parameter that is not there or has
    /// another shape; [`finish`](Self::finish) names it.
    pub fn stored(tensors: HashMap<String, Tensor<T>>) -> Builder<T> {
        Builder::with(Start::Stored { tensors, wrong: None })
    }

    fn with(start: Start<T>) -> Builder<T> {
        let params = Params { names: Vec::new(), decays: Vec::new(), values: Vec::new() };
        Builder { params, start, scope: String::new() }
    }

    /// Builds something whose parameters are named `scope.*`.
    pub fn scope<R>(&mut self, name: &str, build: impl FnOnce(&mut Builder<T>) -> R) -> R {
        let outer = self.scope.len();
        self.scope.push_str(name);
        self.scope.push('.');
        let built = build(self);
        self.scope.truncate(outer);
        built
    }

    /// The scope in which the next parameter will be, with its last dot: also names the noise of a layer.
    pub fn path(&self) -> &str {
        &self.scope
    }

    /// One parameter. Its initial values depend on the seed and its full name alone, so a layer that is added leaves
    /// the start of all others.
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init) -> ParamId {
        let name = format!("{}{name}", self.scope);
        let value = match &mut self.start {
            Start::Drawn { seed } => {
                let stream = Draws::new(*seed, 0, &format!("init.{name}")).of(0);
                match init {
                    Init::Zeros => Tensor::zeros(shape),
                    Init::Ones => Tensor::full(shape, T::one()),
                    Init::Normal(deviation) => Tensor::from_fn(shape, |i| T::of(deviation * stream.normal(i as u64))),
                }
            }
            Start::Stored { tensors, wrong } => match tensors.remove(&name) {
                Some(value) if value.shape() == shape => value,
                other => {
                    let got = other.map(|t| t.shape().to_vec());
                    wrong.get_or_insert(Error::Parameter { name: name.clone(), want: shape.to_vec(), got });
                    Tensor::zeros(&[0])
                }
            },
        };
        self.params.decays.push(matches!(init, Init::Normal(_)));
        self.params.names.push(name);
        self.params.values.push(value);
        ParamId(self.params.values.len() - 1)
    }

    /// All parameters.
    ///
    /// # Errors
    /// [`Error::Parameter`] names the first that a saved model lacks or has in another shape,
    /// [`Error::SpareParameter`] the first that it has beside.
    pub fn finish(self) -> Result<Params<T>> {
        if let Start::Stored { tensors, wrong } = self.start {
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
            if let Some(name) = tensors.into_keys().min() {
                return Err(Error::SpareParameter { name });
            }
        }
        Ok(self.params)
    }
}

/// What makes a training pass random. Absent in evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// The seed of the run.
    pub seed: u64,
    /// Counts the passes over the data.
    pub epoch: u32,
}

/// One pass of a model: its tape, its parameters on it, and whether this is training.
pub struct Pass<'a, T> {
    /// Where the ops record.
    pub tape: &'a Tape<T>,
    vars: Vec<Var<T>>,
    noise: Option<Noise>,
    weighing: bool,
}

impl<'a, T: Real> Pass<'a, T> {
    /// Binds the parameters to a tape. With `noise` this is training, without it evaluation.
    pub fn new(tape: &'a Tape<T>, params: &Params<T>, noise: Option<Noise>) -> Pass<'a, T> {
        Pass { tape, vars: params.values.iter().map(|v| tape.leaf(v.clone())).collect(), noise, weighing: false }
    }

    /// The same pass, which also tells how much each patch counts, of a model that has to calculate it for this alone.
    #[must_use]
    pub fn weighing(self) -> Pass<'a, T> {
        Pass { weighing: true, ..self }
    }

    /// Whether it is asked how much each patch counts.
    pub fn weighs(&self) -> bool {
        self.weighing
    }

    /// A parameter as a variable.
    pub fn param(&self, id: ParamId) -> &Var<T> {
        &self.vars[id.0]
    }

    /// The draws for a purpose; `None` in evaluation.
    pub fn draws(&self, purpose: &str) -> Option<Draws> {
        self.noise.map(|noise| Draws::new(noise.seed, noise.epoch, purpose))
    }

    /// The variables of the parameters, for [`grads_of`].
    pub fn into_vars(self) -> Vec<Var<T>> {
        self.vars
    }
}

/// The gradient of each parameter, in their order; `None` where nothing depends on one.
pub fn grads_of<T: Real>(vars: &[Var<T>], grads: &Gradients<T>) -> Vec<Option<Tensor<T>>> {
    vars.iter().map(|v| grads.of(v).cloned()).collect()
}
