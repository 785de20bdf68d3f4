//! The program `onkos`.

use std::process::ExitCode;

fn main() -> ExitCode {
    onkos::cli::run()
}
