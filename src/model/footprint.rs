//! How much memory of a card, or of the CPU, a batch takes: the tensors that are there at once, counted.

use super::{
    AbmilConfig, FusionConfig, McatConfig, ModelConfig, Pool, Recipe, SdirConfig, SurvPathConfig, TransMilConfig,
};
use crate::device::{Device, Precision, Products};
use crate::element::Element;
use crate::features::FeatureType;
use crate::ops::attention_mil::Room;
use crate::ops::cade::{Bandwidth, Statistics};
use crate::ops::linear::grad_weight_bytes;
use crate::ops::matmul_cublaslt::copy_bytes;
use crate::ops::{Activation, Cade, MixStyle, Sdir};

/// What decides how much a batch takes, besides the batch.
#[derive(Clone, Debug)]
pub struct Footprint {
    model: ModelConfig,
    /// Genes of all signatures, and signatures; 0 without expression.
    genes: usize,
    signatures: usize,
    /// Features of a patch, 0 without patches, and their type.
    features: usize,
    dtype: FeatureType,
    /// The precision of products by cuBLASLt, which wants copies of factors of another type.
    copied: Option<Precision>,
}

/// The size of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Its patients.
    pub patients: usize,
    /// All their patches.
    pub patches: usize,
}

/// Bytes of an element of what is calculated.
const WORD: usize = size_of::<f32>();

/// What one modality has on the device, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// A tensor of all its tokens, and a number a token and head.
    tokens: usize,
    heads: usize,
    /// What the forward pass leaves for the backward pass, gates and what the attention read included.
    kept: usize,
    /// What of it the backward pass of the attention frees.
    freed: usize,
    /// What the attention takes for itself.
    attention: Room,
    /// What the entanglement takes for itself there, and on the way back.
    entangled: [usize; 2],
}

impl Side {
    /// When the attention has gone back: the gradient of its tokens is there, and its weights, which are an output.
    fn after_attention(&self) -> usize {
        self.kept - self.freed + self.tokens
    }
}

/// Which tensors of its tokens a modality has to keep.
#[derive(Clone, Copy, Debug)]
struct Chain<'a> {
    /// The layer that gives the tokens keeps something else than its result.
    argument: bool,
    dropout: bool,
    /// Their channel statistics are mixed between patients: the result is another tensor, and nothing keeps the argument.
    mixed: bool,
    sdir: Option<&'a Sdir>,
    /// They are entangled, unless no patient is drawn.
    cade: Option<&'a Cade>,
}

impl Chain<'_> {
    /// How many there are from the forward pass to the backward pass, and how many of them the attention alone needs.
    fn kept(&self) -> (usize, usize) {
        let gains = self.sdir.is_some_and(|sdir| sdir.gain.is_active());
        // A mask without a gain is applied by the entanglement.
        let masked = gains || (self.sdir.is_some() && self.cade.is_none());
        // What the mask or the gain reads, if it is not what the layer keeps in any case.
        let dropped = self.argument || self.dropout || self.mixed;
        let reads = self.cade.is_some_and(|cade| cade.statistics == Statistics::Differentiated);
        let (attention, gave) = match (self.cade.is_some(), masked) {
            (true, masked) => (true, reads && masked),
            (false, true) => (true, false),
            (false, false) => (dropped, false),
        };
        let read = dropped && (gains || (reads && !masked));
        (1 + usize::from(attention) + usize::from(gave) + usize::from(read), usize::from(attention))
    }
}

impl Footprint {
    /// Of the models of a recipe over features of this type.
    pub fn new(recipe: &Recipe, dtype: FeatureType) -> Footprint {
        let signatures = recipe.genes.as_ref().map_or(&[][..], |genes| &genes.signatures);
        Footprint {
            model: recipe.model.clone(),
            genes: signatures.iter().map(|s| s.genes.len()).sum(),
            signatures: signatures.len(),
            features: recipe.patches.as_ref().map_or(0, |patches| patches.width),
            dtype,
            copied: None,
        }
    }

    /// The same with the products of a device: cuBLASLt wants copies of factors. Its workspace is not counted, because it
    /// was taken when it was chosen and is not free when a batch asks what is.
    #[must_use]
    pub fn on(self, device: Device) -> Footprint {
        let copied = match device {
            Device::Cuda(gpu) if gpu.products() == Products::CublasLt => Some(gpu.precision()),
            _ => None,
        };
        Footprint { copied, ..self }
    }

