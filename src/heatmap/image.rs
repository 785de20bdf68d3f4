//! Images: a block of pixels a patch, coloured by percentile on nothing.

use std::path::Path;

use serde::Serialize;

use super::{Drawn, colour};
use crate::data::write_file;
use crate::error::Result;

/// The longest side of an image, whatever the places claim.
const LONGEST: usize = 4096;
/// Pixels of the side of a patch, at most.
const BLOCK: f64 = 8.0;

/// How an image lies on its slide: pixel `[0, 0]` begins at `left`, `top`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Picture {
    /// Pixels from left to right.
    pub width: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// The x of the left edge, in the unit of the places.
    pub left: f64,
    /// The y of the upper edge.
    pub top: f64,
    /// What a pixel is wide and high, in the unit of the places.
    pub pixel: f64,
}

impl Picture {
    /// The image of patches of a side at places, of which there is at least one.
    pub(super) fn of(places: &[[f64; 2]], side: f64) -> Picture {
        let low = |axis: usize| places.iter().map(|place| place[axis]).fold(f64::INFINITY, f64::min);
        let high = |axis: usize| places.iter().map(|place| place[axis]).fold(f64::NEG_INFINITY, f64::max);
        let [left, top] = [low(0), low(1)];
        let extent = [high(0) - left + side, high(1) - top + side];
        // Whole patches are whole blocks, unless there are too many of them.
        let pixel = (side / BLOCK).max(extent[0].max(extent[1]) / LONGEST as f64);
        let pixels = |extent: f64| ((extent / pixel).round() as usize).clamp(1, LONGEST);
        Picture { width: pixels(extent[0]), height: pixels(extent[1]), left, top, pixel }
    }

    /// The pixels of a patch: from, and up to, x and y. At least one.
    fn block(&self, place: [f64; 2], side: f64) -> [[usize; 2]; 2] {
        let along = |from: f64, start: f64, size: usize| {
            let at = |x: f64| ((x - start) / self.pixel).round() as usize;
            let first = at(from).min(size - 1);
            [first, at(from + side).clamp(first + 1, size.max(first + 1))]
        };
        [along(place[0], self.left, self.width), along(place[1], self.top, self.height)]
    }

    /// One byte a pixel: 0 for nothing, else the number of its colour and 1. Of patches that overlap the higher is seen.
    pub(super) fn paint(&self, places: &[[f64; 2]], side: f64, percentiles: &[f64]) -> Vec<u8> {
        let mut pixels = vec![0u8; self.width * self.height];
        for (&place, &percentile) in places.iter().zip(percentiles) {
            let number = colour::number(percentile) as u8 + 1;
            let [x, y] = self.block(place, side);
            for row in y[0]..y[1] {
                let line = &mut pixels[row * self.width..][x[0]..x[1]];
                line.iter_mut().for_each(|pixel| *pixel = number.max(*pixel));
            }
        }
        pixels
    }
}

/// Writes the image as PNG with a palette.
pub(super) fn write(path: &Path, drawn: &Drawn<'_>) -> Result<Picture> {
    let (side, _) = drawn.ground.side().expect("refused without a side");
    let picture = Picture::of(drawn.ground.places(), side);
    let pixels = picture.paint(drawn.ground.places(), side, &drawn.percentiles);
    let palette: Vec<u8> =
        [[255; 3]].into_iter().chain((0..colour::COLOURS).map(colour::of_number)).flatten().collect();
    write_file(path, |out| {
        let mut image = png::Encoder::new(out, picture.width as u32, picture.height as u32);
        image.set_color(png::ColorType::Indexed);
        image.set_depth(png::BitDepth::Eight);
        image.set_palette(palette);
        // The first colour is seen through; all others are not.
        image.set_trns(vec![0u8]);
        let mut image = image.write_header()?;
        image.write_image_data(&pixels)?;
        image.finish().map_err(std::io::Error::from)
    })?;
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_of_patches_is_a_grid_of_blocks() {
        let places = [[512.0, 256.0], [768.0, 256.0], [512.0, 768.0]];
        let picture = Picture::of(&places, 256.0);
        assert_eq!(picture, Picture { width: 16, height: 24, left: 512.0, top: 256.0, pixel: 32.0 });
        let pixels = picture.paint(&places, 256.0, &[0.0, 50.0, 100.0]);
        let at = |x: usize, y: usize| pixels[y * 16 + x];
        assert_eq!([at(0, 0), at(7, 7), at(8, 0), at(15, 7)], [1, 1, 128, 128]);
        assert_eq!([at(0, 16), at(7, 23), at(0, 8), at(8, 16)], [255, 255, 0, 0]);
    }

    #[test]
    fn the_higher_of_two_patches_that_overlap_is_seen_in_any_order() {
        let places = [[0.0, 0.0], [128.0, 0.0]];
        let picture = Picture::of(&places, 256.0);
        assert_eq!(picture.paint(&places, 256.0, &[100.0, 0.0])[7], 255);
        assert_eq!(picture.paint(&places, 256.0, &[0.0, 100.0])[7], 255);
    }

    #[test]
    fn an_image_is_bounded_and_every_patch_is_in_it_whatever_places_claim() {
        let far = 9e15;
        for (places, side) in [
            (vec![[-far, -far], [far, far], [0.0, 0.0]], 256.0),
            (vec![[0.0, 0.0], [1.0, 1.0]], far),
            (vec![[0.0, 0.0], [far, 0.0]], 1e-9),
            ((0..9000).map(|i| [f64::from(i), 0.0]).collect(), 1.0),
            (vec![[5.0, 5.0]], 0.3),
        ] {
            let picture = Picture::of(&places, side);
            assert!(picture.width.max(picture.height) <= LONGEST, "{picture:?}");
            for &place in &places {
                let [x, y] = picture.block(place, side);
                assert!(x[0] < x[1] && x[1] <= picture.width && x[1] - x[0] <= 9, "{x:?} in {picture:?}");
                assert!(y[0] < y[1] && y[1] <= picture.height && y[1] - y[0] <= 9, "{y:?} in {picture:?}");
            }
        }
    }
}
