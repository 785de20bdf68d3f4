//! The command line: parse, call, print. No logic.
//!
//! Results go to standard output, as text or with `--json` as one JSON document; progress and errors go to standard
//! error. The exit code is 0 only on success, and 2 for anything that the user can change.

/// Prints a line to standard output, like `println!` but without a panic where it is closed (`| head`) or full.
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::cli::print_line(format_args!($($arg)*))
    };
}

mod attend;
mod bench;
mod check;
mod doctor;
mod evaluate;
mod import;
mod inspect;
mod pack;
mod predict;
mod progress;
mod quickstart;
mod study;
mod table;
mod train;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::data::{Cohort, Problems, Reading};
use crate::device::Device;
use crate::error::{Error, Result, said};

/// Predicts how long cancer patients live from whole-slide images and gene expression.
#[derive(Debug, Parser)]
#[command(name = "onkos", version, about, long_about = None, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
struct Global {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Threads to use; results do not depend on it [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Where to calculate: auto, cpu or cuda:N
    #[arg(long, global = true, default_value = "auto")]
    device: String,
    /// Map no file of features: for network drives, where a file that gets shorter or a drive that goes away is then an
    /// error of that slide
    #[arg(long, global = true)]
    no_mmap: bool,
}

impl Global {
    /// How files of features are read.
    fn reading(&self) -> Reading {
        if self.no_mmap { Reading::Positioned } else { Reading::Mapped }
    }
}

/// A number from 1.
fn from_one(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|_| "not a whole number from 1".to_owned())?;
    if number == 0 { Err("must be at least 1".into()) } else { Ok(number) }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a small synthetic study, train on one of its cohorts and test on the other
    Quickstart(quickstart::Quickstart),
    /// Train on one cohort, test on others, and write a run folder
    Train(train::Train),
    /// Figures of a trained model on cohorts
    Evaluate(evaluate::Evaluate),
    /// Risks of the patients of a cohort, by a trained model
    Predict(predict::Predict),
    /// Train hosts with plug-ins on several cohorts, test each on the others, and write a report
    Study(study::Study),
    /// Heat maps: the attention of a trained model over the patches of slides
    Attend(attend::Attend),
    /// Everything that is wrong with a cohort, and what is in it
    Check(check::Check),
    /// Write cohort files for a study that lies as SurvPath, MCAT, CLAM or STAMP want it
    Import(import::ImportStudy),
    /// What files are, and what onkos would do with them
    Inspect(inspect::Inspect),
    /// Pack the features of a cohort into a store, once, for fast reading
    Pack(pack::Pack),
    /// What this build and this machine can do
    Doctor(doctor::Doctor),
    /// Time each op beside what the machine can do
    Bench(bench::Bench),
}

/// Runs the command of this process.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return explain(&usage),
    };
    let result = start(&cli.global).and_then(|device| match &cli.command {
        Command::Quickstart(command) => command.run(&cli.global, device),
        Command::Train(command) => command.run(&cli.global, device),
        Command::Evaluate(command) => command.run(&cli.global, device),
        Command::Predict(command) => command.run(&cli.global, device),
        Command::Study(command) => command.run(&cli.global, device),
        Command::Attend(command) => command.run(&cli.global, device),
        Command::Check(command) => command.run(&cli.global),
        Command::Import(command) => command.run(&cli.global),
        Command::Inspect(command) => command.run(&cli.global),
        Command::Pack(command) => command.run(&cli.global),
        Command::Doctor(command) => command.run(&cli.global),
        Command::Bench(command) => command.run(&cli.global, device),
    });
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::from(2),
        Err(error) => {
            if cli.global.json {
                print_error(&error.to_string());
            }
            let _ = writeln!(std::io::stderr(), "onkos: {error}");
            ExitCode::from(2)
        }
    }
}

/// Shows help that was asked for, or what is wrong with the arguments.
fn explain(usage: &clap::Error) -> ExitCode {
    if usage.use_stderr() && std::env::args().any(|arg| arg == "--json") {
        let text = usage.render().to_string();
        // The sentence; usage and hints follow after a blank line.
        let sentence = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        print_error(&sentence.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let printed = usage.print();
    if usage.use_stderr() || printed.is_err() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

/// How a command ended that said all there is to say.
enum Outcome {
    /// Well.
    Done,
    /// With something that the user must change; it was printed.
    Refused,
}

fn start(global: &Global) -> Result<Device> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ONKOS_LOG").unwrap_or_else(|_| "warn".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    if let Some(threads) = global.threads {
        // Fails only if a pool is there already, as when a test calls two commands in one process.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global();
    }
    Device::parse(&global.device)
}

/// Opens several cohorts, or fails with all problems of all of them.
fn open_all(paths: &[PathBuf], reading: Reading) -> Result<Vec<Cohort>> {
    let (mut cohorts, mut problems) = (Vec::new(), Problems::default());
    for path in paths {
        match Cohort::open_by(path, reading) {
            Ok(cohort) => cohorts.push(cohort),
            Err(Error::Data(of_this)) => problems.0.extend(of_this.0),
            Err(other) => return Err(other),
        }
    }
    if problems.is_empty() { Ok(cohorts) } else { Err(problems.into()) }
}

/// Prints a value as one JSON document.
fn print_json(value: &impl serde::Serialize) {
    say!("{}", serde_json::to_string_pretty(value).expect("plain data"));
}

fn print_error(sentence: &str) {
    say!("{}", serde_json::json!({ "error": sentence }));
}

/// See `say!`. A result that could not be told is no success, but what was written to files stays.
fn print_line(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(why) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        if why.kind() != std::io::ErrorKind::BrokenPipe {
            let _ = writeln!(std::io::stderr(), "onkos: standard output: {}", said(&why));
        }
        std::process::exit(2);
    }
}
