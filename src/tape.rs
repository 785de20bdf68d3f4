//! Reverse-mode differentiation: what was calculated, in order, and how to go back.
//!
//! A [`Tape`] belongs to one pass. Ops record on it; [`Tape::backward`] walks it once from the end and consumes it, so
//! what an op kept is freed as soon as it was used. A tape made with [`Tape::inference`] records nothing and keeps
//! nothing.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::device::Device;
use crate::element::Real;
use crate::error::Result;
use crate::tensor::Tensor;

/// The gradients of an op's outputs, in their order; `None` where nothing depends on an output.
pub type OutputGrads<'a, T> = &'a [Option<Tensor<T>>];

type Backward<T> = Box<dyn FnOnce(OutputGrads<'_, T>) -> Result<Vec<Option<Tensor<T>>>>>;

struct Node<T> {
    inputs: Vec<Option<usize>>,
    outputs: Vec<usize>,
    backward: Backward<T>,
}

/// The record of one forward pass.
pub struct Tape<T> {
    id: u32,
    device: Device,
    recording: bool,
    nodes: RefCell<Vec<Node<T>>>,
    slots: RefCell<usize>,
}

/// A value on a tape: a tensor, and the slot its gradient will have if anything differentiable led to it.
#[derive(Clone, Debug)]
pub struct Var<T> {
    value: Tensor<T>,
    slot: Option<(u32, usize)>,
}

impl<T: Real> Var<T> {
    /// A value without a gradient, for any tape.
    pub fn constant(value: Tensor<T>) -> Var<T> {
        Var { value, slot: None }
    }

    /// The value.
    pub fn value(&self) -> &Tensor<T> {
        &self.value
    }

    /// The shape of the value.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// Whether a gradient will be asked for: false for constants and what follows from constants alone.
    pub fn wants_grad(&self) -> bool {
        self.slot.is_some()
    }
}

static NEXT_ID: AtomicU32 = AtomicU32::new(0);

impl<T: Real> Tape<T> {
    /// A tape that records, for training.
    pub fn recording(device: Device) -> Tape<T> {
        Tape::start(device, true)
    }

    /// A tape that keeps nothing, for prediction: every variable on it is a constant.
    pub fn inference(device: Device) -> Tape<T> {
        Tape::start(device, false)
    }

    fn start(device: Device, recording: bool) -> Tape<T> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Tape { id, device, recording, nodes: RefCell::default(), slots: RefCell::new(0) }
    }

    /// Where the ops of this pass run.
    pub fn device(&self) -> Device {
        self.device
    }

    fn slot(&self) -> usize {
        let mut slots = self.slots.borrow_mut();
        *slots += 1;
        *slots - 1
    }

    /// A leaf whose gradient [`Gradients::of`] will give, such as a parameter.
    pub fn leaf(&self, value: Tensor<T>) -> Var<T> {
        let slot = self.recording.then(|| (self.id, self.slot()));
        Var { value, slot }
    }

    /// Records an op: its inputs, its outputs, and the function from the gradients of the outputs to those of the
    /// inputs (one entry an input, `None` where there is none to give). Where no input wants a gradient nothing is
    /// kept and the outputs are constants.
    pub fn record<const N: usize>(
        &self,
        inputs: &[&Var<T>],
        outputs: [Tensor<T>; N],
        backward: impl FnOnce(OutputGrads<'_, T>) -> Result<Vec<Option<Tensor<T>>>> + 'static,
    ) -> [Var<T>; N] {
        if !inputs.iter().any(|v| v.wants_grad()) {
            return outputs.map(Var::constant);
        }
        let inputs = inputs.iter().map(|v| v.slot.map(|slot| self.own(slot))).collect();
        let outputs = outputs.map(|value| Var { value, slot: Some((self.id, self.slot())) });
        let slots = outputs.iter().filter_map(|v| v.slot).map(|(_, slot)| slot).collect();
        self.nodes.borrow_mut().push(Node { inputs, outputs: slots, backward: Box::new(backward) });
        outputs
    }

    /// The same values under another shape of the same size.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the sizes differ.
    pub fn reshape(&self, x: &Var<T>, shape: &[usize]) -> Result<Var<T>> {
        let (y, before) = (x.value().clone().reshape(shape)?, x.shape().to_vec());
        let [y] = self.record(&[x], [y], move |grads| {
            grads.iter().map(|g| g.clone().map(|g| g.reshape(&before)).transpose()).collect()
        });
        Ok(y)
    }

    fn own(&self, (tape, slot): (u32, usize)) -> usize {
        assert_eq!(tape, self.id, "a variable was used on a tape that it was not made on");
        slot
    }

    /// Goes back from the roots, each with the gradient that it is owed (`1` for a loss), to every leaf.
    ///
    /// Contributions to one variable are added in the reverse order of the forward pass: the same bits every time.
    ///
    /// # Errors
    /// What an op's backward gives.
    pub fn backward(self, roots: &[(&Var<T>, Tensor<T>)]) -> Result<Gradients<T>> {
        let mut grads: Vec<Option<Tensor<T>>> = Vec::new();
        grads.resize_with(*self.slots.borrow(), || None);
        for (root, grad) in roots {
            assert_eq!(root.shape(), grad.shape(), "a root and its gradient have one shape");
            if let Some(slot) = root.slot {
                add(&mut grads[self.own(slot)], grad.clone())?;
            }
        }
        for node in self.nodes.into_inner().into_iter().rev() {
            // Nothing recorded earlier can add to these: an op's outputs are used only after it.
            let out: Vec<_> = node.outputs.iter().map(|&slot| grads[slot].take()).collect();
            if out.iter().all(Option::is_none) {
                continue;
            }
            let back = (node.backward)(&out)?;
            assert_eq!(back.len(), node.inputs.len(), "an op gives one gradient an input");
            for (slot, grad) in node.inputs.iter().zip(back) {
                if let (Some(slot), Some(grad)) = (slot, grad) {
                    add(&mut grads[*slot], grad)?;
                }
            }
        }
        Ok(Gradients { tape: self.id, grads })
    }
}

fn add<T: Real>(sum: &mut Option<Tensor<T>>, grad: Tensor<T>) -> Result<()> {
    match sum {
        Some(sum) => sum.add_assign(&grad)?,
        None => *sum = Some(grad),
    }
    Ok(())
}

/// The gradients of the leaves after a backward pass.
pub struct Gradients<T> {
    tape: u32,
    grads: Vec<Option<Tensor<T>>>,
}

impl<T: Real> Gradients<T> {
    /// The gradient of a leaf; `None` if no root depends on it.
    pub fn of(&self, leaf: &Var<T>) -> Option<&Tensor<T>> {
        let (tape, slot) = leaf.slot?;
        assert_eq!(tape, self.tape, "a variable was used on a tape that it was not made on");
        self.grads[slot].as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(tape: &Tape<f64>, x: &Var<f64>) -> Var<f64> {
        let saved = x.value().clone();
        let y = Tensor::from_fn(x.shape(), |i| saved.host()[i].powi(2));
        let [y] = tape.record(&[x], [y], move |grads| {
            let g = grads[0].as_ref().expect("the only output");
            Ok(vec![Some(Tensor::from_fn(saved.shape(), |i| 2.0 * saved.host()[i] * g.host()[i]))])
        });
        y
    }

    #[test]
    fn contributions_of_two_uses_are_added() {
        let tape = Tape::recording(Device::Cpu);
        let x = tape.leaf(Tensor::new(&[2], vec![3.0, -1.0]).unwrap());
        let (a, b) = (square(&tape, &x), square(&tape, &x));
        let ones = Tensor::full(&[2], 1.0);
        let grads = tape.backward(&[(&a, ones.clone()), (&b, ones)]).unwrap();
        assert_eq!(grads.of(&x).unwrap().host(), [12.0, -4.0]);
    }

    #[test]
    fn what_follows_from_constants_is_constant_and_inference_keeps_nothing() {
        let tape = Tape::recording(Device::Cpu);
        assert!(!square(&tape, &Var::constant(Tensor::scalar(2.0))).wants_grad());
        let tape = Tape::inference(Device::Cpu);
        let x = tape.leaf(Tensor::scalar(2.0));
        assert!(!square(&tape, &x).wants_grad());
        assert!(tape.nodes.borrow().is_empty());
    }

    #[test]
    #[should_panic(expected = "not made on")]
    fn a_variable_of_another_tape_is_refused() {
        let (a, b) = (Tape::recording(Device::Cpu), Tape::recording(Device::Cpu));
        square(&b, &a.leaf(Tensor::scalar(1.0)));
    }
}
