//! The house is in order: every op is complete, files are short, links resolve, and documents say what CI does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files that may hold `unsafe`, each with `allow(unsafe_code)` and a SAFETY comment a block (clippy sees to that).
const UNSAFE: [&str; 12] = [
    "fuzz/src/count.rs",
    "src/data/map.rs",
    "src/device/cublaslt.rs",
    "src/device/cuda.rs",
    "src/device/driver.rs",
    "src/device/kernel.rs",
    "src/device/nvrtc.rs",
    "src/device/upload.rs",
    "src/memory.rs",
    "src/ops/math.rs",
    "src/ops/matmul.rs",
    "src/widen.rs",
];

/// The headings of an op's page, in this order.
const HEADINGS: [&str; 7] = ["Math", "Arguments", "Result", "Gradient", "Numerics", "Cost", "Deviations"];

/// Longer files are read by nobody.
const LINES: usize = 700;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The files of the repository, tracked or about to be, sorted, as paths from its root.
fn files() -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output();
    let mut found = match git {
        Ok(git) if git.status.success() && !git.stdout.is_empty() => {
            let names = String::from_utf8(git.stdout).expect("names of files are UTF-8");
            names.split_terminator('\0').map(String::from).collect()
        }
        _ => walk(root()),
    };
    found.retain(|path| root().join(path).is_file());
    found.sort();
    assert!(found.iter().any(|path| path == "tests/house.rs"), "the walk does not see this file: {found:?}");
    found
}

/// All files below a folder that is no checkout: an unpacked archive, say.
fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let path = entry.expect("an entry that can be read").path();
        let name = path.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8").to_string();
        if path.is_file() {
            found.push(name);
        } else if !["target", ".git"].contains(&name.as_str()) {
            found.extend(walk(&path));
        }
    }
    found
}

fn extension(path: &str) -> &str {
    Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or("")
}

/// The folders in `src/ops`: one an op.
fn ops() -> BTreeSet<String> {
    let inside = |path: &String| Some(path.strip_prefix("src/ops/")?.split_once('/')?.0.to_string());
    let ops: BTreeSet<String> = files().iter().filter_map(inside).collect();
    assert!(ops.contains("linear"), "no ops were found: {ops:?}");
    ops
}