    /// The bytes of the copy that a product wants of a factor of f32, or of features.
    fn copy(&self, name: &str, rows: usize, columns: usize) -> usize {
        self.copied.map_or(0, |precision| copy_bytes(precision, name, rows, columns))
    }

    /// The width of a token.
    fn width(&self) -> usize {
        match &self.model {
            ModelConfig::Fusion(c) => c.width,
            ModelConfig::SurvPath(c) => c.width,
            ModelConfig::Mcat(c) | ModelConfig::Motcat(c) => c.width,
            ModelConfig::Abmil(c) => c.width,
            ModelConfig::TransMil(c) => c.width,
            ModelConfig::Snn(_) => 0,
        }
    }

    /// The copies that the projection of the patches wants.
    fn projected(&self, patches: usize) -> usize {
        self.copy(self.dtype.name(), patches, self.features) + self.copy(f32::NAME, self.width(), self.features)
    }

    /// The bytes that a pass over a batch takes besides parameters, their gradients and the optimiser.
    ///
    /// It is the largest of what lies there at the points of a pass where most does; the sum of what each op has kept by
    /// then, and of what it has for itself. With `N` tokens of a modality, `D` their width, `H` heads and `G` the width of
    /// the gates, in elements of 4 bytes:
    ///
    /// | what | elements | from | to |
    /// |---|---|---|---|
    /// | result of the layer that gives the tokens | `N D` | there | back of that layer |
    /// | what a gain reads, and an entanglement that is differentiated | `N D` each | there | back of that op |
    /// | tokens that the attention reads, if they are none of these | `N D` | there | back of the attention |
    /// | gates, unless they are [calculated again](crate::ops::attention_mil) | `N G` | there | back of the attention |
    /// | weights of the attention | `N H` | there | the end |
    /// | gradient of the tokens, and the one that becomes of it in an op | `2 N D` | back | |
    /// | copies of factors, with cuBLASLt and where their type is not the one that is multiplied | each | for one product | |
    ///
    /// In prediction nothing is kept. What is taken is never more, and at least three quarters of it where there are
    /// some hundred tokens (tests/device/memory.rs). On the CPU, of hundreds of patches a patient and more, training takes
    /// 0.88 to 1.13 times and prediction 0.87 to 1.8 times of it (tests/host_memory.rs): threads have sums of their own. Back through a plan of MOTCat, which
    /// is calculated in f64 there, training takes up to 2.4 times of it.
    pub fn bytes(&self, batch: BatchSize, training: bool) -> u64 {
        let patches = if self.features > 0 { batch.patches } else { 0 };
        let tokens = batch.patients * self.signatures;
        // Both passes have the inputs, and the tables of the bags: where they begin, their segments, who is in them.
        let inputs = patches * self.features * self.dtype.bytes() + batch.patients * self.genes * WORD;
        let segments = (patches + tokens) / crate::shape::SEGMENT + 2 * batch.patients;
        let tables = 16 * WORD * (batch.patients + 1) + WORD * segments;
        let always = inputs + tables + self.standardized();
        let of_slides;
        let c = match &self.model {
            ModelConfig::Fusion(c) => c,
            ModelConfig::Abmil(c) => {
                of_slides = like_fusion(c);
                &of_slides
            }
            // A row of each layer and of what is dropped of it, and their gradients.
            ModelConfig::Snn(c) => {
                let widths = c.widths.iter().sum::<usize>() + HAZARDS;
                return (always + batch.patients * (self.genes + 4 * widths) * WORD) as u64;
            }
            ModelConfig::Mcat(c) | ModelConfig::Motcat(c) => {
                let of_attention = match &self.model {
                    ModelConfig::Mcat(_) => self.guided(c, patches, batch.patients, training),
                    _ => self.transport(c, patches, batch.patients, training),
                };
                return (always + self.mcat(c, patches, tokens, training, of_attention)) as u64;
            }
            ModelConfig::TransMil(c) => {
                return (always + self.transmil(c, patches, batch.patients, training)) as u64;
            }
            ModelConfig::SurvPath(c) => {
                return (always + self.survpath(c, patches, tokens, batch.patients, training)) as u64;
            }
        };
        let modalities = usize::from(self.features > 0) + usize::from(self.signatures > 0);
        let joined = batch.patients * modalities * (c.heads * c.width + 1) * WORD;
        let hidden = batch.patients * (c.head_hidden + HAZARDS) * WORD;
        let at_once = if training {
            self.training(c, patches, tokens, batch.patients, joined, hidden)
        } else {
            self.prediction(c, patches, tokens, batch.patients) + 2 * joined + hidden
        };
        (always + at_once) as u64
    }

