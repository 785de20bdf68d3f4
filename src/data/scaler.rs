//! Scaling of gene expression, fitted on the training patients alone.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::problem::{Problem, Problems};
use super::rna::Rna;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How gene expression is scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// Each gene to mean 0 and standard deviation 1 over the training patients. A constant gene becomes 0.
    #[default]
    Zscore,
    /// All genes by one minimum and one maximum over the training patients to (-1, 1), as SurvPath does; a value that
    /// is exactly 0 before scaling is 0 after it.
    MinmaxGlobal,
    /// Clipped only.
    None,
}

/// What to do with a gene that the scaler knows and a cohort has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingGenes {
    /// Refuse the cohort and list the genes.
    #[default]
    Refuse,
    /// Let it be 0 after scaling: the mean of the training patients with [`Scaling::Zscore`].
    Zero,
}

/// A fitted scaling: genes by name, so that it fits any cohort whatever the order of its columns.
///
/// `y = (clip(x) - shift) * factor`, in f64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Scaler {
    scaling: Scaling,
    clip: Option<[f32; 2]>,
    genes: Vec<String>,
    /// One number a gene.
    shift: Vec<f64>,
    factor: Vec<f64>,
}

/// A scaler as someone wrote it down, before its parts are held against each other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    scaling: Scaling,
    clip: Option<[f32; 2]>,
    genes: Vec<String>,
    shift: Vec<f64>,
    factor: Vec<f64>,
}

impl TryFrom<Written> for Scaler {
    type Error = &'static str;
    fn try_from(Written { scaling, clip, genes, shift, factor }: Written) -> Result<Scaler, &'static str> {
        if shift.len() != genes.len() || factor.len() != genes.len() {
            return Err("a scaler must have one shift and one factor a gene");
        }
        // A clamp panics on a range that is upside down.
        if clip.is_some_and(|[low, high]| !matches!(low.partial_cmp(&high), Some(std::cmp::Ordering::Less))) {
            return Err("a scaler must clip to two numbers, the smaller first");
        }
        Ok(Scaler { scaling, clip, genes, shift, factor })
    }
}

impl Scaler {
    /// Fits a scaling on the given patients, the training ones, and on no other. Patients without RNA do not count.
    ///
    /// # Errors
    /// [`Error::Setting`] if none of the patients has RNA.
    pub fn fit(scaling: Scaling, rna: &Rna, train: &[usize]) -> Result<Scaler> {
        Scaler::fit_clipped(scaling, rna, rna.clip, train)
    }

