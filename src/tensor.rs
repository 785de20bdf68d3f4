//! Dense arrays, row-major, on one device.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array, ArrayView, Dimension, Ix2};

use crate::device::{Device, Memory};
use crate::element::{Element, Real};
use crate::error::{Error, Result};
use crate::memory::zeroed;

/// A dense row-major array. Cheap to clone: clones share the memory until one of them is written to.
#[derive(Clone, Debug)]
pub struct Tensor<T> {
    shape: Vec<usize>,
    storage: Storage<T>,
}

/// The memory of a tensor, one variant a device.
#[derive(Clone, Debug)]
enum Storage<T> {
    /// The first elements of an array, which may have more.
    Cpu(Arc<Vec<T>>),
    Cuda(Arc<Memory>),
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

    /// A tensor of the first elements of an array that may have more. The others are kept for a larger tensor in the same memory, as
    /// [`into_unshared`](Self::into_unshared) gives it back.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn first_of(shape: &[usize], data: Vec<T>) -> Tensor<T> {
        assert!(shape.iter().product::<usize>() <= data.len(), "{} elements for {shape:?}", data.len());
        Tensor { shape: shape.to_vec(), storage: Storage::Cpu(Arc::new(data)) }
    }

    /// A tensor with all elements equal.
    pub fn full(shape: &[usize], value: T) -> Tensor<T> {
        let data = vec![value; shape.iter().product()];
        Tensor { shape: shape.to_vec(), storage: Storage::Cpu(Arc::new(data)) }
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Tensor<T> {
        let data = zeroed(shape.iter().product());
        Tensor { shape: shape.to_vec(), storage: Storage::Cpu(Arc::new(data)) }
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
        match &self.storage {
            Storage::Cpu(_) => Device::Cpu,
            Storage::Cuda(memory) => Device::Cuda(memory.gpu()),
        }
    }

    /// The elements in row-major order, without a copy.
    ///
    /// # Panics
    /// If the tensor does not lie on the CPU, as those of an op's CPU arm do: [`read`](Self::read) copies from any
    /// device.
    pub fn host(&self) -> &[T] {
        match &self.storage {
            Storage::Cpu(data) => &data[..self.len()],
            Storage::Cuda(memory) => panic!("a tensor on {} was taken for one on the CPU", memory.gpu()),
        }
    }

    /// A copy of the elements in row-major order, wherever they lie. Waits for what writes them.
    ///
    /// # Errors
    /// [`Error::Cuda`] of the device, or of a kernel that failed before.
    pub fn read(&self) -> Result<Vec<T>> {
        match &self.storage {
            Storage::Cpu(_) => Ok(self.host().to_vec()),
            Storage::Cuda(memory) => memory.read(self.len()),
        }
    }

    /// The array of a tensor of the CPU that nobody else holds, to be written anew; none if somebody does.
    pub(crate) fn into_unshared(self) -> Option<Vec<T>> {
        match self.storage {
            Storage::Cpu(data) => Arc::into_inner(data),
            Storage::Cuda(_) => None,
        }
    }

    /// The same tensor on a device: a copy, or itself where it lies there already.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if it does not fit, [`Error::Cuda`] of the device.
    pub fn to(&self, device: Device) -> Result<Tensor<T>> {
        match (&self.storage, device) {
            (Storage::Cpu(_), Device::Cpu) => Ok(self.clone()),
            (Storage::Cpu(_), Device::Cuda(gpu)) => gpu.upload(&self.shape, self.host()),
            (Storage::Cuda(memory), Device::Cuda(gpu)) if memory.gpu() == gpu => Ok(self.clone()),
            (Storage::Cuda(_), _) => Tensor::new(&self.shape, self.read()?)?.to(device),
        }
    }

    /// A tensor out of memory of a device that has room for it.
    pub(crate) fn on_gpu(shape: &[usize], memory: Memory) -> Tensor<T> {
        Tensor { shape: shape.to_vec(), storage: Storage::Cuda(Arc::new(memory)) }
    }

    /// The memory of a tensor on a CUDA device.
    pub(crate) fn memory(&self) -> Option<&Memory> {
        match &self.storage {
            Storage::Cpu(_) => None,
            Storage::Cuda(memory) => Some(memory),
        }
    }

    /// A copy with memory of its own, where this one lies.
    pub(crate) fn copied(&self) -> Result<Tensor<T>> {
        let storage = match &self.storage {
            Storage::Cpu(_) => Storage::Cpu(Arc::new(self.host().to_vec())),
            Storage::Cuda(memory) => Storage::Cuda(Arc::new(memory.copy()?)),
        };
        Ok(Tensor { shape: self.shape.clone(), storage })
    }

    /// Before a kernel writes to it: memory of its own, copied if another tensor shares it.
    pub(crate) fn own(&mut self) -> Result<()> {
        if let Storage::Cuda(memory) = &mut self.storage
            && Arc::get_mut(memory).is_none()
        {
            *memory = Arc::new(memory.copy()?);
        }
        Ok(())
    }

    /// The elements for writing; copied first if another tensor shares them.
    ///
    /// # Panics
    /// As [`host`](Self::host).
    pub fn host_mut(&mut self) -> &mut [T] {
        let len = self.len();
        match &mut self.storage {
            Storage::Cpu(data) => &mut Arc::make_mut(data)[..len],
            Storage::Cuda(memory) => panic!("a tensor on {} was taken for one on the CPU", memory.gpu()),
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

    /// A copy of some of the rows (see [`matrix`](Self::matrix)), where they lie.
    ///
    /// # Errors
    /// [`Error::Cuda`] of the device.
    ///
    /// # Panics
    /// If there are not as many rows.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Result<Tensor<T>> {
        let (_, columns) = self.matrix();
        let (shape, range) = ([rows.len(), columns], rows.start * columns..rows.end * columns);
        match &self.storage {
            Storage::Cpu(_) => Tensor::new(&shape, self.host()[range].to_vec()),
            Storage::Cuda(memory) => memory.gpu().gathered(&shape, &[(self, range)]),
        }
    }

    /// The rows of some tensors of so many columns, one tensor after the other, where the first lies.
    ///
    /// # Errors
    /// [`Error::Cuda`] of the device, [`Error::Device`] if they do not lie in one place.
    pub(crate) fn stacked(columns: usize, parts: &[Tensor<T>]) -> Result<Tensor<T>> {
        assert!(parts.iter().all(|part| part.matrix().1 == columns), "tensors of {columns} columns");
        let shape = [parts.iter().map(|part| part.matrix().0).sum(), columns];
        match parts.first().map_or(Device::Cpu, Tensor::device) {
            Device::Cpu => Tensor::new(&shape, parts.iter().flat_map(|part| part.host()).copied().collect()),
            Device::Cuda(gpu) => {
                gpu.gathered(&shape, &parts.iter().map(|part| (part, 0..part.len())).collect::<Vec<_>>())
            }
        }
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
    pub(crate) fn add_assign(&mut self, other: &Tensor<T>) -> Result<()> {
        assert_eq!(self.shape, other.shape, "gradients of one variable have one shape");
        match self.device() {
            Device::Cpu => self.host_mut().iter_mut().zip(other.host()).for_each(|(to, from)| *to += *from),
            Device::Cuda(gpu) => crate::ops::add::add_assign(gpu, self, other)?,
        }
        Ok(())
    }
}

/// Tensors are equal if their shapes and elements are, wherever they lie.
impl<T: Element> PartialEq for Tensor<T> {
    fn eq(&self, other: &Tensor<T>) -> bool {
        let elements = || match (&self.storage, &other.storage) {
            (Storage::Cpu(_), Storage::Cpu(_)) => self.host() == other.host(),
            // A device that fails has no elements to be equal.
            _ => matches!((self.read(), other.read()), (Ok(a), Ok(b)) if a == b),
        };
        self.shape == other.shape && elements()
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
    fn a_tensor_at_the_start_of_a_longer_array_is_that_start_alone() {
        let (mut long, short) = (Tensor::first_of(&[2, 2], vec![1f32, 2.0, 3.0, 4.0, 5.0]), [1.0, 2.0, 3.0, 4.0]);
        let same = Tensor::new(&[2, 2], short.to_vec()).unwrap();
        assert_eq!((long.host(), long.read().unwrap()), (&short[..], short.to_vec()));
        assert_eq!((&long, long.copied().unwrap().host()), (&same, &short[..]));
        assert_eq!((long.rows(1..2).unwrap().host(), long.view()), (&short[2..], same.view()));
        let shared = long.clone();
        long.host_mut().fill(7.0);
        assert_eq!((long.host(), shared.host()), (&[7.0; 4][..], &short[..]));
        assert_eq!(shared.into_unshared().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn arrays_cross_in_row_major_order_whatever_their_strides() {
        let array = ndarray::array![[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let transposed = Tensor::from_array(array.t());
        assert_eq!(transposed.host(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(transposed.view(), array.t());
    }
}
