//! Somebody's own text in the place of entry points of one of our shaders: `check OP --shader FILE`, `bench`, `watch`.
//!
//! What can be known without a device is looked for first: whether naga takes the text, and whether each entry point
//! binds what the op binds. Whether it computes the right numbers is for the cases of `check` to say.

use std::path::Path;

use naga::common::wgsl::TypeContext as _;
use naga::{AddressSpace, Handle, Module, ResourceBinding, StorageAccess, Type, TypeInner};

use super::loops;
use super::pipeline::Slots;
use super::shader::{Assembled, Entry, Form, Shader};
use super::translate::Translator;
use crate::{Error, Result};

/// A text that replaces entry points of a shader, with its own compiled pipelines: they live as long as it does.
#[derive(Debug)]
pub struct Replacement {
    shader: &'static str,
    text: Assembled,
    entries: Vec<String>,
    ignored: Vec<String>,
    notes: Vec<String>,
    trusted: bool,
    pub(super) compiled: Slots,
}

impl Replacement {
    /// Reads a user's file: all its entry points that `ours` has too, or only `entry`. Pieces that it includes come
    /// from `pieces`, or from the built-in ones. It keeps every check that wgpu makes at run time.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Shader`] with file and line for a text that naga refuses,
    /// for an entry point that one of both lacks, and for bindings that are not those of the op, with their list.
    pub fn of_user(ours: &Shader, file: &Path, entry: Option<&str>, pieces: Option<&Path>) -> Result<Self> {
        Self::new(ours, Assembled::read(file, pieces)?, entry, false)
    }

    /// An edited text of our own shader. As our own it goes without wgpu's hidden loop counters, so that its times can
    /// be compared, if each of its loops is seen to end.
    ///
    /// # Errors
    /// As [`of_user`](Self::of_user).
    pub fn edited(ours: &Shader, text: Assembled) -> Result<Self> {
        Self::new(ours, text, None, true)
    }

    fn new(ours: &Shader, text: Assembled, entry: Option<&str>, may_trust: bool) -> Result<Self> {
        let theirs = Translator::new(&text, false)?;
        let op = Translator::new(&ours.assemble(None, &[])?, true)?;
        let (name, _) = text.locate(1);
        let fault = |line, message| Error::Shader { file: name.clone(), line, message };
        let known = |translator: &Translator| translator.entries().iter().map(|entry| (*entry).to_owned()).collect();
        let (found, wanted): (Vec<String>, Vec<String>) = (known(&theirs), known(&op));
        if let Some(entry) = entry {
            for (owner, list) in [(format!("the shader of {}", ours.name), &wanted), (name.clone(), &found)] {
                if !list.iter().any(|known| known == entry) {
                    let message = format!("{owner} has no entry point {entry}; it has {}", list.join(", "));
                    return Err(fault(0, message));
                }
            }
        }
        let taken = |known: &String| entry.map_or_else(|| wanted.contains(known), |entry| known == entry);
        let (entries, ignored): (Vec<_>, Vec<_>) = found.iter().cloned().partition(taken);
        if entries.is_empty() {
            let message = format!(
                "it has no entry point of {}: it has {}, the op has {}",
                ours.name,
                if found.is_empty() { "none".to_owned() } else { found.join(", ") },
                wanted.join(", ")
            );
            return Err(fault(0, message));
        }
        let mut notes = Vec::new();
        for entry in &entries {
            if let Some((line, conflict)) = conflict(&theirs, &op, entry) {
                let head = |line: &str| line.trim_start().starts_with(&format!("fn {entry}("));
                let begins = || text.text.lines().position(head).map_or(0, |line| line as u32 + 1);
                let (file, line) = text.locate(line.unwrap_or_else(begins));
                let message = format!(
                    "{entry} of {} does not fit the op: {conflict}; the op binds, all in @group(0):{}",
                    ours.name,
                    used(&op, entry)
                        .iter()
                        .map(|bound| format!("\n    {}", bound.declaration(&op)))
                        .collect::<String>()
                );
                return Err(Error::Shader { file, line, message });
            }
            let [size, counted]: [u32; 2] =
                [theirs.workgroup_size(entry)?, op.workgroup_size(entry)?].map(|size| size.iter().product());
            if size != counted {
                notes.push(format!("{entry} has workgroups of {size} invocations; the op counts them as {counted}"));
            }
        }
        let endless = loops::unbounded(theirs.module());
        let trusted = may_trust && endless.is_none();
        if let Some(reason) = endless.filter(|_| may_trust) {
            notes.push(format!("{reason}: it runs with wgpu's loop counters, which cost time"));
        }
        Ok(Self { shader: ours.name, text, entries, ignored, notes, trusted, compiled: Slots::default() })
    }

    /// The entry points that are replaced.
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Entry points of the file that are not used.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// What a reader of the results should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The entry points whose code is not that of `other`: comments, and what they do not call, do not count.
    ///
    /// # Errors
    /// [`Error::Shader`] with what naga cannot write.
    pub fn changed_from(&self, other: &Self) -> Result<Vec<&str>> {
        let (new, old) = (Translator::new(&self.text, false)?, Translator::new(&other.text, false)?);
        let mut changed = Vec::new();
        for entry in &self.entries {
            if !other.entries.contains(entry) || new.wgsl(entry)? != old.wgsl(entry)? {
                changed.push(entry.as_str());
            }
        }
        Ok(changed)
    }

    pub(super) fn replaces(&self, key: &Entry) -> bool {
        key.form == Form::F32 && self.shader == key.shader && self.entries.iter().any(|entry| entry == key.entry)
    }

    pub(super) fn text(&self) -> &Assembled {
        &self.text
    }