#[track_caller]
fn assert_none(what: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

/// What is wrong with the page at the top of an op's `mod.rs`, if anything.
fn fault_of_page(source: &str) -> Option<String> {
    let page: Vec<&str> = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let headings: Vec<&str> = page.iter().filter_map(|line| line.strip_prefix("# ")).collect();
    if headings != HEADINGS {
        return Some(format!("has the headings {headings:?}, not {HEADINGS:?}"));
    }
    let says_nothing = |heading: &&&str| {
        let after = page.iter().skip_while(|line| line.strip_prefix("# ") != Some(heading)).skip(1);
        after.take_while(|line| !line.starts_with("# ")).all(|line| line.is_empty())
    };
    HEADINGS.iter().find(|heading| says_nothing(heading)).map(|heading| format!("says nothing under {heading}"))
}

#[test]
fn every_op_has_a_page_with_the_seven_headings_in_order() {
    let fault = |op: &String| {
        let path = format!("src/ops/{op}/mod.rs");
        if !root().join(&path).is_file() {
            return Some(format!("{op}: {path} is missing"));
        }
        fault_of_page(&read(&path)).map(|fault| format!("{op}: its page {fault}"))
    };
    assert_none("ops without a proper page", ops().iter().filter_map(fault).collect());
}

#[test]
fn a_page_that_lacks_swaps_or_empties_a_heading_is_seen() {
    let page = |headings: &[&str]| headings.iter().map(|h| format!("//! # {h}\n//! text\n//!\n")).collect::<String>();
    assert_eq!(fault_of_page(&page(&HEADINGS)), None);
    assert!(fault_of_page(&page(&HEADINGS[..6])).is_some());
    let mut swapped = HEADINGS;
    swapped.swap(3, 4);
    assert!(fault_of_page(&page(&swapped)).is_some());
    let empty = page(&HEADINGS).replace("# Cost\n//! text", "# Cost");
    assert_eq!(fault_of_page(&empty), Some("says nothing under Cost".into()));
}

#[test]
fn every_op_has_a_path_on_the_cpu() {
    let lacks = |op: &String| !root().join(format!("src/ops/{op}/cpu.rs")).is_file();
    assert_none("ops without a cpu.rs", ops().into_iter().filter(lacks).collect());
}

/// What an op lacks on a CUDA device, if anything.
fn fault_of_kernels(op: &str, declared: &str, mutations: &str) -> Option<String> {
    let (launch, kernels) = (format!("src/ops/{op}/cuda.rs"), format!("kernels/{op}.cu"));
    if let Some(path) = [&launch, &kernels].into_iter().find(|path| !root().join(path).is_file()) {
        return Some(format!("{path} is missing"));
    }
    if !declared.lines().any(|line| line == format!("// {op}.cu")) {
        return Some(format!("the list of src/ops/mod.rs lacks {op}::KERNELS"));
    }
    let broken = mutations.lines().filter(|line| breaks(line, op)).count();
    (broken < 3).then(|| format!("emulator/mutations has {broken} of at least 3 lines that {op}:: must notice"))
}

/// Whether a line of mutations, `files @ tests @ sed expression`, is for the suite of an op.
fn breaks(line: &str, op: &str) -> bool {
    let mut parts = line.split('@');
    let named = |tests: &str| tests.split_whitespace().any(|test| test.split("::").next() == Some(op));
    !line.starts_with('#') && parts.nth(1).is_some_and(named)
}

#[test]
fn every_op_has_kernels_that_are_declared_and_broken_on_purpose() {
    let (declared, mutations) = (onkos::device::entry_points(), read("emulator/mutations"));
    let fault = |op: String| Some(format!("{op}: {}", fault_of_kernels(&op, &declared, &mutations)?));
    assert_none("ops without kernels", ops().into_iter().filter_map(fault).collect());
}

#[test]
fn a_mutation_is_counted_for_the_suites_it_names() {
    assert!(breaks("add.cu @ add:: @ s/a/b/", "add") && breaks("block.cuh add.cu @ cox::x add:: @ /a/d", "add"));
    assert!(!breaks("# add.cu @ add:: @ s/a/b/", "add") && !breaks("add.cu @ adder:: @ s/add/b/", "add"));
}

/// What is wrong with the first three lines of a kernel file, if anything: what, the page, the parallel decomposition.
fn fault_of_header(path: &str, source: &str) -> Option<String> {
    let lines: Vec<&str> = source.lines().take(3).collect();
    if lines.len() < 3 || lines.iter().any(|line| !line.starts_with("// ") || line.trim().len() < 12) {
        return Some(format!("{path} does not begin with three lines of comment"));
    }
    let named = lines.iter().find_map(|line| line.split_once("Page: ")).and_then(|(_, rest)| rest.split(' ').next());
    let page = named.map(|page| page.trim_end_matches('.'));
    match page {
        Some(page) if root().join(page).is_file() => {}
        _ => return Some(format!("{path}: its first lines must name its page, as in `// Page: src/ops/x/mod.rs.`")),
    }
    let stem = path.trim_start_matches("kernels/").trim_end_matches(".cu");
    let own = format!("src/ops/{stem}/mod.rs");
    (path.ends_with(".cu") && root().join(&own).is_file() && page != Some(&own))
        .then(|| format!("{path}: its page is {own}"))
}

#[test]
fn every_kernel_file_says_what_it_is_where_its_page_is_and_who_does_what() {
    let kernel = |path: &String| path.starts_with("kernels/") && extension(path) == "cu" && !path.contains("_test");
    let kernels = files().into_iter().filter(kernel);
    assert_none("headers of kernels", kernels.filter_map(|path| fault_of_header(&path, &read(&path))).collect());
    let page = |page: &str| format!("// What it calculates.\n// Page: {page}\n// One thread an element.\n");
    let fault = |path: &str, text: &str| fault_of_header(path, text);
    assert_eq!(fault("kernels/add.cu", &page("src/ops/add/mod.rs.")), None);
    for wrong in ["src/ops/cox/mod.rs", "src/ops/none/mod.rs", ""] {
        assert!(fault("kernels/add.cu", &page(wrong)).is_some(), "{wrong}");
    }
    assert!(fault("kernels/add.cu", "#include \"block.cuh\"\n\n\n").is_some());
}

#[test]
fn every_op_has_a_suite_that_runs() {
    let registered = read("tests/ops/main.rs");
    let fault = |op: String| {
        let path = format!("tests/ops/{op}.rs");
        if !root().join(&path).is_file() {
            return Some(format!("{op}: {path} is missing"));
        }
        if !read(&path).contains("#[test]") {
            return Some(format!("{op}: {path} has no test"));
        }
        let line = format!("mod {op};");
        (!registered.lines().any(|l| l == line)).then(|| format!("{op}: tests/ops/main.rs lacks `{line}`"))
    };
    assert_none("ops without a suite", ops().into_iter().filter_map(fault).collect());
}

#[test]
fn every_op_has_a_benchmark() {
    let timed: BTreeSet<&str> = onkos::bench::registry().iter().map(|case| case.op).collect();
    assert_none("ops without a case in src/bench", ops().into_iter().filter(|op| !timed.contains(&**op)).collect());
}

#[test]
fn no_source_file_is_too_long_to_read_in_one_go() {
    let source = |path: &String| ["rs", "cu", "cuh", "c", "cpp", "h", "py"].contains(&extension(path));
    let long = |path: String| {
        let lines = read(&path).lines().count();
        (lines > LINES).then(|| format!("{path} has {lines} lines"))
    };
    assert_none(
        &format!("files of more than {LINES} lines"),
        files().into_iter().filter(source).filter_map(long).collect(),
    );
}

/// Whether code (not a comment) has the keyword.
fn has_keyword(source: &str, keyword: &str) -> bool {
    let code = source.lines().map(|line| line.split("//").next().unwrap_or(""));
    code.into_iter().any(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == keyword))
}

