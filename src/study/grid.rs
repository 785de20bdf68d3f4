//! All cells of a study, side by side, going on where a killed run stopped.

use std::fs::{self, File, TryLockError};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::cell::{self, Stored};
use super::plan::{Cell, Plan};
use crate::device::{Device, Gpu};
use crate::error::{Error, Result};
use crate::train::Progress;

/// The file that makes a folder one of a study, and keeps a second process out of it.
const LOCK: &str = ".study";

/// What the run of a study tells.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// So many of all cells are finished already.
    Start {
        /// Finished before.
        finished: usize,
        /// All.
        cells: usize,
    },
    /// A training says something.
    Training {
        /// Which.
        cell: &'a Cell,
        /// What.
        progress: &'a Progress<'a>,
    },
    /// A cell is finished, or has failed.
    Done {
        /// Which.
        cell: &'a Cell,
    },
}

/// How a study is run.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Cells at a time; on cards one each.
    pub jobs: usize,
    /// Where they are trained: the CPU, whose threads they share, or the first of as many cards.
    pub device: Device,
}

impl Running {
    /// The device of each that trains. Cards that are not of one kind would give results that differ in their last bits.
    fn devices(&self) -> Result<Vec<Device>> {
        let Device::Cuda(first) = self.device else { return Ok(vec![Device::Cpu; self.jobs]) };
        let card = |ordinal: usize| {
            let jobs = format!("--jobs {} takes a card each, from {first} on", self.jobs);
            let refused =
                |why: String| Err(Error::Device { name: format!("cuda:{ordinal}"), why: format!("{why}; {jobs}") });
            let gpu = match Gpu::open(ordinal) {
                Ok(gpu) => gpu,
                Err(Error::Device { why, .. }) => return refused(why),
                Err(why) => return Err(why),
            };
            let kind = |gpu: Gpu| (gpu.name(), gpu.capability());
            if kind(gpu) != kind(first) {
                return refused(format!("it is of another kind than {first} ({}, {})", gpu.name(), first.name()));
            }
            Ok(Device::Cuda(gpu))
        };
        let others = (1..self.jobs).map(|i| card(first.ordinal() + i));
        std::iter::once(Ok(self.device)).chain(others).collect()
    }
}

impl Plan {
    /// Trains every cell that is not finished and gives all of them, and how many were trained now.
    pub(super) fn fill(&self, running: Running, observe: &(dyn Fn(Event<'_>) + Sync)) -> Result<(Vec<Stored>, usize)> {
        let (device, devices) = (running.device, running.devices()?);
        let _lock = self.lock()?;
        let cells = self.cells();
        let keys: Vec<String> = cells.iter().map(|cell| cell::key(self, cell, device)).collect();
        let is_open = |&i: &usize| cell::finished(self, &cells[i], &keys[i]).is_none();
        let open: Vec<usize> = (0..cells.len()).filter(is_open).collect();
        observe(Event::Start { finished: cells.len() - open.len(), cells: cells.len() });

        let (next, stop, failed) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(Vec::new()));
        let work = |device: Device| {
            while let Some(&number) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let this = &cells[number];
                let show = |progress: &Progress<'_>| observe(Event::Training { cell: this, progress });
                if let Err(error) = cell::make(self, this, &keys[number], device, show) {
                    // A disk that is full is full for all; a training that diverged is one of many.
                    stop.fetch_or(matches!(error, Error::Io { .. }), Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
                }
                observe(Event::Done { cell: this });
            }
        };
        let (jobs, work) = (running.jobs.min(open.len()), &work);
        if jobs <= 1 {
            work(device);
        } else {
            let threads = (crate::device::threads() / jobs).max(1);
            std::thread::scope(|scope| -> Result<()> {
                for &device in &devices[..jobs] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|why| {
                        Error::Setting { name: "--jobs", want: "fewer", value: format!("{jobs}: {why}") }
                    })?;
                    scope.spawn(move || pool.install(|| work(device)));
                }
                Ok(())
            })?;
        }
        let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.sort_by_key(|(number, _)| *number);
        if !failed.is_empty() {
            let sentence = |(number, error): &(usize, Error)| {
                let trained = self.names(&cells[*number]).join("/");
                format!("{trained}: {error}")
            };
            let problems = failed.iter().map(sentence).collect();
            return Err(Error::Study { path: self.out.clone(), problems });
        }
        let read = |(cell, key): (&Cell, &String)| {
            let result = cell::finished(self, cell, key).ok_or_else(|| Error::Study {
                path: cell::folder(self, cell),
                problems: vec!["it was changed while the study ran; run it again".into()],
            })?;
            cell::read(self, cell, result)
        };
        let stored = cells.iter().zip(&keys).map(read).collect::<Result<Vec<_>>>()?;
        Ok((stored, open.len()))
    }

    /// Takes the folder of the results for this process, and makes it if need be.
    fn lock(&self) -> Result<File> {
        let (out, path) = (&self.out, self.out.join(LOCK));
        let strange = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) && !path.exists();
        if strange || out.is_file() {
            return Err(Error::Exists { path: out.clone() });
        }
        fs::create_dir_all(out).map_err(Error::io(out))?;
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let problems = vec!["another onkos works on this study; wait for it, or choose another out".into()];
                Err(Error::Study { path: out.clone(), problems })
            }
            // Some drives have no locks: there the user must see to it.
            _ => Ok(file),
        }
    }
}
