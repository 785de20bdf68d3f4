//! Sets of genes that belong together.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::problem::{Problem, Problems};
use super::table::{Table, refuse_duplicate_genes};

/// A set of genes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// What the set is called.
    pub name: String,
    /// Its genes, each once, in the order of the file; not all need be measured.
    pub genes: Vec<String>,
}

impl Signature {
    /// The columns of its genes in a matrix of the given genes, in the alphabetical order of the names.
    ///
    /// Genes that are not there are left out; SurvPath has the same order.
    pub fn columns(&self, genes: &[String]) -> Vec<usize> {
        let places: HashMap<&str, usize> = genes.iter().enumerate().map(|(i, gene)| (gene.as_str(), i)).collect();
        let sorted: BTreeSet<&str> = self.genes.iter().map(String::as_str).collect();
        sorted.into_iter().filter_map(|gene| places.get(gene).copied()).collect()
    }
}

/// Reads rows of `family,signature,gene`, one column a signature with its genes, or a row a gene with 0 and 1 under each
/// signature.
pub(crate) fn read(file: &Path, family: Option<&str>, problems: &mut Problems) -> Option<Vec<Signature>> {
    let table = Table::read(file, true, problems)?;
    let has = |name: &str| table.header.iter().any(|h| h == name);
    let rows: Vec<(&str, &str)> = if has("signature") && has("gene") {
        let signature = table.column("signature", problems)?;
        let gene = table.column("gene", problems)?;
        let families = if has("family") { Some(table.column("family", problems)?) } else { None };
        let known: BTreeSet<&str> = families.iter().flat_map(|&f| table.rows.iter().map(move |r| r.cell(f))).collect();
        match family {
            Some(family) if !known.contains(family) => {
                let has = known.iter().map(|&f| f.to_owned()).collect();
                problems.push(Problem::UnknownFamily { file: file.into(), family: family.into(), has });
                return None;
            }
            None if known.len() > 1 => {
                let why = "is missing; the table of signatures has several families, name the one to use";
                problems.push(Problem::Key { file: file.into(), key: "rna.family", why });
                return None;
            }
            _ => {}
        }
        let chosen = |row: &&super::table::Row| families.zip(family).is_none_or(|(c, family)| row.cell(c) == family);
        table.rows.iter().filter(chosen).map(|row| (row.cell(signature), row.cell(gene))).collect()
    } else {
        if family.is_some() {
            let why = "chooses a family, but the table of signatures has one column a signature and no families";
            problems.push(Problem::Key { file: file.into(), key: "rna.family", why });
        }
        if is_composition(&table) {
            return composition(&table, problems);
        }
        // A column without a name is the index that pandas writes.
        let columns = table.header.iter().enumerate().filter(|(_, name)| !name.is_empty());
        columns.flat_map(|(c, name)| table.rows.iter().map(move |row| (name.as_str(), row.cell(c)))).collect()
    };

    let mut signatures: Vec<Signature> = Vec::new();
    let mut places = HashMap::new();
    let mut seen = BTreeSet::new();
    for (name, gene) in rows.into_iter().filter(|(name, gene)| !name.is_empty() && !gene.is_empty()) {
        let place = *places.entry(name).or_insert_with(|| {
            signatures.push(Signature { name: name.into(), genes: Vec::new() });
            signatures.len() - 1
        });
        if seen.insert((place, gene)) {
            signatures[place].genes.push(gene.into());
        }
    }
    Some(signatures)
}

/// 0 or 1, also as a float.
fn member(cell: &str) -> Option<bool> {
    match cell.parse::<f32>() {
        Ok(0.0) => Some(false),
        Ok(1.0) => Some(true),
        _ => None,
    }
}

/// Whether a table has genes in its first column and 0 or 1 elsewhere. Its first row decides, as no gene is called so.
fn is_composition(table: &Table) -> bool {
    let first = table.rows.first();
    table.header.len() > 1 && first.is_some_and(|row| (1..table.header.len()).all(|c| member(row.cell(c)).is_some()))
}