    /// The weight of the projection with the standardisation folded in.
    fn standardized(&self) -> usize {
        self.features * self.width() * WORD
    }

    /// What SurvPath takes at once, with tokens of `D` and an attention of `E` and `H` heads, in elements a token:
    ///
    /// | what | elements |
    /// |---|---|
    /// | tokens, and normalised | `2 D`; if CADE is differentiated the entangled ones, too |
    /// | queries, keys, values; what is attended to | `4 E + H` |
    /// | normalised, the argument of GELU, what the second layer reads and gives | `4 E` |
    /// | the gradient of a layer norm at the end, and of its argument | `2 E` |
    /// | or those of the attention, when the four above are gone | `4 E + H` |
    ///
    /// Gene tokens have the layers of their nets besides, and a part for each chunk of patches in the attention.
    fn survpath(&self, c: &SurvPathConfig, patches: usize, tokens: usize, patients: usize, training: bool) -> usize {
        let (d, e, h, n) = (c.width, c.attention_width, c.heads, patches + tokens);
        let copies = self.projected(patches) + self.copy(f32::NAME, n, d.max(e)) + self.copy(f32::NAME, 3 * e, d);
        let slots = self.signatures * (2 * patients + patches / 512);
        if !training {
            let packing = patches * (2 * d + 3 * e) + tokens * 3 * e;
            let attending = n * (4 * e + h) + slots * (e + h);
            // The weights of patches are there in a pass that is asked for them: from the attention to the end.
            return (packing.max(attending).max(tokens * 3 * d) + patches * h) * WORD + copies;
        }
        let nets = tokens * d * if c.gene_dropout > 0.0 { 3 } else { 1 };
        let kept = nets
            + plugged(&c.sdir, c.cade.as_ref(), c.mixstyle.as_ref(), d, (patches, false), tokens)
            + n * (2 * d + 4 * e + h);
        let moments = [kept + n * 6 * e, kept + n * (4 * e + h) + slots * 3 * e];
        moments.into_iter().max().unwrap_or(0) * WORD + copies
    }

    /// What MCAT or MOTCat takes at once, with tokens of `D` and hidden layers of `F`, besides their co-attention, in elements a
    /// patch token: tokens, and after their dropout or, with CADE, entangled, `2 D`. And in elements a gene token, besides those of
    /// the nets: `3 D` around the co-attention, `8 D + 2 F` of a transformer layer of either branch.
    fn mcat(&self, c: &McatConfig, patches: usize, tokens: usize, training: bool, attention: CoAttention) -> usize {
        let (d, f) = (c.width, c.encoder_hidden);
        let dropped = usize::from(c.dropout > 0.0);
        let copies = self.projected(patches) + attention.copies;
        if !training {
            // With the weights of patches, which are there to the end if the pass is asked for them.
            let taken = (attention.forth + tokens * 3 * d).max(tokens * (8 * d + f)) + patches * c.heads;
            return taken * WORD + copies;
        }
        let nets = tokens * d * if c.gene_dropout > 0.0 { 3 } else { 1 };
        let layer = 8 * d + (1 + dropped) * f;
        let of_genes = nets + tokens * (3 * d + 2 * c.encoder_layers * layer);
        let after = if c.cade.is_some() { 0 } else { dropped };
        let of_patches = patches * (1 + after) * d
            + plugged(&c.sdir, c.cade.as_ref(), c.mixstyle.as_ref(), d, (patches, true), tokens);
        let moments = [
            of_genes + of_patches + attention.kept + tokens * (4 * d + f),
            nets + tokens * 4 * d + of_patches + attention.back,
            nets + tokens * 4 * d + of_patches - patches * after * d + attention.forth,
        ];
        moments.into_iter().max().unwrap_or(0) * WORD + copies
    }

