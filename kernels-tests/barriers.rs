//! Barriers checked without a device: on a driver that runs the whole workgroup in step a missing one does not show.
//!
//! The statements of each entry point are followed in order, through calls, loop bodies twice. Between a write to a
//! workgroup array and a read of it stands a barrier; likewise between a read and the next write, except in the step of
//! a tree `if lid < step { tile[lid] += tile[lid + step]; }`, where nobody reads what another one writes.
//! A function with an argument called `slot` uses a part of its array of its own for each number that it is called with.

use std::collections::HashSet;

use naga::{AddressSpace, BinaryOperator, Block, Expression, Function, Handle, Module, Statement};
use shadegrad::ops::shaders;

/// A workgroup array, or the part of it that a slot stands for.
type Tile = (Handle<naga::GlobalVariable>, Option<u32>);

/// What has happened since the last barrier, on any path.
#[derive(Clone, Default)]
struct Open {
    written: HashSet<Tile>,
    read: HashSet<Tile>,
}

struct Walk<'a> {
    module: &'a Module,
    faults: Vec<String>,
}

/// Where a walk is: the function, and the slot that it was called with.
#[derive(Clone, Copy)]
struct Place<'a> {
    function: &'a Function,
    slot: Option<u32>,
    /// The condition of the innermost `if`.
    guard: Option<Handle<Expression>>,
}

impl<'a> Walk<'a> {
    fn block(&mut self, block: &'a Block, place: Place<'a>, open: &mut Open) {
        // Reads since the start of this block: those that a tree's step may have. Not those before it.
        let mut here: Vec<(Tile, Handle<Expression>)> = Vec::new();
        let mut before = open.read.clone();
        for statement in block {
            match statement {
                Statement::Emit(range) => {
                    for expression in range.clone() {
                        let Expression::Load { pointer } = place.function.expressions[expression] else { continue };
                        let Some(tile) = self.tile(pointer, place) else { continue };
                        if open.written.contains(&tile) {
                            self.fault(place, "reads", tile, "a write");
                        }
                        open.read.insert(tile);
                        here.push((tile, pointer));
                    }
                }
                Statement::Store { pointer, .. } => {
                    let Some(tile) = self.tile(*pointer, place) else { continue };
                    let harmless = |(of, read): &(Tile, _)| *of != tile || step_of_a_tree(place, *pointer, *read);
                    if open.read.contains(&tile) && (before.contains(&tile) || !here.iter().all(harmless)) {
                        self.fault(place, "writes", tile, "a read");
                    }
                    open.written.insert(tile);
                }
                Statement::ControlBarrier(_) => {
                    *open = Open::default();
                    before.clear();
                    here.clear();
                }
                Statement::Block(inner) => self.block(inner, place, open),
                Statement::If { condition, accept, reject } => {
                    let place = Place { guard: Some(*condition), ..place };
                    let mut other = open.clone();
                    self.block(accept, place, open);
                    self.block(reject, place, &mut other);
                    open.written.extend(other.written);
                    open.read.extend(other.read);
                }
                Statement::Loop { body, continuing, .. } => {
                    for _ in 0..2 {
                        self.block(body, place, open);
                        self.block(continuing, place, open);
                    }
                }
                Statement::Switch { cases, .. } => {
                    let before = open.clone();
                    for case in cases {
                        let mut inside = before.clone();
                        self.block(&case.body, place, &mut inside);
                        open.written.extend(inside.written);
                        open.read.extend(inside.read);
                    }
                }
                Statement::Call { function, arguments, .. } => {
                    let called = &self.module.functions[*function];
                    let position =
                        called.arguments.iter().position(|argument| argument.name.as_deref() == Some("slot"));
                    let slot = position.and_then(|at| match place.function.expressions[arguments[at]] {
                        Expression::Literal(naga::Literal::U32(slot)) => Some(slot),
                        _ => None,
                    });
                    self.block(&called.body, Place { function: called, slot, guard: None }, open);
                }
                _ => {}
            }
        }
    }

