//! GeoJSON as QuPath opens it: a detection a patch, with its colour and measurements.

use std::path::Path;

use super::{Drawn, colour};
use crate::data::write_file;
use crate::error::Result;

/// Writes one `FeatureCollection` of squares in level-0 pixels.
pub(super) fn write(path: &Path, drawn: &Drawn<'_>) -> Result<()> {
    let (side, _) = drawn.ground.side().expect("refused without a side");
    write_file(path, |out| {
        out.write_all(b"{\"type\":\"FeatureCollection\",\"features\":[")?;
        let each = drawn.ground.places().iter().zip(&drawn.weights).zip(&drawn.percentiles);
        for (i, ((&[x, y], weight), percentile)) in each.enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let (right, below, [r, g, b]) = (x + side, y + side, colour(*percentile));
            write!(
                out,
                "{comma}\n{{\"type\":\"Feature\",\"geometry\":{{\"type\":\"Polygon\",\"coordinates\":[[[{x},{y}],[{right},{y}],\
                 [{right},{below}],[{x},{below}],[{x},{y}]]]}},\"properties\":{{\"objectType\":\"detection\",\
                 \"color\":[{r},{g},{b}],\"measurements\":{{\"attention\":{weight:?},\"percentile\":{percentile:.4}}}}}}}"
            )?;
        }
        out.write_all(b"\n]}\n")
    })
}
