//! How kernels come onto a card: machine code of this build, its PTX through the driver, or NVRTC at first use.
//!
//! A step that fails is not the end: the next is tried, and why it failed is kept for `onkos doctor`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use cudarc::driver::{CudaContext, CudaModule};
use cudarc::nvrtc::Ptx;

use super::cache::{Cache, Entry};
use super::cuda::{lock, said};
use super::nvrtc::{self, Nvrtc};
use crate::error::{Error, Result};

/// What build.rs put into this program.
pub(super) struct Embedded {
    /// The version of the compiler, if there was one.
    pub(super) nvcc: Option<&'static str>,
    /// What machine code there is for, as in `90a`; PTX for every later card comes with it.
    pub(super) architectures: &'static [&'static str],
    /// By the name of the kernel file, without `.cu`.
    images: &'static [(&'static str, &'static [u8])],
    /// Kernel files and their headers, by name.
    sources: &'static [(&'static str, &'static str)],
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Kernel files whose names end so are for one architecture alone.
const HOPPER: &str = "_sm90";
/// The instructions of every supported card, for a card that a compiler does not know yet.
const COMMON: &str = "compute_80";

/// A step that did not lead to code on the card.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    /// The step.
    pub(crate) what: String,
    /// Why it failed.
    pub(crate) why: String,
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// Where the code that was loaded came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// Embedded, for an architecture, as in `90a`.
    MachineCode(&'static str),
    /// Embedded, and translated by the driver.
    Ptx,
    /// Compiled on this machine from the embedded sources.
    Compiled {
        /// By which library.
        library: PathBuf,
        /// In which version.
        version: (i32, i32),
        /// For `sm_*`, or `compute_*` where the driver translates it.
        architecture: String,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::MachineCode(architecture) => write!(f, "embedded machine code for sm_{architecture}"),
            Origin::Ptx => f.write_str("embedded PTX, translated by the driver"),
            Origin::Compiled { library, version: (major, minor), architecture } => {
                write!(f, "compiled for {architecture} by NVRTC {major}.{minor} ({})", library.display())
            }
        }
    }
}

/// A compiler of kernels: NVRTC, or what stands for it in tests.
trait Compiler {
    /// The library.
    fn path(&self) -> PathBuf;
    fn version(&self) -> (i32, i32);
    /// The folder of the headers that CUDA has for 16-bit numbers.
    fn include(&self) -> Option<PathBuf>;
    /// Compiles one of the files, which may include the others.
    fn compile(&self, file: &str, files: &[(&str, &str)], options: &[String]) -> Result<Vec<u8>, String>;
}

impl Compiler for Nvrtc {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }
    fn version(&self) -> (i32, i32) {
        self.version
    }
    fn include(&self) -> Option<PathBuf> {
        self.include.clone()
    }
    fn compile(&self, file: &str, files: &[(&str, &str)], options: &[String]) -> Result<Vec<u8>, String> {
        Nvrtc::compile(self, file, files, options)
    }
}

/// The libraries that may be here, each opened when it is first needed.
fn compilers() -> impl Iterator<Item = (String, Result<&'static Nvrtc, String>)> {
    type Slot = (PathBuf, OnceLock<Result<Nvrtc, String>>);
    static ALL: OnceLock<Vec<Slot>> = OnceLock::new();
    let all = ALL.get_or_init(|| nvrtc::candidates().into_iter().map(|path| (path, OnceLock::new())).collect());
    all.iter().map(|(path, slot)| {
        let opened = slot.get_or_init(|| Nvrtc::open(path)).as_ref();
        (format!("NVRTC {}", path.display()), opened.map_err(String::clone))
    })
}

/// The code of one kernel file for one card, and what is needed to find it.
struct Search<'a> {
    kernels: &'a Embedded,
    /// Whether embedded code may be used, and not only embedded sources.
    images: bool,
    cache: &'a Cache,
    capability: (u32, u32),
    /// The kernel file, without `.cu`.
    name: &'a str,
}

