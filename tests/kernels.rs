//! Device code that also compiles on the host: the same bits as the library's own.

use std::path::Path;
use std::process::Command;

use onkos::rng::Draws;

/// Prints words of streams, one a line: what the test below draws too.
const PROGRAM: &str = r#"
#include "philox.cuh"
#include <stdint.h>
#include <stdio.h>
int main() {
    for (uint32_t p = 0; p < 40; ++p) {
        const onkos::Stream s{0x123456789abcdef0ull + p, p * 2654435761u, p, 7u * p};
        for (uint64_t i = 0; i < 25; ++i) printf("%u %.9g\n", s.word(i * i * i), s.uniform(i));
    }
}
"#;

#[test]
fn philox_of_the_kernels_draws_the_words_of_the_library() {
    let compiler = ["c++", "g++", "clang++"].into_iter().find(|c| Command::new(c).arg("--version").output().is_ok());
    let Some(compiler) = compiler else {
        println!("skipped: no C++ compiler is here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("words.cpp"), folder.path().join("words"));
    std::fs::write(&source, PROGRAM).unwrap();
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I"];
    let built = Command::new(compiler).args(flags).arg(kernels).arg(&source).arg("-o").arg(&program).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let printed = String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap();

    let mut lines = printed.lines();
    for p in 0..40u32 {
        let seed = 0x1234_5678_9abc_def0 + u64::from(p);
        let stream = Draws { seed, epoch: p, purpose: 7 * p }.of(p.wrapping_mul(2_654_435_761));
        for i in 0..25u64 {
            let (word, uniform) = lines.next().unwrap().split_once(' ').unwrap();
            assert_eq!(word.parse(), Ok(stream.word(i * i * i)), "patient {p}, word {i}");
            assert_eq!(uniform.parse::<f64>().unwrap() as f32, stream.uniform(i) as f32, "patient {p}, word {i}");
        }
    }
    assert_eq!(lines.next(), None);
}
