//! Where the patches of a slide lie, in a unit that is told, and which formats that suffices for.

use serde::Serialize;

use super::Format;
use crate::data::{CoordUnit, Slide};
use crate::error::Result;

/// Beyond this no place is told from the next, and none is one of a slide.
const FARTHEST: f64 = (1u64 << 53) as f64;
/// How much steps between patches may differ from a whole number of the smallest, as a part of it: places in f32 are rounded.
const UNEVEN: f64 = 0.01;

/// What the user says of places and patches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Units {
    /// What places are measured in, for files that do not say.
    pub unit: Option<CoordUnit>,
    /// Micrometres of a level-0 pixel: places in micrometres become level-0 pixels.
    pub microns_per_pixel: Option<f64>,
    /// The side of a patch in the unit that places are written in, for files that do not say.
    pub patch_size: Option<f64>,
}

/// How the side of a patch is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Side {
    /// The file of features says it.
    #[serde(rename = "file")]
    File,
    /// The user says it.
    #[serde(rename = "--patch-size")]
    Said,
    /// The smallest step between places, which is regular. Less than the side where patches overlap.
    #[serde(rename = "smallest step between places")]
    Step,
}

/// The places of the patches of a slide.
#[derive(Clone, Debug, PartialEq)]
pub struct Ground {
    places: Vec<[f64; 2]>,
    unit: Option<CoordUnit>,
    side: Option<(f64, Side)>,
    /// Why there are no places.
    without: String,
}

impl Ground {
    /// Reads the places of a slide.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if that part of the file is damaged.
    pub fn of(slide: &Slide<'_>, units: Units) -> Result<Ground> {
        let size = slide.patch_size();
        Ok(match (slide.places()?, slide.unit()) {
            (Some(places), Some(unit)) => Ground::new(places, unit, size.level0_pixels, size.microns, units),
            _ => Ground::without("its file has no places of patches".into()),
        })
    }

    fn without(why: String) -> Ground {
        Ground { places: Vec::new(), unit: None, side: None, without: why }
    }

    /// Places in a unit; the side of a patch in level-0 pixels and in micrometres, as far as the file says.
    fn new(
        mut places: Vec<[f64; 2]>,
        unit: CoordUnit,
        pixels: Option<f64>,
        microns: Option<f64>,
        units: Units,
    ) -> Ground {
        if let Some(row) = places.iter().position(|place| !place.iter().all(|x| x.abs() <= FARTHEST)) {
            let [x, y] = places[row];
            return Ground::without(format!("the place of row {row} is {x:?}, {y:?}, which no slide has"));
        }
        let sound = |side: &f64| side.is_finite() && *side > 0.0 && *side <= FARTHEST;
        let (pixels, microns) = (pixels.filter(sound), microns.filter(sound));
        let mut unit = if unit == CoordUnit::Unknown { units.unit.unwrap_or(unit) } else { unit };
        let mut side = match unit {
            CoordUnit::Level0Pixels => pixels,
            CoordUnit::Microns => microns,
            CoordUnit::Unknown => None,
        };
        // A file that has the side in both says how large a pixel is.
        let said = microns.zip(pixels).map(|(microns, pixels)| microns / pixels);
        if let (CoordUnit::Microns, Some(pixel)) = (unit, said.or(units.microns_per_pixel)) {
            let scaled = places.iter().map(|place| place.map(|x| x / pixel)).collect::<Vec<_>>();
            if scaled.iter().flatten().all(|x| x.abs() <= FARTHEST) {
                (places, unit) = (scaled, CoordUnit::Level0Pixels);
                side = pixels.or(side.map(|side| side / pixel)).filter(sound);
            }
        }
        let known = side.map(|side| (side, Side::File)).or(units.patch_size.map(|side| (side, Side::Said)));
        let side = known.or_else(|| step(&places).map(|side| (side, Side::Step)));
        Ground { places, unit: Some(unit), side, without: String::new() }
    }

    /// The upper left corner of each patch, x and y; none without places.
    pub fn places(&self) -> &[[f64; 2]] {
        &self.places
    }

    /// What places are measured in; none without places.
    pub fn unit(&self) -> Option<CoordUnit> {
        self.unit
    }

    /// The side of a patch in that unit, and how it is known.
    pub fn side(&self) -> Option<(f64, Side)> {
        self.side
    }

    /// Why a format cannot be written; none if it can.
    pub fn refusal(&self, format: Format) -> Option<String> {
        let pixels = matches!(format, Format::H5 | Format::Geojson);
        match self.unit {
            _ if format == Format::Csv => None,
            None => Some(self.without.clone()),
            Some(CoordUnit::Microns) if pixels => Some(
                "its places are in micrometres and these need level-0 pixels; say --mpp, the micrometres of a level-0 pixel"
                    .into(),
            ),
            Some(CoordUnit::Unknown) if pixels => Some(
                "its file does not say what places are measured in and these need level-0 pixels; say --unit level0 if they \
                 are that, or --unit microns with --mpp"
                    .into(),
            ),
            _ if format != Format::H5 && self.side.is_none() => Some(
                "its file does not say how large a patch is, and places are not at regular steps; say --patch-size".into(),
            ),
            _ => None,
        }
    }

    /// A sentence for each reason, with the formats that it forbids.
    pub fn refusals(&self, formats: &[Format]) -> Vec<String> {
        let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
        for &format in formats {
            let Some(why) = self.refusal(format) else { continue };
            match reasons.iter_mut().find(|(known, _)| *known == why) {
                Some((_, names)) => names.push(format.name()),
                None => reasons.push((why, vec![format.name()])),
            }
        }
        reasons.into_iter().map(|(why, names)| format!("no {}: {why}", names.join(", "))).collect()
    }
}

