//! cuBLASLt, if this machine has it: found, opened and asked, never linked to.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::{Mutex, OnceLock};

use libloading::Library;

use super::cuda::{Gpu, Memory, Precision, lock};
use super::driver::driver;
use super::kernel::place;
use super::libraries::{entries, short, wheel_folders};
use crate::element::{Element, Real};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What the system's loader is asked for, and what the file is called in other places, unless `ONKOS_CUBLASLT` names one.
#[cfg(windows)]
const NAMES: [&str; 2] = ["cublasLt64_13.dll", "cublasLt64_12.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];
/// Where it lies in a toolkit.
#[cfg(windows)]
const IN_TOOLKIT: [&str; 2] = ["bin/x64", "bin"];
#[cfg(not(windows))]
const IN_TOOLKIT: [&str; 3] = ["lib64", "targets/x86_64-linux/lib", "lib"];

/// The oldest version whose drivers onkos runs on: 12.0, as the library counts.
const OLDEST: usize = 120_000;

// Numbers of the headers cublasLt.h, cublas_api.h and library_types.h, the same in all versions from 11.4 to 13.4.
const COMPUTE_32F: c_int = 68;
const COMPUTE_32F_FAST_TF32: c_int = 77;
const R_32F: c_int = 0;
const R_16F: c_int = 2;
const R_16BF: c_int = 14;
const DESC_TRANSA: c_int = 3;
const DESC_TRANSB: c_int = 4;
const OP_T: i32 = 1;
const PREF_MAX_WORKSPACE_BYTES: c_int = 1;
const PREF_REDUCTION_SCHEME_MASK: c_int = 3;
/// Parts of a sum lie in the workspace and are added by a step of their own. Not in the mask: those that blocks add to
/// the result where it lies, one after the other as they come.
const REDUCTION_COMPUTE_TYPE: u32 = 2;

/// A handle, a description of a product or of a matrix, or a preference.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Opaque(*mut c_void);

// SAFETY: the handle of a card, the only one that is kept, may be used by any thread; a lock makes it one at a time.
#[allow(unsafe_code)]
unsafe impl Send for Opaque {}

/// How a product is calculated: nothing of ours to look into.
type Algorithm = [u64; 8];

/// What the heuristic answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    algorithm: Algorithm,
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

type Create = unsafe extern "C" fn(*mut Opaque) -> c_int;
type Destroy = unsafe extern "C" fn(Opaque) -> c_int;
type SetAttribute = unsafe extern "C" fn(Opaque, c_int, *const c_void, usize) -> c_int;
type Number = unsafe extern "C" fn() -> usize;

/// A library that was opened, and its functions. They stay valid because the library is never closed.
pub(super) struct CublasLt {
    /// As it was asked for: a file, or a name for the system's loader.
    path: PathBuf,
    /// Such as 130002 for 13.0.2.
    version: usize,
    say: unsafe extern "C" fn(c_int) -> *const c_char,
    create: Create,
    desc_create: unsafe extern "C" fn(*mut Opaque, c_int, c_int) -> c_int,
    desc_set: SetAttribute,
    desc_destroy: Destroy,
    layout_create: unsafe extern "C" fn(*mut Opaque, c_int, u64, u64, i64) -> c_int,
    layout_destroy: Destroy,
    preference_create: Create,
    preference_set: SetAttribute,
    preference_destroy: Destroy,
    heuristic: unsafe extern "C" fn(
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        Opaque,
        c_int,
        *mut Answer,
        *mut c_int,
    ) -> c_int,
    #[allow(clippy::type_complexity, reason = "as the header has it")]
    matmul: unsafe extern "C" fn(
        Opaque,
        Opaque,
        *const c_void,
        *const c_void,
        Opaque,
        *const c_void,
        Opaque,
        *const c_void,
        *const c_void,
        Opaque,
        *mut c_void,
        Opaque,
        *const Algorithm,
        *mut c_void,
        usize,
        *mut c_void,
    ) -> c_int,
}

/// The libraries that may be here, in the order in which they are tried.
fn candidates() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("ONKOS_CUBLASLT").filter(|name| !name.is_empty()) {
        return vec![named.into()];
    }
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].map(|name| std::env::var_os(name).filter(|path| !path.is_empty()));
    let toolkits = toolkits.into_iter().flatten().map(PathBuf::from);
    let folders = toolkits.flat_map(|toolkit| IN_TOOLKIT.map(|folder| toolkit.join(folder)));
    // The newer one of a folder first.
    let named = |folder: PathBuf| {
        let files = entries(&folder);
        NAMES.into_iter().filter_map(move |name| files.iter().find(|file| file.ends_with(name)).cloned())
    };
    NAMES.into_iter().map(PathBuf::from).chain(folders.chain(wheel_folders("lib")).flat_map(named)).collect()
}

