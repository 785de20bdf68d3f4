//! Tables: one row a patch.

use std::path::Path;

use super::Drawn;
use crate::data::write_file;
use crate::error::Result;

/// Writes `row`, `x`, `y`, `patch_size`, `unit`, `attention`, `percentile`, and a column a head where there are several.
/// What is not known is blank.
pub(super) fn write(path: &Path, drawn: &Drawn<'_>) -> Result<()> {
    let heads = if drawn.heads > 1 { drawn.heads } else { 0 };
    let ground = drawn.ground;
    let unit = ground.unit().map_or("", |unit| unit.name());
    let side = ground.side().map_or_else(String::new, |(side, _)| side.to_string());
    write_file(path, |out| {
        let mut table = csv::Writer::from_writer(out);
        let names = ["row", "x", "y", "patch_size", "unit", "attention", "percentile"].map(String::from);
        table.write_record(names.into_iter().chain((1..=heads).map(|head| format!("head_{head}"))))?;
        for (row, (weight, percentile)) in drawn.weights.iter().zip(&drawn.percentiles).enumerate() {
            let place = ground.places().get(row);
            let [x, y] = place.map_or_else(Default::default, |place| place.map(|x| x.to_string()));
            let of_row = &drawn.of_heads[row * drawn.heads..][..heads];
            let (row, weight) = (row.to_string(), format!("{weight:?}"));
            let cells = [row, x, y, side.clone(), unit.into(), weight, format!("{percentile:.4}")];
            table.write_record(cells.into_iter().chain(of_row.iter().map(|weight| format!("{weight:?}"))))?;
        }
        table.flush()
    })
}
