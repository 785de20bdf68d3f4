//! What the readers make of files that are well.

use onkos::FeatureType::{self, Bf16, F16, F32};
use onkos::data::{CoordUnit, Dialect, FeatureFile};

use crate::fixtures::{ROWS, WIDTH, feature, open, path, place, rows};

/// A file with the features of the formula, told to be of a dialect and a stored type; read whole and in parts.
#[track_caller]
fn read(name: &str, dialect: Dialect, stored: &str, dtype: FeatureType) -> FeatureFile {
    let file = open(name);
    assert_eq!((file.dialect(), file.stored_type(), file.dtype()), (dialect, stored, dtype), "{name}");
    assert_eq!((file.rows(), file.width()), (ROWS, WIDTH), "{name}");
    for part in [0..ROWS, 0..1, 3..3, 5..21, 31..33, ROWS - 1..ROWS] {
        let mut got = vec![0xee; part.len() * file.row_bytes()];
        file.read_rows(part.clone(), &mut got).unwrap();
        assert!(got == rows(dtype, part.clone(), WIDTH), "{name}: rows {part:?} differ");
    }
    file
}

#[track_caller]
fn places(file: &FeatureFile, unit: CoordUnit, stored: &str, step: f64) {
    let coords = file.coords().expect("the file has places");
    assert_eq!((coords.unit(), coords.stored_type()), (unit, stored));
    let want: Vec<[f64; 2]> = (0..ROWS).map(|i| place(i, step)).collect();
    assert_eq!(coords.read(0..ROWS).unwrap(), want);
    assert_eq!(coords.read(8..9).unwrap(), want[8..9]);
    assert_eq!(coords.range().unwrap(), Some([[0.0, 6.0 * step], [0.0, 5.0 * step]]));
}

#[test]
fn trident_has_encoder_patch_size_and_places_in_level_0_pixels() {
    let file = read("trident.h5", Dialect::Trident, "F32", F32);
    places(&file, CoordUnit::Level0Pixels, "I64", 512.0);
    assert_eq!(file.encoder(), Some("uni_v1"));
    let patch = file.patch_size();
    assert_eq!((patch.pixels, patch.level0_pixels, patch.microns), (Some(256.0), Some(512.0), None));
    assert!(file.notes().is_empty());
}

#[test]
fn half_precision_of_trident_stays_and_an_encoder_called_none_is_none() {
    let file = read("trident_f16.h5", Dialect::Trident, "F16", F16);
    assert_eq!(file.encoder(), None);
}

#[test]
fn slides_without_tissue_have_no_rows() {
    for (name, width) in [("trident_empty.h5", 0), ("trident_empty_width.h5", WIDTH)] {
        let file = open(name);
        assert_eq!((file.rows(), file.width(), file.dialect()), (0, width, Dialect::Trident));
        file.read_rows(0..0, &mut []).unwrap();
        let coords = file.coords().unwrap();
        assert_eq!((coords.read(0..0).unwrap(), coords.range().unwrap()), (vec![], None));
        assert_eq!(file.statistics().unwrap(), Default::default());
    }
}

#[test]
fn clam_in_chunks_of_32_rows_and_as_a_bare_tensor() {
    let file = read("clam.h5", Dialect::Clam, "F32", F32);
    places(&file, CoordUnit::Level0Pixels, "I32", 512.0);
    assert!(read("clam.pt", Dialect::Torch, "F32", F32).coords().is_none());
}

#[test]
fn stamp_of_three_ages_has_places_in_micrometres() {
    let file = read("stamp.h5", Dialect::Stamp, "F16", F16);
    places(&file, CoordUnit::Microns, "F32", 256.0);
    assert_eq!((file.encoder(), file.tensor()), (Some("uni2"), "feats"));
    assert_eq!((file.patch_size().microns, file.patch_size().pixels), (Some(256.0), Some(224.0)));

    let file = read("stamp_2_0.h5", Dialect::Stamp20, "F16", F16);
    places(&file, CoordUnit::Microns, "F32", 256.0);
    assert_eq!((file.encoder(), file.patch_size().microns), (Some("chief-ctranspath"), Some(256.0)));

    // 224 of its own unit are 256 micrometres.
    let file = read("stamp_historic.h5", Dialect::StampHistoric, "F32", F32);
    places(&file, CoordUnit::Microns, "I64", 256.0);
    assert!(file.notes().iter().any(|note| note.contains("224") && note.contains("256 micrometres")));

    let file = read("stamp_kronos.h5", Dialect::StampEmbeddings, "F32", F32);
    assert_eq!((file.tensor(), file.encoder(), file.coords().is_none()), ("patch_embeddings", Some("kronos"), true));
}