/// The smallest step between neighbours in a row or a column, if all steps are whole numbers of it and rows and columns
/// agree. Contours whose grids are shifted against each other are no neighbours.
fn step(places: &[[f64; 2]]) -> Option<f64> {
    let along = |axis: usize| {
        let mut order: Vec<[f64; 2]> = places.iter().map(|place| [place[1 - axis], place[axis]]).collect();
        order.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
        let neighbours = order.windows(2).filter(|pair| pair[0][0] == pair[1][0]);
        let steps: Vec<f64> = neighbours.map(|pair| pair[1][1] - pair[0][1]).filter(|&step| step > 0.0).collect();
        let smallest = steps.iter().copied().reduce(f64::min)?;
        let even = |step: &f64| ((step / smallest) - (step / smallest).round()).abs() <= UNEVEN;
        Some(steps.iter().all(even).then_some(smallest))
    };
    match [along(0), along(1)] {
        [Some(Some(x)), Some(Some(y))] if (x - y).abs() <= UNEVEN * x.min(y) => Some(x.min(y)),
        [Some(one), None] | [None, Some(one)] => one,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVEL0: CoordUnit = CoordUnit::Level0Pixels;

    fn ground(places: &[[f64; 2]], unit: CoordUnit, size: [Option<f64>; 2], units: Units) -> Ground {
        Ground::new(places.to_vec(), unit, size[0], size[1], units)
    }

    fn grid(step: f64) -> Vec<[f64; 2]> {
        (0..12).map(|i| [f64::from(i % 4) * step, f64::from(i / 4) * step]).collect()
    }

    #[test]
    fn the_side_is_the_files_then_the_users_then_the_step() {
        let said = Units { patch_size: Some(300.0), ..Units::default() };
        let side = |size, units| ground(&grid(256.0), LEVEL0, [size, Some(7.0)], units).side();
        assert_eq!(side(Some(512.0), said), Some((512.0, Side::File)));
        assert_eq!(side(None, said), Some((300.0, Side::Said)));
        assert_eq!(side(None, Units::default()), Some((256.0, Side::Step)));
        assert_eq!(side(Some(f64::NAN), Units::default()), Some((256.0, Side::Step)));
    }

    #[test]
    fn only_regular_steps_are_a_side() {
        assert_eq!(step(&grid(256.0)), Some(256.0));
        let holes: Vec<_> = grid(256.0).into_iter().enumerate().filter(|(i, _)| i % 5 != 1).map(|(_, p)| p).collect();
        assert_eq!(step(&holes), Some(256.0));
        let shifted: Vec<_> =
            grid(256.0).into_iter().chain(grid(256.0).iter().map(|p| [p[0] + 77.0, p[1] + 9011.0])).collect();
        assert_eq!(step(&shifted), Some(256.0), "two contours");
        assert_eq!(step(&[[0.0, 0.0], [512.0, 0.0]]), Some(512.0), "one row");
        for irregular in [
            vec![[0.0, 0.0], [100.0, 0.0], [250.0, 0.0]],
            vec![[0.0, 0.0], [256.0, 0.0], [0.0, 224.0]],
            vec![[0.0, 0.0], [10.0, 10.0]],
            vec![[3.0, 3.0]; 4],
            vec![],
        ] {
            assert_eq!(step(&irregular), None, "{irregular:?}");
        }
    }

    #[test]
    fn micrometres_stay_what_they_are_until_someone_says_how_large_a_pixel_is() {
        let microns = |size, units| ground(&grid(128.0), CoordUnit::Microns, size, units);
        let left = microns([None, Some(128.0)], Units::default());
        assert_eq!((left.unit(), left.side()), (Some(CoordUnit::Microns), Some((128.0, Side::File))));
        assert!(left.refusal(Format::Geojson).unwrap().contains("--mpp") && left.refusal(Format::Png).is_none());
        let pixels = ground(&grid(256.0), LEVEL0, [Some(256.0), None], Units::default());
        let said = Units { microns_per_pixel: Some(0.5), ..Units::default() };
        assert_eq!(microns([None, Some(128.0)], said), pixels);
        assert_eq!(microns([Some(256.0), Some(128.0)], Units::default()), pixels, "the file offers both");
        // What is in pixels already does not change.
        assert_eq!(ground(&grid(256.0), LEVEL0, [Some(256.0), None], said), pixels);
    }

    #[test]
    fn a_unit_that_the_file_does_not_say_is_the_users_and_one_that_it_says_is_not() {
        let said = Units { unit: Some(LEVEL0), ..Units::default() };
        assert_eq!(ground(&grid(2.0), CoordUnit::Unknown, [None; 2], said).unit(), Some(LEVEL0));
        assert_eq!(ground(&grid(2.0), CoordUnit::Microns, [None; 2], said).unit(), Some(CoordUnit::Microns));
        let unknown = ground(&grid(2.0), CoordUnit::Unknown, [None; 2], Units::default());
        assert!(unknown.refusal(Format::H5).unwrap().contains("--unit") && unknown.refusal(Format::Csv).is_none());
    }

    #[test]
    fn places_that_no_slide_has_are_no_places() {
        for x in [f64::NAN, f64::INFINITY, 1e300] {
            let wrong = ground(&[[0.0, 0.0], [0.0, x]], LEVEL0, [None; 2], Units::default());
            assert!(wrong.places().is_empty() && wrong.refusal(Format::Csv).is_none());
            let told = wrong.refusals(&Format::ALL);
            assert!(told.len() == 1 && told[0].starts_with("no h5, geojson, png: the place of row 1 is 0"), "{told:?}");
        }
    }
}
