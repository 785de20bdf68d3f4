//! Files that are not what they should be: one sentence that says what they are and what to do.

use onkos::data::FeatureFile;

use crate::fixtures::path;

#[track_caller]
fn refused(name: &str, words: &[&str]) {
    let sentence = FeatureFile::open(path(name)).map(|file| format!("{file:?}")).unwrap_err().to_string();
    assert!(sentence.contains(name) && words.iter().all(|word| sentence.contains(word)), "{sentence}");
    assert!(sentence.lines().count() == 1 && !sentence.contains("panicked"), "{sentence}");
}

#[test]
fn one_vector_for_a_slide_is_not_its_patches() {
    for name in ["trident_slide.h5", "stamp_slide.h5", "slide.pt"] {
        refused(name, &["one vector is a whole slide"]);
    }
}

#[test]
fn files_of_other_steps_of_the_tools_are_named() {
    refused("trident_patches.h5", &["places of patches and no features", "folder of the features"]);
    refused("clam_heatmap.h5", &["attention scores", "heatmap"]);
}

#[test]
fn a_pickle_that_calls_something_is_refused_by_name_and_nothing_is_executed() {
    // `system` of the module that `os` is on the machine that made the file.
    refused("os_system.pt", &["posix.system", "nothing in a file is executed"]);
    assert!(!std::path::Path::new("this-was-executed").exists());
    refused("object.npy", &["pickled objects of Python", "allow_pickle=True"]);
    refused("bare.pkl", &["pickle of Python on its own"]);
    refused("legacy.pt", &["before 1.6", "torch.save"]);
}

#[test]
fn ambiguous_and_foreign_files_are_refused() {
    refused("dict_two.pt", &["no tensor \"features\"", "\"a\", \"b\""]);
    refused("integers.h5", &["I32", "F32, F16, BF16 or F64"]);
    refused("big_endian.npy", &["big-endian"]);
    refused("other.zip", &["neither tensors of torch nor arrays of numpy"]);
}

#[test]
fn a_tensor_that_claims_more_than_its_memory_is_refused() {
    // A million rows of a million columns, all of them one number in the file.
    refused("expanded.pt", &["does not fit", "[1048576, 1048576]"]);
}

#[test]
fn what_is_no_file_of_features_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("slide.h5");
    for (bytes, words) in [
        (&b""[..], "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"<html>sign in</html>", "none of HDF5"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 that cannot be read"),
    ] {
        std::fs::write(&name, bytes).unwrap();
        let sentence = FeatureFile::open(&name).unwrap_err().to_string();
        assert!(sentence.contains(words), "{sentence}");
    }
    assert!(FeatureFile::open(folder.path()).unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn links_are_followed_within_a_file_and_never_in_circles() {
    for name in ["soft_loop.h5", "hard_loop.h5", "external.h5"] {
        refused(name, &[]);
    }
    let file = FeatureFile::open(path("linked.h5")).unwrap();
    assert_eq!((file.rows(), file.width()), (4, 3));
}