    /// The workgroup array that a pointer leads to.
    fn tile(&self, pointer: Handle<Expression>, place: Place<'_>) -> Option<Tile> {
        match place.function.expressions[pointer] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.tile(base, place),
            Expression::GlobalVariable(variable) => {
                let shared = self.module.global_variables[variable].space == AddressSpace::WorkGroup;
                shared.then_some((variable, place.slot))
            }
            _ => None,
        }
    }

    fn fault(&mut self, place: Place<'_>, what: &str, tile: Tile, after: &str) {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let variable = name(&self.module.global_variables[tile.0].name);
        let function = name(&place.function.name);
        self.faults.push(format!("{function} {what} {variable} after {after} without a barrier between them"));
    }
}

/// Whether a block under `if a < b` that writes `tile[a]` reads only `tile[a]` or `tile[a + b]`.
fn step_of_a_tree(place: Place<'_>, written: Handle<Expression>, read: Handle<Expression>) -> bool {
    let all = &place.function.expressions;
    let (Expression::Access { index: to, .. }, Expression::Access { index: from, .. }) = (&all[written], &all[read])
    else {
        return false;
    };
    let Some(Expression::Binary { op: BinaryOperator::Less, left, right }) = place.guard.map(|guard| &all[guard])
    else {
        return false;
    };
    let own = same(place, *to, *left);
    own && match &all[*from] {
        Expression::Binary { op: BinaryOperator::Add, left: a, right: b } => {
            same(place, *a, *left) && same(place, *b, *right)
        }
        _ => same(place, *from, *left),
    }
}

/// Whether two expressions have one value: the same one, or two reads of one local variable within a condition's reach.
fn same(place: Place<'_>, a: Handle<Expression>, b: Handle<Expression>) -> bool {
    let all = &place.function.expressions;
    match (&all[a], &all[b]) {
        _ if a == b => true,
        (Expression::Load { pointer: a }, Expression::Load { pointer: b }) => same(place, *a, *b),
        (Expression::LocalVariable(a), Expression::LocalVariable(b)) => a == b,
        _ => false,
    }
}

/// What is wrong in each entry point of a module.
fn faults(module: &Module) -> Vec<String> {
    let mut found = Vec::new();
    for entry in &module.entry_points {
        let mut walk = Walk { module, faults: Vec::new() };
        let place = Place { function: &entry.function, slot: None, guard: None };
        walk.block(&entry.function.body, place, &mut Open::default());
        found.extend(walk.faults.into_iter().map(|fault| format!("{}: {fault}", entry.name)));
    }
    found
}

/// `SHADEGRAD_SHADERS` replaces the shaders here too: `plant` asks whether a missing barrier is seen.
#[test]
fn no_barrier_is_missing() {
    let folder = std::env::var_os("SHADEGRAD_SHADERS").map(std::path::PathBuf::from);
    let mut wrong = Vec::new();
    let mut tiles = 0;
    for shader in shaders() {
        // The form for 16-bit floats may have more kernels.
        let half = shader.assemble_half(folder.as_deref(), &[]);
        let text = half.or_else(|_| shader.assemble(folder.as_deref(), &[])).unwrap();
        let module = text.validate().unwrap();
        tiles += module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup).count();
        wrong.extend(faults(&module).into_iter().map(|fault| format!("{}.{fault}", shader.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tiles >= 8, "only {tiles} workgroup arrays were looked at");
}

#[test]
fn a_missing_barrier_is_found() {
    let reduce = include_str!("../shaders/lib/reduce.wgsl");
    let user = "override WG: u32 = 64u;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(WG) fn main(@builtin(local_invocation_index) lid: u32) {
            let a = workgroup_sum(y[lid], lid);
            y[lid] = workgroup_sum(y[lid] - a, lid);
        }";
    let found = |reduce: &str| faults(&naga::front::wgsl::parse_str(&format!("{user}\n{reduce}")).unwrap());
    assert_eq!(found(reduce), Vec::<String>::new());
    let barriers: Vec<_> = reduce.match_indices("workgroupBarrier();").map(|(at, text)| at..at + text.len()).collect();
    assert_eq!(barriers.len(), 3);
    for barrier in barriers {
        let mut without = reduce.to_owned();
        without.replace_range(barrier.clone(), "");
        assert!(!found(&without).is_empty(), "without the barrier at {barrier:?} nothing is found");
    }
}
