//! Kernels, declared once: from a declaration come the typed launch, the C prototype and the list that a test walks.

use std::marker::PhantomData;

use cudarc::driver::{LaunchConfig, PushKernelArg};

use super::cuda::Gpu;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How many blocks of how many threads, and the dynamic shared memory of each block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    blocks: [usize; 3],
    threads: u32,
    shared: usize,
}

impl Grid {
    /// A row of blocks.
    pub(crate) fn new(blocks: usize, threads: u32) -> Grid {
        Grid { blocks: [blocks, 1, 1], threads, shared: 0 }
    }

    /// One block for every `items` of `n`.
    pub(crate) fn over(n: usize, items: usize, threads: u32) -> Grid {
        Grid::new(n.div_ceil(items), threads)
    }

    /// Several such rows: `blockIdx.y` counts them. At most 65535.
    #[must_use]
    pub(crate) fn times(self, y: usize) -> Grid {
        Grid { blocks: [self.blocks[0], y, self.blocks[2]], ..self }
    }

    /// And layers: `blockIdx.z`. At most 65535.
    #[must_use]
    #[allow(dead_code, reason = "for kernels over three dimensions")]
    pub(crate) fn layers(self, z: usize) -> Grid {
        Grid { blocks: [self.blocks[0], self.blocks[1], z], ..self }
    }

    /// With this many bytes of dynamic shared memory a block.
    #[must_use]
    pub(crate) fn shared(self, bytes: usize) -> Grid {
        Grid { shared: bytes, ..self }
    }
}

/// An argument as the launch interface wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot {
    Pointer(u64),
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    F64(f64),
}

/// A type that a declaration may give a parameter.
pub(crate) trait Param {
    /// How C writes it.
    fn c() -> String;
}

/// What is given for a parameter of the type `P`.
pub(crate) trait Argument<P> {
    /// The number of elements of a tensor, if there is one; of a scalar, its value: lengths are calculated with them.
    fn size(&self) -> Option<usize>;
    /// The slot. A tensor must lie on the device and have the element type of the declaration.
    fn slot(&mut self, gpu: Gpu, kernel: &'static str) -> Result<Slot>;
}

macro_rules! scalars {
    ($($t:ty = $slot:ident $c:literal),*) => { $(
        impl Param for $t {
            fn c() -> String {
                $c.into()
            }
        }
        impl Argument<$t> for $t {
            #[allow(clippy::unnecessary_cast, reason = "one body for all types")]
            fn size(&self) -> Option<usize> {
                Some(*self as usize)
            }
            fn slot(&mut self, _: Gpu, _: &'static str) -> Result<Slot> {
                Ok(Slot::$slot(*self))
            }
        }
    )* };
}
scalars!(u32 = U32 "unsigned int", i32 = I32 "int", u64 = U64 "unsigned long long", f32 = F32 "float", f64 = F64 "double");

/// In a declaration: elements that a kernel reads.
pub(crate) struct In<P>(PhantomData<P>);
/// In a declaration: elements that a kernel writes, and may read.
pub(crate) struct Out<P>(PhantomData<P>);

impl<P: Element> Param for In<P> {
    fn c() -> String {
        format!("const {}* __restrict__", P::C)
    }
}
impl<P: Element> Param for Out<P> {
    fn c() -> String {
        format!("{}* __restrict__", P::C)
    }
}
impl<P: Param> Param for Option<P> {
    fn c() -> String {
        P::c()
    }
}

/// The address of a tensor for `kernel`. It must lie on the device and have the element type `P` of the declaration.
pub(super) fn place<P: Element, T: Element>(tensor: &Tensor<T>, gpu: Gpu, kernel: &'static str) -> Result<u64> {
    let refused = |why| Err(Error::Device { name: gpu.to_string(), why });
    if T::NAME != P::NAME {
        return refused(format!("{kernel} calculates in {} there, not in {}: use the CPU for it", P::NAME, T::NAME));
    }
    match tensor.memory() {
        Some(memory) if memory.gpu() == gpu => Ok(memory.address()),
        _ => refused(format!("an argument of {kernel} lies on {}", tensor.device())),
    }
}

impl<P: Element, T: Element> Argument<In<P>> for &Tensor<T> {
    fn size(&self) -> Option<usize> {
        Some(self.len())
    }
    fn slot(&mut self, gpu: Gpu, kernel: &'static str) -> Result<Slot> {
        Ok(Slot::Pointer(place::<P, T>(self, gpu, kernel)?))
    }
}
impl<P: Element, T: Element> Argument<Out<P>> for &mut Tensor<T> {
    fn size(&self) -> Option<usize> {
        Some(self.len())
    }
    fn slot(&mut self, gpu: Gpu, kernel: &'static str) -> Result<Slot> {
        self.own()?;
        Ok(Slot::Pointer(place::<P, T>(self, gpu, kernel)?))
    }
}
impl<P, A: Argument<P>> Argument<Option<P>> for Option<A> {
    fn size(&self) -> Option<usize> {
        self.as_ref().and_then(A::size)
    }
    fn slot(&mut self, gpu: Gpu, kernel: &'static str) -> Result<Slot> {
        self.as_mut().map_or(Ok(Slot::Pointer(0)), |a| a.slot(gpu, kernel))
    }
}

/// Name and C type of each parameter of a kernel.
type Parameters = Vec<(&'static str, String)>;

/// One declared kernel.
#[derive(Debug)]
pub(crate) struct Signature {
    /// The file: `kernels/<module>.cu`.
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    /// The suffix of each element type it exists for, and its parameters; one empty suffix if there is only one.
    pub(crate) variants: &'static [(&'static str, fn() -> Parameters)],
}

