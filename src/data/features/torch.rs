//! `.pt` of torch: an archive with a pickle, and a member for the memory of each tensor.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::matrix::{Array, Elements, Latin1, Number, extent, row_major};
use super::pickle::{self, Node, Pickled};
use super::zip::Member;
use super::{Dialect, Found, npy, why};
use crate::data::bytes::Bytes;
use crate::data::problem::Problem;

const PICKLE: &str = "data.pkl";
/// What features may be called, the likeliest first.
const FEATURES: [&str; 3] = ["features", "feats", "feature"];
const COORDS: &str = "coords";
/// The byte order that is read, as torch writes it.
const LITTLE: &[u8] = b"little";

/// Whether a member of an archive is the pickle of torch.
pub(super) fn is_pickle(name: &str) -> bool {
    name == PICKLE
        || name.strip_suffix(PICKLE).is_some_and(|folder| folder.ends_with('/') && folder.matches('/').count() == 1)
}

/// The features among named arrays: those that are called so, else the only array that is not of places.
pub(super) fn choose<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<usize> {
    let called = |wanted: &&str| names.clone().position(|name| name == *wanted);
    FEATURES.iter().find_map(called).or_else(|| {
        let mut others = names.clone().enumerate().filter(|(_, name)| *name != COORDS);
        others.next().filter(|_| others.next().is_none()).map(|(index, _)| index)
    })
}

pub(super) fn found(path: &Path, bytes: &Arc<Bytes>, members: &[Member]) -> Result<Found, Problem> {
    let refuse = |sentence: String| why(path, sentence);
    let mut pickles = members.iter().filter(|m| is_pickle(&m.name));
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err(refuse("has two pickles, which torch does not write; save it again with torch.save".into()));
    };
    if pickle.deflated {
        return Err(refuse("is compressed, which torch does not do; save it again with torch.save".into()));
    }
    let folder = pickle.name.strip_suffix(PICKLE).unwrap_or_default();
    if members.iter().any(|m| m.name.strip_prefix(folder) == Some("constants.pkl")) {
        return Err(refuse(
            "is a program of TorchScript, not a tensor; save the tensor of features with torch.save".into(),
        ));
    }
    let order = members.iter().find(|m| m.name.strip_prefix(folder) == Some("byteorder"));
    let little = |m: &Member| Ok(m.bytes.len() == LITTLE.len() && *bytes.get(m.bytes.clone())? == *LITTLE);
    if !order.map_or(Ok(true), little).map_err(refuse)? {
        return Err(refuse("is big-endian, which is not read; save it on another machine".into()));
    }
    let pickled = pickle::read(bytes, pickle.bytes.clone()).map_err(refuse)?;
    let torch = Torch { bytes, members, folder, pickled: &pickled, at: pickle.bytes.clone() };
    match pickled.root() {
        root @ Node::Tensor { .. } => {
            Ok(Found::plain(Dialect::Torch, torch.array("the tensor", root).map_err(refuse)?))
        }
        root @ Node::Array(_) => Ok(Found::plain(Dialect::TorchNumpy, torch.array("the array", root).map_err(refuse)?)),
        Node::Dict(entries) => {
            let named: Vec<(String, &Node)> =
                entries.iter().filter_map(|&(key, value)| torch.entry(key, value)).collect();
            let Some(features) = choose(named.iter().map(|(name, _)| name.as_str())) else {
                let has = named.into_iter().map(|(name, _)| name).collect();
                return Err(Problem::MissingTensor { file: path.into(), tensor: FEATURES[0].into(), has });
            };
            let open = |(name, node): &(String, &Node)| torch.array(name, node).map_err(refuse);
            let coords = named.iter().find(|(name, _)| name == COORDS).map(open).transpose()?;
            Ok(Found::plain(Dialect::TorchDictionary, open(&named[features])?).places(coords))
        }
        Node::List(items) | Node::Tuple(items) => Err(refuse(format!(
            "holds a list of {} values; a tensor, an array or a dictionary of them is read: save the tensor of features alone",
            items.len()
        ))),
        _ => Err(refuse("holds neither a tensor nor an array; save the tensor of features with torch.save".into())),
    }
}