impl Search<'_> {
    /// Which part of an embedded image the driver chooses: machine code of this card or of an earlier one with the same
    /// first digit, else the PTX. Code with an `a` runs on its own card alone.
    fn chosen(&self) -> Option<Origin> {
        let (major, minor) = self.capability;
        let runs = |architecture: &&&str| {
            let number: u32 = architecture.trim_end_matches('a').parse().unwrap_or(0);
            let exact = architecture.ends_with('a');
            number / 10 == major && if exact { number % 10 == minor } else { number % 10 <= minor }
        };
        let ours = if self.name.ends_with(HOPPER) { &["90a"][..] } else { self.kernels.architectures };
        let best = ours.iter().filter(runs).max_by_key(|code| code.trim_end_matches('a').parse().unwrap_or(0));
        match best {
            Some(architecture) => Some(Origin::MachineCode(architecture)),
            None => (self.capability >= (8, 0) && !self.name.ends_with(HOPPER)).then_some(Origin::Ptx),
        }
    }

    /// Tries one way after the other, and tells what failed before one did not.
    fn run<'c, C: Compiler + 'c, M>(
        &self,
        compilers: impl Iterator<Item = (String, Result<&'c C, String>)>,
        load: &mut dyn FnMut(&[u8]) -> Result<M, String>,
    ) -> (Option<(M, Origin)>, Vec<Attempt>) {
        let mut attempts = Vec::new();
        let mut failed = |what: &str, why: String| attempts.push(Attempt { what: what.into(), why });
        let Some(origin) = self.chosen() else {
            let (major, minor) = self.capability;
            let needed = if self.name.ends_with(HOPPER) { "9.0 and no other" } else { "8.0 or more" };
            failed(self.name, format!("needs compute capability {needed}, but the card has {major}.{minor}"));
            return (None, attempts);
        };
        let image = self.kernels.images.iter().find(|(name, _)| *name == self.name);
        match image.filter(|_| self.images).map(|(_, image)| load(image)) {
            Some(Ok(module)) => return (Some((module, origin)), attempts),
            Some(Err(why)) => failed(&origin.to_string(), why),
            None if image.is_some() => failed("embedded machine code", "switched off by ONKOS_EMBEDDED".into()),
            None => failed("embedded machine code", "none: this program was built without nvcc".into()),
        }
        let mut asked = Vec::new();
        for (what, compiler) in compilers {
            let compiler = match compiler {
                Ok(compiler) => compiler,
                Err(why) => {
                    failed(&what, why);
                    continue;
                }
            };
            // One library has several names; asking it again would give the same.
            if asked.contains(&compiler.version()) {
                continue;
            }
            asked.push(compiler.version());
            for architecture in self.architectures() {
                match self.compiled(compiler, &architecture).and_then(|code| load(&code)) {
                    Ok(module) => {
                        let (library, version) = (compiler.path(), compiler.version());
                        return (Some((module, Origin::Compiled { library, version, architecture })), attempts);
                    }
                    Err(why) => failed(&format!("{what} for {architecture}"), why),
                }
            }
        }
        (None, attempts)
    }

    /// What a compiler is asked for: the card itself, and what a later one can translate if it is too new for that.
    fn architectures(&self) -> Vec<String> {
        match self.capability {
            // Hopper has instructions that the same code for all cards of 9.x would not have.
            (9, 0) => vec!["sm_90a".into(), "compute_90a".into()],
            (major, minor) => vec![format!("sm_{major}{minor}"), COMMON.into()],
        }
    }

    /// The code for an architecture, from the cache or into it.
    fn compiled(&self, compiler: &impl Compiler, architecture: &str) -> Result<Vec<u8>, String> {
        let file = format!("{}.cu", self.name);
        let include = compiler.include();
        let mut options =
            vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into(), "--generate-line-info".into()];
        // Constant functions without an annotation are the host's to nvcc, and refused by NVRTC unless it is told.
        options.push("--device-as-default-execution-space".into());
        options.extend(include.iter().map(|folder| format!("--include-path={}", folder.display())));
        let wanted = |name: &str| name == file || !name.ends_with(".cu");
        let files: Vec<(&str, &str)> = self.kernels.sources.iter().copied().filter(|(name, _)| wanted(name)).collect();
        let version = format!("{:?}", compiler.version());
        let parts = files.iter().flat_map(|(name, text)| [*name, *text]).chain(options.iter().map(String::as_str));
        let key = Cache::name(self.name, parts.chain([version.as_str()]));
        match self.cache.read(&key) {
            Entry::Found(code) => return Ok(code),
            Entry::Absent => {}
            Entry::Damaged(why) => tracing::warn!("{why}; the kernels are compiled anew"),
        }
        let mut code = compiler.compile(&file, &files, &options).map_err(|why| match include {
            Some(_) => why,
            None => format!("cuda_fp16.h and cuda_bf16.h were found neither beside it nor in CUDA_HOME/include; {why}"),
        })?;
        // The driver reads text up to a zero, and does not mind one after machine code.
        code.push(0);
        if let Err(why) = self.cache.write(&key, &code) {
            tracing::warn!("compiled kernels are not kept: {why}");
        }
        Ok(code)
    }
}