impl Signature {
    /// The names of its entry points.
    pub(crate) fn entry_points(&self) -> impl Iterator<Item = (String, Parameters)> + '_ {
        self.variants.iter().map(|(suffix, parameters)| {
            let name = if suffix.is_empty() { self.name.into() } else { format!("{}_{suffix}", self.name) };
            (name, parameters())
        })
    }
}

/// The C prototypes of kernels: the text of `kernels/entry_points.h`.
pub(crate) fn prototypes<'a>(signatures: impl Iterator<Item = &'a Signature>) -> String {
    let mut text = String::from(
        "// Made from the declarations in src/ops/*/cuda.rs, so that a definition that disagrees does not compile.\n\
         // `ONKOS_BLESS=1 cargo test --test house entry_points` writes it anew.\n#pragma once\n",
    );
    let mut module = "";
    for signature in signatures {
        if signature.module != module {
            module = signature.module;
            text.push_str(&format!("\n// {module}.cu\n"));
        }
        for (name, parameters) in signature.entry_points() {
            let parameters: Vec<String> = parameters.iter().map(|(name, c)| format!("{c} {name}")).collect();
            text.push_str(&format!("extern \"C\" __global__ void {name}({});\n", parameters.join(", ")));
        }
    }
    text
}

/// Launches a kernel; `kernels!` makes the calls.
///
/// Safe to call inside the crate because the arguments were checked against the declaration, which says all that the
/// kernel touches: element types, places and lengths. That the kernel keeps to it is what its suite shows under the
/// emulated driver, which reports every access outside.
#[allow(unsafe_code)]
pub(crate) fn launch(
    gpu: Gpu,
    grid: Grid,
    module: &'static str,
    name: &'static str,
    suffix: &'static str,
    slots: &[Slot],
) -> Result<()> {
    if grid.blocks.contains(&0) {
        return Ok(());
    }
    let doing = || format!("launching {name}");
    let function = gpu.function(module, name, suffix)?;
    let [x, y, z] = grid.blocks.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let shared = u32::try_from(grid.shared).unwrap_or(u32::MAX);
    if shared > 48 << 10 {
        let attribute = cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, shared as i32).map_err(|e| gpu.failed(&doing(), e))?;
    }
    let mut builder = gpu.stream().launch_builder(&function);
    for slot in slots {
        match slot {
            Slot::Pointer(v) => builder.arg(v),
            Slot::U32(v) => builder.arg(v),
            Slot::I32(v) => builder.arg(v),
            Slot::U64(v) => builder.arg(v),
            Slot::F32(v) => builder.arg(v),
            Slot::F64(v) => builder.arg(v),
        };
    }
    let config = LaunchConfig { grid_dim: (x, y, z), block_dim: (grid.threads, 1, 1), shared_mem_bytes: shared };
    // SAFETY: see above; the slots have the types of the entry point, whose C prototype comes from the declaration.
    unsafe { builder.launch(config) }.map_err(|e| gpu.failed(&doing(), e))?;
    if wait_for_each() { gpu.synchronize() } else { Ok(()) }
}

