//! What the tools of the field write into HDF5, told apart by names and attributes.
//!
//! | | features | places | attributes |
//! |---|---|---|---|
//! | TRIDENT | `features`, a chunk a row | `coords`, level-0 pixels | of both |
//! | CLAM | `features`, 32 rows a chunk | `coords`, level-0 pixels | none |
//! | STAMP | `feats` or `patch_embeddings` | `coords`, micrometres | of the file; none before 2.0 |
//! | MMP, PANTHER | `features`, a leading 1 | | none |

use std::path::Path;
use std::sync::Arc;

use super::coords::CoordUnit;
use super::hdf5::{Attributes, Hdf5, Said};
use super::matrix::Array;
use super::{Dialect, Found, PatchSize, why};
use crate::data::bytes::Bytes;
use crate::data::problem::Problem;

/// The names of features, the likeliest first.
const FEATURES: [&str; 4] = ["features", "feats", "patch_embeddings", "Res_feature"];
const COORDS: &str = "coords";

pub(super) fn found(path: &Path, bytes: Arc<Bytes>) -> Result<Found, Problem> {
    let broken = |e: String| why(path, format!("is HDF5 that cannot be read: {e}"));
    let file = Hdf5::open(bytes).map_err(broken)?;
    let names = file.names().map_err(broken)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    let Some(&name) = FEATURES.iter().find(|&&name| has(name)) else {
        return Err(without_features(path, names));
    };
    let of_file = file.attributes().map_err(broken)?;
    let (features, of_features, chunk) = file.array(name).map_err(|e| why(path, e))?;
    slide_level(path, &features, &of_file, &of_features)?;
    let coords = if has(COORDS) { Some(file.array(COORDS).map_err(|e| why(path, e))?) } else { None };
    let (coords, of_coords) = coords.map_or((None, Attributes::new()), |(array, said, _)| (Some(array), said));

    let dialect = dialect(name, &features, coords.is_some(), chunk, [&of_file, &of_features, &of_coords]);
    let stamp =
        matches!(dialect, Dialect::Stamp | Dialect::Stamp20 | Dialect::StampHistoric | Dialect::StampEmbeddings);
    let mut found = Found::plain(dialect, features);
    found.encoder =
        text(&of_features, "encoder").or_else(|| text(&of_file, "extractor")).or_else(|| text(&of_file, "encoder"));
    if !stamp {
        found.patch = PatchSize {
            pixels: number(&of_coords, "patch_size"),
            level0_pixels: number(&of_coords, "patch_size_level0"),
            microns: None,
        };
        found.coords = coords.map(|array| (array, CoordUnit::Level0Pixels, 1.0));
        return Ok(found);
    }
    found.patch.pixels = number(&of_file, "tile_size_px");
    found.patch.microns = number(&of_file, "tile_size_um").or_else(|| number(&of_file, "tile_size"));
    let Some(array) = coords else { return Ok(found) };
    let micrometres = text(&of_file, "unit").as_deref() == Some("um") || found.patch.microns.is_some();
    let step = if micrometres { None } else { stride(path, file.array(COORDS).map_err(|e| why(path, e))?.0)? };
    found.coords = Some(match (micrometres, step) {
        (true, _) => (array, CoordUnit::Microns, 1.0),
        (false, Some(stride)) if (stride - HISTORIC_PIXELS).abs() < 0.5 => {
            found.patch =
                PatchSize { pixels: Some(HISTORIC_PIXELS), level0_pixels: None, microns: Some(HISTORIC_MICRONS) };
            found.notes.push(
                "places lie 224 apart and the file names no unit: taken as 256 micrometres of STAMP before 2.0".into(),
            );
            (array, CoordUnit::Microns, HISTORIC_MICRONS / HISTORIC_PIXELS)
        }
        (false, _) => {
            found.notes.push(
                "the file names no unit of its places, and they do not lie 224 apart as those of STAMP before 2.0"
                    .into(),
            );
            (array, CoordUnit::Unknown, 1.0)
        }
    });
    Ok(found)
}

