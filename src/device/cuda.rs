//! A CUDA device: its context, its stream and its memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, result, sys};

use super::cublaslt::Multiplier;
use super::driver::driver;
use super::module;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::memory::zeroed;
use crate::tensor::Tensor;

/// How products of matrices are calculated on a device. What they add up is added in f32 in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As good as plain arithmetic in f32.
    #[default]
    F32,
    /// Factors rounded to 11 bits, on tensor cores.
    Tf32,
    /// Factors rounded to bf16, on tensor cores.
    Bf16,
    /// Factors rounded to f16, on tensor cores: more digits than bf16 and less range.
    F16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        })
    }
}

/// Whose kernels calculate the products of matrices of fully connected layers on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// Ours: a row has the same bits whatever other rows are calculated with it.
    #[default]
    Own,
    /// Those of cuBLASLt, a library of the CUDA toolkit that is opened if it is asked for: the same bits from run to run
    /// with one version of it on one card, but not for other numbers of rows. Features and gradients are copied where it
    /// does not take their type.
    #[serde(rename = "cublaslt")]
    CublasLt,
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Products::Own => "own",
            Products::CublasLt => "cublaslt",
        })
    }
}

/// One CUDA device, by its number, and how products are calculated on it. A small handle: the context behind it lives as
/// long as the program.
#[derive(Clone, Copy)]
pub struct Gpu {
    card: &'static Card,
    precision: Precision,
    multiplier: Option<&'static Multiplier>,
}

struct Card {
    ordinal: usize,
    name: String,
    capability: (u32, u32),
    multiprocessors: u32,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    functions: Mutex<HashMap<(&'static str, &'static str), CudaFunction>>,
    multiplier: Mutex<Option<&'static Multiplier>>,
    bytes: AtomicU64,
    peak_bytes: AtomicU64,
    waits: AtomicU64,
}

/// What the tensors of this program took of a device, and how often the program waited for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the tensors that are there now.
    pub bytes: u64,
    /// The most that there were at once, since the program began or [`Gpu::forget_peak`].
    pub peak_bytes: u64,
    /// How often the program stood still until all that was launched was done.
    pub waits: u64,
}

static CARDS: Mutex<BTreeMap<usize, &'static Card>> = Mutex::new(BTreeMap::new());

