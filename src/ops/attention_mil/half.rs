//! The products of attention pooling in bf16 and f16.

use half::{bf16, f16};

use super::Dims;
use super::cuda::{Layer, Products, Span, THREADS, TILE, ToInput};
use crate::device::{Gpu, Grid, In, Out, kernels};
use crate::element::{Element, Real};
use crate::error::Result;
use crate::tensor::Tensor;

kernels! { "attention_mil_half":
    /// `v` and `u` rounded, row by row in turn, zeros behind their columns.
    fn attention_mil_half_pack<H in f16, bf16>(v: In<f32> = d * l, u: Option<In<f32>> = d * l,
        inner: Out<H> = width * stride, l: u32, d: u32, width: u32, stride: u32);
    /// As `attention_mil_score`, in f16.
    fn attention_mil_half_score_f16<F in f32, f16, bf16>(x: In<F> = n * l, inner: In<f16> = width * stride,
        v_bias: Option<In<f32>> = d, u_bias: Option<In<f32>> = d, w: In<f32> = heads * d,
        part: Option<Out<f32>> = tiles * rows * heads, gates: Option<Out<f16>> = rows * gate_stride,
        n: u32, first: u32, rows: u32, l: u32, d: u32, width: u32, stride: u32, gate_stride: u32, tiles: u32, heads: u32);
    /// And in bf16.
    fn attention_mil_half_score_bf16<F in f32, f16, bf16>(x: In<F> = n * l, inner: In<bf16> = width * stride,
        v_bias: Option<In<f32>> = d, u_bias: Option<In<f32>> = d, w: In<f32> = heads * d,
        part: Option<Out<f32>> = tiles * rows * heads, gates: Option<Out<bf16>> = rows * gate_stride,
        n: u32, first: u32, rows: u32, l: u32, d: u32, width: u32, stride: u32, gate_stride: u32, tiles: u32, heads: u32);
    /// As `attention_mil_inner_gradient`, in f16.
    fn attention_mil_half_inner_gradient_f16<F in f32, f16, bf16>(x: In<F> = n * l,
        grad_gates: In<f16> = rows * gate_stride, part: Out<f32> = n.div_ceil(split_rows) * width * l,
        n: u32, first: u32, rows: u32, split_rows: u32, l: u32, d: u32, width: u32, gate_stride: u32);
    /// And in bf16.
    fn attention_mil_half_inner_gradient_bf16<F in f32, f16, bf16>(x: In<F> = n * l,
        grad_gates: In<bf16> = rows * gate_stride, part: Out<f32> = n.div_ceil(split_rows) * width * l,
        n: u32, first: u32, rows: u32, split_rows: u32, l: u32, d: u32, width: u32, gate_stride: u32);
    /// As `attention_mil_input_gradient`.
    fn attention_mil_half_input_gradient<H in f16, bf16>(grad_gates: In<H> = rows * gate_stride,
        inner: In<H> = width * stride, weights: In<f32> = n * heads, grad_pooled: Option<In<f32>> = bags * heads * l,
        offset: In<u32> = bags + 1, grad_x: Out<f32> = n * l,
        n: u32, first: u32, rows: u32, bags: u32, l: u32, width: u32, stride: u32, gate_stride: u32, heads: u32);
}

/// Bytes of shared memory for the stages of a tile: `HALF_SHARED` of `kernels/attention_half_tile.cuh`.
const SHARED: usize = 4 * 2 * 128 * 40 * 2;
/// Numbers in 16 bytes: rows begin at multiples of them.
const EIGHT: usize = 8;

/// `v` and `u` rounded to `H`, and the products with them; the gates are rounded to it too.
pub(super) struct Rounded<H> {
    inner: Tensor<H>,
}

