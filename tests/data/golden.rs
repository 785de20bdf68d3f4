//! Bins and scalers against what the published code of SurvPath and MMP computes.

use std::fs;
use std::path::Path;

use onkos::Tensor;
use onkos::data::{BinRule, Bins, MissingGenes, Rna, Scaler, Scaling, Signature};
use safetensors::{Dtype, SafeTensors};

struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Golden {
        Golden(fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name)).unwrap())
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap();
        let words = tensor.data().as_chunks::<8>().0;
        match tensor.dtype() {
            Dtype::F64 => words.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::I64 => words.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            other => panic!("{name} is {other:?}"),
        }
    }

    fn indices(&self, name: &str) -> Vec<usize> {
        self.numbers(name).into_iter().map(|x| x as usize).collect()
    }
}

/// Both sides interpolate `a + (b - a) t` with at most four roundings of numbers no larger than the largest edge.
fn assert_edges(ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len());
    let tolerance = 2.0 * 4.0 * f64::EPSILON / 2.0 * theirs[theirs.len() - 2].abs().max(theirs[0].abs()).max(1.0);
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() <= tolerance.max(f64::EPSILON * theirs.abs()), "{ours} is not {theirs}");
    }
}

#[test]
fn bins_are_those_of_survpath_and_mmp() {
    let golden = Golden::open("label_bins.safetensors");
    for case in ["gamma", "gamma3", "grid"] {
        let times = golden.numbers(&format!("in.{case}.time"));
        let events: Vec<bool> = golden.numbers(&format!("in.{case}.censorship")).iter().map(|&c| c == 0.0).collect();
        let n = golden.indices(&format!("in.{case}.n_bins"))[0];

        let bins = Bins::fit(BinRule::Survpath, &times, &events, n).unwrap();
        assert_edges(bins.edges(), &golden.numbers(&format!("out.{case}.survpath_edges")));
        assert_eq!(bins.bins(&times), golden.indices(&format!("out.{case}.survpath_bin")));

        let bins = Bins::fit(BinRule::Mmp, &times, &events, n).unwrap();
        assert_edges(bins.edges(), &golden.numbers(&format!("out.{case}.mmp_edges")));
        assert_eq!(bins.bins(&times), golden.indices(&format!("out.{case}.mmp_bin")));

        let third = |i: &usize| i.is_multiple_of(3);
        let some: Vec<f64> = (0..times.len()).filter(third).map(|i| times[i]).collect();
        assert_eq!(bins.bins(&some), golden.indices(&format!("out.{case}.mmp_bin_every3rd_with_given_edges")));
        let flags: Vec<bool> = (0..times.len()).filter(third).map(|i| events[i]).collect();
        let refit = Bins::fit(BinRule::Mmp, &some, &flags, n).unwrap();
        assert_edges(refit.edges(), &golden.numbers(&format!("out.{case}.mmp_edges_every3rd_refit")));
        assert_eq!(refit.bins(&some), golden.indices(&format!("out.{case}.mmp_bin_every3rd_refit")));
    }
}

/// Training and validation rows of the golden file as one table, and how many are for training.
fn rna(golden: &Golden) -> (Rna, usize) {
    let genes = 9;
    let values: Vec<f32> =
        ["in.train_raw", "in.val_raw"].iter().flat_map(|name| golden.numbers(name)).map(|x| x as f32).collect();
    let patients = values.len() / genes;
    let rna = Rna {
        genes: (0..genes).map(|g| format!("G{g}")).collect(),
        values: Tensor::new(&[patients, genes], values).unwrap(),
        present: vec![true; patients],
        clip: None,
    };
    (rna, golden.numbers("in.train_raw").len() / genes)
}

/// Compares with a result in f64 of the same raw values before they were rounded to f32.
///
/// With `u` half an ulp of 1, `X` the largest raw value and `f` the factor of the gene, to first order the rounding of
/// `x` moves `y = (x - shift) f` by at most `u X f` itself, by `u X f` through the shift, and by `u X f |y|` through
/// the factor (a deviation or half a range moves no further than the values do); the result is rounded once more.
/// Terms of second order are below a thousandth of these.
fn assert_scaled(ours: &[f32], theirs: &[f64], largest: f64, factor: impl Fn(usize) -> f64) {
    assert_eq!(ours.len(), theirs.len());
    let u = f64::from(f32::EPSILON) / 2.0;
    for (i, (&ours, &theirs)) in ours.iter().zip(theirs).enumerate() {
        let bound = 1.001 * u * (largest * factor(i) * (2.0 + theirs.abs()) + theirs.abs());
        assert!((f64::from(ours) - theirs).abs() <= bound, "[{i}]: {ours} is not {theirs} within {bound}");
    }
}

#[test]
fn scaling_is_that_of_survpath_and_mmp() {
    let golden = Golden::open("rna_scaling.safetensors");
    let (rna, train) = rna(&golden);
    let largest = rna.values.host().iter().fold(0f32, |m, x| m.max(x.abs())).into();
    let patients: Vec<usize> = (0..train).collect();
    let both = |kind: &str| {
        [golden.numbers(&format!("out.train_{kind}")), golden.numbers(&format!("out.val_{kind}"))].concat()
    };

    let scaler = Scaler::fit(Scaling::MinmaxGlobal, &rna, &patients).unwrap();
    let scaled = scaler.apply("golden", &rna, MissingGenes::Refuse).unwrap();
    let raw = golden.numbers("in.train_raw");
    let range = raw.iter().copied().fold(f64::MIN, f64::max) - raw.iter().copied().fold(f64::MAX, f64::min);
    assert_scaled(scaled.host(), &both("scaled"), largest, |_| 2.0 / range);
    let zeros = raw.iter().filter(|x| **x == 0.0).count();
    assert!(zeros > 0 && scaled.host().iter().filter(|x| **x == 0.0).count() >= zeros);

    let scaler = Scaler::fit(Scaling::Zscore, &rna, &patients).unwrap();
    let scaled = scaler.apply("golden", &rna, MissingGenes::Refuse).unwrap();
    let deviations = golden.numbers("out.mmp_scale");
    assert_scaled(
        scaled.host(),
        &[golden.numbers("out.mmp_train_scaled"), golden.numbers("out.mmp_val_scaled")].concat(),
        largest,
        |i| 1.0 / deviations[i % 9],
    );
}

#[test]
fn genes_of_a_pathway_are_sorted_as_in_survpath() {
    let golden = Golden::open("rna_scaling.safetensors");
    let (rna, _) = rna(&golden);
    for pathway in [1, 2] {
        let listed = golden.indices(&format!("in.pathway{pathway}_gene_idx_as_listed"));
        let mut genes: Vec<String> = listed.iter().map(|g| format!("G{g}")).collect();
        genes.push("ABSENT".into());
        let signature = Signature { name: "p".into(), genes };
        assert_eq!(signature.columns(&rna.genes), golden.indices(&format!("out.pathway{pathway}_gene_idx")));
    }
}