/// The module of a kernel file on a card, where it came from, and what failed before.
pub(super) fn search(
    context: &Arc<CudaContext>,
    capability: (u32, u32),
    name: &str,
) -> (Option<(Arc<CudaModule>, Origin)>, Vec<Attempt>) {
    let cache = Cache::of_this_user();
    // For who wants to see what NVRTC makes of the sources.
    let images = std::env::var_os("ONKOS_EMBEDDED").is_none_or(|value| value != "off");
    let search = Search { kernels: &EMBEDDED, images, cache: &cache, capability, name };
    search.run(compilers(), &mut |code| context.load_module(Ptx::from_binary(code.to_vec())).map_err(said))
}

/// The kernel files for cards of this capability, in the order of their names; those that only test cards are left out.
pub(super) fn files(capability: (u32, u32)) -> impl Iterator<Item = &'static str> {
    let names = EMBEDDED.sources.iter().filter_map(|(file, _)| file.strip_suffix(".cu"));
    names.filter(move |name| !name.contains("_test") && (!name.ends_with(HOPPER) || capability == (9, 0)))
}

/// The module of one kernel file on one card; `name` is the file's, without `.cu`. It is loaded when it is first asked
/// for, and stays.
///
/// # Errors
/// [`Error::Cuda`] with every reason if there is no way to load it.
pub(crate) fn load(context: &Arc<CudaContext>, capability: (u32, u32), name: &str) -> Result<Arc<CudaModule>> {
    type Key = (usize, String);
    static LOADED: Mutex<BTreeMap<Key, Arc<CudaModule>>> = Mutex::new(BTreeMap::new());
    // Held while loading: another thread that asks for the same module waits for it instead of compiling it too.
    let mut loaded = lock(&LOADED);
    let key = (context.ordinal(), name.to_string());
    if let Some(module) = loaded.get(&key) {
        return Ok(module.clone());
    }
    let (found, attempts) = search(context, capability, name);
    let reasons: Vec<String> = attempts.iter().map(Attempt::to_string).collect();
    let Some((module, origin)) = found else {
        return Err(Error::Cuda {
            device: format!("cuda:{}", context.ordinal()),
            doing: format!("loading the kernels of {name}"),
            why: reasons.join("; "),
        });
    };
    tracing::debug!("kernels of {name}: {origin}; tried before: {reasons:?}");
    loaded.insert(key, module.clone());
    Ok(module)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use super::*;

    static KERNELS: Embedded = Embedded {
        nvcc: Some("13.0.88"),
        architectures: &["80", "86", "90a", "100"],
        images: &[("op", b"image of op"), ("tile_sm90", b"image of tile")],
        sources: &[
            ("op.cu", "kernel"),
            ("other.cu", "another kernel"),
            ("device.cuh", "header"),
            ("tile_sm90.cu", "tile"),
        ],
    };
    static SOURCES: Embedded = Embedded { nvcc: None, architectures: &[], images: &[], sources: KERNELS.sources };

    /// A compiler that writes down what it is asked for, and gives it back as the code.
    struct Recorder {
        version: (i32, i32),
        include: Option<PathBuf>,
        refuses: &'static str,
        asked: RefCell<Vec<String>>,
    }

    impl Recorder {
        fn new(refuses: &'static str) -> Recorder {
            Recorder { version: (13, 0), include: Some("inc".into()), refuses, asked: RefCell::default() }
        }
        fn count(&self) -> usize {
            self.asked.borrow().len()
        }
    }

    impl Compiler for Recorder {
        fn path(&self) -> PathBuf {
            "libnvrtc.so.13".into()
        }
        fn version(&self) -> (i32, i32) {
            self.version
        }
        fn include(&self) -> Option<PathBuf> {
            self.include.clone()
        }
        fn compile(&self, file: &str, files: &[(&str, &str)], options: &[String]) -> Result<Vec<u8>, String> {
            let asked = format!("{file} {files:?} {}", options.join(" "));
            self.asked.borrow_mut().push(asked.clone());
            if asked.contains(self.refuses) { Err("invalid architecture".into()) } else { Ok(asked.into()) }
        }
    }

    type Outcome = (Option<(Vec<u8>, Origin)>, Vec<Attempt>);

    /// Searches with one library that cannot be opened before the compiler, on a driver that refuses code with a word.
    fn run(search: &Search<'_>, compiler: &Recorder, unwanted: &str) -> Outcome {
        let missing = ("NVRTC libnvrtc.so".to_string(), Err("no such file".to_string()));
        let all = [missing, ("NVRTC libnvrtc.so.13".to_string(), Ok(compiler))];
        search.run(all.into_iter(), &mut |code| {
            let refused = String::from_utf8_lossy(code).contains(unwanted);
            if refused { Err("no kernel image is available".into()) } else { Ok(code.to_vec()) }
        })
    }

    fn reasons(outcome: &Outcome) -> Vec<String> {
        outcome.1.iter().map(Attempt::to_string).collect()
    }

    #[test]
    fn the_code_of_a_card_is_chosen_as_the_driver_chooses_it() {
        let cache = Cache::in_folder(Path::new(""));
        let chosen =
            |name, capability| Search { kernels: &KERNELS, images: true, cache: &cache, capability, name }.chosen();
        let code = |architecture| Some(Origin::MachineCode(architecture));
        let cards = [
            ((7, 5), None),
            ((8, 0), code("80")),
            ((8, 6), code("86")),
            ((8, 7), code("86")),
            ((8, 9), code("86")),
            ((9, 0), code("90a")),
            ((10, 0), code("100")),
            ((10, 3), code("100")),
            ((12, 0), Some(Origin::Ptx)),
        ];
        for (capability, origin) in cards {
            assert_eq!(chosen("op", capability), origin, "{capability:?}");
            let exact = if capability == (9, 0) { code("90a") } else { None };
            assert_eq!(chosen("tile_sm90", capability), exact, "{capability:?}");
        }
    }

    #[test]
    fn embedded_code_comes_first_and_needs_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, compiler) = (Cache::in_folder(folder.path()), Recorder::new("nothing"));
        let search = Search { kernels: &KERNELS, images: true, cache: &cache, capability: (9, 0), name: "op" };
        let (found, attempts) = run(&search, &compiler, "unwanted");
        assert_eq!(found, Some((b"image of op".to_vec(), Origin::MachineCode("90a"))));
        assert!(attempts.is_empty() && compiler.count() == 0);
    }

    #[test]
    fn an_image_that_the_driver_refuses_leads_to_the_compiler_and_the_reasons_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, compiler) = (Cache::in_folder(folder.path()), Recorder::new("nothing"));
        let search = Search { kernels: &KERNELS, images: true, cache: &cache, capability: (8, 9), name: "op" };
        let outcome = run(&search, &compiler, "image of op");
        let (code, origin) = outcome.0.clone().unwrap();
        assert_eq!(origin.to_string(), "compiled for sm_89 by NVRTC 13.0 (libnvrtc.so.13)");
        let said = ["embedded machine code for sm_86: no kernel image is available", "NVRTC libnvrtc.so: no such file"];
        assert_eq!(reasons(&outcome), said);
        let text = String::from_utf8(code).unwrap();
        for word in ["op.cu", "device.cuh", "sm_89", "--std=c++17", "--include-path=inc"] {
            assert!(text.contains(word), "no {word} in {text}");
        }
        assert!(!text.contains("another kernel") && !text.contains("fast_math"), "{text}");
        assert!(text.ends_with('\0'), "the driver reads text up to a zero");
    }

    #[test]
    fn embedded_code_can_be_switched_off() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, compiler) = (Cache::in_folder(folder.path()), Recorder::new("nothing"));
        let search = Search { kernels: &KERNELS, images: false, cache: &cache, capability: (9, 0), name: "op" };
        let outcome = run(&search, &compiler, "unwanted");
        assert_eq!(reasons(&outcome)[0], "embedded machine code: switched off by ONKOS_EMBEDDED");
        assert!(outcome.0.unwrap().1.to_string().starts_with("compiled for sm_90a"));
    }

    #[test]
    fn a_card_that_is_newer_than_the_compiler_gets_common_code() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, compiler) = (Cache::in_folder(folder.path()), Recorder::new("=sm_"));
        let search = Search { kernels: &SOURCES, images: true, cache: &cache, capability: (12, 1), name: "op" };
        let outcome = run(&search, &compiler, "unwanted");
        let said = reasons(&outcome);
        assert!(outcome.0.unwrap().1.to_string().starts_with("compiled for compute_80 by"));
        assert_eq!(said[0], "embedded machine code: none: this program was built without nvcc");
        assert_eq!(said[2], "NVRTC libnvrtc.so.13 for sm_121: invalid architecture");
    }

    #[test]
    fn when_nothing_works_every_reason_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path());
        let mut compiler = Recorder::new("");
        let search = Search { kernels: &SOURCES, images: true, cache: &cache, capability: (9, 0), name: "op" };
        let outcome = run(&search, &compiler, "unwanted");
        assert!(outcome.0.is_none());
        assert_eq!(outcome.1.len(), 4, "{:?}", outcome.1);
        compiler.include = None;
        let outcome = run(&search, &compiler, "unwanted");
        assert!(outcome.0.is_none() && reasons(&outcome)[2].contains("cuda_fp16.h"), "{:?}", outcome.1);
        for (name, capability, why) in [("op", (7, 5), "8.0 or more"), ("tile_sm90", (10, 0), "9.0 and no other")] {
            let outcome = run(&Search { capability, name, ..search }, &compiler, "unwanted");
            assert!(outcome.0.is_none() && outcome.1.len() == 1 && outcome.1[0].why.contains(why), "{:?}", outcome.1);
        }
    }

    #[test]
    fn a_kernel_is_compiled_once_and_again_when_its_file_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, compiler) = (Cache::in_folder(folder.path()), Recorder::new("nothing"));
        let search = Search { kernels: &SOURCES, images: true, cache: &cache, capability: (9, 0), name: "op" };
        let first = run(&search, &compiler, "unwanted");
        assert_eq!((run(&search, &compiler, "unwanted"), compiler.count()), (first.clone(), 1));
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read(&file).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"", b"onkos kernel 1\n", &[b"x", &whole[..]].concat()] {
            std::fs::write(&file, damaged).unwrap();
            let before = compiler.count();
            assert_eq!((run(&search, &compiler, "unwanted"), compiler.count()), (first.clone(), before + 1));
            assert_eq!(std::fs::read(&file).unwrap(), whole, "it is replaced");
        }
    }

    #[test]
    fn what_is_in_the_cache_serves_only_what_it_was_made_of() {
        static CHANGED: Embedded = Embedded {
            nvcc: None,
            architectures: &[],
            images: &[],
            sources: &[("op.cu", "kernel"), ("device.cuh", "changed")],
        };
        let folder = tempfile::tempdir().unwrap();
        let (cache, mut compiler) = (Cache::in_folder(folder.path()), Recorder::new("nothing"));
        let search = Search { kernels: &SOURCES, images: true, cache: &cache, capability: (9, 0), name: "op" };
        run(&search, &compiler, "unwanted");
        run(&Search { kernels: &CHANGED, ..search }, &compiler, "unwanted");
        run(&Search { capability: (8, 0), ..search }, &compiler, "unwanted");
        run(&Search { name: "other", ..search }, &compiler, "unwanted");
        assert_eq!(compiler.count(), 4);
        compiler.version = (13, 1);
        run(&search, &compiler, "unwanted");
        assert_eq!(compiler.count(), 5);
        compiler.include = Some("elsewhere".into());
        run(&search, &compiler, "unwanted");
        assert_eq!(compiler.count(), 6);
    }

    #[test]
    fn a_cache_that_takes_nothing_does_not_stop_the_kernels() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (cache, compiler) = (Cache::in_folder(&file.path().join("cache")), Recorder::new("nothing"));
        let search = Search { kernels: &SOURCES, images: true, cache: &cache, capability: (9, 0), name: "op" };
        assert!(run(&search, &compiler, "unwanted").0.is_some());
    }

    #[test]
    fn what_was_built_in_is_whole() {
        let has = |name: &str| EMBEDDED.sources.iter().any(|(file, text)| *file == name && !text.is_empty());
        assert!(has("device.cuh") && has("vocabulary_test.cu"));
        assert_eq!(EMBEDDED.nvcc.is_some(), !EMBEDDED.images.is_empty());
        for (name, image) in EMBEDDED.images {
            assert!(has(&format!("{name}.cu")), "{name}");
            // The mark of a container of code for several architectures.
            assert_eq!(image[..4], 0xba55_ed50u32.to_le_bytes(), "{name}");
        }
    }

    /// NVRTC itself, where there is one: the sources that are embedded are enough to compile every kernel.
    #[test]
    fn every_kernel_compiles_with_the_nvrtc_of_this_machine() {
        let required = std::env::var_os("ONKOS_REQUIRE_NVRTC").is_some();
        let emulated = std::env::var_os("EMU_LIBRARIES").is_some();
        let usable = compilers().filter_map(|(_, library)| library.ok());
        let usable = usable.into_iter().find(|library| library.include.is_some() || emulated);
        let Some(library) = usable else {
            let why: Vec<String> =
                compilers().filter_map(|(what, library)| Some(format!("{what}: {}", library.err()?))).collect();
            assert!(!required, "ONKOS_REQUIRE_NVRTC is set, but no NVRTC with headers is here: {why:?}");
            println!("skipped: no NVRTC with headers is here");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path());
        for (i, name) in EMBEDDED.sources.iter().filter_map(|(file, _)| file.strip_suffix(".cu")).enumerate() {
            // A second or two each: the first file for everything, the others for one card.
            for capability in [(9, 0), (8, 0)].into_iter().take(if i == 0 { 2 } else { 1 }) {
                let search = Search { kernels: &EMBEDDED, images: true, cache: &cache, capability, name };
                for architecture in search.architectures().into_iter().take(if i == 0 { 2 } else { 1 }) {
                    let code = search.compiled(library, &architecture);
                    let code = code.unwrap_or_else(|why| panic!("{name} for {architecture}: {why}"));
                    let mark = if architecture.starts_with("sm_") { &b"\x7fELF"[..] } else { b"//" };
                    // What stands for NVRTC under the emulated driver makes text alone.
                    assert!(code.starts_with(mark) || code.starts_with(b"// emulated"), "{name} for {architecture}");
                }
            }
        }
    }
}