/// Nothing behind our locks is left half-changed by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// The device of that number.
    ///
    /// # Errors
    /// [`Error::Device`] says why it cannot be used.
    pub fn open(ordinal: usize) -> Result<Gpu> {
        let unusable = |why: String| Error::Device { name: format!("cuda:{ordinal}"), why };
        let found = driver().map_err(|why| unusable(why.into()))?;
        if ordinal >= found.devices {
            let last = found.devices - 1;
            return Err(unusable(match last {
                0 => "the only device is cuda:0".into(),
                _ => format!("the devices are cuda:0 to cuda:{last}"),
            }));
        }
        let mut cards = lock(&CARDS);
        let card = match cards.get(&ordinal) {
            Some(card) => card,
            None => {
                let card = Card::open(ordinal).map_err(|e| unusable(said(e)))?;
                let (major, minor) = card.capability;
                if major < 8 {
                    let why = format!("it has compute capability {major}.{minor}, the kernels need 8.0");
                    return Err(unusable(why));
                }
                *cards.entry(ordinal).or_insert(Box::leak(Box::new(card)))
            }
        };
        Ok(Gpu { card, precision: Precision::F32, multiplier: None })
    }

    /// The same device with products of another precision.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Gpu {
        Gpu { precision, ..self }
    }

    /// The precision of the products.
    pub fn precision(self) -> Precision {
        self.precision
    }

    /// The same device with products by other kernels. cuBLASLt is looked for when it is first asked for, and takes a
    /// workspace of 32 MiB, 4 MiB before Hopper, which stays.
    ///
    /// # Errors
    /// [`Error::Products`] says why it cannot be used, [`Error::DeviceMemory`] if there is no room for its workspace.
    pub fn with_products(self, products: Products) -> Result<Gpu> {
        let multiplier = match products {
            Products::Own => None,
            Products::CublasLt => {
                let mut opened = lock(&self.card.multiplier);
                if opened.is_none() {
                    let plain = Gpu { multiplier: None, ..self };
                    *opened = Some(Box::leak(Box::new(Multiplier::new(plain)?)));
                }
                *opened
            }
        };
        Ok(Gpu { multiplier, ..self })
    }

    /// Whose kernels calculate the products.
    pub fn products(self) -> Products {
        if self.multiplier.is_some() { Products::CublasLt } else { Products::Own }
    }

    /// The version of the library that calculates the products, if they are not our own.
    pub fn products_version(self) -> Option<String> {
        self.multiplier.map(Multiplier::version)
    }

    pub(crate) fn multiplier(self) -> Option<&'static Multiplier> {
        self.multiplier
    }

    /// Its number.
    pub fn ordinal(self) -> usize {
        self.card.ordinal
    }

    /// Its name as the driver has it.
    pub fn name(self) -> &'static str {
        &self.card.name
    }

    /// Its compute capability: `(9, 0)` for Hopper.
    pub fn capability(self) -> (u32, u32) {
        self.card.capability
    }

    /// The number of its multiprocessors.
    pub fn multiprocessors(self) -> u32 {
        self.card.multiprocessors
    }

    /// Free and total bytes of its memory. What freed tensors left in the pool of the driver counts as used.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn memory(self) -> Result<(u64, u64)> {
        self.bind()?;
        let (free, total) = result::mem_get_info().map_err(|e| self.failed("reading its memory", e))?;
        Ok((free as u64, total as u64))
    }

    /// The bytes that tensors can still have: what is free, and what freed tensors left in the pool of the driver.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    #[allow(unsafe_code)]
    pub fn available(self) -> Result<u64> {
        use sys::CUmemPool_attribute as Attribute;
        let (free, _) = self.memory()?;
        // SAFETY: the device and its pool exist; both attributes are unsigned 64-bit numbers.
        let read = |attribute| unsafe {
            let mut bytes = 0u64;
            let pool = result::device::get_default_mem_pool(self.card.context.cu_device())?;
            result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()).map(|()| bytes)
        };
        let reserved = read(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
        let left = reserved.and_then(|r| Ok(r - read(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?.min(r)));
        Ok(free + left.map_err(|e| self.failed("reading its memory", e))?)
    }

    /// What this program's tensors took of it so far.
    pub fn usage(self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let card = self.card;
        Usage { bytes: read(&card.bytes), peak_bytes: read(&card.peak_bytes), waits: read(&card.waits) }
    }

    /// Begins [`Usage::peak_bytes`] anew.
    pub fn forget_peak(self) {
        self.card.peak_bytes.store(self.card.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Waits until everything that was launched is done; errors of kernels come out here at the latest.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn synchronize(self) -> Result<()> {
        self.card.waits.fetch_add(1, Ordering::Relaxed);
        self.card.stream.synchronize().map_err(|e| self.failed("waiting for its kernels", e))
    }

    /// A tensor of any contents, to be written by a kernel.
    pub(crate) fn alloc<T: Element>(self, shape: &[usize]) -> Result<Tensor<T>> {
        let bytes = shape.iter().product::<usize>() * size_of::<T>();
        Ok(Tensor::on_gpu(shape, Memory::new(self, bytes)?))
    }

    /// A tensor of zeros.
    #[allow(unsafe_code)]
    pub(crate) fn zeros<T: Element>(self, shape: &[usize]) -> Result<Tensor<T>> {
        let bytes = shape.iter().product::<usize>() * size_of::<T>();
        let memory = Memory::new(self, bytes)?;
        // SAFETY: the memory is ours alone and has that many bytes; all zeros is a value of every element type (Pod).
        unsafe { result::memset_d8_async(memory.address, 0, bytes, self.card.stream.cu_stream()) }
            .map_err(|e| self.failed("clearing memory", e))?;
        Ok(Tensor::on_gpu(shape, memory))
    }

    /// A tensor with these elements, as many as the shape says.
    #[allow(unsafe_code)]
    pub(crate) fn upload<T: Element>(self, shape: &[usize], data: &[T]) -> Result<Tensor<T>> {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "a tensor has as many elements as its shape says");
        let memory = Memory::new(self, size_of_val(data))?;
        if !data.is_empty() {
            // SAFETY: the memory has as many bytes as `data`. Of pageable memory the driver takes what it needs before
            // the call returns, so `data` may go then.
            unsafe { result::memcpy_htod_async(memory.address, data, self.card.stream.cu_stream()) }
                .map_err(|e| self.failed("copying to it", e))?;
        }
        Ok(Tensor::on_gpu(shape, memory))
    }

    /// A tensor out of elements of others, one range after the other, as many in all as the shape says.
    #[allow(unsafe_code)]
    pub(crate) fn gathered<T: Element>(
        self,
        shape: &[usize],
        parts: &[(&Tensor<T>, Range<usize>)],
    ) -> Result<Tensor<T>> {
        let len = parts.iter().map(|(_, range)| range.len()).sum::<usize>();
        assert_eq!(shape.iter().product::<usize>(), len, "a tensor has as many elements as its shape says");
        let (to, mut end) = (Memory::new(self, len * size_of::<T>())?, 0);
        for (part, range) in parts {
            assert!(range.start <= range.end && range.end <= part.len(), "a range of the elements that are there");
            let Some(from) = part.memory().filter(|memory| memory.gpu == self) else {
                let why = format!("a part of a tensor lies on {}", part.device());
                return Err(Error::Device { name: self.to_string(), why });
            };
            let (bytes, offset) = (range.len() * size_of::<T>(), range.start * size_of::<T>());
            let (source, target) = (from.address + offset as u64, to.address + end as u64);
            if bytes > 0 {
                // SAFETY: the range lies within the part, and the parts so far and this one within the new memory,
                // which nobody else knows.
                unsafe { result::memcpy_dtod_async(target, source, bytes, self.card.stream.cu_stream()) }
                    .map_err(|e| self.failed("copying on it", e))?;
            }
            end += bytes;
        }
        Ok(Tensor::on_gpu(shape, to))
    }

    pub(super) fn bind(self) -> Result<()> {
        self.card.context.bind_to_thread().map_err(|e| self.failed("binding its context", e))
    }

    pub(crate) fn stream(self) -> &'static Arc<CudaStream> {
        &self.card.stream
    }

    pub(crate) fn context(self) -> &'static Arc<CudaContext> {
        &self.card.context
    }

    /// The kernel `name` of the file `kernels/<module>.cu`, for an element type if it has several.
    pub(super) fn function(self, module: &str, name: &'static str, suffix: &'static str) -> Result<CudaFunction> {
        if let Some(function) = lock(&self.card.functions).get(&(name, suffix)) {
            return Ok(function.clone());
        }
        let module = module::load(&self.card.context, self.card.capability, module)?;
        let full = if suffix.is_empty() { name.to_string() } else { format!("{name}_{suffix}") };
        let function =
            module.load_function(&full).map_err(|e| self.failed(&format!("looking for the kernel {full}"), e))?;
        lock(&self.card.functions).insert((name, suffix), function.clone());
        Ok(function)
    }

    /// Loads every kernel that an op declares and gives their number, so that one that is missing is found before it is
    /// needed. Those for another card than this are left out.
    ///
    /// # Errors
    /// [`Error::Cuda`] names the first that cannot be loaded.
    pub fn load_all(self) -> Result<usize> {
        let here: Vec<&str> = module::files(self.card.capability).collect();
        self.bind()?;
        let mut loaded = 0;
        for kernel in crate::ops::kernels().filter(|kernel| here.contains(&kernel.module)) {
            for (suffix, _) in kernel.variants {
                self.function(kernel.module, kernel.name, suffix)?;
                loaded += 1;
            }
        }
        Ok(loaded)
    }

    /// An error of the driver as one of ours.
    pub(crate) fn failed(self, doing: &str, error: DriverError) -> Error {
        Error::Cuda { device: self.to_string(), doing: doing.into(), why: said(error) }
    }
}

