//! Copies to a device beside its kernels: pinned memory, a stream of their own, and events that order the two.
//!
//! ```text
//! worker thread   wait for the copy out of a pinned buffer | fill the buffer | start its copy | ... | event
//! copy stream       allocate | copy | copy | ... | event
//! compute stream    kernels of the batch before ......... | wait for the event | kernels of this batch | free
//! ```
//!
//! A pinned buffer is filled anew only when the copy out of it is done: the thread that fills it waits for that, nobody
//! else. The memory of a tensor is allocated in the order of the copy stream and freed in that of the compute stream.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, result, sys};

use super::Gpu;
use super::cuda::Memory;
use crate::element::Element;
use crate::error::Result;
use crate::tensor::Tensor;

/// The bytes of a pinned buffer: long enough for a copy at full speed, short enough that filling one hides behind
/// copying the other from the first megabytes on.
const PINNED: usize = 16 << 20;
const BUFFERS: usize = 3;

/// A point in the work of a device.
#[derive(Debug)]
pub(crate) struct Moment {
    gpu: Gpu,
    event: CudaEvent,
}

impl Moment {
    /// When all is done that was launched until now.
    pub(crate) fn now(gpu: Gpu) -> Result<Moment> {
        Moment::of(gpu, gpu.stream())
    }

    fn of(gpu: Gpu, stream: &CudaStream) -> Result<Moment> {
        let event = stream.record_event(None).map_err(|e| gpu.failed("recording an event", e))?;
        Ok(Moment { gpu, event })
    }

    /// Waits for it, on the thread that calls.
    pub(crate) fn wait(&self) -> Result<()> {
        self.event.synchronize().map_err(|e| self.gpu.failed("waiting for an event", e))
    }
}

/// A tensor that is being copied to a device.
#[derive(Debug)]
pub(crate) struct Arriving<T> {
    tensor: Tensor<T>,
    copied: Moment,
}

impl<T: Element> Arriving<T> {
    /// The tensor: what is launched from now on waits for the copy. The calling thread does not.
    pub(crate) fn land(self) -> Tensor<T> {
        self.tensor.clone()
    }
}

impl<T> Drop for Arriving<T> {
    /// Whether it landed or nobody wanted it: the memory is used, and freed, in the order of the compute stream, which
    /// therefore waits for the copy. If that cannot even be launched, the device is lost and every later call says so.
    fn drop(&mut self) {
        let gpu = self.copied.gpu;
        if gpu.stream().wait(&self.copied.event).is_err() {
            let _ = self.copied.wait();
        }
    }
}

/// Copies that run beside the kernels of a device. One thread uses it at a time.
#[derive(Debug)]
pub(crate) struct Uploader {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    buffers: Vec<Pinned>,
    next: usize,
}

impl Uploader {
    /// With a stream of its own.
    pub(crate) fn new(gpu: Gpu) -> Result<Uploader> {
        let stream = gpu.context().new_stream().map_err(|e| gpu.failed("making a stream", e))?;
        Ok(Uploader { gpu, stream, buffers: Vec::new(), next: 0 })
    }

    /// Starts the copy of a tensor, whose elements `fill(first, elements)` writes chunk by chunk into pinned memory.
    pub(crate) fn upload<T: Element>(
        &mut self,
        shape: &[usize],
        fill: impl FnMut(usize, &mut [T]),
    ) -> Result<Arriving<T>> {
        let count = shape.iter().product::<usize>();
        let memory = Memory::on_stream(self.gpu, count * size_of::<T>(), &self.stream)?;
        let started = self.copy(&memory, count, fill);
        // After all that was started, be it all or not: the memory is not freed before.
        let copied = Moment::of(self.gpu, &self.stream)?;
        let arriving = Arriving { tensor: Tensor::on_gpu(shape, memory), copied };
        started.map(|()| arriving)
    }

    #[allow(unsafe_code)]
    fn copy<T: Element>(&mut self, to: &Memory, count: usize, mut fill: impl FnMut(usize, &mut [T])) -> Result<()> {
        let each = PINNED / size_of::<T>();
        for first in (0..count).step_by(each) {
            let bytes = each.min(count - first) * size_of::<T>();
            let (gpu, stream) = (self.gpu, self.stream.clone());
            let buffer = self.free_buffer(bytes)?;
            let elements: &mut [T] = bytemuck::cast_slice_mut(&mut buffer.bytes()[..bytes]);
            fill(first, elements);
            let address = to.address() + (first * size_of::<T>()) as u64;
            // SAFETY: the memory has these elements and nobody else has it yet; the buffer is neither written to nor
            // freed before the moment that is recorded next.
            unsafe { result::memcpy_htod_async(address, elements, stream.cu_stream()) }
                .map_err(|e| gpu.failed("copying to it", e))?;
            buffer.read = Some(Moment::of(gpu, &stream)?);
        }
        Ok(())
    }

    /// A buffer of at least so many bytes whose copy is done, with the memory that it needs and no more.
    fn free_buffer(&mut self, bytes: usize) -> Result<&mut Pinned> {
        if self.buffers.len() < BUFFERS {
            self.buffers.push(Pinned::new(self.gpu, bytes)?);
            return Ok(self.buffers.last_mut().expect("just pushed"));
        }
        let at = self.next;
        self.next = (at + 1) % BUFFERS;
        if let Some(read) = self.buffers[at].read.take() {
            read.wait()?;
        }
        if self.buffers[at].bytes < bytes {
            self.buffers[at] = Pinned::new(self.gpu, bytes)?;
        }
        Ok(&mut self.buffers[at])
    }
}

/// Memory of the host that the device reads by itself.
#[derive(Debug)]
struct Pinned {
    gpu: Gpu,
    address: *mut c_void,
    bytes: usize,
    /// When the device has read it.
    read: Option<Moment>,
}

// SAFETY: the memory belongs to the value, and the driver takes calls from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Pinned {}

impl Pinned {
    #[allow(unsafe_code)]
    fn new(gpu: Gpu, bytes: usize) -> Result<Pinned> {
        gpu.bind()?;
        // Not write-combined: features are copied to it by ordinary stores, and a slice of it may be read.
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: the context is bound; all bytes are set below, before anything reads them.
        let address =
            unsafe { result::malloc_host(bytes, flags) }.map_err(|e| gpu.failed("allocating pinned memory", e))?;
        // SAFETY: the allocation has that many bytes.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, bytes) };
        Ok(Pinned { gpu, address, bytes, read: None })
    }

    /// The memory, page-aligned, after the copy out of it is done.
    #[allow(unsafe_code)]
    fn bytes(&mut self) -> &mut [u8] {
        assert!(self.read.is_none(), "a pinned buffer is written to while it is copied");
        // SAFETY: the allocation has that many bytes, was initialised in `new`, and is borrowed as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.bytes) }
    }
}

impl Drop for Pinned {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if let Some(read) = self.read.take() {
            let _ = read.wait();
        }
        if self.gpu.bind().is_ok() {
            // SAFETY: the address came from malloc_host, is not used after this, and its copy was waited for.
            let _ = unsafe { result::free_host(self.address) };
        }
    }
}
