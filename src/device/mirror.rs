//! Host data with a copy on a device.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::Gpu;
use crate::element::Element;
use crate::error::Result;
use crate::tensor::Tensor;

/// A slice on the host that is copied to a device when it is first asked for there. Cheap to clone; clones share both.
#[derive(Clone, Debug)]
pub(crate) struct Mirror<T> {
    inner: Arc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    host: Box<[T]>,
    device: OnceLock<Tensor<T>>,
}

impl<T: Element> Mirror<T> {
    /// The slice on the device.
    pub(crate) fn on(&self, gpu: Gpu) -> Result<Tensor<T>> {
        if let Some(copy) = self.inner.device.get()
            && copy.device() == super::Device::Cuda(gpu)
        {
            return Ok(copy.clone());
        }
        let copy = gpu.upload(&[self.len()], self)?;
        // The first device keeps its copy; a second one is served, and forgotten.
        let _ = self.inner.device.set(copy.clone());
        Ok(copy)
    }
}

impl<T> From<Vec<T>> for Mirror<T> {
    fn from(host: Vec<T>) -> Mirror<T> {
        Mirror { inner: Arc::new(Inner { host: host.into(), device: OnceLock::new() }) }
    }
}

impl<T> Deref for Mirror<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.inner.host
    }
}

impl<T: PartialEq> PartialEq for Mirror<T> {
    fn eq(&self, other: &Mirror<T>) -> bool {
        **self == **other
    }
}
impl<T: Eq> Eq for Mirror<T> {}
