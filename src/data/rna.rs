//! Gene expression: a matrix of patients and genes, as measured.

use std::path::Path;

use super::bytes::Reading;
use super::clinical::Clinical;
use super::file::{MissingRna, RnaFile};
use super::problem::{Problem, Problems};
use super::rna_table::from_table;
use super::table::{read_text, refuse_duplicate_genes};
use super::tensors::TensorFile;
use crate::tensor::Tensor;

/// The gene expression of a cohort, as its file has it: neither clipped nor scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rna {
    /// The names of the columns; they differ.
    pub genes: Vec<String>,
    /// `[patients, genes]`; the row of a patient without RNA is zero.
    pub values: Tensor<f32>,
    /// Whether a patient has RNA.
    pub present: Vec<bool>,
    /// The range that the cohort file asks to clip to.
    pub clip: Option<[f32; 2]>,
}

impl Rna {
    /// The values of one patient.
    pub fn row(&self, patient: usize) -> &[f32] {
        let genes = self.genes.len();
        &self.values.host()[patient * genes..(patient + 1) * genes]
    }

    /// Only the rows of the given patients, in that order.
    pub(super) fn select(&self, patients: &[usize]) -> Rna {
        let values: Vec<f32> = patients.iter().flat_map(|&p| self.row(p)).copied().collect();
        Rna {
            genes: self.genes.clone(),
            values: Tensor::new(&[patients.len(), self.genes.len()], values)
                .expect("rows have as many values as genes"),
            present: patients.iter().map(|&p| self.present[p]).collect(),
            clip: self.clip,
        }
    }

    /// Reads the section `[rna]` for the patients of a clinical table; without that table, only checks the file.
    pub(crate) fn read(
        folder: &Path,
        section: &RnaFile,
        clinical: Option<&Clinical>,
        problems: &mut Problems,
    ) -> Option<Rna> {
        let file = folder.join(&section.file);
        let (genes, values, mut present) = if section.is_table() {
            from_table(&file, section, clinical, problems)?
        } else {
            from_tensor(&file, folder, section, clinical, problems)?
        };
        let mut values = values;
        let clinical = clinical?;
        for (patient, row) in values.chunks_exact_mut(genes.len().max(1)).enumerate() {
            if row.iter().all(|x| x.is_nan()) {
                present[patient] = false;
                row.fill(0.0);
            }
            if clinical.left_out[patient].is_some() {
                continue;
            }
            let case = || clinical.patients[patient].case.clone();
            if !present[patient] && section.missing == MissingRna::Error {
                problems.push(Problem::NoRna { file: file.clone(), case: case() });
            }
            let mut wrong = row.iter().enumerate().filter(|(_, x)| !x.is_finite());
            if let Some((gene, &value)) = wrong.next() {
                let (gene, count) = (genes[gene].clone(), 1 + wrong.count());
                problems.push(Problem::RnaNotFinite { file: file.clone(), case: case(), gene, value, count });
            }
        }
        let values = Tensor::new(&[present.len(), genes.len()], values).expect("one row a patient was read");
        Some(Rna { genes, values, present, clip: section.clip })
    }
}

/// Genes, values of one row a patient, and which patients have any.
pub(super) type Matrix = (Vec<String>, Vec<f32>, Vec<bool>);

fn from_tensor(
    file: &Path,
    folder: &Path,
    section: &RnaFile,
    clinical: Option<&Clinical>,
    problems: &mut Problems,
) -> Option<Matrix> {
    let genes = section.genes.as_ref().and_then(|genes| read_genes(&folder.join(genes), problems));
    let name = section.tensor.as_deref().unwrap_or("rna");
    let tensors = TensorFile::open(file, Reading::Positioned, problems)?;
    let info = tensors.tensor(name, problems)?;
    let patients = clinical.map(|c| c.patients.len());
    let &[rows, columns] = info.shape.as_slice() else {
        let want = "[patients, genes]".into();
        problems.push(Problem::TensorShape { file: file.into(), tensor: name.into(), want, got: info.shape.clone() });
        return None;
    };
    let mut fits = columns > 0;
    if columns == 0 {
        problems.push(Problem::WidthZero { file: file.into(), tensor: name.into() });
    }
    if let Some(patients) = patients.filter(|&p| p != rows) {
        let want = format!("[{patients}, genes], one row for each row of the clinical table");
        problems.push(Problem::TensorShape { file: file.into(), tensor: name.into(), want, got: info.shape.clone() });
        fits = false;
    }
    if let Some(got) = genes.as_ref().map(Vec::len).filter(|&g| g != columns) {
        let file = folder.join(section.genes.as_ref()?);
        problems.push(Problem::GeneCount { file, want: columns, got });
        fits = false;
    }
    let values = tensors.floats(name, info, problems)?;
    if fits { Some((genes?, values, vec![true; rows])) } else { None }
}

/// One gene a line; blank lines at the end are none.
fn read_genes(file: &Path, problems: &mut Problems) -> Option<Vec<String>> {
    let text = read_text(file, problems)?;
    let genes: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
    for (i, _) in genes.iter().enumerate().filter(|(_, gene)| gene.is_empty()) {
        problems.push(Problem::Blank { file: file.into(), line: i + 1, column: "gene".into() });
    }
    let named = genes.iter().enumerate().filter(|(_, gene)| !gene.is_empty());
    refuse_duplicate_genes(file, named.map(|(i, gene)| (i + 1, *gene)), problems);
    Some(genes.into_iter().map(str::to_owned).collect())
}