/// The side of a patch of STAMP before 2.0 in its own unit, and what it is.
const HISTORIC_PIXELS: f64 = 224.0;
const HISTORIC_MICRONS: f64 = 256.0;

fn text(attributes: &Attributes, name: &str) -> Option<String> {
    match attributes.get(name)? {
        // TRIDENT writes so what it does not know.
        Said::Text(text) if text != "None" && !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn number(attributes: &Attributes, name: &str) -> Option<f64> {
    match attributes.get(name)? {
        Said::Number(number) if number.is_finite() => Some(*number),
        _ => None,
    }
}

fn without_features(path: &Path, names: Vec<String>) -> Problem {
    let has = |name: &str| names.iter().any(|n| n == name);
    if has("attention_scores") {
        return why(path, "has attention scores and no features: it is a heatmap; name the folder of the features");
    }
    if has(COORDS) {
        return why(
            path,
            "has places of patches and no features: it is the file before extraction; name the folder of the features",
        );
    }
    Problem::MissingTensor { file: path.into(), tensor: FEATURES[0].into(), has: names }
}

/// Refuses what is one vector for a slide or a patient.
fn slide_level(path: &Path, features: &Array, of_file: &Attributes, of_features: &Attributes) -> Result<(), Problem> {
    let level = text(of_file, "feat_type").or_else(|| text(of_features, "feat_type"));
    let one = matches!(features.shape[..], [width] if width > 0);
    match level.filter(|level| level != "tile") {
        Some(level) => Err(why(
            path,
            format!(
                "{} are of a whole {level}, not of its patches: one vector is a whole {level}; name the folder of the patch features",
                features.name
            ),
        )),
        None if one => Err(why(
            path,
            format!(
                "{} of shape {:?} are those of a slide: one vector is a whole slide, not its patches; name the folder of the patch features",
                features.name, features.shape
            ),
        )),
        None => Ok(()),
    }
}

fn dialect(
    name: &str,
    features: &Array,
    coords: bool,
    chunk: Option<u32>,
    [file, of_features, of_coords]: [&Attributes; 3],
) -> Dialect {
    /// The rows of a chunk of CLAM.
    const CLAM: u32 = 32;
    let stamp = ["stamp_version", "tile_size_um"].iter().any(|said| file.contains_key(*said));
    let trident = of_features.contains_key("savetodir") || of_coords.contains_key("patch_size_level0");
    match name {
        "feats" if stamp => Dialect::Stamp,
        "feats" if file.contains_key("tile_size") || file.contains_key("extractor") => Dialect::Stamp20,
        "feats" => Dialect::StampHistoric,
        "patch_embeddings" => Dialect::StampEmbeddings,
        "Res_feature" => Dialect::ResFeature,
        _ if trident => Dialect::Trident,
        _ if features.shape.len() == 3 => Dialect::Mmp,
        _ if coords && chunk == Some(CLAM) => Dialect::Clam,
        _ => Dialect::Hdf5,
    }
}

/// The smallest step along x between the first places; none if all lie in one column.
fn stride(path: &Path, coords: Array) -> Result<Option<f64>, Problem> {
    const PLACES: usize = 4096;
    let matrix = coords.matrix(path)?;
    let (rows, bytes) = (matrix.rows.min(PLACES), matrix.number.bytes());
    let mut stored = vec![0; rows * matrix.width * bytes];
    matrix.read(0..rows, &mut stored).map_err(|e| why(path, format!("{COORDS} cannot be read: {e}")))?;
    let places = stored.chunks_exact((matrix.width * bytes).max(1));
    let mut x: Vec<f64> = places.map(|place| matrix.number.value(&place[..bytes])).collect();
    x.sort_unstable_by(f64::total_cmp);
    Ok(x.windows(2).map(|pair| pair[1] - pair[0]).filter(|&step| step > 0.0).min_by(f64::total_cmp))
}
