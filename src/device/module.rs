//! The modules of a device: machine code for its kernels.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaModule};
use cudarc::nvrtc::Ptx;

use super::cuda::said;
use crate::error::{Error, Result};

/// The module of `kernels/<name>.cu` on the device of a context.
pub(crate) fn load(context: &Arc<CudaContext>, _capability: (u32, u32), name: &str) -> Result<Arc<CudaModule>> {
    context.load_module(Ptx::from_src("")).map_err(|e| Error::Cuda {
        device: format!("cuda:{}", context.ordinal()),
        doing: format!("loading the kernels of {name}"),
        why: said(e),
    })
}