struct Torch<'a> {
    bytes: &'a Arc<Bytes>,
    members: &'a [Member],
    folder: &'a str,
    pickled: &'a Pickled,
    /// Where the pickle lies in the file.
    at: Range<usize>,
}

impl<'a> Torch<'a> {
    fn text(&self, span: &Range<usize>) -> Result<String, String> {
        let no_text = || "its pickle has a name that is no text".to_owned();
        if span.len() > pickle::MAX_NAME {
            return Err(no_text());
        }
        let text = self.bytes.get(self.at.start + span.start..self.at.start + span.end)?;
        String::from_utf8(text.into_owned()).map_err(|_| no_text())
    }

    /// A named tensor or array of a dictionary.
    fn entry(&self, key: usize, value: usize) -> Option<(String, &'a Node)> {
        let (Node::Text(key), value @ (Node::Tensor { .. } | Node::Array(_))) =
            (self.pickled.node(key), self.pickled.node(value))
        else {
            return None;
        };
        Some((self.text(key).ok()?, value))
    }

    fn array(&self, name: &str, node: &Node) -> Result<Array, String> {
        let sizes = |all: &[u64]| all.iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect::<Vec<_>>();
        match node {
            Node::Tensor { storage, offset, shape, strides } => {
                let Node::Storage { number, key } = self.pickled.node(*storage) else {
                    unreachable!("it was looked at")
                };
                self.tensor(name, *number, &self.text(key)?, *offset, sizes(shape), &sizes(strides))
            }
            Node::Array(Some((shape, dtype, by_columns, data))) => {
                let Node::Dtype { kind, order } = self.pickled.node(*dtype) else {
                    return Err(format!("{name} is an array without a type; save it again"));
                };
                let order = order.as_ref().map_or(Ok("<".into()), |order| self.text(order))?;
                let number = npy::number(name, &format!("{order}{}", self.text(kind)?))?;
                self.numpy(name, number, sizes(shape), *by_columns, self.pickled.node(*data))
            }
            _ => Err(format!("{name} is an array that was not finished; save it again")),
        }
    }

    fn tensor(
        &self,
        name: &str,
        number: Number,
        key: &str,
        offset: u64,
        shape: Vec<usize>,
        strides: &[usize],
    ) -> Result<Array, String> {
        let of_storage = |m: &&Member| {
            let rest = m.name.strip_prefix(self.folder).and_then(|rest| rest.strip_prefix("data/"));
            rest == Some(key)
        };
        let member = self.members.iter().find(of_storage);
        let member = member.ok_or_else(|| format!("the memory of {name} is not in the file; save it again"))?;
        if member.deflated {
            return Err(format!(
                "the memory of {name} is compressed, which torch does not do; save it again with torch.save"
            ));
        }
        let scaled = |n: usize| n.saturating_mul(number.bytes());
        let offset = usize::try_from(offset).map_or(usize::MAX, scaled);
        let strides = strides.iter().map(|&n| scaled(n)).collect();
        Array::plain(name, shape, number, self.bytes, member.bytes.clone(), offset, strides)
    }

    fn numpy(
        &self,
        name: &str,
        number: Number,
        shape: Vec<usize>,
        by_columns: bool,
        data: &Node,
    ) -> Result<Array, String> {
        if by_columns && shape.len() > 1 {
            return Err(format!(
                "{name} is pickled column by column, which is not read; save numpy.ascontiguousarray of it"
            ));
        }
        let larger = || format!("{name} of shape {shape:?} is larger than the file; save it again");
        let bytes = extent(&shape, number).ok_or_else(larger)?;
        let within = |span: &Range<usize>| self.at.start + span.start..self.at.start + span.end;
        match data {
            // Characters take up to twice the bytes.
            Node::Encoded(text) if text.len() >= bytes => {
                let elements = Elements::Latin1(Latin1::new(self.bytes, within(text), bytes)?);
                Ok(Array { name: name.into(), shape, number, elements })
            }
            Node::Bytes(span) if span.len() == bytes => {
                let strides = row_major(&shape, number);
                Array::plain(name, shape, number, self.bytes, within(span), 0, strides)
            }
            Node::Encoded(_) | Node::Bytes(_) => Err(larger()),
            _ => Err(format!("{name} holds objects of Python and not numbers; save an array of numbers")),
        }
    }
}
