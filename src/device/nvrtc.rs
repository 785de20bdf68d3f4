//! The run-time compiler of CUDA, if this machine has one: found, opened and asked, never linked to.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

use libloading::Library;

use super::libraries::{entries, short, wheel_folders};

/// What the system's loader is asked for, after the file that `ONKOS_NVRTC` names.
#[cfg(windows)]
const NAMES: [&str; 2] = ["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 3] = ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"];

/// A program under compilation.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Program(*mut std::ffi::c_void);

type Sized = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Filled = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

/// A library that was opened, and its functions. They stay valid because the library is never closed.
pub(super) struct Nvrtc {
    /// As it was asked for: a file, or a name for the system's loader.
    pub(super) path: PathBuf,
    /// Such as (13, 0).
    pub(super) version: (i32, i32),
    /// Where `cuda_fp16.h` and `cuda_bf16.h` of its toolkit lie.
    pub(super) include: Option<PathBuf>,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    say: unsafe extern "C" fn(c_int) -> *const c_char,
    log: (Sized, Filled),
    ptx: (Sized, Filled),
    /// Machine code: NVRTC has it since 11.1.
    cubin: Option<(Sized, Filled)>,
    /// One compilation at a time: old versions are not safe otherwise.
    turn: Mutex<()>,
}

/// The libraries that may be here, in the order in which they are tried.
pub(super) fn candidates() -> Vec<PathBuf> {
    let named = std::env::var_os("ONKOS_NVRTC").filter(|name| !name.is_empty()).map(PathBuf::from);
    let found = wheel_folders("lib").into_iter().flat_map(|folder| {
        let named_so = |path: &PathBuf| {
            // The versions with .alt differ in one flag alone; those of builtins and of debuggers are no compilers.
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| NAMES.contains(&name))
        };
        entries(&folder).into_iter().filter(named_so)
    });
    let mut all: Vec<PathBuf> = named.into_iter().collect();
    // A file that was named is the only one that is wanted.
    if all.is_empty() {
        all.extend(NAMES.map(PathBuf::from));
        all.extend(found);
    }
    all
}

/// The file behind a library that the system's loader found, where the system tells.
fn mapped(name: &Path) -> Option<PathBuf> {
    let name = name.file_name()?.to_str()?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let files = maps.lines().filter_map(|line| Some(&line[line.find('/')?..]));
    let mut files = files.map(Path::new).filter(|file| {
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(name.split(".so").next().unwrap_or(name)) && file.contains(".so") && !file.contains("builtins")
    });
    files.next().map(Path::to_path_buf)
}

/// Where the headers for a library lie: beside it, in wheels beside its own, in the toolkit of the environment.
fn include_for(library: &Path, major: i32) -> Option<PathBuf> {
    let mut folders = Vec::new();
    if let Some(lib) = library.parent().filter(|folder| *folder != Path::new("")) {
        folders.push(lib.join("../include"));
        folders.push(lib.join("../targets/x86_64-linux/include"));
        folders.push(lib.join("../../include"));
        folders.extend(entries(&lib.join("../..")).into_iter().map(|wheel| wheel.join("include")));
    }
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].map(|name| std::env::var_os(name).map(PathBuf::from));
    folders.extend(toolkits.into_iter().flatten().map(|toolkit| toolkit.join("include")));
    folders.extend(wheel_folders("include"));
    folders.extend(["/usr/local/cuda/include", "/usr/include"].map(PathBuf::from));
    folders.retain(|folder| ["cuda_fp16.h", "cuda_bf16.h"].iter().all(|header| folder.join(header).is_file()));
    let of_its_version = |folder: &&PathBuf| toolkit_of(folder) == Some(major);
    let best = folders.iter().find(of_its_version).or_else(|| folders.first())?;
    Some(best.canonicalize().unwrap_or_else(|_| best.clone()))
}

/// The major version of the CUDA that a folder of headers belongs to.
fn toolkit_of(include: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(include.join("cuda_runtime_api.h")).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("#define CUDART_VERSION"))?;
    Some(number.trim().parse::<i32>().ok()? / 1000)
}

