//! Cohorts whose slides are in the files that pathologists have.

use std::fs;
use std::path::PathBuf;

use onkos::data::{Cohort, FeatureFile, Problem, Reading, check};
use onkos::model::{CohortSource, Recipe, Source};
use onkos::nn::Noise;
use onkos::rng::{Draws, name32};
use onkos::{Device, Error, Features};
use tempfile::TempDir;

use crate::fixtures::{ROWS, WIDTH, all, path, rows};

struct Folder(TempDir);

impl Folder {
    /// A cohort of one patient a pair: slides separated by `;`, and files to copy under names in the folder `slides`.
    fn new(patients: &[&str], files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let toml = "name = \"files\"\n[clinical]\nfile = \"clinical.csv\"\ncase = \"case\"\ntime = \"months\"\nevent = \"died\"\n\
                    slides = \"slides\"\n[slides]\ndir = \"slides\"\n";
        fs::write(folder.path("cohort.toml"), toml).unwrap();
        let row = |(i, slides): (usize, &&str)| format!("P{i},{},{},{slides}\n", i + 1, i % 2);
        let table: String = patients.iter().enumerate().map(row).collect();
        fs::write(folder.path("clinical.csv"), format!("case,months,died,slides\n{table}")).unwrap();
        fs::create_dir(folder.path("slides")).unwrap();
        for (from, to) in files {
            let to = folder.path("slides").join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(path(from), to).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Cohort {
        Cohort::open(self.path("cohort.toml")).unwrap_or_else(|e| panic!("{e}"))
    }

    fn problems(&self) -> Vec<Problem> {
        match Cohort::open(self.path("cohort.toml")) {
            Err(Error::Data(problems)) => problems.0,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bags_are_gathered_from_every_format_and_from_the_usual_folders() {
    let files = [
        ("trident.h5", "a.h5"),
        ("clam.h5", "h5_files/b.h5"),
        ("clam.pt", "pt_files/c.pt"),
        ("mmp.h5", "feats_h5/d.h5"),
        ("trident.pt", "feats_pt/e.pt"),
        ("plain.npz", "f.npz"),
        ("fortran.npy", "g.npy"),
        ("plain.h5", "h.h5"),
        ("double.npy", "i.npy"),
    ];
    let folder = Folder::new(&["a;b;c", "d.svs;e", "f", "h;i"], &files);
    let cohort = folder.open();
    let bags = cohort.slides.as_ref().unwrap();
    let (features, ragged) = bags.gather(&[3, 0, 2, 1]).unwrap();
    let lengths: Vec<usize> = ragged.iter().map(|bag| bag.len()).collect();
    assert_eq!(lengths, [2 * ROWS, 3 * ROWS, ROWS, 2 * ROWS]);
    let Features::F32(tensor) = features else { panic!("doubles are rounded to f32") };
    let slide = rows(bags.dtype(), 0..ROWS, WIDTH);
    let gathered: Vec<u8> = tensor.host().iter().flat_map(|x| x.to_le_bytes()).collect();
    assert!(gathered.chunks(slide.len()).all(|got| got == slide) && gathered.len() == 8 * slide.len());
    assert_eq!(cohort.files.len(), 2 + 8);
    let report = check(folder.path("cohort.toml"));
    assert!(
        report.sound && report.warnings.iter().any(|w| w.contains("1 more file:") && w.contains("F64")),
        "{report:?}"
    );
}

/// Every format, several in a bag.
fn all_formats() -> Folder {
    let files = [
        ("trident.h5", "a.h5"),
        ("clam.h5", "b.h5"),
        ("clam.pt", "c.pt"),
        ("mmp.h5", "d.h5"),
        ("trident.pt", "e.pt"),
        ("plain.npz", "f.npz"),
        ("plain.h5", "h.h5"),
        ("double.npy", "i.npy"),
        ("clam.h5", "j.h5"),
    ];
    Folder::new(&["a;b;c", "d;e", "f", "h;i", "j"], &files)
}

fn floats(features: &Features) -> &[f32] {
    let Features::F32(tensor) = features else { panic!("all of them are read as F32") };
    tensor.host()
}

#[test]
fn what_is_not_mapped_has_the_same_bytes() {
    let folder = all_formats();
    let gathered = [Reading::Mapped, Reading::Positioned].map(|reading| {
        let cohort = Cohort::open_by(folder.path("cohort.toml"), reading).unwrap();
        cohort.slides.unwrap().gather(&[3, 0, 2, 1, 4, 0]).unwrap()
    });
    assert!(!floats(&gathered[0].0).is_empty() && gathered[0] == gathered[1]);
    // Every file that opens, the half-precision ones and those that lie column by column too.
    let rows = |file: &std::path::Path, reading| {
        let opened = FeatureFile::open_by(file, reading).ok()?;
        let mut bytes = vec![0; opened.rows() * opened.row_bytes()];
        opened.read_rows(0..opened.rows(), &mut bytes).ok()?;
        Some((bytes, opened.coords().map(|coords| coords.read(0..opened.rows()).unwrap())))
    };
    let read = all().into_iter().filter_map(|file| {
        let mapped = rows(&file, Reading::Mapped);
        assert!(mapped == rows(&file, Reading::Positioned), "{}", file.display());
        mapped
    });
    assert!(read.count() > 10);
}

/// The rows are those that the generator names, out of every format, a batch ahead or not, however batches are composed.
#[test]
fn a_sample_of_patches_is_the_same_from_every_format_and_in_every_batch() {
    /// Fewer than any bag has, and more than half of the shorter ones.
    const MOST: usize = 25;
    let folder = all_formats();
    let noise = Noise { seed: 7, epoch: 3 };
    for reading in [Reading::Mapped, Reading::Positioned] {
        let cohort = Cohort::open_by(folder.path("cohort.toml"), reading).unwrap();
        let (bags, patients) = (cohort.slides.as_ref().unwrap(), (0..cohort.len()).collect::<Vec<_>>());
        let recipe = Recipe::fit(&onkos::config::RunConfig::default(), &cohort, &patients).unwrap();
        let want: Vec<Vec<f32>> = patients
            .iter()
            .map(|&p| {
                let (all, rows) = bags.gather(&[p]).unwrap();
                let stream = Draws::new(noise.seed, noise.epoch, "patches.sample").of(name32(&cohort.patients[p].case));
                let sample = stream.sample(rows.rows(), MOST);
                sample.iter().flat_map(|&row| floats(&all)[row * WIDTH..(row + 1) * WIDTH].to_vec()).collect()
            })
            .collect();
        let files = CohortSource::new(&recipe, &cohort).unwrap().showing(MOST);
        let ahead = CohortSource::new(&recipe, &cohort).unwrap().showing(MOST).on(Device::Cpu, 0).unwrap();
        let plan = vec![vec![0, 1, 2, 3, 4], vec![4, 2], vec![3], vec![1, 0, 1]];
        ahead.upcoming(&plan, 2, Some(noise)).unwrap();
        for batch in [&plan[..], &plan].concat() {
            for source in [&files, &ahead] {
                let patches = source.batch(&batch, Some(noise)).unwrap().patches.unwrap();
                let lengths: Vec<usize> = patches.bags.iter().map(|bag| bag.len()).collect();
                assert_eq!(lengths, vec![MOST; batch.len()]);
                let want: Vec<f32> = batch.iter().flat_map(|&p| want[p].clone()).collect();
                assert_eq!(floats(&patches.features), want, "{reading:?}, {batch:?}");
            }
        }
        // Another epoch draws others; evaluation shows all.
        let next = files.batch(&patients, Some(Noise { epoch: 4, ..noise })).unwrap().patches.unwrap();
        assert_ne!(floats(&next.features), want.concat());
        let all = ahead.batch(&patients, None).unwrap().patches.unwrap();
        assert_eq!(all.features, bags.gather(&patients).unwrap().0);
    }
}

/// Rows of zeros behind what a bag has or a sample of it, out of every format, a batch ahead or not, and in training alone.
#[test]
fn short_bags_are_padded_with_zeros_in_training() {
    let folder = all_formats();
    let noise = Noise { seed: 7, epoch: 3 };
    for (reading, most) in [(Reading::Mapped, 0), (Reading::Positioned, 0), (Reading::Mapped, 30)] {
        let cohort = Cohort::open_by(folder.path("cohort.toml"), reading).unwrap();
        let (bags, patients) = (cohort.slides.as_ref().unwrap(), (0..cohort.len()).collect::<Vec<_>>());
        let recipe = Recipe::fit(&onkos::config::RunConfig::default(), &cohort, &patients).unwrap();
        let pad_to = if most == 0 { bags.ragged().longest() + 3 } else { most };
        let plain = CohortSource::new(&recipe, &cohort).unwrap().showing(most);
        let files = CohortSource::new(&recipe, &cohort).unwrap().showing(most).padding(pad_to);
        let ahead = CohortSource::new(&recipe, &cohort).unwrap().showing(most).padding(pad_to);
        let ahead = ahead.on(Device::Cpu, 0).unwrap();
        let plan = vec![vec![0, 1, 2, 3, 4], vec![4, 2], vec![3], vec![1, 0, 1]];
        ahead.upcoming(&plan, 2, Some(noise)).unwrap();
        for batch in [&plan[..], &plan].concat() {
            let want: Vec<f32> = batch
                .iter()
                .flat_map(|&p| {
                    let mut rows = floats(&plain.batch(&[p], Some(noise)).unwrap().patches.unwrap().features).to_vec();
                    assert!(most > 0 || rows.len() < pad_to * WIDTH);
                    rows.resize(pad_to * WIDTH, 0.0);
                    rows
                })
                .collect();
            for source in [&files, &ahead] {
                let patches = source.batch(&batch, Some(noise)).unwrap().patches.unwrap();
                assert_eq!(patches.bags, onkos::Ragged::uniform(batch.len(), pad_to));
                assert_eq!(floats(&patches.features), want, "{reading:?}, {batch:?}");
                assert!(batch.iter().all(|&p| source.training_patches(p) == pad_to));
            }
        }
        let all = ahead.batch(&patients, None).unwrap().patches.unwrap();
        assert_eq!(all.features, bags.gather(&patients).unwrap().0, "evaluation pads nothing");
    }
}

#[test]
fn slides_of_another_width_type_or_encoder_are_listed() {
    let folder = Folder::new(&["a", "b", "c"], &[("trident.h5", "a.h5"), ("half.pt", "b.pt"), ("clam.pt", "c.pt")]);
    let found = folder.problems();
    let [Problem::SlideDiffers { file, want, got, .. }] = &found[..] else { panic!("{found:#?}") };
    assert!(file.ends_with("b.pt") && want == "24 wide in F32 of uni_v1" && got == "24 wide in F16", "{want}, {got}");
    // Of the same shape and type, but from other encoders: nothing but their names tells.
    let folder = Folder::new(&["a", "b"], &[("stamp.h5", "a.h5"), ("stamp_2_0.h5", "b.h5")]);
    let found = folder.problems();
    assert!(
        matches!(&found[..], [Problem::SlideDiffers { got, .. }] if got.ends_with("of chief-ctranspath")),
        "{found:#?}"
    );
}

#[test]
fn slides_without_tissue_are_told_and_a_patient_needs_another() {
    let files = [("trident.h5", "a.h5"), ("trident_empty.h5", "b.h5"), ("trident_empty.h5", "c.h5")];
    let folder = Folder::new(&["a;b", "c"], &files);
    let found = folder.problems();
    assert!(matches!(&found[..], [Problem::NoSlides { case, .. }] if case == "P1"), "{found:#?}");
    let toml = fs::read_to_string(folder.path("cohort.toml")).unwrap();
    fs::write(folder.path("cohort.toml"), toml + "missing = \"drop\"\n").unwrap();
    let cohort = folder.open();
    assert_eq!((cohort.dropped, cohort.slides.unwrap().ragged().rows()), (vec!["P1".to_owned()], ROWS));
    let warnings = check(folder.path("cohort.toml")).warnings;
    assert!(warnings.iter().any(|w| w == "2 slides have no patches: b, c"), "{warnings:?}");
}

#[test]
fn everything_that_is_refused_is_listed_at_once() {
    let files = [("trident_slide.h5", "a.h5"), ("os_system.pt", "b.pt"), ("object.npy", "c.npy"), ("clam.pt", "d.pt")];
    let found = Folder::new(&["a", "b", "c", "d"], &files).problems();
    let features = found.iter().filter(|p| matches!(p, Problem::Features { .. })).count();
    assert_eq!(features, 3, "{found:#?}");
}

#[test]
fn damage_that_only_reading_finds_is_found_when_the_cohort_opens() {
    let folder = Folder::new(&["a", "b"], &[("plain.h5", "a.h5"), ("clam.h5", "b.h5")]);
    let whole = fs::read(folder.path("slides/a.h5")).unwrap();
    // The first chunk: a stream of zlib with its usual first bytes.
    let chunk =
        whole.windows(2).rposition(|two| two == [0x78, 0x5e] || two == [0x78, 0x9c]).expect("a compressed chunk");
    let mut bytes = whole;
    bytes[chunk + 2..chunk + 12].fill(0xff);
    fs::write(folder.path("slides/a.h5"), bytes).unwrap();
    let found = folder.problems();
    assert!(matches!(&found[..], [Problem::Features { why, .. }] if why.contains("cannot be read")), "{found:#?}");
    // Without the look through all of it, the batch fails and nothing is made up.
    let cohort = Cohort::open_unscanned(folder.path("cohort.toml")).unwrap();
    let bags = cohort.slides.unwrap();
    assert!(bags.gather(&[1]).is_ok());
    assert!(bags.gather(&[1, 0]).unwrap_err().to_string().contains("a.h5"));
}

#[test]
fn a_nan_in_any_format_is_found_with_its_row() {
    for name in ["trident.h5", "clam.h5", "clam.pt", "plain.npy", "plain.npz", "stamp_historic.h5"] {
        let extension = name.rsplit_once('.').unwrap().1;
        let folder = Folder::new(&["a"], &[(name, &format!("a.{extension}"))]);
        let file = folder.path(&format!("slides/a.{extension}"));
        let mut bytes = fs::read(&file).unwrap();
        let row = rows(onkos::FeatureType::F32, 30..31, WIDTH);
        let at = bytes.windows(row.len()).position(|some| some == row).expect("rows lie as they are");
        bytes[at + 8..at + 12].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&file, bytes).unwrap();
        let found = folder.problems();
        let right =
            matches!(&found[..], [Problem::FeatureNotFinite { row: 30, column: 2, rows: 1, name, .. }] if name == "a");
        assert!(right, "{name}: {found:#?}");
    }
}
