//! Pickles of tensors and arrays, read by a machine that can build nothing else.
//!
//! A pickle is a program for a small machine with a stack. Python lets it call any function; here it knows the few names
//! that tensors and arrays are made of, which build a description of them and call nothing. Anything else is refused by
//! its name. Texts and bytes stay where they are in the file: nodes have their places.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::matrix::Number;
use crate::data::bytes::Bytes;

/// A file of features takes dozens, the weights of a large model some hundred thousand.
const MAX_OPERATIONS: usize = 1_000_000;
/// Longer than any name of a tensor, a type or a function.
pub(super) const MAX_NAME: usize = 1 << 16;
/// What is read of a pickle at once. Arrays within it are not read here.
const WINDOW: usize = 1 << 17;

/// A value, by its index.
pub(super) type Id = usize;
/// A part of the pickle.
pub(super) type Span = Range<usize>;

/// What can be named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    RebuildTensor,
    Storage(Number),
    OrderedDict,
    Reconstruct,
    NdArray,
    Dtype,
    Encode,
}

impl Global {
    fn of(module: &str, name: &str) -> Option<Global> {
        let storage = |number| Some(Global::Storage(number));
        match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
            ("torch", "DoubleStorage") => storage(Number::F64),
            ("torch", "FloatStorage") => storage(Number::F32),
            ("torch", "HalfStorage") => storage(Number::F16),
            ("torch", "BFloat16Storage") => storage(Number::Bf16),
            ("torch", "LongStorage") => storage(Number::I64),
            ("torch", "IntStorage") => storage(Number::I32),
            ("torch", "ShortStorage") => storage(Number::I16),
            ("torch", "CharStorage") => storage(Number::I8),
            ("torch", "ByteStorage" | "BoolStorage") => storage(Number::U8),
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Some(Global::Reconstruct),
            ("numpy", "ndarray") => Some(Global::NdArray),
            ("numpy", "dtype") => Some(Global::Dtype),
            ("_codecs", "encode") => Some(Global::Encode),
            _ => None,
        }
    }
}

/// A value on the stack.
#[derive(Clone, Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(Span),
    Bytes(Span),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// The memory of tensors: a member of the archive.
    Storage {
        number: Number,
        key: Span,
    },
    Tensor {
        storage: Id,
        offset: u64,
        shape: Vec<u64>,
        strides: Vec<u64>,
    },
    Dtype {
        kind: Span,
        order: Option<Span>,
    },
    /// Bytes, written as a text of characters below 256.
    Encoded(Span),
    /// An array, and its state once that was read: shape, type, whether it lies column by column, bytes.
    Array(Option<(Vec<u64>, Id, bool, Id)>),
}

/// Everything that a pickle built.
#[derive(Debug)]
pub(super) struct Pickled {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickled {
    pub(super) fn root(&self) -> &Node {
        &self.nodes[self.root]
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }
}

/// Runs a pickle, which lies somewhere in a file.
pub(super) fn read(file: &Bytes, pickle: Range<usize>) -> Result<Pickled, String> {
    let mut machine = Machine {
        pickle: Window { file, pickle, seen: Cow::Borrowed(&[]), from: 0 },
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    for _ in 0..MAX_OPERATIONS {
        if let Some(root) = machine.step()? {
            return Ok(Pickled { nodes: machine.nodes, root });
        }
    }
    Err(format!("its pickle has more than {MAX_OPERATIONS} operations, so it is no file of features"))
}

/// The part of a pickle that was read last.
struct Window<'a> {
    file: &'a Bytes,
    /// Where the pickle lies in the file.
    pickle: Range<usize>,
    seen: Cow<'a, [u8]>,
    /// Where in the pickle the part starts.
    from: usize,
}

impl Window<'_> {
    fn len(&self) -> usize {
        self.pickle.len()
    }

    /// Some bytes of the pickle, at most [`MAX_NAME`].
    fn bytes(&mut self, span: Span) -> Result<&[u8], String> {
        if span.len() > MAX_NAME || span.end > self.len() {
            return Err(cut());
        }
        if span.start < self.from || span.end > self.from + self.seen.len() {
            let start = self.pickle.start + span.start;
            self.seen = self.file.get(start..self.pickle.end.min(start + WINDOW))?;
            self.from = span.start;
        }
        Ok(&self.seen[span.start - self.from..span.end - self.from])
    }
}