#[allow(unsafe_code)]
impl Nvrtc {
    /// Opens a library and looks up everything that is used of it.
    pub(super) fn open(path: &Path) -> Result<Nvrtc, String> {
        // CUDA 13 opens its built-in headers by their bare name: opened here before, they are found.
        let beside = path.parent().filter(|folder| *folder != Path::new("")).map(entries).unwrap_or_default();
        for builtins in beside {
            let name = builtins.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("libnvrtc-builtins.so") {
                // SAFETY: as below. Nothing is looked up in it, and whether it opens shows when something is compiled.
                if let Ok(library) = unsafe { Library::new(&builtins) } {
                    std::mem::forget(library);
                }
            }
        }
        // SAFETY: opening a library runs its initialisers. It is the one that the user named, or has the name of
        // CUDA's compiler in a folder of the system or of the environment in use, whose programs are trusted alike.
        let library = unsafe { Library::new(path) }.map_err(|why| short(&why))?;
        /// A function of the library, as a value that outlives the borrow: the library is never closed.
        unsafe fn function<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
            // SAFETY: the caller gives the type that nvrtc.h declares for this name, the same in all versions since 8.
            unsafe { library.get::<F>(name) }.map(|f| *f).map_err(|_| format!("it has no function {name}"))
        }
        // SAFETY: for each name the type is that of its declaration in nvrtc.h, given by the fields of `Nvrtc`.
        let mut nvrtc = unsafe {
            let pair = |size: &str, get: &str| {
                Ok::<(Sized, Filled), String>((function(&library, size)?, function(&library, get)?))
            };
            Nvrtc {
                path: path.into(),
                version: (0, 0),
                include: None,
                create: function(&library, "nvrtcCreateProgram")?,
                compile: function(&library, "nvrtcCompileProgram")?,
                destroy: function(&library, "nvrtcDestroyProgram")?,
                say: function(&library, "nvrtcGetErrorString")?,
                log: pair("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?,
                ptx: pair("nvrtcGetPTXSize", "nvrtcGetPTX")?,
                cubin: pair("nvrtcGetCUBINSize", "nvrtcGetCUBIN").ok(),
                turn: Mutex::new(()),
            }
        };
        // SAFETY: as above; both arguments are places for an int.
        let status = unsafe {
            type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
            let version: Version = function(&library, "nvrtcVersion")?;
            version(&mut nvrtc.version.0, &mut nvrtc.version.1)
        };
        nvrtc.check(status)?;
        // Kept open for good: the functions above point into it.
        std::mem::forget(library);
        let file = if path.parent() == Some(Path::new("")) { mapped(path) } else { Some(path.into()) };
        nvrtc.include = include_for(&file.unwrap_or_else(|| path.into()), nvrtc.version.0);
        Ok(nvrtc)
    }

    /// Compiles one of the files, which may include the others: to machine code if the options name an architecture
    /// `sm_*`, to PTX if they name one of `compute_*`.
    pub(super) fn compile(&self, file: &str, files: &[(&str, &str)], options: &[String]) -> Result<Vec<u8>, String> {
        let translated = options.iter().any(|option| option.contains("=compute_"));
        let (size, get) = if translated { self.ptx } else { self.cubin.ok_or("it makes no machine code")? };
        let source = files.iter().find(|(name, _)| *name == file).ok_or_else(|| format!("there is no {file}"))?.1;
        let headers: Vec<_> = files.iter().filter(|(name, _)| *name != file).collect();
        let text = |text: &str| CString::new(text).map_err(|_| "a source has a zero byte".to_string());
        let texts = |all: &mut dyn Iterator<Item = &str>| all.map(text).collect::<Result<Vec<_>, _>>();
        let (source, name) = (text(source)?, text(file)?);
        let contents = texts(&mut headers.iter().map(|(_, text)| *text))?;
        let names = texts(&mut headers.iter().map(|(name, _)| *name))?;
        let options = texts(&mut options.iter().map(String::as_str))?;
        let pointers = |all: &[CString]| all.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (contents, names, option_list) = (pointers(&contents), pointers(&names), pointers(&options));
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut program = Program(null_mut());
        // SAFETY: all pointers are to strings that end with zero and live to the end of this function, in arrays as
        // long as the count that is passed with them.
        let created = unsafe {
            let count = names.len() as c_int;
            (self.create)(&mut program, source.as_ptr(), name.as_ptr(), count, contents.as_ptr(), names.as_ptr())
        };
        self.check(created)?;
        // SAFETY: the program was created above and is destroyed only below; the options as above.
        let compiled = unsafe { (self.compile)(program, options.len() as c_int, option_list.as_ptr()) };
        let result = match self.check(compiled) {
            Ok(()) => self.fetch(program, size, get),
            Err(why) => {
                let log = self.fetch(program, self.log.0, self.log.1).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let log = log.trim_end_matches('\0').trim();
                tracing::debug!("NVRTC on {file}: {log}");
                // The first error is the sentence; the others often follow from it.
                let first = log.lines().find(|line| line.contains("error")).or_else(|| log.lines().next());
                Err(first.map_or(why, str::to_string))
            }
        };
        // SAFETY: the program was created above, and nobody uses it any more.
        unsafe { (self.destroy)(&mut program) };
        result
    }