/// The library of this machine, looked for once; why there is none that can be used, as a clause.
pub(super) fn found() -> Result<&'static CublasLt, &'static str> {
    static FOUND: OnceLock<Result<CublasLt, String>> = OnceLock::new();
    let find = || search(&candidates(), driver().map_or(0, |driver| driver.version));
    FOUND.get_or_init(find).as_ref().map_err(String::as_str)
}

/// The first of some libraries that a driver of this version can run.
fn search(candidates: &[PathBuf], driver: c_int) -> Result<CublasLt, String> {
    let mut failures = Vec::new();
    for path in candidates {
        match CublasLt::open(path, driver) {
            Ok(library) => return Ok(library),
            Err(why) => failures.push((path, why)),
        }
    }
    tracing::debug!("cuBLASLt: {failures:?}");
    // A name that the loader does not know is nothing to speak of, unless it is the one that was asked for.
    let spoken = |(path, why): &(&PathBuf, Unusable)| match why {
        Unusable::NotOpened(_) if !path.is_absolute() && candidates.len() > 1 => None,
        Unusable::NotOpened(why) | Unusable::Refused(why) => Some(format!("{}: {why}", path.display())),
    };
    let spoken: Vec<String> = failures.iter().filter_map(spoken).collect();
    Err(if spoken.is_empty() {
        format!(
            "there is no {}, neither for the loader nor below CUDA_HOME nor in the wheels below VIRTUAL_ENV or CONDA_PREFIX",
            NAMES.join(", ")
        )
    } else {
        spoken.join("; ")
    })
}

/// Why a library is not used.
#[derive(Debug)]
enum Unusable {
    NotOpened(String),
    Refused(String),
}

#[allow(unsafe_code)]
impl CublasLt {
    /// Opens a library, looks up everything that is used of it, and compares its version with that of the driver.
    fn open(path: &Path, driver: c_int) -> Result<CublasLt, Unusable> {
        // SAFETY: opening a library runs its initialisers. It is the one that the user named, or has the name of
        // cuBLASLt in a folder of the system or of the environment in use, whose programs are trusted alike.
        let library = unsafe { Library::new(path) }.map_err(|why| Unusable::NotOpened(short(&why)))?;
        /// A function of the library, as a value that outlives the borrow: the library is never closed.
        unsafe fn function<F: Copy>(library: &Library, name: &str) -> Result<F, Unusable> {
            let lacks = |_| Unusable::Refused(format!("it has no function {name}"));
            // SAFETY: the caller gives the type that cublasLt.h declares for this name, the same in all versions since 11.
            unsafe { library.get::<F>(name) }.map(|f| *f).map_err(lacks)
        }
        // SAFETY: both have this type in cublasLt.h, and take nothing.
        let (version, cuda) = unsafe {
            let version: Number = function(&library, "cublasLtGetVersion")?;
            let cuda: Number = function(&library, "cublasLtGetCudartVersion")?;
            (version(), cuda() / 1000)
        };
        if version < OLDEST {
            let why = format!("version {} is too old, {} or newer is needed", dotted(version), dotted(OLDEST));
            return Err(Unusable::Refused(why));
        }
        let served = usize::try_from(driver / 1000).unwrap_or(0);
        if cuda > served {
            return Err(Unusable::Refused(format!("it is of CUDA {cuda}, but the driver has CUDA {served}")));
        }
        // SAFETY: for each name the type is that of its declaration in cublasLt.h, given by the fields of `CublasLt`.
        let opened = unsafe {
            CublasLt {
                path: path.into(),
                version,
                say: function(&library, "cublasLtGetStatusString")?,
                create: function(&library, "cublasLtCreate")?,
                desc_create: function(&library, "cublasLtMatmulDescCreate")?,
                desc_set: function(&library, "cublasLtMatmulDescSetAttribute")?,
                desc_destroy: function(&library, "cublasLtMatmulDescDestroy")?,
                layout_create: function(&library, "cublasLtMatrixLayoutCreate")?,
                layout_destroy: function(&library, "cublasLtMatrixLayoutDestroy")?,
                preference_create: function(&library, "cublasLtMatmulPreferenceCreate")?,
                preference_set: function(&library, "cublasLtMatmulPreferenceSetAttribute")?,
                preference_destroy: function(&library, "cublasLtMatmulPreferenceDestroy")?,
                heuristic: function(&library, "cublasLtMatmulAlgoGetHeuristic")?,
                matmul: function(&library, "cublasLtMatmul")?,
            }
        };
        // Kept open for good: the functions above point into it.
        std::mem::forget(library);
        Ok(opened)
    }

