//! Embeds the kernels: their sources always, for NVRTC, and machine code if nvcc is found here.
//!
//! Knows no kernel by name, never needs a card, and never fails because nvcc is absent; an error of nvcc in a kernel
//! fails the build with what nvcc said. `CONTRIBUTING.md` says how to steer it.

use std::env;
use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::sync::Mutex;
use std::thread;

/// The architectures that machine code is made for, if nvcc knows them. Cards between two of them run the code of the
/// lower one with the same first digits; newer ones translate the PTX. `a`: with instructions of that card alone.
const ARCHITECTURES: [&str; 5] = ["80", "86", "89", "90a", "100"];
/// The instructions that every supported card has: what PTX is made of.
const PTX: &str = "80";
/// Files whose name ends so use instructions of one architecture alone.
const HOPPER: (&str, &str) = ("_sm90", "90a");

fn main() {
    let kernels = PathBuf::from(var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("kernels");
    let out = PathBuf::from(var("OUT_DIR").expect("set by cargo"));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    let sources = read_sources(&kernels);
    let nvcc = Nvcc::find();
    let images = nvcc.as_ref().map_or_else(Vec::new, |nvcc| nvcc.compile(&kernels, &out, &sources));
    // Where tests find the machine code and what the assembler said of it. The library never looks there.
    let folder = if images.is_empty() { String::new() } else { out.display().to_string() };
    println!("cargo:rustc-env=ONKOS_IMAGES={folder}");
    fs::write(out.join("kernels.rs"), table(&kernels, &sources, nvcc.as_ref(), &images)).expect("OUT_DIR is writable");
}

fn var(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The files of the folder that kernels are made of, sorted by name.
fn read_sources(kernels: &Path) -> Vec<(String, String)> {
    let is_source = |name: &str| [".cu", ".cuh", ".h"].iter().any(|end| name.ends_with(end));
    let entries = fs::read_dir(kernels).unwrap_or_else(|why| fail(&format!("{}: {why}", kernels.display())));
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_source(name)).collect();
    names.sort();
    let read = |name: String| {
        let text = fs::read_to_string(kernels.join(&name)).unwrap_or_else(|why| fail(&format!("{name}: {why}")));
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// The names of the kernel files, without `.cu`.
fn stems(sources: &[(String, String)]) -> Vec<&str> {
    sources.iter().filter_map(|(name, _)| name.strip_suffix(".cu")).collect()
}

/// The Rust file that the library includes.
fn table(kernels: &Path, sources: &[(String, String)], nvcc: Option<&Nvcc>, images: &[PathBuf]) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("a string takes everything");
    line(format_args!("pub(super) static EMBEDDED: Embedded = Embedded {{"));
    line(format_args!("    nvcc: {:?},", nvcc.map(|nvcc| &nvcc.version)));
    line(format_args!("    architectures: &{:?},", nvcc.map_or(&[][..], |nvcc| &nvcc.architectures)));
    line(format_args!("    images: &["));
    for (stem, image) in stems(sources).iter().zip(images) {
        line(format_args!("        ({stem:?}, include_bytes!({image:?})),"));
    }
    line(format_args!("    ],\n    sources: &["));
    for (name, _) in sources {
        line(format_args!("        ({name:?}, include_str!({:?})),", kernels.join(name)));
    }
    line(format_args!("    ],\n}};"));
    text
}

/// A compiler that was found, and what it is asked for.
struct Nvcc {
    path: PathBuf,
    /// As it calls itself: `13.0.88`.
    version: String,
    architectures: Vec<&'static str>,
}

impl Nvcc {
    /// The first nvcc of those that the environment names, the PATH, and the wheel of the Python in use.
    fn find() -> Option<Nvcc> {
        let wanted = var("ONKOS_NVCC");
        let restricted = var("ONKOS_CUDA_ARCHS");
        let named = var("NVCC").map(PathBuf::from);
        let toolkits = ["CUDA_HOME", "CUDA_PATH"].map(|name| var(name).map(|folder| Path::new(&folder).join("bin")));
        let environment = var("VIRTUAL_ENV").map(PathBuf::from);
        if wanted.as_deref() == Some("off") {
            return None;
        }
        let path: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
        let python = path.iter().find(|folder| folder.join("python3").is_file());
        let prefixes = environment.into_iter().chain(python.and_then(|folder| Some(folder.parent()?.to_path_buf())));
        let folders = toolkits.into_iter().flatten().chain(path.iter().cloned()).chain(prefixes.flat_map(wheels));
        let program = if cfg!(windows) { "nvcc.exe" } else { "nvcc" };
        let found = named.clone().or_else(|| folders.map(|folder| folder.join(program)).find(|file| file.is_file()))?;
        let nvcc = Nvcc::ask(&found, restricted.as_deref());
        if let Err(why) = &nvcc {
            // An old compiler that happens to lie around is no reason not to build; one that was named is.
            let sentence = format!("{}: {why}; without it, kernels are compiled at first use", found.display());
            if named.is_some() { fail(&sentence) } else { println!("cargo:warning={sentence}") }
        }
        nvcc.ok()
    }

    /// What this compiler can do of what is wanted.
    fn ask(path: &Path, restricted: Option<&str>) -> Result<Nvcc, String> {
        let said = |flag: &str| match Command::new(path).arg(flag).output() {
            Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Ok(output) => Err(format!("{flag}: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(why) => Err(why.to_string()),
        };
        let banner = said("--version")?;
        let version = banner.split(", V").nth(1).and_then(|rest| rest.split_whitespace().next());
        let version = version.ok_or("it does not tell its version")?.to_string();
        let known = said("--list-gpu-code")?;
        let known: Vec<&str> = known.split_whitespace().filter_map(|code| code.strip_prefix("sm_")).collect();
        // It lists 90 and not 90a, which it knows since it knows 90.
        let knows = |code: &&str| known.contains(&code.trim_end_matches('a')) || known.contains(code);
        if !["90", PTX].iter().all(knows) {
            return Err(format!(
                "nvcc {version} is too old: 12.0 is the first that knows all instructions that are used"
            ));
        }
        let list: Option<Vec<&str>> = restricted.map(|list| list.split([',', ';', ' ']).map(str::trim).collect());
        if let Some(list) = &list
            && let Some(strange) = list.iter().find(|code| !ARCHITECTURES.contains(code))
        {
            let all = ARCHITECTURES.join(",");
            fail(&format!("ONKOS_CUDA_ARCHS must name architectures of {all}, but has {strange:?}"));
        }
        let wanted = ARCHITECTURES.into_iter().filter(|code| list.as_ref().is_none_or(|list| list.contains(code)));
        Ok(Nvcc { path: path.into(), version, architectures: wanted.filter(|code| knows(code)).collect() })
    }

    fn major_minor(&self) -> (u32, u32) {
        let mut numbers = self.version.split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Everything on the command line but the names of the files.
    fn flags(&self, stem: &str) -> Vec<String> {
        // No --use_fast_math: the f32 kernels are held to the accuracy of the CPU's.
        let mut flags: Vec<String> =
            ["-std=c++17", "-O3", "-lineinfo", "-Xptxas", "-v", "-Ikernels", "-fatbin"].map(String::from).into();
        let smallest =
            if self.major_minor() >= (12, 8) { &["--compress-mode=size"][..] } else { &["-Xfatbin", "-compress-all"] };
        flags.extend(smallest.iter().map(|flag| flag.to_string()));
        let mut generate = |virt: &str, real: &str| flags.push(format!("-gencode=arch=compute_{virt},code=[{real}]"));
        if stem.ends_with(HOPPER.0) {
            generate(HOPPER.1, &format!("sm_{}", HOPPER.1));
        } else {
            // Cards with the same first digit have the same instructions as far as kernels use them, so one pass of the
            // front end, a third of the time that nvcc takes, serves all of them and the PTX.
            let (same, others): (Vec<&str>, Vec<&str>) =
                self.architectures.iter().partition(|code| code.starts_with(&PTX[..1]) && code.len() == PTX.len());
            let codes = same.iter().map(|code| format!("sm_{code}")).chain([format!("compute_{PTX}")]);
            generate(PTX, &codes.collect::<Vec<_>>().join(","));
            for code in others {
                generate(code, &format!("sm_{code}"));
            }
        }
        flags
    }

    /// Compiles every kernel file to one image with the code of all architectures, several at a time.
    fn compile(&self, kernels: &Path, out: &Path, sources: &[(String, String)]) -> Vec<PathBuf> {
        let stems = stems(sources);
        let text = |name: &str| &sources.iter().find(|(n, _)| n == name).expect("a stem is one of the sources").1;
        let image = |stem: &str| out.join(format!("{stem}.fatbin"));
        // The longest first: the last to finish is then a short one.
        let mut queue = stems.clone();
        queue.sort_by_key(|stem| text(&format!("{stem}.cu")).len());
        let (queue, faults) = (Mutex::new(queue), Mutex::new(Vec::new()));
        let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
        let work = || {
            loop {
                let next = queue.lock().expect("no thread panics").pop();
                let Some(stem) = next else { break };
                let flags = self.flags(stem);
                let mut hasher = DefaultHasher::new();
                let headers: Vec<_> = sources.iter().filter(|(name, _)| !name.ends_with(".cu")).collect();
                (&self.version, &flags, text(&format!("{stem}.cu")), headers).hash(&mut hasher);
                let (key, mark) = (hasher.finish().to_string(), out.join(format!("{stem}.key")));
                // Only what changed is compiled again.
                if image(stem).is_file() && fs::read_to_string(&mark).is_ok_and(|old| old == key) {
                    continue;
                }
                let _ = fs::remove_file(&mark);
                match self.run(kernels, &flags, stem, &image(stem)) {
                    Ok(log) => {
                        fs::write(out.join(format!("{stem}.log")), log).expect("OUT_DIR is writable");
                        fs::write(mark, key).expect("OUT_DIR is writable");
                    }
                    Err(why) => faults.lock().expect("no thread panics").push(why),
                }
            }
        };
        thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
        let faults = faults.into_inner().expect("no thread panics");
        if !faults.is_empty() {
            fail(&format!("{}\n(ONKOS_NVCC=off builds without machine code)", faults.join("\n")));
        }
        stems.into_iter().map(image).collect()
    }

    /// Compiles one file; what the compiler said.
    fn run(&self, kernels: &Path, flags: &[String], stem: &str, image: &Path) -> Result<Vec<u8>, String> {
        let mut command = Command::new(&self.path);
        // From the folder above, so that line tables name files as the repository does.
        command.current_dir(kernels.parent().expect("kernels lies in the repository"));
        command.args(flags).arg("-o").arg(image).arg(format!("kernels/{stem}.cu"));
        let output = command.output().map_err(|why| format!("{}: {why}", self.path.display()))?;
        let said = [output.stdout, output.stderr].concat();
        if output.status.success() {
            return Ok(said);
        }
        let said = String::from_utf8_lossy(&said);
        let lines = said.lines().filter(|line| !line.starts_with("ptxas info"));
        Err(format!("kernels/{stem}.cu: nvcc {}:\n{}", output.status, lines.collect::<Vec<_>>().join("\n")))
    }
}

/// Where the wheels of nvcc put their programs below a Python.
fn wheels(prefix: PathBuf) -> Vec<PathBuf> {
    let below =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let pythons = below(prefix.join("lib"))
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python")));
    let mut found: Vec<PathBuf> = pythons
        .flat_map(|python| ["site-packages", "dist-packages"].map(|packages| python.join(packages).join("nvidia")))
        .flat_map(|nvidia| ["cu13", "cuda_nvcc"].map(|wheel| nvidia.join(wheel).join("bin")))
        .collect();
    found.sort();
    found
}

/// Ends the build with a sentence, without the noise of a panic.
fn fail(why: &str) -> ! {
    eprintln!("{why}");
    exit(1);
}