/// What the driver says of an error.
pub(crate) fn said(error: DriverError) -> String {
    let text = |s: Result<&std::ffi::CStr, DriverError>| s.map(|s| s.to_string_lossy().into_owned()).ok();
    match (text(error.error_name()), text(error.error_string())) {
        (Some(name), Some(what)) => format!("{what} ({name})"),
        _ => format!("error {:?}", error.0),
    }
}

impl Card {
    #[allow(unsafe_code)]
    fn open(ordinal: usize) -> Result<Card, DriverError> {
        let context = CudaContext::new(ordinal)?;
        // Every tensor lives on one stream, or is handed over with an event: cudarc need not watch each.
        // SAFETY: no CudaSlice of cudarc is used anywhere, so none needs its events.
        unsafe { context.disable_event_tracking() };
        let attribute = |a| context.attribute(a).map(|v| v.max(0) as u32);
        use sys::CUdevice_attribute_enum as Attribute;
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1);
        let stream = context.new_stream()?;
        // Freed memory stays with us until it is needed elsewhere in the program: a step allocates what the last freed.
        // SAFETY: the device and its pool exist; the attribute takes an unsigned 64-bit number.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device())?;
            let mut keep = u64::MAX;
            result::mem_pool::set_attribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut keep).cast(),
            )?;
        }
        let name = context.name()?;
        let (functions, multiplier, bytes, peak_bytes, waits) = Default::default();
        Ok(Card {
            ordinal,
            name,
            capability,
            multiprocessors,
            context,
            stream,
            functions,
            multiplier,
            bytes,
            peak_bytes,
            waits,
        })
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{}", self.card.ordinal)
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({}, {:?}, {:?})", self.card.name, self.precision, self.products())
    }
}

