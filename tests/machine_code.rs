//! What nvcc made of the kernels: registers and spills as the assembler reports them, instructions as they are in the
//! images that are embedded. Needs no card. `kernels/expected.txt` says what is expected beyond the rules here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One kernel in the code of one architecture.
#[derive(Clone, Debug, Default, PartialEq)]
struct Code {
    registers: u32,
    shared: u32,
    /// Bytes that the assembler moved to memory because it ran out of registers.
    spills: u32,
    /// How often each instruction occurs; empty where there is no disassembler.
    instructions: BTreeMap<String, usize>,
}

/// Kernel and architecture, as in `("add_forward", "90a")`.
type Key = (String, String);
type Codes = BTreeMap<Key, Code>;

/// Reads what the assembler says of each kernel with `-v`.
fn read_report(text: &str, codes: &mut Codes) {
    let mut key = None;
    for line in text.lines() {
        let quoted: Vec<&str> = line.split('\'').collect();
        if let ([_, kernel, _, architecture, _], true) = (&quoted[..], line.contains("Compiling entry function")) {
            let architecture = architecture.trim_start_matches("sm_");
            key = Some((kernel.to_string(), architecture.to_string()));
        }
        let Some(key) = &key else { continue };
        let code = codes.entry(key.clone()).or_default();
        // Each number stands before its words, but that of registers between its own.
        let before = |words: &str| -> Option<u32> { line.split(words).next()?.rsplit([' ', ',']).next()?.parse().ok() };
        let has = |words: &str| line.contains(words);
        if has(" bytes spill stores") {
            code.spills = before(" bytes spill stores").unwrap_or(0) + before(" bytes spill loads").unwrap_or(0);
        }
        if has("Used ") && has(" registers") {
            code.registers = before(" registers").expect("a number of registers");
            code.shared = if has(" bytes smem") { before(" bytes smem").expect("a number of bytes") } else { 0 };
        }
    }
}

/// Reads a disassembly of several architectures.
fn read_disassembly(text: &str, codes: &mut Codes) {
    let (mut architecture, mut kernel) = (String::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("arch = sm_") {
            (architecture, kernel) = (name.to_string(), None);
        } else if let Some(name) = line.strip_prefix("Function : ") {
            let key = (name.to_string(), architecture.clone());
            // Functions that are called are counted with the kernel before them: they have no report of their own.
            if codes.contains_key(&key) {
                kernel = Some(key);
            }
        } else if let (Some(key), Some(rest)) = (&kernel, line.strip_prefix("/*")) {
            // `/*0050*/  @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;`
            let Some((_, instruction)) = rest.split_once("*/") else { continue };
            let mut words = instruction.split_whitespace().filter(|word| !word.starts_with('@') && *word != "{");
            let name = words.next().unwrap_or("").trim_end_matches(';');
            if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                let code = codes.get_mut(key).expect("it is there");
                *code.instructions.entry(name.to_string()).or_default() += 1;
            }
        }
    }
}

impl Code {
    /// How many instructions have this name and all these additions, in any order: `LDG.128` counts `LDG.E.128`.
    fn count(&self, pattern: &str) -> usize {
        let mut wanted = pattern.split('.');
        let first = wanted.next();
        let wanted: Vec<&str> = wanted.collect();
        let is = |name: &str| {
            let mut pieces = name.split('.');
            let same = pieces.next() == first;
            let pieces: Vec<&str> = pieces.collect();
            same && wanted.iter().all(|piece| pieces.contains(piece))
        };
        self.instructions.iter().filter(|(name, _)| is(name)).map(|(_, count)| count).sum()
    }
}

/// A line of `kernels/expected.txt`.
#[derive(Debug, PartialEq)]
struct Expectation<'a> {
    kernel: &'a str,
    architectures: Vec<&'a str>,
    must: Vec<&'a str>,
    must_not: Vec<&'a str>,
    may_be_local: bool,
}