impl<H: Element> Rounded<H> {
    pub(super) fn of<T: Real>(gpu: Gpu, layer: &Layer<T>) -> Result<Rounded<H>> {
        let (Dims { l, d, .. }, width) = (layer.dims, layer.width());
        let stride = l.next_multiple_of(EIGHT);
        let mut inner = gpu.alloc(&[width, stride])?;
        let grid = Grid::over(width * stride, 256 * EIGHT, 256);
        let (u, width) = (layer.u.as_ref(), width as u32);
        attention_mil_half_pack::<H>(gpu, grid, &layer.v, u, &mut inner, l as u32, d as u32, width, stride as u32)?;
        Ok(Rounded { inner })
    }
}

macro_rules! products {
    ($H:ty, $score:ident, $inner_gradient:ident) => {
        impl<T: Real> Products<T> for Rounded<$H> {
            type Gate = $H;

            fn stride(&self, width: usize) -> usize {
                width.next_multiple_of(EIGHT)
            }

            fn score<F: Element>(
                &self,
                gpu: Gpu,
                layer: &Layer<T>,
                x: &Tensor<F>,
                Span { first, rows }: Span,
                part: Option<&mut Tensor<T>>,
                gates: Option<&mut Tensor<$H>>,
            ) -> Result<()> {
                let (Dims { n, l, d, k }, width) = (layer.dims, layer.width());
                let grid = Grid::new(rows.div_ceil(TILE) * layer.tiles(), THREADS).shared(SHARED);
                let (v_bias, u_bias) = (layer.v_bias.as_ref(), layer.u_bias.as_ref());
                let [stride, gate_stride] = [l, width].map(|n| n.next_multiple_of(EIGHT) as u32);
                $score::<F>(
                    gpu,
                    grid,
                    x,
                    &self.inner,
                    v_bias,
                    u_bias,
                    &layer.w,
                    part,
                    gates,
                    n as u32,
                    first as u32,
                    rows as u32,
                    l as u32,
                    d as u32,
                    width as u32,
                    stride,
                    gate_stride,
                    layer.tiles() as u32,
                    k as u32,
                )
            }

            fn inner_gradient<F: Element>(
                &self,
                gpu: Gpu,
                layer: &Layer<T>,
                x: &Tensor<F>,
                Span { first, rows }: Span,
                split: usize,
                grad_gates: &Tensor<$H>,
                part: &mut Tensor<T>,
            ) -> Result<()> {
                let (Dims { n, l, d, .. }, width) = (layer.dims, layer.width());
                let grid = Grid::new(l.div_ceil(TILE), THREADS).times(layer.tiles()).layers(rows.div_ceil(split));
                $inner_gradient::<F>(
                    gpu,
                    grid.shared(SHARED),
                    x,
                    grad_gates,
                    part,
                    n as u32,
                    first as u32,
                    rows as u32,
                    split as u32,
                    l as u32,
                    d as u32,
                    width as u32,
                    width.next_multiple_of(EIGHT) as u32,
                )
            }

            fn input_gradient(
                &self,
                gpu: Gpu,
                layer: &Layer<T>,
                Span { first, rows }: Span,
                grad_gates: &Tensor<$H>,
                from: &ToInput<'_, T>,
                grad_x: &mut Tensor<T>,
            ) -> Result<()> {
                let (Dims { n, l, k, .. }, width) = (layer.dims, layer.width());
                let grid = Grid::new(rows.div_ceil(TILE) * l.div_ceil(TILE), THREADS).shared(SHARED);
                let [stride, gate_stride] = [l, width].map(|n| n.next_multiple_of(EIGHT) as u32);
                attention_mil_half_input_gradient::<$H>(
                    gpu,
                    grid,
                    grad_gates,
                    &self.inner,
                    from.weights,
                    from.grad_pooled,
                    from.offset,
                    grad_x,
                    n as u32,
                    first as u32,
                    rows as u32,
                    from.bags as u32,
                    l as u32,
                    width as u32,
                    stride,
                    gate_stride,
                    k as u32,
                )
            }
        }
    };
}
products!(f16, attention_mil_half_score_f16, attention_mil_half_inner_gradient_f16);
products!(bf16, attention_mil_half_score_bf16, attention_mil_half_inner_gradient_bf16);