/// Two handles are equal if they are of one device.
impl PartialEq for Gpu {
    fn eq(&self, other: &Gpu) -> bool {
        self.card.ordinal == other.card.ordinal
    }
}
impl Eq for Gpu {}

/// Memory of a device, freed in the order of its stream: a kernel that was launched before still has it.
pub(crate) struct Memory {
    gpu: Gpu,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(gpu: Gpu, bytes: usize) -> Result<Memory> {
        Memory::on_stream(gpu, bytes, &gpu.card.stream)
    }

    /// Memory that is there from this place of another stream on. It is freed in the order of the device's own, which
    /// has to wait for the other one before it uses the memory.
    #[allow(unsafe_code)]
    pub(super) fn on_stream(gpu: Gpu, bytes: usize, stream: &CudaStream) -> Result<Memory> {
        gpu.bind()?;
        // An allocation of nothing is refused; a tensor of nothing still has an address.
        // SAFETY: the context of the stream is bound.
        match unsafe { result::malloc_async(stream.cu_stream(), bytes.max(16)) } {
            Ok(address) => {
                let now = gpu.card.bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
                gpu.card.peak_bytes.fetch_max(now, Ordering::Relaxed);
                Ok(Memory { gpu, address, bytes })
            }
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, total) = gpu.memory()?;
                Err(Error::DeviceMemory { device: gpu.to_string(), bytes: bytes as u64, free, total })
            }
            Err(e) => Err(gpu.failed("allocating memory", e)),
        }
    }

    pub(crate) fn gpu(&self) -> Gpu {
        self.gpu
    }

    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first elements, read back: waits for what writes them.
    #[allow(unsafe_code)]
    pub(crate) fn read<T: Element>(&self, len: usize) -> Result<Vec<T>> {
        let mut data = zeroed(len);
        assert!(size_of_val(&*data) <= self.bytes, "a tensor has as much memory as its shape says");
        self.gpu.bind()?;
        if len > 0 {
            let stream = &self.gpu.card.stream;
            self.gpu.card.waits.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the memory has at least as many bytes as `data`, which outlives the copy: it is waited for.
            unsafe { result::memcpy_dtoh_async(&mut data, self.address, stream.cu_stream()) }
                .and_then(|()| stream.synchronize())
                .map_err(|e| self.gpu.failed("reading from it", e))?;
        }
        Ok(data)
    }

    /// A copy of its own.
    #[allow(unsafe_code)]
    pub(crate) fn copy(&self) -> Result<Memory> {
        let copy = Memory::new(self.gpu, self.bytes)?;
        // SAFETY: both have that many bytes, and do not overlap.
        unsafe { result::memcpy_dtod_async(copy.address, self.address, self.bytes, self.gpu.card.stream.cu_stream()) }
            .map_err(|e| self.gpu.failed("copying on it", e))?;
        Ok(copy)
    }
}

impl Drop for Memory {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // An error here is one of an earlier kernel, which the next call reports too.
        if self.gpu.bind().is_ok() {
            // SAFETY: the address came from malloc_async and is not used after this.
            let _ = unsafe { result::free_async(self.address, self.gpu.card.stream.cu_stream()) };
        }
        self.gpu.card.bytes.fetch_sub(self.bytes as u64, Ordering::Relaxed);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes on {}", self.bytes, self.gpu)
    }
}