    fn check(&self, status: c_int) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the function takes any number and gives a string that lasts, or null.
        let said = unsafe { (self.say)(status) };
        if said.is_null() {
            return Err(format!("status {status}"));
        }
        // SAFETY: not null, so by its declaration a string of the library that ends with zero.
        Err(unsafe { CStr::from_ptr(said) }.to_string_lossy().into_owned())
    }

    /// Something that `create` makes, destroyed by `destroy` when it is no longer needed.
    fn made(&self, destroy: Destroy, create: impl FnOnce(*mut Opaque) -> c_int) -> Result<Made, String> {
        let mut made = Opaque(null_mut());
        self.check(create(&mut made)).map(|()| Made { made, destroy })
    }

    fn set<T>(&self, set: SetAttribute, of: &Made, attribute: c_int, value: T) -> Result<(), String> {
        // SAFETY: what is set is alive, and the value lies there with as many bytes as are told.
        self.check(unsafe { set(of.made, attribute, (&raw const value).cast(), size_of::<T>()) })
    }

    /// What a product consists of, for the library: the product itself, its factors and its result.
    fn describe(&self, product: &Product) -> Result<[Made; 4], String> {
        let Product { tf32, m, n, k, left, right } = *product;
        let compute = if tf32 { COMPUTE_32F_FAST_TF32 } else { COMPUTE_32F };
        // SAFETY: the place for the result is given by `made`.
        let desc = self.made(self.desc_destroy, |to| unsafe { (self.desc_create)(to, compute, R_32F) })?;
        // The library counts along columns, so that it sees each of our matrices transposed: of c = a b it makes
        // c' = b' a', and our right factor is its first.
        for (attribute, factor) in [(DESC_TRANSA, right), (DESC_TRANSB, left)] {
            if factor.transposed {
                self.set(self.desc_set, &desc, attribute, OP_T)?;
            }
        }
        let layout = |Stored { kind, pitch, .. }: Stored, rows: u64, columns: u64| {
            // SAFETY: as above.
            self.made(self.layout_destroy, |to| unsafe { (self.layout_create)(to, kind, columns, rows, pitch as i64) })
        };
        let (a, b) = (left.lies(m, k), right.lies(k, n));
        let c = Stored { kind: R_32F, pitch: n, transposed: false };
        Ok([desc, layout(right, b.0, b.1)?, layout(left, a.0, a.1)?, layout(c, m, n)?])
    }
}

/// Such as `13.0.2`.
fn dotted(version: usize) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

impl std::fmt::Display for CublasLt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cuBLASLt {} ({})", dotted(self.version), self.path.display())
    }
}

/// Something of the library that is destroyed when it goes.
struct Made {
    made: Opaque,
    destroy: Destroy,
}

impl Drop for Made {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it was made by the function that belongs to this one, and nobody uses it any more.
        unsafe { (self.destroy)(self.made) };
    }
}