impl<'a> Expectation<'a> {
    /// `None` for a line without one.
    fn read(line: &'a str) -> Option<Expectation<'a>> {
        let (expectation, reason) = line.split_once('#').unwrap_or((line, ""));
        let mut words = expectation.split_whitespace();
        let kernel = words.next()?;
        let architectures = words.next().unwrap_or_else(|| panic!("no architecture in: {line}"));
        let words: Vec<&str> = words.collect();
        let may_be_local = words.contains(&"local");
        assert!(!may_be_local || !reason.trim().is_empty(), "an exception without a reason: {line}");
        assert!(!words.is_empty(), "a line that expects nothing: {line}");
        let must = words.iter().filter(|word| !word.starts_with('!') && **word != "local").copied().collect();
        let must_not = words.iter().filter_map(|word| word.strip_prefix('!')).collect();
        Some(Expectation { kernel, architectures: architectures.split(',').collect(), must, must_not, may_be_local })
    }

    fn is_about(&self, (kernel, architecture): &Key) -> bool {
        let named = match self.kernel.strip_suffix('*') {
            Some(start) => kernel.starts_with(start),
            None => kernel == self.kernel,
        };
        named && (self.architectures == ["*"] || self.architectures.contains(&architecture.as_str()))
    }
}

/// Everything that is not as it must be, one sentence each.
fn faults(codes: &Codes, expectations: &[Expectation<'_>]) -> Vec<String> {
    let mut faults = Vec::new();
    for expectation in expectations {
        let mut about = codes.iter().filter(|(key, _)| expectation.is_about(key));
        let (kernel, needs_local) =
            (expectation.kernel, |code: &Code| code.spills > 0 || code.count("LDL") + code.count("STL") > 0);
        if about.clone().next().is_none() {
            faults.push(format!("{kernel}: no such kernel for {:?}", expectation.architectures));
        } else if expectation.may_be_local && !about.any(|(_, code)| needs_local(code) || code.instructions.is_empty())
        {
            faults.push(format!("{kernel}: needs no exception for local memory any more"));
        }
    }
    for (key, code) in codes {
        let about = || expectations.iter().filter(|expectation| expectation.is_about(key));
        let mut fault = |what: String| faults.push(format!("{} for sm_{}: {what}", key.0, key.1));
        if !about().any(|expectation| expectation.may_be_local) {
            if code.spills > 0 {
                fault(format!("{} bytes of registers spill", code.spills));
            }
            for local in ["LDL", "STL"].iter().filter(|local| code.count(local) > 0) {
                fault(format!("{} instructions {local}: something lies in local memory", code.count(local)));
            }
        }
        if code.instructions.is_empty() {
            continue;
        }
        for word in about().flat_map(|expectation| &expectation.must).filter(|word| code.count(word) == 0) {
            fault(format!("no instruction {word}"));
        }
        for word in about().flat_map(|expectation| &expectation.must_not).filter(|word| code.count(word) > 0) {
            fault(format!("{} instructions {word}", code.count(word)));
        }
    }
    faults
}

/// A row a kernel: registers for each architecture, and of the last of them the rest.
fn table(codes: &Codes) -> String {
    let order = |name: &str| name.trim_end_matches('a').parse::<u32>().unwrap_or(0);
    let mut architectures: Vec<&str> = codes.keys().map(|(_, architecture)| architecture.as_str()).collect();
    architectures.sort_by_key(|name| order(name));
    architectures.dedup();
    let mut text = format!("{:<44}", "kernel, and its registers for sm_");
    architectures.iter().for_each(|architecture| text += &format!("{architecture:>5}"));
    text += &format!("{:>9}{:>8}{:>8}{:>8}{:>8}\n", "shared", "spills", "local", "16-byte", "tensor");
    for kernel in codes.keys().map(|(kernel, _)| kernel).collect::<BTreeSet<_>>() {
        let of = |architecture: &&str| codes.get(&(kernel.clone(), architecture.to_string()));
        text += &format!("{kernel:<44}");
        for architecture in &architectures {
            text += &of(architecture).map_or("    -".into(), |code| format!("{:>5}", code.registers));
        }
        let all: Vec<&Code> = architectures.iter().filter_map(of).collect();
        let most = |count: &dyn Fn(&Code) -> usize| all.iter().map(|code| count(code)).max().unwrap_or(0);
        let sum = |code: &Code, patterns: &[&str]| patterns.iter().map(|pattern| code.count(pattern)).sum::<usize>();
        text += &format!(
            "{:>9}{:>8}{:>8}{:>8}{:>8}\n",
            most(&|code| code.shared as usize),
            most(&|code| code.spills as usize),
            most(&|code| sum(code, &["LDL", "STL"])),
            most(&|code| sum(code, &["LDG.128", "STG.128"])),
            most(&|code| sum(code, &["HMMA", "HGMMA"])),
        );
    }
    text
}

/// The images of this build with the report of the assembler, if nvcc was there.
fn images() -> Vec<(PathBuf, String)> {
    let folder = env!("ONKOS_IMAGES");
    let entries = if folder.is_empty() { Vec::new() } else { fs::read_dir(folder).unwrap().collect() };
    let paths = entries.into_iter().map(|entry| entry.unwrap().path());
    let mut images: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "fatbin")).collect();
    // What a kernel file that is gone has left is no part of this build.
    images.retain(|image| root().join("kernels").join(image.file_stem().unwrap()).with_extension("cu").is_file());
    images.sort();
    images.into_iter().map(|image| (image.clone(), fs::read_to_string(image.with_extension("log")).unwrap())).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The disassembler beside nvcc or on the PATH, with a PATH on which it finds what it calls itself.
fn disassemble(image: &Path) -> Option<String> {
    let beside = std::env::var_os("NVCC").and_then(|nvcc| Some(Path::new(&nvcc).parent()?.to_path_buf()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = beside.into_iter().chain(std::env::split_paths(&path)).collect();
    let folder = folders.iter().find(|folder| folder.join("cuobjdump").is_file())?;
    let mut command = Command::new(folder.join("cuobjdump"));
    let output = command.env("PATH", std::env::join_paths(&folders).ok()?).arg("-sass").arg(image).output().ok()?;
    assert!(output.status.success(), "cuobjdump: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn kernels_compile_to_what_is_expected_of_them() {
    let required = std::env::var_os("ONKOS_REQUIRE_NVCC").is_some();
    let images = images();
    if images.is_empty() {
        assert!(!required, "ONKOS_REQUIRE_NVCC is set, but this build found no nvcc");
        println!("skipped: nvcc was not there when onkos was built");
        return;
    }
    let (mut codes, mut disassembled) = (Codes::new(), true);
    for (image, report) in &images {
        read_report(report, &mut codes);
        match disassemble(image) {
            Some(text) => read_disassembly(&text, &mut codes),
            None => disassembled = false,
        }
    }
    assert!(disassembled || !required, "ONKOS_REQUIRE_NVCC is set, but there is no cuobjdump");
    if !disassembled {
        println!("skipped: instructions, because there is no cuobjdump");
    }
    print!("{}", table(&codes));
    let bytes: u64 = images.iter().map(|(image, _)| image.metadata().unwrap().len()).sum();
    println!("{} images, {} kB", images.len(), bytes.div_ceil(1000));
    assert!(bytes < 48 << 20, "a program with these images could not be carried to a card any more");

    let text = fs::read_to_string(root().join("kernels/expected.txt")).unwrap();
    let expectations: Vec<Expectation<'_>> = text.lines().filter_map(Expectation::read).collect();
    let faults = faults(&codes, &expectations);
    assert!(faults.is_empty(), "machine code that is not as it should be:\n  {}", faults.join("\n  "));

    let compiled: BTreeSet<&str> = codes.keys().map(|(kernel, _)| kernel.as_str()).collect();
    let declared = fs::read_to_string(root().join("kernels/entry_points.h")).unwrap();
    let names = declared.lines().filter_map(|line| line.split("__global__ void ").nth(1)?.split('(').next());
    let missing: Vec<&str> = names.filter(|name| !compiled.contains(name)).collect();
    assert!(missing.is_empty(), "declared kernels that are in no image: {missing:?}");
}

const REPORT: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 2056 bytes smem, 368 bytes cmem[0]
ptxas info    : Compiling entry function 'second_f32' for 'sm_90a'
ptxas info    : Function properties for second_f32
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 0 barriers
";

const DISASSEMBLY: &str = "Fatbin elf code:
arch = sm_80
	code for sm_80
		Function : first
        /*0000*/                   MOV R1, c[0x0][0x28] ;        /* 0x00000a0000017a02 */
                                                                 /* 0x000fe40000000f00 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0030*/                   STL [R1], R4 ;
arch = sm_90a
		Function : second_f32
        /*0000*/                   EXIT;
";

fn example() -> Codes {
    let mut codes = Codes::new();
    read_report(REPORT, &mut codes);
    read_disassembly(DISASSEMBLY, &mut codes);
    codes
}

#[test]
fn reports_and_disassemblies_are_read() {
    let codes = example();
    let first = &codes[&("first".to_string(), "80".to_string())];
    assert_eq!((first.registers, first.shared, first.spills), (40, 2056, 12));
    let counts =
        ["LDG.128", "LDG.E.128", "LDG.64", "HMMA", "HMMA.BF16", "STL", "LDL", "MOV", "LD"].map(|p| first.count(p));
    assert_eq!(counts, [1, 1, 0, 1, 1, 1, 0, 1, 0]);
    let second = &codes[&("second_f32".to_string(), "90a".to_string())];
    assert_eq!((second.registers, second.shared, second.spills, second.count("EXIT")), (168, 0, 0, 1));
    assert_eq!(table(&codes).lines().count(), 3);
}

#[test]
fn spills_and_missing_instructions_are_faults() {
    let codes = example();
    let faults = |lines: &str| faults(&codes, &lines.lines().filter_map(Expectation::read).collect::<Vec<_>>());
    assert_eq!(faults("").len(), 2, "a spill and a store to local memory");
    let lifted = "first * local # a reason";
    assert_eq!(faults(lifted), Vec::<String>::new());
    for (line, fault) in [
        ("first 80 LDG.128 HMMA !LDL", None),
        ("fir* 80,90a HMMA", None),
        ("first 80 STG.128", Some("first for sm_80: no instruction STG.128")),
        ("first * !HMMA", Some("first for sm_80: 1 instructions HMMA")),
        ("first 90a HMMA", Some("first: no such kernel for [\"90a\"]")),
        ("third * HMMA", Some("third: no such kernel for [\"*\"]")),
        ("second_f32 * local # once", Some("second_f32: needs no exception for local memory any more")),
    ] {
        assert_eq!(faults(&format!("{lifted}\n{line}")), Vec::from_iter(fault), "{line}");
    }
}

#[test]
#[should_panic(expected = "without a reason")]
fn an_exception_has_a_reason() {
    let _ = Expectation::read("first * local");
}