#[test]
fn unsafe_code_stays_in_the_few_files_that_are_listed() {
    // In pieces, so that this file is none of those it looks for.
    let (keyword, permission) = (concat!("un", "safe"), concat!("(un", "safe_code)]"));
    let sources: Vec<String> = files().into_iter().filter(|path| extension(path) == "rs").collect();
    let with = |test: &dyn Fn(&str) -> bool| -> Vec<&str> {
        sources.iter().filter(|path| test(&read(path))).map(String::as_str).collect()
    };
    assert_eq!(with(&|source| has_keyword(source, keyword)), UNSAFE, "files with the keyword");
    assert_eq!(with(&|source| source.contains(permission)), UNSAFE, "files that lift the ban");
}

/// Targets of the links of a markdown text, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every other piece lies between backticks.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        found.extend(prose.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()).map(String::from));
        if let Some((name, target)) = prose.split_once("]: ")
            && name.starts_with('[')
        {
            found.extend(target.split_whitespace().next().map(String::from));
        }
    }
    found
}

#[test]
fn links_are_found_in_prose_and_not_in_code() {
    let text = "a [b](c.md) [`d`](e.md#f \"g\") `[h](i)`\n```\n[j](k)\n```\n[l]: m.md\n";
    assert_eq!(links(text), ["c.md", "e.md#f", "m.md"]);
}

#[test]
fn every_link_of_a_document_to_a_file_resolves() {
    let mut broken = Vec::new();
    for document in files().into_iter().filter(|path| extension(path) == "md") {
        let folder = root().join(&document).parent().map(PathBuf::from).expect("a file lies in a folder");
        for link in links(&read(&document)) {
            let target = link.split('#').next().unwrap_or("");
            let elsewhere = link.contains("://") || link.starts_with("mailto:") || target.is_empty();
            if !elsewhere && !folder.join(target).exists() {
                broken.push(format!("{document}: {link}"));
            }
        }
    }
    assert_none("links to nothing", broken);
}

