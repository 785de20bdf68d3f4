//! The colours of heat maps.

/// The number of colours.
pub(super) const COLOURS: usize = 255;

/// The colour of a percentile from 0 to 100, as red, green and blue.
///
/// The scale is a helix in Oklab (Ottosson, "A perceptual color space for image processing", 2020): lightness rises evenly,
/// hue turns evenly from blue over red to yellow, chroma stays. So each step is as long as any other in a space that is made
/// for the eye, and the scale keeps its order in grey.
pub fn colour(percentile: f64) -> [u8; 3] {
    srgb(helix((percentile / 100.0).clamp(0.0, 1.0)))
}

/// The colour of this number of the palette.
pub(super) fn of_number(number: usize) -> [u8; 3] {
    colour(100.0 * number as f64 / (COLOURS - 1) as f64)
}

/// The number in the palette of a percentile.
pub(super) fn number(percentile: f64) -> usize {
    ((percentile / 100.0).clamp(0.0, 1.0) * (COLOURS - 1) as f64).round() as usize
}

/// Lightness, and the two axes of colour, at a place from 0 to 1.
fn helix(t: f64) -> [f64; 3] {
    const LIGHTNESS: [f64; 2] = [0.32, 0.90];
    const CHROMA: f64 = 0.13;
    const HUE: [f64; 2] = [-80.0, 95.0];
    let between = |[from, to]: [f64; 2]| from + t * (to - from);
    let hue = between(HUE).to_radians();
    [between(LIGHTNESS), CHROMA * libm::cos(hue), CHROMA * libm::sin(hue)]
}

/// Linear red, green and blue of a colour of Oklab.
fn linear([l, a, b]: [f64; 3]) -> [f64; 3] {
    let cube = |x: f64| x * x * x;
    let long = cube(l + 0.3963377774 * a + 0.2158037573 * b);
    let medium = cube(l - 0.1055613458 * a - 0.0638541728 * b);
    let short = cube(l - 0.0894841775 * a - 1.2914855480 * b);
    [
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    ]
}

fn srgb(colour: [f64; 3]) -> [u8; 3] {
    linear(colour).map(|x| {
        let x = x.clamp(0.0, 1.0);
        let shown = if x <= 0.0031308 { 12.92 * x } else { 1.055 * libm::pow(x, 1.0 / 2.4) - 0.055 };
        (255.0 * shown).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_and_primaries_of_oklab_are_those_of_srgb() {
        // From the table of the source: Oklab of white, and of pure red.
        assert_eq!(srgb([1.0, 0.0, 0.0]), [255, 255, 255]);
        assert_eq!(srgb([0.0, 0.0, 0.0]), [0, 0, 0]);
        assert_eq!(srgb([0.62796, 0.22486, 0.12585]), [255, 0, 0]);
    }

    #[test]
    fn no_colour_of_the_scale_is_cut_off() {
        for i in 0..=1000 {
            let rgb = linear(helix(f64::from(i) / 1000.0));
            assert!(rgb.iter().all(|x| (0.0..=1.0).contains(x)), "{i}: {rgb:?}");
        }
    }

    #[test]
    fn the_scale_is_lighter_for_more_by_steps_of_one_length() {
        let grey = |[r, g, b]: [u8; 3]| 0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b);
        let colours: Vec<[u8; 3]> = (0..COLOURS).map(of_number).collect();
        // Rounding to bytes may move a grey by half of one.
        assert!(colours.windows(2).all(|pair| grey(pair[0]) <= grey(pair[1]) + 0.5));
        let length = |i: usize| {
            let [from, to] = [i, i + 1].map(|i| helix(i as f64 / COLOURS as f64));
            from.iter().zip(to).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
        };
        assert!((0..COLOURS).all(|i| (length(i) - length(0)).abs() < 1e-12));
        assert!(grey(colours[COLOURS - 1]) > grey(colours[0]) + 120.0);
        assert_eq!((number(0.0), number(100.0), number(f64::INFINITY)), (0, COLOURS - 1, COLOURS - 1));
    }
}