/// How a factor of a product lies in memory: row by row, `pitch` numbers from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stored {
    kind: c_int,
    pitch: u64,
    transposed: bool,
}

impl Stored {
    /// Rows and columns in memory of a factor that has so many in the product.
    fn lies(self, rows: u64, columns: u64) -> (u64, u64) {
        if self.transposed { (columns, rows) } else { (rows, columns) }
    }
}

/// All that an algorithm is chosen by: `[m, k]` times `[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Product {
    tf32: bool,
    m: u64,
    n: u64,
    k: u64,
    left: Stored,
    right: Stored,
}

/// A factor of a product, row by row in the memory of a tensor on a card.
#[derive(Debug)]
pub(crate) struct Factor<'a> {
    address: u64,
    len: usize,
    stored: Stored,
    tensor: PhantomData<&'a ()>,
}

impl<'a> Factor<'a> {
    /// Rows of `pitch` numbers each; `transposed` if they are the columns of the factor.
    ///
    /// # Errors
    /// [`Error::Device`] for a tensor of another type than f32, f16 or bf16, or in another place.
    pub(crate) fn new<E: Element>(gpu: Gpu, tensor: &'a Tensor<E>, pitch: usize, transposed: bool) -> Result<Self> {
        let kinds = [(f32::NAME, R_32F), (half::f16::NAME, R_16F), (half::bf16::NAME, R_16BF)];
        let Some((_, kind)) = kinds.into_iter().find(|(name, _)| *name == E::NAME) else {
            // Refused in the words that a kernel has for it.
            place::<f32, E>(tensor, gpu, MATMUL)?;
            unreachable!("{} is not f32", E::NAME);
        };
        let (address, pitch) = (place::<E, E>(tensor, gpu, MATMUL)?, pitch as u64);
        let stored = Stored { kind, pitch, transposed };
        Ok(Factor { address, len: tensor.len(), stored, tensor: PhantomData })
    }
}

/// The call that multiplies, for messages.
const MATMUL: &str = "cublasLtMatmul";

/// Algorithms that are kept at most: batches of every size have their own.
const KEPT: usize = 1 << 16;

/// The library for one card: its handle, its workspace, and what was chosen for each product so far.
pub(crate) struct Multiplier {
    library: &'static CublasLt,
    workspace: Memory,
    /// The lock is held while a product is launched.
    state: Mutex<State>,
}

struct State {
    handle: Opaque,
    chosen: HashMap<Product, Algorithm>,
}

#[allow(unsafe_code)]
impl Multiplier {
    /// Takes the workspace once, 32 MiB of a Hopper and later cards and 4 MiB of others, as its makers advise: it is no
    /// longer free when a batch asks what is.
    pub(super) fn new(gpu: Gpu) -> Result<Multiplier> {
        let unusable = |why: String| Error::Products { device: gpu.to_string(), why };
        let library = found().map_err(|why| unusable(why.into()))?;
        gpu.bind()?;
        let mut handle = Opaque(null_mut());
        // SAFETY: the context of the card is current on this thread, and the handle is written to a place of ours.
        let status = unsafe { (library.create)(&mut handle) };
        library.check(status).map_err(|why| unusable(format!("{library} does not start: {why}")))?;
        let bytes = if gpu.capability() >= (9, 0) { 32 << 20 } else { 4 << 20 };
        let workspace = Memory::new(gpu, bytes)?;
        tracing::debug!("{gpu}: products by {library}");
        Ok(Multiplier { library, workspace, state: Mutex::new(State { handle, chosen: HashMap::new() }) })
    }

    /// The version of the library.
    pub(super) fn version(&self) -> String {
        dotted(self.library.version)
    }

