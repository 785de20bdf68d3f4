//! The CUDA driver, looked for by ourselves: cudarc panics where the library or one of its symbols is missing.

use std::ffi::c_int;
use std::sync::OnceLock;

use libloading::Library;

#[cfg(windows)]
const LIBRARIES: [&str; 1] = ["nvcuda.dll"];
#[cfg(not(windows))]
const LIBRARIES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// What onkos calls. Libraries that only pretend to be the driver (stubs in containers) lack some of them.
const SYMBOLS: [&str; 30] = [
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetDefaultMemPool",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuMemAllocAsync",
    "cuMemFreeAsync",
    "cuMemFreeHost",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemPoolGetAttribute",
    "cuMemPoolSetAttribute",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuStreamCreate",
    "cuStreamWaitEvent",
];

/// The oldest driver whose calls are all known to us: CUDA 12.0, which brought the last of [`SYMBOLS`] into use.
pub(super) const OLDEST: c_int = 12_000;

/// A driver that answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver {
    /// 1000 times the major version of CUDA plus 10 times the minor.
    pub(crate) version: c_int,
    /// The devices it has.
    pub(crate) devices: usize,
    /// The library.
    pub(crate) library: &'static str,
}

/// Asks once whether there is a driver; why not, as a clause, if there is none.
pub(crate) fn driver() -> Result<Driver, &'static str> {
    static FOUND: OnceLock<Result<Driver, String>> = OnceLock::new();
    FOUND.get_or_init(probe).as_ref().map(|d| *d).map_err(String::as_str)
}

#[allow(unsafe_code)]
fn probe() -> Result<Driver, String> {
    // SAFETY: opening a library runs its initialisers. The name is that of the system's CUDA driver, which initialises
    // nothing until cuInit is called.
    let open = |name: &&'static str| unsafe { Library::new(*name) }.ok().map(|library| (library, *name));
    let Some((library, name)) = LIBRARIES.iter().find_map(open) else {
        return Err(format!("there is no CUDA driver: {} cannot be opened", LIBRARIES.join(" or ")));
    };
    type Init = unsafe extern "C" fn(u32) -> c_int;
    type Number = unsafe extern "C" fn(*mut c_int) -> c_int;
    let lacks = |symbol: &str| format!("{name} is not a usable CUDA driver: it has no {symbol}");
    // SAFETY: these are the types of these functions in cuda.h, unchanged since CUDA 2.
    let calls = unsafe {
        let init = library.get::<Init>(b"cuInit").map_err(|_| lacks("cuInit"))?;
        let version = library.get::<Number>(b"cuDriverGetVersion").map_err(|_| lacks("cuDriverGetVersion"))?;
        let count = library.get::<Number>(b"cuDeviceGetCount").map_err(|_| lacks("cuDeviceGetCount"))?;
        (*init, *version, *count)
    };
    let (mut version, mut devices) = (0, 0);
    // SAFETY: the arguments are as cuda.h asks; each pointer is to an int of ours.
    let answers = unsafe {
        let started = (calls.0)(0);
        if started == 0 { (calls.1)(&mut version).max((calls.2)(&mut devices)) } else { started }
    };
    match answers {
        0 => {}
        100 => return Err("the CUDA driver finds no device".into()),
        803 => return Err("the CUDA driver does not fit the kernel module of this machine (error 803)".into()),
        other => return Err(format!("the CUDA driver does not start (error {other})")),
    }
    if version < OLDEST {
        let dotted = |v: c_int| format!("{}.{}", v / 1000, v % 1000 / 10);
        return Err(format!("the driver is too old: it has CUDA {}, onkos needs {}", dotted(version), dotted(OLDEST)));
    }
    if devices == 0 {
        return Err("the CUDA driver finds no device".into());
    }
    for symbol in SYMBOLS {
        // SAFETY: the symbol is only looked for, not called.
        if unsafe { library.get::<Init>(symbol.as_bytes()) }.is_err() {
            return Err(lacks(symbol));
        }
    }
    // It stays open, as cudarc's own handle does.
    std::mem::forget(library);
    Ok(Driver { version, devices: devices as usize, library: name })
}