#[test]
fn a_leading_dimension_of_1_is_left_out() {
    assert_eq!(read("mmp.h5", Dialect::Mmp, "F32", F32).stored_shape(), [1, ROWS, WIDTH]);
    assert_eq!(read("res_feature.h5", Dialect::ResFeature, "F32", F32).stored_shape(), [1, ROWS, WIDTH]);
    assert_eq!(read("dict_one.pt", Dialect::TorchDictionary, "F32", F32).stored_shape(), [1, ROWS, WIDTH]);
}

#[test]
fn hdf5_of_any_chunks_and_versions_is_read() {
    // gzip and shuffle, chunks that divide rows; doubles.
    let file = read("plain.h5", Dialect::Hdf5, "F64", F32);
    assert!(file.notes().iter().any(|note| note.contains("F64")), "{:?}", file.notes());
    // The newest layout that libhdf5 writes, and checksums.
    places(&read("latest.h5", Dialect::Hdf5, "F32", F32), CoordUnit::Level0Pixels, "I64", 512.0);
}

#[test]
fn torch_in_each_type_with_strides_in_dictionaries_and_as_pickled_numpy() {
    read("half.pt", Dialect::Torch, "F16", F16);
    read("bfloat16.pt", Dialect::Torch, "BF16", Bf16);
    read("double.pt", Dialect::Torch, "F64", F32);
    read("trident.pt", Dialect::TorchNumpy, "F32", F32);
    let file = read("dict.pt", Dialect::TorchDictionary, "F32", F32);
    assert_eq!(file.tensor(), "features");
    places(&file, CoordUnit::Unknown, "I64", 512.0);

    // The transpose of a part of a larger matrix.
    let file = open("strided.pt");
    assert_eq!((file.rows(), file.width()), (ROWS, WIDTH));
    let mut got = vec![0; 4 * ROWS * WIDTH];
    file.read_rows(0..ROWS, &mut got).unwrap();
    let want: Vec<u8> =
        (0..ROWS).flat_map(|i| (0..WIDTH).flat_map(move |j| feature(j + 5, i + 3).to_le_bytes())).collect();
    assert!(got == want);
}

#[test]
fn numpy_by_rows_by_columns_and_in_archives() {
    read("plain.npy", Dialect::Npy, "F32", F32);
    read("fortran.npy", Dialect::Npy, "F16", F16);
    read("double.npy", Dialect::Npy, "F64", F32);
    places(&read("plain.npz", Dialect::Npz, "F32", F32), CoordUnit::Unknown, "I64", 512.0);
    read("compressed.npz", Dialect::Npz, "F16", F16);
}

#[test]
fn a_file_is_told_by_its_contents_and_not_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in
        [("clam.pt", "slide.h5"), ("trident.h5", "slide.pt"), ("plain.npy", "slide"), ("plain.npz", "x.npy")]
    {
        std::fs::copy(path(from), folder.path().join(to)).unwrap();
        let file = FeatureFile::open(folder.path().join(to)).unwrap();
        assert_eq!((file.rows(), file.dialect()), (ROWS, open(from).dialect()));
    }
}

#[test]
fn statistics_count_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(path("plain.npy")).unwrap();
    let start = bytes.len() - 4 * ROWS * WIDTH;
    let mut set = |row: usize, column: usize, value: f32| {
        let at = start + 4 * (row * WIDTH + column);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    (0..WIDTH).for_each(|column| set(2, column, 0.0));
    set(5, 3, f32::NAN);
    set(5, 4, f32::INFINITY);
    set(9, 0, f32::NEG_INFINITY);
    let name = folder.path().join("x.npy");
    std::fs::write(&name, bytes).unwrap();
    let counted = FeatureFile::open(name).unwrap().statistics().unwrap();
    assert_eq!((counted.nan_rows, counted.infinite_rows, counted.zero_rows), (1, 2, 1));
}

#[test]
fn rows_that_were_never_written_are_told_whatever_the_index_of_chunks() {
    // Sixteen rows are whole; of the next eight one chunk of two was written.
    const WHOLE: usize = 16;
    for name in ["interrupted.h5", "interrupted_fixed.h5", "interrupted_growing.h5", "interrupted_tree.h5"] {
        let file = open(name);
        let [note] = file.notes() else { panic!("{name}: {:?}", file.notes()) };
        assert!(note.starts_with(&format!("{} of {ROWS} rows of features were never written", ROWS - WHOLE)), "{note}");
        let mut got = vec![0xee; WHOLE * file.row_bytes()];
        file.read_rows(0..WHOLE, &mut got).unwrap();
        assert!(got == rows(F32, 0..WHOLE, WIDTH), "{name}");
        // The fill value.
        assert_eq!(file.statistics().unwrap().zero_rows, ROWS - WHOLE - 8, "{name}");
    }
    for name in ["trident.h5", "clam.h5", "latest.h5", "mmp.h5", "plain.h5"] {
        assert!(open(name).notes().iter().all(|note| !note.contains("never written")), "{name}");
    }
}