    /// The first algorithm that the library offers for a product: asked once in a process, unless there are very many.
    fn choose(&self, state: &mut State, product: &Product, [desc, a, b, c]: &[Made; 4]) -> Result<Algorithm, String> {
        if let Some(chosen) = state.chosen.get(product) {
            return Ok(*chosen);
        }
        let library = self.library;
        // SAFETY: the place for the result is given by `made`.
        let preference = library.made(library.preference_destroy, |to| unsafe { (library.preference_create)(to) })?;
        let bytes = self.workspace.bytes() as u64;
        library.set(library.preference_set, &preference, PREF_MAX_WORKSPACE_BYTES, bytes)?;
        library.set(library.preference_set, &preference, PREF_REDUCTION_SCHEME_MASK, REDUCTION_COMPUTE_TYPE)?;
        let (mut answer, mut count) = (Answer::default(), 0);
        let (handle, preference) = (state.handle, preference.made);
        // SAFETY: handle, descriptions and preference are alive; there is room for the one answer that is asked for.
        // Matrices are taken to begin on 256 bytes, as all memory of the driver does.
        library.check(unsafe {
            (library.heuristic)(
                handle,
                desc.made,
                a.made,
                b.made,
                c.made,
                c.made,
                preference,
                1,
                &mut answer,
                &mut count,
            )
        })?;
        if count < 1 {
            return Err("it has no algorithm for this product".into());
        }
        library.check(answer.state)?;
        if state.chosen.len() >= KEPT {
            state.chosen.clear();
        }
        state.chosen.insert(*product, answer.algorithm);
        Ok(answer.algorithm)
    }