/// One signature a column, of the genes with a 1.
fn composition(table: &Table, problems: &mut Problems) -> Option<Vec<Signature>> {
    let mut signatures: Vec<Signature> =
        table.header[1..].iter().map(|name| Signature { name: name.clone(), genes: Vec::new() }).collect();
    refuse_duplicate_genes(&table.file, table.rows.iter().map(|row| (row.line, row.cell(0))), problems);
    for row in &table.rows {
        for (signature, column) in signatures.iter_mut().zip(1..) {
            match member(row.cell(column)) {
                Some(true) => signature.genes.push(row.cell(0).into()),
                Some(false) => {}
                None => problems.push(Problem::Composition {
                    file: table.file.clone(),
                    line: row.line,
                    column: signature.name.clone(),
                    value: row.cell(column).into(),
                }),
            }
        }
    }
    signatures.retain(|signature| !signature.name.is_empty());
    Some(signatures)
}

/// Reports signatures of which no gene at all was measured: the names of genes are of another kind.
pub(crate) fn check(file: &Path, signatures: &[Signature], genes: &[String], problems: &mut Problems) {
    if signatures.iter().all(|s| s.columns(genes).is_empty()) {
        problems.push(Problem::NoGeneInCommon { file: file.into(), signatures: signatures.len() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str, family: Option<&str>) -> (Option<Vec<Signature>>, Problems) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut problems = Problems::default();
        (read(file.path(), family, &mut problems), problems)
    }

    #[test]
    fn both_forms_give_the_same_sets() {
        let long = "family,signature,gene,extra\nh,S1,A,1\nk,S9,Z,1\nh,S1,B,0\nh,S2,B,1\nh,S1,A,1\n";
        let wide = ",S1,S2\n0,A,B\n1,B\n2,A,\n";
        let long = table(long, Some("h")).0.unwrap();
        assert_eq!(long, table(wide, None).0.unwrap());
        assert_eq!(long[0], Signature { name: "S1".into(), genes: vec!["A".into(), "B".into()] });
    }

    #[test]
    fn genes_and_signatures_with_0_and_1_give_the_same_sets() {
        let wide = table(",S1,S2\n0,A,B\n1,B\n2,A,\n", None).0.unwrap();
        for first in ["", "gene"] {
            for text in ["S1,S2\nA,1,0\nB,1,1\nC,0,0\n", "S1,S2\r\nA,1.0,0.0\r\nB,1.0,1.0\r\n"] {
                assert_eq!(table(&format!("{first},{text}"), None).0.unwrap(), wide);
            }
        }
        let found = table("gene,S1\nA,1\nB,2\nA,\n", None).1.0;
        assert!(
            matches!(&found[..], [
                Problem::DuplicateGene { line: 4, .. },
                Problem::Composition { line: 3, value, .. },
                Problem::Composition { line: 4, .. },
            ] if value == "2"),
            "{found:?}"
        );
    }

    #[test]
    fn the_family_must_be_there_and_be_named_when_there_are_several() {
        let long = "family,signature,gene\nh,S1,A\nk,S9,Z\n";
        assert!(
            matches!(&table(long, Some("x")).1.0[..], [Problem::UnknownFamily { has, .. }] if has[..] == ["h", "k"])
        );
        assert!(matches!(table(long, None).1.0[..], [Problem::Key { .. }]));
        assert!(matches!(table("S1,S2\nA,B\n", Some("h")).1.0[..], [Problem::Key { .. }]));
        assert_eq!(table("signature,gene\nS1,A\n", None).0.unwrap().len(), 1);
    }

    #[test]
    fn columns_are_in_alphabetical_order_without_what_is_not_measured() {
        let signature = Signature { name: "s".into(), genes: ["C", "A", "X"].map(String::from).into() };
        assert_eq!(signature.columns(&["C", "B", "A"].map(String::from)), [2, 0]);
    }
}
