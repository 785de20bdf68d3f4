//! The program `onkos`.

use std::process::ExitCode;

fn main() -> ExitCode {
    onkos::device::keep_freed_memory();
    onkos::cli::run()
}