/// Whether the text names a path below one of the folders: at the start of a word, followed by no more of a name.
fn names_path(text: &str, folder: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    text.match_indices(folder).any(|(at, _)| {
        let after = text[at + folder.len()..].chars().next();
        !text[..at].ends_with(part_of_name) && after.is_none_or(|c| c == '/' || !part_of_name(c))
    })
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    // In pieces, so that this file does not find itself.
    let folders = [concat!("/wo", "rk"), concat!("/ho", "me"), concat!("/ro", "ot"), concat!("/Us", "ers")];
    let mut wrong = Vec::new();
    for path in files() {
        let bytes = fs::read(root().join(&path)).expect("a file that was just listed");
        let text = String::from_utf8_lossy(&bytes);
        wrong.extend(folders.iter().filter(|f| names_path(&text, f)).map(|folder| format!("{path}: {folder}")));
    }
    assert_none("paths of a machine", wrong);
}

#[test]
fn a_path_is_told_from_a_part_of_another() {
    for text in ["/a/b", "cd /a", "\"/a\"", "x=/a/"] {
        assert!(names_path(text, "/a"), "{text}");
    }
    for text in ["/ab", "x/a/b", "../a", "https://x.y/a", "/a-b"] {
        assert!(!names_path(text, "/a"), "{text}");
    }
}

#[test]
fn documents_name_the_test_command_that_ci_runs() {
    let script = read(".ci/run");
    let commands: Vec<&str> = script
        .lines()
        .filter(|line| line.trim_start().starts_with("cargo test"))
        .map(|line| line.split(" 2>&1").next().unwrap_or("").trim())
        .collect();
    let [command] = commands[..] else { panic!(".ci/run runs the tests by one command, not by {commands:?}") };
    let mut documents = vec!["CONTRIBUTING.md"];
    // Written last: it has nothing to say before there is something to use.
    documents.extend(root().join("README.md").is_file().then_some("README.md"));
    for document in documents {
        let text = read(document);
        let line = |l: &str| l.split('#').next().is_some_and(|l| l.trim() == command);
        let named = text.lines().any(line) || text.contains(&format!("`{command}`"));
        assert!(named, "{document} does not name the command `{command}` that .ci/run runs");
    }
}

#[test]
fn the_licence_files_are_those_that_the_manifest_names() {
    assert!(read("Cargo.toml").contains("license = \"MIT OR Apache-2.0\""));
    let (mit, apache) = (read("LICENSE-MIT"), read("LICENSE-APACHE"));
    assert!(mit.contains("the onkos authors") && mit.contains("Permission is hereby granted, free of charge"));
    assert!(apache.contains("Apache License") && apache.contains("END OF TERMS AND CONDITIONS"));
}

#[test]
fn every_op_has_a_row_in_the_table_of_precisions() {
    let numerics = read("docs/numerics.md");
    let first_cells: String = numerics.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    let lacks = |op: &String| !first_cells.contains(&format!("`{op}`"));
    assert_none("ops that docs/numerics.md does not list", ops().into_iter().filter(lacks).collect());
}

#[test]
fn every_preprint_that_is_cited_is_in_the_bibliography() {
    const LISTED: &str = "docs/bibliography.md";
    let bibliography = read(LISTED);
    let (mut missing, mut seen) = (BTreeSet::new(), 0);
    for path in files().into_iter().filter(|path| ["rs", "md"].contains(&extension(path)) && path != LISTED) {
        for rest in read(&path).split("arXiv ").skip(1) {
            let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let number = number.trim_end_matches('.');
            // Four digits, a point, four or five digits.
            if number.len() >= 9 {
                seen += 1;
                if !bibliography.contains(number) {
                    missing.insert(format!("{path}: {number}"));
                }
            }
        }
    }
    assert!(seen > 0, "no citation was found");
    assert_none("preprints without an entry", missing.into_iter().collect());
}

#[test]
fn entry_points_of_kernels_are_those_that_the_library_declares() {
    let (path, want) = ("kernels/entry_points.h", onkos::device::entry_points());
    if std::env::var_os("ONKOS_BLESS").is_some_and(|v| v == "1") {
        fs::write(root().join(path), &want).expect("the header can be written");
    }
    assert!(read(path) == want, "{path} is out of date: run `ONKOS_BLESS=1 cargo test --test house entry_points`");
}