    /// The same scaling of the same genes, fitted anew on patients of another cohort: what published code does to a target.
    /// Its numbers are then those of the target, which a model that is judged strictly must not see. Clipping stays; so do
    /// the numbers of genes that the cohort has not.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    pub fn refit(&self, rna: &Rna, patients: &[usize]) -> Result<Scaler> {
        let own = Scaler::fit_clipped(self.scaling, rna, self.clip, patients)?;
        let places: HashMap<&str, usize> = own.genes.iter().enumerate().map(|(i, gene)| (gene.as_str(), i)).collect();
        let mut refitted = self.clone();
        for (gene, name) in self.genes.iter().enumerate() {
            if let Some(&place) = places.get(name.as_str()) {
                (refitted.shift[gene], refitted.factor[gene]) = (own.shift[place], own.factor[place]);
            }
        }
        Ok(refitted)
    }

    fn fit_clipped(scaling: Scaling, rna: &Rna, clip: Option<[f32; 2]>, train: &[usize]) -> Result<Scaler> {
        let rows: Vec<&[f32]> = train.iter().filter(|&&p| rna.present[p]).map(|&p| rna.row(p)).collect();
        if rows.is_empty() {
            let want = "at least 1 with gene expression";
            return Err(Error::Setting { name: "training patients", want, value: "0".into() });
        }
        let genes = rna.genes.len();
        let (shift, factor) = match scaling {
            Scaling::Zscore => (0..genes).map(|g| standardise(&rows, g, clip)).unzip(),
            Scaling::MinmaxGlobal => {
                let (low, high) = (rows.iter().flat_map(|row| row.iter()).map(|&x| clipped(x, clip)))
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
                // 2 (x - low) / (high - low) - 1 is zero half way. One value alone has no range: all become 0.
                let factor = if high > low { 2.0 / (high - low) } else { 0.0 };
                (vec![low / 2.0 + high / 2.0; genes], vec![factor; genes])
            }
            Scaling::None => (vec![0.0; genes], vec![1.0; genes]),
        };
        Ok(Scaler { scaling, clip, genes: rna.genes.clone(), shift, factor })
    }

    /// The genes, in the order of the columns that [`apply`](Self::apply) gives.
    pub fn genes(&self) -> &[String] {
        &self.genes
    }

    /// How it scales.
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// The genes of the scaler that a cohort has not.
    pub fn missing(&self, rna: &Rna) -> Vec<String> {
        let has: std::collections::HashSet<&str> = rna.genes.iter().map(String::as_str).collect();
        self.genes.iter().filter(|gene| !has.contains(gene.as_str())).cloned().collect()
    }

    /// The scaled expression of the genes of the scaler, `[patients, genes]`; the row of a patient without RNA is 0.
    ///
    /// `cohort` is the name to complain with.
    ///
    /// # Errors
    /// [`Problem::MissingGenes`] if genes are missing and that is to be refused, or if all are.
    pub fn apply(&self, cohort: &str, rna: &Rna, missing: MissingGenes) -> Result<Tensor<f32>> {
        let absent = self.missing(rna);
        if !absent.is_empty() && (missing == MissingGenes::Refuse || absent.len() == self.genes.len()) {
            return Err(Problems(vec![Problem::MissingGenes { cohort: cohort.into(), genes: absent }]).into());
        }
        let places: HashMap<&str, usize> = rna.genes.iter().enumerate().map(|(i, gene)| (gene.as_str(), i)).collect();
        let columns: Vec<Option<usize>> = self.genes.iter().map(|gene| places.get(gene.as_str()).copied()).collect();
        let mut scaled = Vec::with_capacity(rna.present.len() * columns.len());
        for (patient, &present) in rna.present.iter().enumerate() {
            let row = rna.row(patient);
            scaled.extend(columns.iter().enumerate().map(|(gene, &column)| match column {
                Some(column) if present => self.scale(gene, row[column]),
                _ => 0.0,
            }));
        }
        Tensor::new(&[rna.present.len(), columns.len()], scaled)
    }

    fn scale(&self, gene: usize, x: f32) -> f32 {
        if self.scaling == Scaling::MinmaxGlobal && x == 0.0 {
            return 0.0;
        }
        ((clipped(x, self.clip) - self.shift[gene]) * self.factor[gene]) as f32
    }
}

fn clipped(x: f32, clip: Option<[f32; 2]>) -> f64 {
    clip.map_or(x, |[low, high]| x.clamp(low, high)).into()
}