    /// What TransMIL takes at once, in elements a token of `D`: the tokens of the square, and of each layer its argument, what is
    /// normalised, queries, keys and values side by side, values once more, what was attended to and what the last layer reads, 17
    /// in all with the tokens between the layers; on the way back the gradient of a residual, of a dropout and of what the last
    /// layer read. And squares of the landmarks: what their inverse was, and in its backward pass nine more.
    fn transmil(&self, c: &TransMilConfig, patches: usize, patients: usize, training: bool) -> usize {
        let (d, m) = (c.width, c.landmarks);
        // Squares of all patients: n up to (1 + sqrt n)^2 each, and a class token; zeros in front.
        let again = 2 * ((patients * patches) as f64).sqrt().ceil() as usize;
        let n = patches + again + patients * (2 + if c.padded { m } else { 0 });
        let (marks, square) = (patients * m, patients * c.heads * m * m);
        let copies = self.projected(patches) + self.copy(f32::NAME, n, d) + self.copy(f32::NAME, d, d);
        // Which row stands where: a number a token for each source, and where each row stands.
        let at = 3 * n;
        if !training {
            let moments = [6 * n * d + marks * 3 * d, 5 * n * d + marks * 5 * d + n * c.heads];
            let inverse = 3 * n * d + marks * 4 * d + (c.iterations + 5) * square;
            return (moments.into_iter().max().unwrap_or(0).max(inverse) + at) * WORD + copies;
        }
        let mixed = usize::from(c.mixstyle.is_some());
        let kept = (1 + mixed) * patches * d
            + 17 * n * d
            + 2 * (n * c.heads + marks * (7 * d + c.heads) + (c.iterations + 2) * square);
        let last = if c.dropout > 0.0 { 3 } else { 2 };
        // The sums of the bias of the layer that goes back then, too.
        let sums = n.div_ceil(32).min(512) * d;
        let moments = [kept + last * n * d + sums, kept + n * d + 9 * square + 4 * marks * d];
        (moments.into_iter().max().unwrap_or(0) + at) * WORD + copies
    }

    /// Keys and values, `2 D` a patch token, their gradients and that of the tokens which comes of them; a part for each chunk of
    /// patches.
    fn guided(&self, c: &McatConfig, patches: usize, patients: usize, training: bool) -> CoAttention {
        let d = c.width;
        let slots = self.signatures * (patients + patches / 512);
        let attending = patches * 2 * d + (slots + self.signatures * patients) * (d + c.heads);
        CoAttention {
            forth: if training { attending + patches * d } else { attending.max(patches * 3 * d) },
            kept: patches * 2 * d,
            back: patches * 4 * d + slots * d,
            copies: self.copy(f32::NAME, patches, 2 * d) + self.copy(f32::NAME, 2 * d, d),
        }
    }

    /// The plan, while it is made costs, scalings and least elements, and then a part for each tile of patches; the gradient
    /// of the tokens, and if it goes through the plan costs again, what is owed to them, four numbers a patch and such parts.
    fn transport(&self, c: &McatConfig, patches: usize, patients: usize, training: bool) -> CoAttention {
        let (d, s) = (c.width, self.signatures);
        let making = patches * (s + 2) + s * patients;
        let tiles = (patches / 512 + patients) * s * d;
        CoAttention {
            forth: patches * (d + s) + making.max(tiles),
            kept: if training { patches * s } else { 0 },
            back: patches * (s + d) + if c.ot_gradient { patches * (2 * s + 4) + tiles } else { 0 },
            copies: 0,
        }
    }