    /// Whether wgpu's hidden loop counters may be left out.
    pub(super) fn trusted(&self) -> bool {
        self.trusted
    }
}

/// A buffer that an entry point uses.
struct Bound<'a> {
    at: ResourceBinding,
    name: &'a str,
    space: AddressSpace,
    ty: Handle<Type>,
    /// Where it is declared.
    line: Option<u32>,
}

impl Bound<'_> {
    /// `storage, read`.
    fn space(&self) -> String {
        match self.space {
            AddressSpace::Storage { access } if access == StorageAccess::LOAD => "storage, read".to_owned(),
            AddressSpace::Storage { .. } => "storage, read_write".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    fn declaration(&self, of: &Translator) -> String {
        let Self { at: ResourceBinding { binding, .. }, name, ty, .. } = self;
        format!("@binding({binding}) var<{}> {name}: {}", self.space(), type_text(of.module(), *ty))
    }

    /// `@binding(1) (x)`.
    fn place(&self) -> String {
        format!("@binding({}) ({})", self.at.binding, self.name)
    }
}

/// The buffers that an entry point uses, by binding.
fn used<'a>(translator: &'a Translator, entry: &str) -> Vec<Bound<'a>> {
    let module = translator.module();
    let mut all: Vec<Bound<'a>> = module
        .global_variables
        .iter()
        .filter(|(handle, _)| translator.uses(entry, *handle))
        .filter_map(|(handle, variable)| {
            let line = translator.line_of(module.global_variables.get_span(handle));
            let name = variable.name.as_deref().unwrap_or("unnamed");
            variable.binding.map(|at| Bound { at, name, space: variable.space, ty: variable.ty, line })
        })
        .collect();
    all.sort_by_key(|bound| (bound.at.group, bound.at.binding));
    all
}

/// The first reason why an entry point cannot stand in for ours, and the line of the declaration that is wrong.
fn conflict(theirs: &Translator, ours: &Translator, entry: &str) -> Option<(Option<u32>, String)> {
    let (got, wanted) = (used(theirs, entry), used(ours, entry));
    for bound in &got {
        let fault = |text: String| Some((bound.line, text));
        if bound.at.group != 0 {
            return fault(format!("{} is in @group({})", bound.place(), bound.at.group));
        }
        let Some(want) = wanted.iter().find(|want| want.at == bound.at) else {
            return fault(format!("it uses {}, which the op does not bind", bound.place()));
        };
        if bound.space != want.space {
            return fault(format!("{} is var<{}> instead of var<{}>", bound.place(), bound.space(), want.space()));
        }
        if let Some(difference) = types_differ((theirs.module(), bound.ty), (ours.module(), want.ty)) {
            return fault(format!("{} {difference}", bound.place()));
        }
        // `x4` is `x` read as vectors.
        let plain = |name: &str| name.trim_end_matches('4').to_owned();
        let elsewhere = |other: &&Bound<'_>| other.at != bound.at && plain(other.name) == plain(bound.name);
        if plain(bound.name) != plain(want.name)
            && let Some(other) = wanted.iter().find(elsewhere)
        {
            let (name, binding) = (bound.name, other.at.binding);
            return fault(format!(
                "{} is what the op calls {}; its {name} is @binding({binding})",
                bound.place(),
                want.name
            ));
        }
    }
    let missing = wanted.iter().find(|want| got.iter().all(|bound| bound.at != want.at))?;
    Some((None, format!("it does not use {}", missing.place())))
}

/// How a type is not the one that the op binds; `None` if both have the same bytes. Vectors may be read as numbers.
fn types_differ(got: (&Module, Handle<Type>), want: (&Module, Handle<Type>)) -> Option<String> {
    match (members(got.0, got.1), members(want.0, want.1)) {
        (Some(got), Some(want)) => {
            let index = (0..got.len().max(want.len())).find(|index| got.get(*index) != want.get(*index))?;
            let named = |fields: &[String]| fields.get(index).cloned().unwrap_or_else(|| "nothing".to_owned());
            Some(format!("has {} as field {} instead of {}", named(&got), index + 1, named(&want)))
        }
        _ if numbers(got.0, got.1) == numbers(want.0, want.1) => None,
        _ => Some(format!("is {} instead of {}", type_text(got.0, got.1), type_text(want.0, want.1))),
    }
}

/// The fields of a struct, or of an array of structs, as `name: type`.
fn members(module: &Module, ty: Handle<Type>) -> Option<Vec<String>> {
    match &module.types[ty].inner {
        TypeInner::Array { base, .. } => members(module, *base),
        TypeInner::Struct { members, .. } => {
            let field = |member: &naga::StructMember| {
                let name = member.name.as_deref().unwrap_or("unnamed");
                format!("{name}: {}", type_text(module, member.ty))
            };
            Some(members.iter().map(field).collect())
        }
        _ => None,
    }
}

/// The type with vectors read as the numbers that they hold.
fn numbers(module: &Module, ty: Handle<Type>) -> String {
    match &module.types[ty].inner {
        TypeInner::Array { base, size: naga::ArraySize::Dynamic, .. } => format!("array<{}>", numbers(module, *base)),
        TypeInner::Vector { scalar, .. } | TypeInner::Scalar(scalar) => format!("{scalar:?}"),
        _ => type_text(module, ty),
    }
}

fn type_text(module: &Module, ty: Handle<Type>) -> String {
    match &module.types[ty] {
        Type { inner: TypeInner::Struct { .. }, name } => {
            let fields = members(module, ty).unwrap_or_default().join(", ");
            format!("{} {{ {fields} }}", name.as_deref().unwrap_or("struct"))
        }
        _ => module.to_ctx().type_to_string(ty),
    }
}