/// The mean of a gene, and one over its standard deviation (that of the population, with n below).
fn standardise(rows: &[&[f32]], gene: usize, clip: Option<[f32; 2]>) -> (f64, f64) {
    let values = || rows.iter().map(|row| clipped(row[gene], clip));
    let first = clipped(rows[0][gene], clip);
    if values().all(|x| x == first) {
        // A computed deviation could come out as a rounding error and blow the gene up in another cohort.
        return (first, 0.0);
    }
    let n = rows.len() as f64;
    let mean = values().sum::<f64>() / n;
    let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rna(genes: &[&str], rows: &[&[f32]], clip: Option<[f32; 2]>) -> Rna {
        Rna {
            genes: genes.iter().map(|g| g.to_string()).collect(),
            values: Tensor::new(&[rows.len(), genes.len()], rows.concat()).unwrap(),
            present: vec![true; rows.len()],
            clip,
        }
    }

    #[test]
    fn training_patients_alone_decide_and_constant_genes_become_zero() {
        let rna = rna(&["A", "B"], &[&[1.0, 7.0], &[3.0, 7.0], &[100.0, 8.0]], None);
        let scaler = Scaler::fit(Scaling::Zscore, &rna, &[0, 1]).unwrap();
        let scaled = scaler.apply("x", &rna, MissingGenes::Refuse).unwrap();
        assert_eq!(scaled.host(), [-1.0, 0.0, 1.0, 0.0, 98.0, 0.0]);
    }

    #[test]
    fn values_are_clipped_as_the_training_cohort_asks_before_they_are_scaled() {
        let train = rna(&["A"], &[&[-9.0], &[9.0]], Some([-2.0, 2.0]));
        let scaler = Scaler::fit(Scaling::Zscore, &train, &[0, 1]).unwrap();
        let target = rna(&["A"], &[&[1.0], &[50.0]], None);
        assert_eq!(scaler.apply("t", &target, MissingGenes::Refuse).unwrap().host(), [0.5, 1.0]);
    }

    #[test]
    fn a_scaler_is_fitted_anew_on_a_target_gene_by_gene() {
        let train = rna(&["A", "B", "C"], &[&[0.0, 0.0, 5.0], &[2.0, 4.0, 7.0]], Some([-8.0, 8.0]));
        let target = rna(&["C", "A"], &[&[0.0, 10.0], &[4.0, 14.0]], None);
        let scaler = Scaler::fit(Scaling::Zscore, &train, &[0, 1]).unwrap();
        let refitted = scaler.refit(&target, &[0, 1]).unwrap();
        assert_eq!(refitted.genes(), scaler.genes());
        // A is 10 and 14, clipped to 8 as the training cohort asks, and so constant.
        assert_eq!(refitted.apply("t", &target, MissingGenes::Zero).unwrap().host(), [0.0, 0.0, -1.0, 0.0, 0.0, 1.0]);
        let minmax = Scaler::fit(Scaling::MinmaxGlobal, &train, &[0, 1]).unwrap().refit(&target, &[0, 1]).unwrap();
        assert_eq!(minmax.apply("t", &target, MissingGenes::Zero).unwrap().host(), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn genes_are_found_by_name_and_missing_ones_are_listed_or_zero() {
        let train = rna(&["A", "B", "C"], &[&[0.0, 0.0, 0.0], &[2.0, 4.0, 8.0]], None);
        let scaler = Scaler::fit(Scaling::Zscore, &train, &[0, 1]).unwrap();
        let target = rna(&["Z", "C", "A"], &[&[5.0, 8.0, 2.0]], None);
        match scaler.apply("t", &target, MissingGenes::Refuse) {
            Err(Error::Data(problems)) => {
                assert_eq!(problems.0, [Problem::MissingGenes { cohort: "t".into(), genes: vec!["B".into()] }]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(scaler.apply("t", &target, MissingGenes::Zero).unwrap().host(), [1.0, 0.0, 1.0]);
        let stranger = rna(&["Z"], &[&[5.0]], None);
        assert!(scaler.apply("t", &stranger, MissingGenes::Zero).is_err());
    }

    #[test]
    fn global_minmax_keeps_exact_zeros_and_reaches_both_ends() {
        let train = rna(&["A", "B"], &[&[-1.0, 0.0], &[3.0, 1.0]], None);
        let scaler = Scaler::fit(Scaling::MinmaxGlobal, &train, &[0, 1]).unwrap();
        assert_eq!(scaler.apply("t", &train, MissingGenes::Refuse).unwrap().host(), [-1.0, 0.0, 1.0, 0.0]);
        let flat = rna(&["A"], &[&[4.0], &[4.0]], None);
        let scaler = Scaler::fit(Scaling::MinmaxGlobal, &flat, &[0, 1]).unwrap();
        assert_eq!(scaler.apply("t", &flat, MissingGenes::Refuse).unwrap().host(), [0.0, 0.0]);
    }

    #[test]
    fn patients_without_rna_neither_count_nor_get_any() {
        let mut rna = rna(&["A"], &[&[1.0], &[3.0], &[0.0]], None);
        rna.present[2] = false;
        let scaler = Scaler::fit(Scaling::Zscore, &rna, &[0, 1, 2]).unwrap();
        assert_eq!(scaler.apply("t", &rna, MissingGenes::Refuse).unwrap().host(), [-1.0, 1.0, 0.0]);
        assert!(matches!(Scaler::fit(Scaling::None, &rna, &[2]), Err(Error::Setting { .. })));
    }

    #[test]
    fn a_scaler_survives_being_written_down() {
        let rna = rna(&["A", "B"], &[&[0.1, 2.7], &[3.3, -1.9], &[0.7, 0.2]], Some([-6.0, 6.0]));
        for scaling in [Scaling::Zscore, Scaling::MinmaxGlobal, Scaling::None] {
            let scaler = Scaler::fit(scaling, &rna, &[0, 1, 2]).unwrap();
            let text = serde_json::to_string(&scaler).unwrap();
            assert_eq!(serde_json::from_str::<Scaler>(&text).unwrap(), scaler);
            for (from, to) in [("[\"A\",", "["), ("[-6.0,6.0]", "[6.0,-6.0]"), ("\"shift\"", "\"shifts\"")] {
                assert!(text.contains(from));
                assert!(serde_json::from_str::<Scaler>(&text.replace(from, to)).is_err());
            }
        }
    }
}