    fn training(
        &self,
        c: &FusionConfig,
        patches: usize,
        tokens: usize,
        patients: usize,
        joined: usize,
        hidden: usize,
    ) -> usize {
        let both = self.features > 0 && self.signatures > 0;
        let cade = c.cade.as_ref().filter(|_| both);
        let of_patches = Chain {
            argument: c.patch_activation.keeps_argument(),
            dropout: c.patch_dropout > 0.0,
            mixed: c.mixstyle.is_some(),
            sdir: c.sdir.patches.as_ref(),
            cade,
        };
        let of_genes =
            Chain { argument: false, dropout: c.gene_dropout > 0.0, mixed: false, sdir: c.sdir.genes.as_ref(), cade };
        let (p, mut g) = (side(c, patches, patients, of_patches), side(c, tokens, patients, of_genes));
        // The hidden layer of the gene nets, before and after its dropout.
        let gene_hidden = tokens * c.gene_hidden * WORD;
        g.kept += gene_hidden * if of_genes.dropout { 2 } else { 1 };

        let projection = patches * c.width * WORD;
        let copied = self.copied.map(|precision| (precision, self.dtype.name()));
        let of_weight = grad_weight_bytes(patches, self.features, c.width, copied);
        let argument = if of_patches.argument { projection } else { 0 };
        // Of the second layer of the gene nets: its argument's gradient with its input, or with its weight.
        let gene_weight = self.copy(f32::NAME, c.width, c.gene_hidden);
        let gene_input = self.copy(f32::NAME, tokens, c.gene_hidden);
        let gene_copies = self.copy(f32::NAME, tokens, c.width) + gene_input.max(gene_weight);
        let of_head = self.copy(f32::NAME, patients, 2 * (c.heads * c.width + 1) + c.head_hidden + HAZARDS)
            + self.copy(f32::NAME, c.head_hidden + HAZARDS, 2 * (c.heads * c.width + 1));
        let inner = if c.patch_activation == Activation::Identity { 0 } else { projection };
        let moments = [
            // The tokens of patches are made, where those of genes are there.
            g.kept + projection + argument + self.projected(patches),
            g.tokens + 2 * gene_hidden + gene_input + gene_weight,
            // Those of patches are mixed between patients: as they were and as they are, and what is known of their tiles.
            if of_patches.mixed {
                g.kept + projection + argument + 2 * p.tokens + tiles(c, patches, patients)
            } else {
                0
            },
            // The attention over genes is there, that over patches begins.
            p.kept + g.kept + p.attention.forth.max(g.attention.forth) + 2 * joined,
            // The head goes back: its input and that before its dropout, with their gradients.
            p.kept + g.kept + 5 * joined + 3 * hidden + of_head,
            // The attentions go back, the last one first.
            p.kept + g.kept + p.tokens + p.attention.back + 2 * joined,
            p.after_attention() + g.kept + g.tokens + g.attention.back + 2 * joined,
            // The tokens are entangled: before and after, and what the layers keep, without any attention.
            p.kept - p.freed + g.kept - g.freed + 2 * (p.tokens + g.tokens) + p.entangled[0] + g.entangled[0],
            // The entanglement goes back, or masks and dropouts do: a gradient of the result, and one of the tokens.
            p.after_attention() + p.tokens + p.entangled[1] + g.after_attention() + g.tokens + g.entangled[1] + joined,
            // The projection of the patches goes back.
            2 * projection + inner + p.heads + of_weight + self.standardized() + g.after_attention() + joined,
            // The second layer of the gene nets does: gradients before and after the activation, and of its input.
            p.heads + g.heads + 3 * g.tokens + 3 * gene_hidden + gene_copies + joined,
        ];
        moments.into_iter().max().unwrap_or(0)
    }

    fn prediction(&self, c: &FusionConfig, patches: usize, tokens: usize, patients: usize) -> usize {
        let row = |n: usize| n * c.width * WORD;
        let heads = |n: usize| n * c.heads * WORD;
        let forth = |n: usize| Room::of(n, c.width, patients, c.attention_width, c.heads, c.gated).forth;
        let gains = c.sdir.genes.is_some_and(|sdir| sdir.gain.is_active() && sdir.gain_in_eval);
        // The layer that gives patch tokens, with all tokens of genes there; then one attention after the other.
        let argument = if c.patch_activation.keeps_argument() { row(patches) } else { 0 };
        let gene_copies = self.copy(f32::NAME, tokens, c.gene_hidden) + self.copy(f32::NAME, c.width, c.gene_hidden);
        let genes = row(tokens) + tokens * c.gene_hidden * WORD + gene_copies;
        let moments = [
            genes.max(row(tokens) + row(patches) + argument + self.projected(patches)),
            row(patches) + row(tokens) * if gains { 2 } else { 1 },
            row(patches) + row(tokens) + heads(tokens) + forth(tokens),
            row(patches) + heads(tokens) + heads(patches) + forth(patches),
        ];
        moments.into_iter().max().unwrap_or(0)
    }

