//! Arguments of a kernel that works on many tensors at once: a table of addresses and numbers.

use std::marker::PhantomData;

use super::cuda::Gpu;
use super::kernel::{Argument, In, Param, Slot, place};
use crate::element::Element;
use crate::error::Result;
use crate::tensor::Tensor;

/// In a declaration: words of a [`Table`].
pub(crate) struct Words;

impl Param for Words {
    fn c() -> String {
        In::<u64>::c()
    }
}

/// Words of 64 bits for a kernel: addresses of tensors and numbers, in the order in which they are added.
///
/// It borrows the tensors for as long as it lives, those that the kernel writes alone; they may be freed after the
/// launch, because memory is freed in the order of the stream.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    gpu: Gpu,
    words: Vec<u64>,
    /// The words on the device, from the first launch on: nothing is added after that.
    copy: Option<Tensor<u64>>,
    tensors: PhantomData<&'a mut ()>,
}

impl<'a> Table<'a> {
    /// No word yet.
    pub(crate) fn new(gpu: Gpu) -> Table<'a> {
        Table { gpu, words: Vec::new(), copy: None, tensors: PhantomData }
    }

    /// A number.
    pub(crate) fn number(&mut self, number: u64) {
        assert!(self.copy.is_none(), "a table is launched as it was first launched");
        self.words.push(number);
    }

    /// Two numbers in one word, the first in its lower half.
    pub(crate) fn floats(&mut self, low: f32, high: f32) {
        self.number(u64::from(high.to_bits()) << 32 | u64::from(low.to_bits()));
    }

    /// The address of a tensor of elements `P` that `kernel` reads.
    pub(crate) fn reads<P: Element, T: Element>(&mut self, tensor: &'a Tensor<T>, kernel: &'static str) -> Result<()> {
        let address = place::<P, T>(tensor, self.gpu, kernel)?;
        self.number(address);
        Ok(())
    }

    /// The address of a tensor of elements `P` that `kernel` writes: memory of its own.
    pub(crate) fn writes<P: Element, T: Element>(
        &mut self,
        tensor: &'a mut Tensor<T>,
        kernel: &'static str,
    ) -> Result<()> {
        tensor.own()?;
        self.reads::<P, T>(tensor, kernel)
    }
}

impl Argument<Words> for &mut Table<'_> {
    fn size(&self) -> Option<usize> {
        Some(self.words.len())
    }
    fn slot(&mut self, gpu: Gpu, kernel: &'static str) -> Result<Slot> {
        let copy = match self.copy.take() {
            Some(copy) => copy,
            None => self.gpu.upload(&[self.words.len()], &self.words)?,
        };
        Ok(Slot::Pointer(place::<u64, u64>(self.copy.insert(copy), gpu, kernel)?))
    }
}