/// `ONKOS_SYNC=1`: waits for every kernel, so that an error names the one it happened in.
fn wait_for_each() -> bool {
    static WAIT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *WAIT.get_or_init(|| std::env::var_os("ONKOS_SYNC").is_some_and(|v| v == "1"))
}

/// Declares the kernels of one file, `kernels/<module>.cu`.
///
/// `x: In<f32> = rows * columns` says that the kernel touches that many elements of `x`, which the launch checks; names
/// in it are those of the scalars, and of tensors for their own length. `fn f<F in f32, f16, bf16>` exists once for each
/// of these element types, with the name of the type behind its own.
macro_rules! kernels {
    ($module:literal: $($(#[$doc:meta])* fn $name:ident $(<$F:ident in $($dtype:ident),+>)? (
        $($p:ident: $t:ty $(= $len:expr)?),* $(,)?
    );)*) => {
        /// What this file declares.
        pub(crate) const KERNELS: &[$crate::device::Signature] = &[$($crate::device::Signature {
            module: $module,
            name: stringify!($name),
            variants: kernels!(@variants [$($F: $($dtype)+)?] ($($p: $t),*)),
        }),*];
        $(kernels!(@launch $module [$($F)?] $(#[$doc])* $name($($p: $t $(= $len)?),*));)*
    };
    (@variants [] ($($p:ident: $t:ty),*)) => {
        &[("", {
            fn parameters() -> Vec<(&'static str, String)> {
                vec![$((stringify!($p), <$t as $crate::device::Param>::c())),*]
            }
            parameters
        })]
    };
    (@variants [$F:ident: $($dtype:ident)+] $parameters:tt) => {
        &[$(kernels!(@variant $F $dtype $parameters)),+]
    };
    (@variant $F:ident $dtype:ident ($($p:ident: $t:ty),*)) => {
        (stringify!($dtype), {
            #[allow(unused_imports)]
            use half::{bf16, f16};
            type $F = $dtype;
            fn parameters() -> Vec<(&'static str, String)> {
                vec![$((stringify!($p), <$t as $crate::device::Param>::c())),*]
            }
            parameters
        })
    };
    (@launch $module:literal [] $(#[$doc:meta])* $name:ident($($p:ident: $t:ty $(= $len:expr)?),*)) => {
        $(#[$doc])*
        pub(crate) fn $name(
            gpu: $crate::device::Gpu,
            grid: $crate::device::Grid,
            $(mut $p: impl $crate::device::Argument<$t>),*
        ) -> $crate::Result<()> {
            kernels!(@body gpu grid $module $name "" $($p $(= $len)?),*)
        }
    };
    (@launch $module:literal [$F:ident] $(#[$doc:meta])* $name:ident($($p:ident: $t:ty $(= $len:expr)?),*)) => {
        $(#[$doc])*
        pub(crate) fn $name<$F: $crate::Element>(
            gpu: $crate::device::Gpu,
            grid: $crate::device::Grid,
            $(mut $p: impl $crate::device::Argument<$t>),*
        ) -> $crate::Result<()> {
            kernels!(@body gpu grid $module $name (<$F as $crate::Element>::SUFFIX) $($p $(= $len)?),*)
        }
    };
    (@body $gpu:ident $grid:ident $module:literal $name:ident $suffix:tt $($p:ident $(= $len:expr)?),*) => {{
        let sizes = [$($p.size()),*];
        let slots = [$($p.slot($gpu, stringify!($name))?),*];
        {
            #[allow(unused_variables, unused_mut)]
            let mut given = sizes.iter();
            $(#[allow(unused_variables)] let $p = given.next().copied().flatten().unwrap_or(0);)*
            let wanted: [Option<usize>; { [$(stringify!($p)),*].len() }] = [$(kernels!(@wanted $($len)?)),*];
            let names = [$(stringify!($p)),*];
            for ((name, size), wanted) in names.iter().zip(sizes).zip(wanted) {
                // An optional tensor that is not given touches nothing.
                if let (Some(size), Some(wanted)) = (size, wanted) {
                    assert_eq!(size, wanted, "{}: number of elements of {name}", stringify!($name));
                }
            }
        }
        $crate::device::launch($gpu, $grid, $module, stringify!($name), $suffix, &slots)
    }};
    (@wanted) => { None };
    (@wanted $len:expr) => { Some($len) };
}
pub(crate) use kernels;
