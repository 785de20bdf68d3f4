//! Features in a safetensors file: `features`, and maybe `coords`.

use super::matrix::{Array, Number, row_major};
use super::{Dialect, Found, why};
use crate::data::problem::{Problem, Problems};
use crate::data::tensors::{Info, TensorFile};

const FEATURES: &str = "features";
const COORDS: &str = "coords";

pub(super) fn found(file: &TensorFile) -> Result<Found, Problem> {
    let mut problems = Problems::default();
    let Some(info) = file.tensor(FEATURES, &mut problems) else { return Err(problems.0.remove(0)) };
    let features = array(file, FEATURES, info)?;
    let coords = file.tensors().find(|(name, _)| *name == COORDS).map(|(name, info)| array(file, name, info));
    Ok(Found::plain(Dialect::Safetensors, features).places(coords.transpose()?))
}

fn array(file: &TensorFile, name: &str, info: &Info) -> Result<Array, Problem> {
    let Some(number) = Number::from_name(&info.dtype) else {
        let (path, tensor) = (file.path.clone(), name.to_owned());
        return Err(Problem::Dtype { file: path, tensor, want: "F32, F16, BF16 or F64", got: info.dtype.clone() });
    };
    let strides = row_major(&info.shape, number);
    Array::plain(name, info.shape.clone(), number, file.file(), info.range.clone(), 0, strides)
        .map_err(|e| why(&file.path, e))
}