    /// The bytes of the features alone of so many patches.
    pub fn feature_bytes(&self, patches: usize) -> u64 {
        (patches * self.features * self.dtype.bytes()) as u64
    }
}

/// Outputs that a model is taken to have at most: the bins of a discrete-time one.
const HAZARDS: usize = 16;

/// Elements that a co-attention takes: while it goes forth, patch tokens included, what it keeps, and at once on the way
/// back; and bytes of copies.
struct CoAttention {
    forth: usize,
    kept: usize,
    back: usize,
    copies: usize,
}

/// Elements that are kept besides the tokens of `d` that the plug-ins of a model give: those that they were given, if the layer
/// of the patches holds its result (`held`), and what they keep themselves.
fn plugged(
    sdir: &SdirConfig,
    cade: Option<&Cade>,
    mixstyle: Option<&MixStyle>,
    d: usize,
    (patches, held): (usize, bool),
    tokens: usize,
) -> usize {
    let given = if held { patches * d } else { 0 };
    let of_cade = match cade {
        Some(cade) if cade.statistics == Statistics::Differentiated => (patches + tokens) * (d + 30),
        Some(_) => given + tokens * d + (patches + tokens) * 4,
        None => 0,
    };
    let gained = sdir.genes.is_some_and(|sdir| sdir.gain.is_active());
    // Patch tokens before and after they are mixed between patients.
    let mixed = if mixstyle.is_some() { given } else { 0 };
    of_cade + mixed + if gained { tokens * d } else { 0 }
}

/// Attention MIL as the fusion model of slides alone that has the same tensors of patches.
fn like_fusion(c: &AbmilConfig) -> FusionConfig {
    FusionConfig {
        width: c.width,
        attention_width: if c.attends() { c.attention_width } else { 0 },
        gated: c.pool == Pool::Gated,
        patch_activation: Activation::Relu,
        patch_dropout: c.dropout,
        head_hidden: c.width,
        head_dropout: c.dropout,
        sdir: SdirConfig::OFF,
        cade: None,
        mixstyle: c.mixstyle,
        ..FusionConfig::default()
    }
}

/// Mean and squares of each tile of a bag in f64, and of each bag, with what becomes of them.
fn tiles(c: &FusionConfig, n: usize, patients: usize) -> usize {
    let doubles = 2 * size_of::<f64>();
    c.width * ((n / 128 + patients) * doubles + patients * (doubles + 3 * WORD))
}

/// One modality of `n` tokens.
fn side(c: &FusionConfig, n: usize, patients: usize, chain: Chain<'_>) -> Side {
    let (tokens, heads) = (n * c.width * WORD, n * c.heads * WORD);
    let attention = Room::of(n, c.width, patients, c.attention_width, c.heads, c.gated);
    let (all, alone) = chain.kept();
    // Mean and deviation, what the deviation became, and whether a token was masked.
    let known = match chain.cade {
        Some(_) => n * (3 * WORD + 1),
        None => n,
    };
    // Donors, shares, and a weight; while they are drawn also the words and the order of the donors.
    let drawn = n * (WORD + size_of::<f64>() + WORD);
    let entangled = match chain.cade {
        None => [0, 0],
        Some(cade) if cade.statistics == Statistics::Detached => [drawn + 6 * n * WORD, 0],
        Some(cade) => {
            // Of each receiver what it gives, keeps and passes on, of each donor what came to it, and what it was told.
            let smooth = !matches!(cade.bandwidth, Bandwidth::None | Bandwidth::Fixed(0.0));
            [drawn + 9 * n * WORD, n * WORD * (8 + if smooth { 12 } else { 0 })]
        }
    };
    let tables = match chain.cade {
        Some(cade) if cade.statistics == Statistics::Differentiated => drawn + 3 * n * WORD,
        _ => 0,
    };
    Side {
        tokens,
        heads,
        kept: all * tokens + attention.kept + heads + known + tables,
        freed: alone * tokens + attention.kept,
        attention,
        entangled,
    }
}