    /// `c = left right`, with factors of `[m, k]` and `[k, n]` of one type; `m`, `n` and `k` are not 0.
    ///
    /// # Errors
    /// [`Error::Device`] for a result of another type or place, [`Error::Cuda`] of the library.
    pub(crate) fn multiply<T: Real>(
        &self,
        gpu: Gpu,
        [m, n, k]: [usize; 3],
        left: &Factor<'_>,
        right: &Factor<'_>,
        c: &mut Tensor<T>,
    ) -> Result<()> {
        c.own()?;
        let to = place::<f32, T>(c, gpu, MATMUL)?;
        let product = Product {
            tf32: gpu.precision() == Precision::Tf32,
            m: m as u64,
            n: n as u64,
            k: k as u64,
            left: left.stored,
            right: right.stored,
        };
        // The memory that the library touches is there: whole rows of each factor, and all of the result.
        let (a, b) = (left.stored.lies(product.m, product.k), right.stored.lies(product.k, product.n));
        for (factor, (rows, columns)) in [(left, a), (right, b)] {
            let whole = columns <= factor.stored.pitch && rows * factor.stored.pitch == factor.len as u64;
            assert!(whole, "{MATMUL}: {factor:?} in {product:?}");
        }
        assert_eq!(c.len(), m * n, "{MATMUL}: number of elements of the result");
        gpu.bind()?;
        let mut state = lock(&self.state);
        let called = self.library.describe(&product).and_then(|described| {
            let algorithm = self.choose(&mut state, &product, &described)?;
            let [desc, a, b, c] = described.each_ref().map(|made| made.made);
            let (one, zero) = (1f32, 0f32);
            // SAFETY: handle and descriptions are alive, and the context of the card is current. The factors are of the
            // types and sizes that the descriptions tell, which was checked above, and lie on the card until the stream
            // has come past this call, as does the workspace, which no other stream uses. What is multiplied by zero is
            // not read.
            self.library.check(unsafe {
                (self.library.matmul)(
                    state.handle,
                    desc,
                    (&raw const one).cast(),
                    right.address as *const c_void,
                    a,
                    left.address as *const c_void,
                    b,
                    (&raw const zero).cast(),
                    to as *const c_void,
                    c,
                    to as *mut c_void,
                    c,
                    &algorithm,
                    self.workspace.address() as *mut c_void,
                    self.workspace.bytes(),
                    gpu.stream().cu_stream().cast(),
                )
            })
        });
        called.map_err(|why| {
            let doing = format!("{MATMUL} of {m} x {n} over {k} in {}", gpu.precision());
            let why = format!("{why}; train.products = \"own\" does without");
            Error::Cuda { device: gpu.to_string(), doing, why }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::libraries::tests::folder;
    use super::*;

    const ANY_DRIVER: c_int = 99_000;

    fn refusal(candidates: &[PathBuf], driver: c_int) -> String {
        search(candidates, driver).err().unwrap()
    }

    #[test]
    fn a_library_that_is_none_is_refused_with_a_reason() {
        let folder = folder(&[("libcublasLt.so.13", "no library")]);
        let [damaged, missing] = ["libcublasLt.so.13", "libcublasLt.so.12"].map(|name| folder.path().join(name));
        let why = refusal(&[damaged.clone(), missing], ANY_DRIVER);
        assert!(why.contains(&format!("{}: ", damaged.display())) && why.contains("libcublasLt.so.12: "), "{why}");
        // Names that the loader does not know are not spoken of one by one.
        let why = refusal(&["libno-such.so.1".into(), "libno-such.so.2".into()], ANY_DRIVER);
        assert!(why.starts_with("there is no libcublasLt") && why.contains("CUDA_HOME"), "{why}");
        // A library indeed, but another one.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        assert!(
            refusal(&["libm.so.6".into()], ANY_DRIVER).ends_with("libm.so.6: it has no function cublasLtGetVersion")
        );
    }

    #[test]
    fn a_version_is_told_as_its_makers_do() {
        assert_eq!([111_103, 120_804, 130_002].map(dotted), ["11.11.3", "12.8.4", "13.0.2"]);
    }

    /// The numbers of the headers, against a real library: it works without a card until a handle is made.
    #[test]
    #[allow(unsafe_code)]
    fn a_product_is_described_as_a_real_library_understands_it() {
        type Get = unsafe extern "C" fn(Opaque, c_int, *mut c_void, usize, *mut usize) -> c_int;
        let found = candidates().into_iter().find_map(|path| CublasLt::open(&path, ANY_DRIVER).ok());
        let Some(library) = found else {
            println!("skipped: there is no cuBLASLt");
            return;
        };
        // SAFETY: the library is open already, and these functions have this type in cublasLt.h.
        let get = |name: &str| unsafe { Library::new(&library.path).unwrap().get::<Get>(name).ok().map(|get| *get) };
        let (desc, layout) = (get("cublasLtMatmulDescGetAttribute"), get("cublasLtMatrixLayoutGetAttribute"));
        let Some((of_desc, of_layout)) = desc.zip(layout) else {
            println!("skipped: the emulated cuBLASLt tells nothing");
            return;
        };
        let read = |get: Get, of: &Made, attribute, bytes| {
            let (mut value, mut written) = (0u64, 0);
            // SAFETY: what is asked is alive; there is room for up to eight bytes.
            let status = unsafe { get(of.made, attribute, (&raw mut value).cast(), bytes, &mut written) };
            assert_eq!((status, written), (0, bytes), "attribute {attribute}");
            value
        };
        let stored = |pitch, transposed| Stored { kind: R_16BF, pitch, transposed };
        let product = Product { tf32: false, m: 5, n: 7, k: 3, left: stored(8, false), right: stored(16, true) };
        let [desc, a, b, c] = library.describe(&product).unwrap();
        // Compute type, scale type, and which factors are transposed: the first one of the library is our right one.
        assert_eq!([0, 1, 3, 4].map(|attribute| read(of_desc, &desc, attribute, 4)), [68, 0, 1, 0]);
        // Type; rows, columns and leading dimension, column by column.
        assert_eq!([&a, &b, &c].map(|layout| read(of_layout, layout, 0, 4)), [14, 14, 0]);
        let sizes = |layout| [2, 3, 4].map(|attribute| read(of_layout, layout, attribute, 8));
        assert_eq!([sizes(&a), sizes(&b), sizes(&c)], [[3, 7, 16], [3, 5, 8], [7, 5, 7]]);
        let preference = library.made(library.preference_destroy, |to| {
            // SAFETY: the place for the result is given by `made`.
            unsafe { (library.preference_create)(to) }
        });
        let preference = preference.unwrap();
        library.set(library.preference_set, &preference, PREF_MAX_WORKSPACE_BYTES, 1u64 << 25).unwrap();
        library.set(library.preference_set, &preference, PREF_REDUCTION_SCHEME_MASK, REDUCTION_COMPUTE_TYPE).unwrap();
    }
}
