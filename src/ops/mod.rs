//! The ops: one folder each, with its page, its CPU path and (later) its launch on the device.

pub mod activation;
pub mod add;
pub mod arrange;
pub mod attention_mil;
pub mod cade;
pub mod concat;
pub mod cox;
pub mod dropout;
pub mod gather;
pub mod grid_conv;
pub mod grouped_linear;
pub mod landmark_inverse;
mod lanes;
pub mod layer_norm;
pub mod linear;
mod math;
pub(crate) mod matmul;
pub(crate) mod matmul_cublaslt;
pub(crate) mod matmul_cuda;
mod matmul_hopper;
pub mod mixstyle;
pub mod nll_survival;
pub mod outer;
mod parallel;
pub mod pathway_attention;
pub mod sdir;
pub mod segment_max;
pub mod segment_mean;
pub mod sequence_conv;
pub mod softmax;
pub mod standardize;
mod strips;
pub mod tokens;
pub mod transport;

pub use activation::Activation;
pub use add::Add;
pub use arrange::{Arrange, Arrangement};
pub use attention_mil::{Affine, AttentionMil, Pooling};
pub use cade::Cade;
pub use concat::Concat;
pub use cox::Cox;
pub use dropout::{Dropout, DropoutKind};
pub use gather::Gather;
pub use grid_conv::{Depthwise, GridConv};
pub use grouped_linear::GroupedLinear;
pub use landmark_inverse::LandmarkInverse;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use mixstyle::MixStyle;
pub use nll_survival::NllSurvival;
pub use outer::Outer;
pub use pathway_attention::PathwayAttention;
pub use sdir::Sdir;
pub use segment_max::SegmentMax;
pub use segment_mean::SegmentMean;
pub use sequence_conv::SequenceConv;
pub use softmax::Softmax;
pub use standardize::Standardize;
pub use tokens::BagDraws;
pub use transport::Transport;

use crate::device::Signature;

/// Every kernel that an op declares, file by file.
pub(crate) fn kernels() -> impl Iterator<Item = &'static Signature> {
    let files = [
        add::KERNELS,
        arrange::KERNELS,
        attention_mil::HALF_KERNELS,
        attention_mil::HOPPER_KERNELS,
        attention_mil::KERNELS,
        cade::DRAWS_KERNELS,
        cade::KERNELS,
        concat::KERNELS,
        cox::KERNELS,
        crate::optim::KERNELS,
        dropout::KERNELS,
        gather::KERNELS,
        grid_conv::KERNELS,
        grouped_linear::KERNELS,
        landmark_inverse::KERNELS,
        layer_norm::KERNELS,
        linear::KERNELS,
        mixstyle::KERNELS,
        nll_survival::KERNELS,
        outer::KERNELS,
        pathway_attention::KERNELS,
        sdir::KERNELS,
        segment_max::KERNELS,
        segment_mean::KERNELS,
        sequence_conv::KERNELS,
        softmax::KERNELS,
        standardize::KERNELS,
        transport::KERNELS,
    ];
    files
        .into_iter()
        .chain([matmul_cublaslt::KERNELS])
        .chain(matmul_cuda::KERNELS)
        .chain(matmul_hopper::KERNELS)
        .flatten()
}

/// Who handles a row on a CUDA device: it is kept in registers (`kernels/row.cuh`) where it fits into those of a warp.
#[derive(Clone, Copy, Debug)]
enum RowPlan {
    /// So many lanes of a warp, four columns each.
    Narrow { lanes: u32 },
    /// A warp, up to 32 columns a lane.
    Warp,
    /// A block, which reads the row more than once.
    Block,
}

impl RowPlan {
    fn of(columns: usize) -> RowPlan {
        match columns {
            0..=32 => RowPlan::Narrow { lanes: 8 },
            33..=64 => RowPlan::Narrow { lanes: 16 },
            65..=128 => RowPlan::Narrow { lanes: 32 },
            129..=1024 => RowPlan::Warp,
            _ => RowPlan::Block,
        }
    }

    /// The rows that a block of so many threads has at once.
    fn rows(self, threads: u32) -> usize {
        let of_a_row = match self {
            RowPlan::Narrow { lanes } => lanes,
            RowPlan::Warp => 32,
            RowPlan::Block => threads,
        };
        (threads / of_a_row) as usize
    }
}
