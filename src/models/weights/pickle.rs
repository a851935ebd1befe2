//! Python pickles, read as plain data. Nothing is imported and nothing is called: a global is only a name, which the
//! caller must allow, and calling one only notes the call. A pickle can therefore do no more than describe data.
//!
//! The opcodes are those that protocols 2 to 5 use for containers, numbers, text and `torch.save`'s tensors.
//! Memory is bounded by the pickle's length: each opcode makes at most one value, and a value made once is shared.

use std::collections::HashMap;

/// A value's place in [`Pickle`].
pub(super) type Id = usize;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little endian.
    Long(Vec<u8>),
    Float(f64),
    Text(String),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A name that is allowed, as `module.name`.
    Global(String),
    /// What would be a call: the name and its arguments.
    Call(String, Id),
    /// A reference to something outside of the pickle (in PyTorch: a storage), by its key.
    Outside(Id),
}

/// A pickle's values.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    /// What the pickle stands for.
    pub(super) root: Id,
    /// Bytes up to and with its end.
    pub(super) length: usize,
}

impl Pickle {
    /// Reads the pickle at the start of `bytes`. `allowed` says which globals (`module.name`) may occur.
    ///
    /// # Errors
    /// A sentence: what is damaged, or which global is not allowed.
    pub(super) fn read(bytes: &[u8], allowed: &dyn Fn(&str) -> bool) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            allowed,
        };
        while machine.step()? {}
        let root = machine.pop()?;
        Ok(Self { root, length: machine.at, values: machine.values })
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        // Ids only come out of this pickle.
        self.values.get(id).unwrap_or(&Value::None)
    }

    /// Everything outside of the pickle that it refers to.
    pub(super) fn outside(&self) -> impl Iterator<Item = Id> + '_ {
        self.values.iter().filter_map(|value| match value {
            Value::Outside(id) => Some(*id),
            _ => None,
        })
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A non-negative integer.
    pub(super) fn count(&self, id: Id) -> Option<usize> {
        match self.value(id) {
            Value::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The members of a tuple or list.
    pub(super) fn members(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Tuple(members) | Value::List(members) => Some(members),
            _ => None,
        }
    }

    /// A dictionary's entries.
    pub(super) fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.value(id) {
            Value::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// A dictionary's value under a text key.
    pub(super) fn get(&self, id: Id, key: &str) -> Option<Id> {
        self.entries(id)?.iter().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }
}

/// The stack machine that a pickle is a program for.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Machine<'a> {
    /// Plays one opcode; false after the last.
    fn step(&mut self) -> Result<bool, String> {
        let start = self.at;
        match self.take(1)?[0] {
            // Protocol and frames
            0x80 => {
                let version = self.number(1)?;
                if version > 5 {
                    return Err(format!("its pickle has protocol {version}, newer than 5"));
                }
            }
            0x95 => drop(self.take(8)?),
            b'.' => return Ok(false),
            // The stack
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // Atoms
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => {
                let value = self.number(4)? as u32 as i32;
                self.push(Value::Int(value.into()));
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'G' => {
                let bytes = <[u8; 8]>::try_from(self.take(8)?).unwrap_or_default();
                self.push(Value::Float(f64::from_be_bytes(bytes)));
            }
            b'X' => self.string(4)?,
            0x8c => self.string(1)?,
            0x8d => self.string(8)?,
            // Python 2's str: bytes, but used for names.
            b'U' => self.string(1)?,
            b'T' => self.string(4)?,
            b'B' => self.binary(4)?,
            b'C' => self.binary(1)?,
            0x8e | 0x96 => self.binary(8)?,
            // Containers
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let first = self.stack.len().checked_sub(usize::from(self.bytes[start] - 0x84));
                let members = self.stack.split_off(first.ok_or_else(damaged)?);
                self.push(Value::Tuple(members));
            }
            b't' | 0x91 => {
                let members = self.pop_mark()?;
                self.push(Value::Tuple(members));
            }
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'l' => {
                let members = self.pop_mark()?;
                self.push(Value::List(members));
            }
            b'a' => {
                let member = self.pop()?;
                self.extend(vec![member])?;
            }
            b'e' | 0x90 => {
                let members = self.pop_mark()?;
                self.extend(members)?;
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let members = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()));
                self.insert(&members)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[key, value])?;
            }
            b'u' => {
                let members = self.pop_mark()?;
                self.insert(&members)?;
            }
            // Names and what would be calls
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(&format!("{module}.{name}"))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (Value::Text(module), Value::Text(name)) => self.global(&format!("{module}.{name}"))?,
                    _ => return Err(damaged()),
                }
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let Value::Global(name) = self.values[function].clone() else { return Err(damaged()) };
                self.call(name, arguments)?;
            }
            // State of an object: attributes of a dictionary or tensor, which hold no weights.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let key = self.pop()?;
                self.push(Value::Outside(key));
            }
            // The memo
            b'q' => self.put(1)?,
            b'r' => self.put(4)?,
            0x94 => {
                let top = self.top()?;
                self.memo.insert(self.memo.len(), top);
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            other => {
                return Err(format!(
                    "its pickle has the opcode {other:#04x} at byte {start}, which tensors do not need"
                ));
            }
        }
        Ok(true)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or("its pickle ends too early")?;
        self.at += count;
        Ok(taken)
    }

    /// An unsigned little-endian number of `width` bytes.
    fn number(&mut self, width: usize) -> Result<u64, String> {
        Ok(self.take(width)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn sized(&mut self, width: usize) -> Result<&'a [u8], String> {
        let length = self.number(width)?;
        self.take(usize::try_from(length).map_err(|_| damaged())?)
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        self.at += end + 1;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(damaged)
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(damaged)
    }

    /// Everything above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or_else(damaged)?))
    }

    fn integer(&mut self, width: usize) -> Result<(), String> {
        let value = self.number(width)?;
        self.push(Value::Int(value as i64));
        Ok(())
    }

    /// A signed integer of any length.
    fn long(&mut self, width: usize) -> Result<(), String> {
        let bytes = self.sized(width)?;
        if bytes.len() > 8 {
            self.push(Value::Long(bytes.to_vec()));
            return Ok(());
        }
        let fill = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
        let mut all = [fill; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(all)));
        Ok(())
    }

    fn string(&mut self, width: usize) -> Result<(), String> {
        let text = String::from_utf8_lossy(self.sized(width)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn binary(&mut self, width: usize) -> Result<(), String> {
        self.sized(width)?;
        self.push(Value::Bytes);
        Ok(())
    }

    fn extend(&mut self, members: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::List(list) => list.extend(members),
            _ => return Err(damaged()),
        }
        Ok(())
    }

    fn insert(&mut self, members: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::Dict(entries) if members.len().is_multiple_of(2) => {
                entries.extend(members.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            _ => return Err(damaged()),
        }
        Ok(())
    }

    fn global(&mut self, name: &str) -> Result<(), String> {
        if !(self.allowed)(name) {
            return Err(format!(
                "its pickle asks Python to run {name}, and nothing in a weight file is run here; \
                 save it again with torch.save(model.state_dict(), ...), which holds only tensors"
            ));
        }
        self.push(Value::Global(name.to_owned()));
        Ok(())
    }

    fn call(&mut self, name: String, arguments: Id) -> Result<(), String> {
        if name != "collections.OrderedDict" {
            self.push(Value::Call(name, arguments));
            return Ok(());
        }
        // Empty, and filled afterwards. Python 2 gave its contents as an argument.
        if self.values[arguments] != Value::Tuple(Vec::new()) {
            return Err("its pickle is Python 2's; save it again with Python 3".to_owned());
        }
        self.push(Value::Dict(Vec::new()));
        Ok(())
    }

    fn put(&mut self, width: usize) -> Result<(), String> {
        let (at, top) = (self.number(width)? as usize, self.top()?);
        self.memo.insert(at, top);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Result<(), String> {
        let at = self.number(width)? as usize;
        let id = *self.memo.get(&at).ok_or_else(damaged)?;
        self.stack.push(id);
        Ok(())
    }
}

fn damaged() -> String {
    "its pickle is damaged; copy or download the file again".to_owned()
}