    /// What a compilation left: its size is asked for, then its bytes.
    fn fetch(&self, program: Program, size: Sized, get: Filled) -> Result<Vec<u8>, String> {
        let mut bytes = 0;
        // SAFETY: the program is alive: `compile` is the only caller. The second argument is a place for a size.
        self.check(unsafe { size(program, &mut bytes) })?;
        let mut result = vec![0u8; bytes];
        // SAFETY: as above, and the memory has the size that the library asked for.
        self.check(unsafe { get(program, result.as_mut_ptr().cast()) })?;
        Ok(result)
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
}

#[cfg(test)]
mod tests {
    use super::super::libraries::tests::folder;
    use super::*;

    #[test]
    fn headers_of_the_same_version_are_preferred_and_incomplete_ones_are_not_taken() {
        let version = |major: i32| format!("// \n#define CUDART_VERSION  {major}080\n");
        let (v12, v13) = (version(12), version(13));
        let wheels = folder(&[
            ("nvidia/cuda_nvrtc/lib/libnvrtc.so.12", ""),
            ("nvidia/cuda_nvrtc/include/nvrtc.h", ""),
            ("nvidia/cu13/include/cuda_fp16.h", ""),
            ("nvidia/cu13/include/cuda_bf16.h", ""),
            ("nvidia/cu13/include/cuda_runtime_api.h", &v13),
            ("nvidia/cuda_runtime/include/cuda_fp16.h", ""),
            ("nvidia/cuda_runtime/include/cuda_bf16.h", ""),
            ("nvidia/cuda_runtime/include/cuda_runtime_api.h", &v12),
        ]);
        let nvidia = wheels.path().join("nvidia").canonicalize().unwrap();
        let library = nvidia.join("cuda_nvrtc/lib/libnvrtc.so.12");
        assert_eq!(include_for(&library, 12), Some(nvidia.join("cuda_runtime/include")));
        assert_eq!(include_for(&library, 13), Some(nvidia.join("cu13/include")));
        std::fs::remove_file(nvidia.join("cuda_runtime/include/cuda_bf16.h")).unwrap();
        assert_eq!(include_for(&library, 12), Some(nvidia.join("cu13/include")));
    }

    #[test]
    fn a_library_that_is_none_is_refused_with_a_reason() {
        let folder = folder(&[("libnvrtc.so.12", "no library")]);
        for name in ["libnvrtc.so.12", "libnvrtc.so.13"] {
            let why = Nvrtc::open(&folder.path().join(name)).err().unwrap();
            assert!(!why.is_empty() && !why.contains("panicked"), "{why}");
        }
        // A library indeed, but another one.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        assert_eq!(Nvrtc::open(Path::new("libm.so.6")).err().unwrap(), "it has no function nvrtcCreateProgram");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_of_an_open_library_is_known() {
        let file = mapped(Path::new("libc.so.6"));
        if cfg!(target_env = "gnu") {
            assert!(file.is_some_and(|file| file.is_file()));
        }
        assert_eq!(mapped(Path::new("libno-such.so.1")), None);
    }
}
