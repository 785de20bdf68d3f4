//! Nothing to do until the kernels land: they are embedded or compiled here.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
