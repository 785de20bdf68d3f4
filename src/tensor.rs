//! Dense arrays, row-major, on one device.

use std::sync::Arc;

use ndarray::{Array, ArrayView, Dimension, Ix2};

use crate::device::Device;
use crate::element::{Element, Real};
use crate::error::{Error, Result};

/// A dense row-major array. Cheap to clone: clones share the memory until one of them is written to.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<T> {
    shape: Vec<usize>,
    storage: Storage<T>,
}

/// The memory of a tensor, one variant a device.
#[derive(Clone, Debug, PartialEq)]
enum Storage<T> {
    Cpu(Arc<Vec<T>>),
}

impl<T: Element> Tensor<T> {
    /// A tensor of the given shape out of its elements in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements is not the product of the shape.
    pub fn new(shape: &[usize], data: Vec<T>) -> Result<Tensor<T>> {
        if shape.iter().product::<usize>() != data.len() {
            return Err(Error::Shape { op: "tensor", arg: "data", want: format!("{shape:?}"), got: vec![data.len()] });
        }
        Ok(Tensor { shape: shape.to_vec(), storage: Storage::Cpu(Arc::new(data)) })
    }

    /// A tensor with all elements equal.
    pub fn full(shape: &[usize], value: T) -> Tensor<T> {
        let data = vec![value; shape.iter().product()];
        Tensor { shape: shape.to_vec(), storage: Storage::Cpu(Arc::new(data)) }
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Tensor<T> {
        Tensor::full(shape, T::default())
    }

    /// Element by element out of a flat row-major index.
    pub fn from_fn(shape: &[usize], element: impl FnMut(usize) -> T) -> Tensor<T> {
        let data = (0..shape.iter().product()).map(element).collect();
        Tensor { shape: shape.to_vec(), storage: Storage::Cpu(Arc::new(data)) }
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows and columns: the product of all dimensions but the last, and the last. A 0-d tensor is `1 x 1`.
    pub fn matrix(&self) -> (usize, usize) {
        match self.shape.split_last() {
            Some((&columns, rows)) => (rows.iter().product(), columns),
            None => (1, 1),
        }
    }

    /// Where the elements lie.
    pub fn device(&self) -> Device {
        match self.storage {
            Storage::Cpu(_) => Device::Cpu,
        }
    }

    /// The elements in row-major order. The tensor must lie on the CPU, as those of an op's CPU arm do.
    pub fn host(&self) -> &[T] {
        match &self.storage {
            Storage::Cpu(data) => data,
        }
    }

    /// The elements for writing; copied first if another tensor shares them.
    pub fn host_mut(&mut self) -> &mut [T] {
        match &mut self.storage {
            Storage::Cpu(data) => Arc::make_mut(data).as_mut_slice(),
        }
    }

    /// The same elements under another shape of the same size.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes differ.
    pub fn reshape(mut self, shape: &[usize]) -> Result<Tensor<T>> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::Shape { op: "reshape", arg: "tensor", want: format!("{shape:?}"), got: self.shape });
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    /// A copy of an ndarray array or view, in row-major order.
    pub fn from_array<D: Dimension>(array: ArrayView<'_, T, D>) -> Tensor<T> {
        let data = array.iter().copied().collect();
        Tensor { shape: array.shape().to_vec(), storage: Storage::Cpu(Arc::new(data)) }
    }

    /// This tensor as an ndarray view of rows and columns (see [`matrix`](Self::matrix)).
    pub fn view(&self) -> ArrayView<'_, T, Ix2> {
        ArrayView::from_shape(self.matrix(), self.host()).expect("a tensor has as many elements as its shape says")
    }
}

impl<T: Element, D: Dimension> From<Array<T, D>> for Tensor<T> {
    fn from(array: Array<T, D>) -> Tensor<T> {
        Tensor::from_array(array.view())
    }
}

impl<T: Real> Tensor<T> {
    /// A tensor of shape `[]`: a loss.
    pub fn scalar(value: T) -> Tensor<T> {
        Tensor::full(&[], value)
    }

    /// `self += other`; the shapes must be equal.
    pub(crate) fn add_assign(&mut self, other: &Tensor<T>) {
        assert_eq!(self.shape, other.shape, "gradients of one variable have one shape");
        match (&mut self.storage, &other.storage) {
            (Storage::Cpu(to), Storage::Cpu(from)) => {
                Arc::make_mut(to).iter_mut().zip(from.iter()).for_each(|(to, from)| *to += *from)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_must_have_as_many_elements_as_its_shape() {
        assert!(matches!(Tensor::new(&[2, 3], vec![0f32; 5]), Err(Error::Shape { .. })));
        assert!(Tensor::new(&[2, 0], Vec::<f32>::new()).unwrap().is_empty());
        assert_eq!(Tensor::scalar(1f32).matrix(), (1, 1));
    }

    #[test]
    fn writing_to_a_clone_leaves_the_original() {
        let a = Tensor::zeros(&[3]);
        let mut b = a.clone();
        b.host_mut()[1] = 1f64;
        assert_eq!((a.host()[1], b.host()[1]), (0.0, 1.0));
    }

    #[test]
    fn arrays_cross_in_row_major_order_whatever_their_strides() {
        let array = ndarray::array![[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let transposed = Tensor::from_array(array.t());
        assert_eq!(transposed.host(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(transposed.view(), array.t());
    }
}
