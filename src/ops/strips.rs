//! Rows in strips of a fixed number of columns: loops over them vectorise, and their sums stay in registers.

/// The elements of a row from a column on.
#[inline]
pub(crate) fn strip<T, const W: usize>(rows: &[T], row: usize, columns: usize, column: usize) -> &[T; W] {
    rows[row * columns + column..].first_chunk().expect("columns of a row")
}

/// `over_strips!(columns, f::<T>(a, b))` calls `f::<T, W>(a, b, column)` for strips that cover a row: `W` is 32, enough sums
/// side by side to keep the adders of a core busy, where fewer columns are left 8, and at last 1.
macro_rules! over_strips {
    ($columns:expr, $of:ident::<$T:ident>($($argument:expr),* $(,)?)) => {{
        let (columns, mut column) = ($columns, 0);
        while column < columns {
            column += match columns - column {
                32.. => {
                    $of::<$T, 32>($($argument,)* column);
                    32
                }
                8.. => {
                    $of::<$T, 8>($($argument,)* column);
                    8
                }
                _ => {
                    $of::<$T, 1>($($argument,)* column);
                    1
                }
            };
        }
    }};
}
pub(crate) use over_strips;

/// A table of so many rows, strip after strip: its part of `W` columns from one on begins at `rows` times that column and
/// has rows of `W`. Where rows are a power of two apart, few of them would stay in the first cache.
pub(crate) fn packed<T: Copy>(table: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut packed = Vec::with_capacity(table.len());
    over_strips!(columns, pack::<T>(table, rows, columns, &mut packed));
    packed
}

fn pack<T: Copy, const W: usize>(table: &[T], rows: usize, columns: usize, packed: &mut Vec<T>, column: usize) {
    (0..rows).for_each(|row| packed.extend_from_slice(strip::<T, W>(table, row, columns, column)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count<T: From<u8> + std::ops::AddAssign + Copy, const W: usize>(seen: &mut [T], column: usize) {
        seen[column..column + W].iter_mut().for_each(|seen| *seen += T::from(1));
    }

    #[test]
    fn strips_cover_each_column_once() {
        for columns in 0..80 {
            let mut seen = vec![0u32; columns];
            over_strips!(columns, count::<u32>(&mut seen));
            assert_eq!(seen, vec![1; columns]);
        }
        let table: Vec<usize> = (0..2 * 42).collect();
        let (packed, second) = (packed(&table, 2, 42), |from: usize| table[42 + from..].to_vec());
        assert_eq!(packed[32..64], second(0)[..32]);
        assert_eq!(packed[64 + 8..64 + 16], second(32)[..8]);
        assert_eq!(packed[80..], [40, 82, 41, 83]);
        assert_eq!(strip::<_, 2>(&[0, 1, 2, 3, 4, 5], 1, 3, 1), &[4, 5]);
    }
}
