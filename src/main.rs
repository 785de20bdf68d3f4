//! The program `onkos`.

fn main() {}