struct Machine<'a> {
    pickle: Window<'a>,
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// How high the stack was at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

fn cut() -> String {
    "its pickle is damaged; copy or write the file again".into()
}

impl Machine<'_> {
    fn take(&mut self, n: u64) -> Result<Span, String> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n)).filter(|&end| end <= self.pickle.len());
        let span = self.at..end.ok_or_else(cut)?;
        self.at = span.end;
        Ok(span)
    }

    fn number(&mut self, bytes: u64) -> Result<u64, String> {
        let span = self.take(bytes)?;
        Ok(self.pickle.bytes(span)?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    /// A text or bytes behind its length.
    fn counted(&mut self, bytes: u64) -> Result<Span, String> {
        let length = self.number(bytes)?;
        self.take(length)
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = self.pickle.bytes(self.at..self.pickle.len().min(self.at + MAX_NAME))?;
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or_else(cut)?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<Id, String> {
        // What lies below a mark belongs to those who set it.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() > floor { self.stack.pop().ok_or_else(cut) } else { Err(cut()) }
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(cut)
    }

    fn down_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or_else(cut)?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, n: usize) -> Result<(), String> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<Id>, _>>()?;
        items.reverse();
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let Some(global) = Global::of(module, name) else {
            let shown: String = format!("{module}.{name}").chars().filter(|c| !c.is_control()).take(80).collect();
            return Err(format!(
                "its pickle asks for {shown}; nothing in a file is executed, and only tensors and arrays are read: save the \
                 tensor of features alone"
            ));
        };
        self.push(Node::Global(global));
        Ok(())
    }

    fn text(&mut self, id: Id) -> Result<&str, String> {
        match &self.nodes[id] {
            Node::Text(span) => std::str::from_utf8(self.pickle.bytes(span.clone())?).map_err(|_| cut()),
            _ => Err(cut()),
        }
    }

    fn memorise(&mut self, key: u64) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), String> {
        let id = *self.memo.get(&key).ok_or_else(cut)?;
        self.stack.push(id);
        Ok(())
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), String> {
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(all) => all.extend(items),
            _ => return Err(cut()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), String> {
        let dict = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match &mut self.nodes[dict] {
            Node::Dict(all) if rest.is_empty() => all.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(cut()),
        }
        Ok(())
    }

    /// One operation; the result at the last.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let operation = self.number(1)? as u8;
        match operation {
            0x80 => {
                let protocol = self.number(1)?;
                if protocol > 5 {
                    return Err(format!("its pickle is of protocol {protocol}, which is not known"));
                }
            }
            0x95 => {
                self.take(8)?;
            }
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => drop(self.down_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'J' => {
                let number = self.number(4)? as u32 as i32;
                self.push(Node::Int(number.into()));
            }
            b'K' | b'M' => {
                let number = self.number(if operation == b'K' { 1 } else { 2 })?;
                self.push(Node::Int(number as i64));
            }
            0x8a => {
                let length = self.number(1)?;
                if length > 8 {
                    return Err("its pickle has a number that is larger than any size".into());
                }
                let unused = 64 - 8 * length as u32;
                let number = self.number(length)?;
                self.push(Node::Int(number.checked_shl(unused).map_or(0, |n| n as i64 >> unused)));
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Float);
            }
            b'X' | 0x8c | 0x8d => {
                let text = self.counted(match operation {
                    b'X' => 4,
                    0x8c => 1,
                    _ => 8,
                })?;
                self.push(Node::Text(text));
            }
            b'B' | b'C' | 0x8e | b'T' | b'U' => {
                let bytes = self.counted(match operation {
                    b'B' | b'T' => 4,
                    b'C' | b'U' => 1,
                    _ => 8,
                })?;
                self.push(Node::Bytes(bytes));
            }
            b')' => self.push(Node::Tuple(Vec::new())),
            b't' => {
                let items = self.down_to_mark()?;
                self.push(Node::Tuple(items));
            }
            0x85..=0x87 => self.tuple(usize::from(operation - 0x84))?,
            b']' => self.push(Node::List(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.down_to_mark()?;
                self.extend_list(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.down_to_mark()?;
                self.extend_dict(&items)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (module, name) = (self.text(module)?.to_owned(), self.text(name)?.to_owned());
                self.global(&module, &name)?;
            }
            b'q' | b'r' => {
                let key = self.number(if operation == b'q' { 1 } else { 4 })?;
                self.memorise(key)?;
            }
            0x94 => self.memorise(self.memo.len() as u64)?,
            b'h' | b'j' => {
                let key = self.number(if operation == b'h' { 1 } else { 4 })?;
                self.recall(key)?;
            }
            b'Q' => self.storage()?,
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => {
                return Err(format!(
                    "its pickle has the operation {}, which no tensor or array needs; save the tensor of features alone",
                    operation_name(other)
                ));
            }
        }
        Ok(None)
    }

    fn items(&self, id: Id) -> Result<&[Id], String> {
        match &self.nodes[id] {
            Node::Tuple(items) => Ok(items),
            _ => Err(cut()),
        }
    }

    /// A whole number from 0.
    fn size(&self, id: Id) -> Result<u64, String> {
        match self.nodes[id] {
            Node::Int(n) => {
                u64::try_from(n).map_err(|_| "its pickle has a negative size; save the tensor again".into())
            }
            _ => Err(cut()),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<u64>, String> {
        self.items(id)?.iter().map(|&id| self.size(id)).collect()
    }

    /// What a pickle calls persistent: `("storage", type, key, location, elements)`.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let &[kind, storage, key, _, _] = self.items(id)? else { return Err(cut()) };
        let (Node::Global(Global::Storage(number)), Node::Text(key)) = (&self.nodes[storage], &self.nodes[key]) else {
            return Err(cut());
        };
        let (number, key) = (*number, key.clone());
        if self.text(kind)? != "storage" {
            return Err(cut());
        }
        self.push(Node::Storage { number, key });
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Node::Global(function) = self.nodes[function] else { return Err(cut()) };
        let arguments = self.items(arguments)?.to_vec();
        let made = match (function, &arguments[..]) {
            (Global::OrderedDict, []) => Node::Dict(Vec::new()),
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..])
                if matches!(self.nodes[storage], Node::Storage { .. }) =>
            {
                let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
                if shape.len() != strides.len() {
                    return Err(cut());
                }
                Node::Tensor { storage, offset: self.size(offset)?, shape, strides }
            }
            (Global::Reconstruct, &[class, ..]) if matches!(self.nodes[class], Node::Global(Global::NdArray)) => {
                Node::Array(None)
            }
            (Global::Dtype, &[kind, ..]) => match &self.nodes[kind] {
                Node::Text(kind) | Node::Bytes(kind) => Node::Dtype { kind: kind.clone(), order: None },
                _ => return Err(cut()),
            },
            (Global::Encode, &[text, codec]) if self.text(codec)? == "latin1" => match &self.nodes[text] {
                Node::Text(text) => Node::Encoded(text.clone()),
                _ => return Err(cut()),
            },
            _ => return Err(cut()),
        };
        self.push(made);
        Ok(())
    }

    /// Gives the value below the top its state.
    fn build(&mut self) -> Result<(), String> {
        let (state, value) = (self.pop()?, self.top()?);
        match &self.nodes[value] {
            // Attributes of a dictionary, as the state of a model has; nothing that is read.
            Node::Dict(_) => {}
            Node::Dtype { kind, .. } => {
                let &[_, order, ..] = self.items(state)? else { return Err(cut()) };
                let (Node::Text(order) | Node::Bytes(order)) = &self.nodes[order] else { return Err(cut()) };
                self.nodes[value] = Node::Dtype { kind: kind.clone(), order: Some(order.clone()) };
            }
            Node::Array(None) => {
                let &[_, shape, dtype, by_columns, data] = self.items(state)? else { return Err(cut()) };
                let (shape, Node::Bool(by_columns)) = (self.sizes(shape)?, &self.nodes[by_columns]) else {
                    return Err(cut());
                };
                self.nodes[value] = Node::Array(Some((shape, dtype, *by_columns, data)));
            }
            _ => return Err(cut()),
        }
        Ok(())
    }
}

/// What the documentation of Python calls an operation that is refused.
fn operation_name(operation: u8) -> String {
    let name = match operation {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x82..=0x84 => "EXT",
        b'P' => "PERSID",
        0x8b => "LONG4",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        b'I' | b'L' | b'F' | b'S' | b'V' | b'l' | b'd' | b'p' | b'g' => "of protocol 0",
        _ => return format!("{operation:#04x}"),
    };
    name.into()
}
