//! The proof that each loop of a shader ends: only then may wgpu's hidden loop counters be left out
//! (`Assembled::compile`). The tests ask it of every file under `shaders/`, `watch` of what was just edited.
//!
//! A loop is bounded if it breaks on a comparison of a variable that only its continuing block changes, with a value
//! that the loop does not change.

use naga::{AddressSpace, Block, Expression, Function, Handle, LocalVariable, Module, Statement};

type Check = std::result::Result<(), String>;

/// Why a loop of the module might not end; `None` if each of them has a bound.
pub fn unbounded(module: &Module) -> Option<String> {
    let entries = module.entry_points.iter().map(|entry| (entry.name.as_str(), &entry.function));
    let helpers =
        module.functions.iter().map(|(_, function)| (function.name.as_deref().unwrap_or("unnamed"), function));
    entries.chain(helpers).find_map(|(name, function)| {
        let fault = walk(&function.body, function, module).err()?;
        Some(format!("a loop of {name} {fault}"))
    })
}

fn walk(block: &Block, function: &Function, module: &Module) -> Check {
    for statement in block {
        match statement {
            Statement::Loop { body, continuing, break_if } => {
                if break_if.is_some() {
                    return Err("has a `break if`".to_owned());
                }
                let (counter, bound) = comparison(body, function).ok_or("does not start with its bound")?;
                let mut in_body = Vec::new();
                stores(body, function, &mut in_body);
                let mut in_step = Vec::new();
                stores(continuing, function, &mut in_step);
                if in_body.contains(&counter) {
                    return Err("changes its counter in its body".to_owned());
                }
                if in_step != [counter] {
                    return Err("has a step that does not change its counter alone".to_owned());
                }
                let mut read = Vec::new();
                reads(bound, function, module, &mut read)?;
                if read.iter().any(|variable| *variable == counter || in_body.contains(variable)) {
                    return Err("changes its bound".to_owned());
                }
                walk(body, function, module)?;
            }
            Statement::Block(inner) => walk(inner, function, module)?,
            Statement::If { accept, reject, .. } => {
                walk(accept, function, module)?;
                walk(reject, function, module)?;
            }
            Statement::Switch { cases, .. } => {
                cases.iter().try_for_each(|case| walk(&case.body, function, module))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The local variables that a bound reads. It is made of constants, uniforms, locals, arithmetic, `min` and `select`:
/// anything else (memory that a kernel writes) might change and is refused. A call's result is a value made before the
/// loop: `comparison` refuses a call inside the loop ahead of its bound.
fn reads(
    expression: Handle<Expression>,
    function: &Function,
    module: &Module,
    found: &mut Vec<Handle<LocalVariable>>,
) -> Check {
    use Expression as E;
    let mut all =
        |parts: &[Handle<Expression>]| parts.iter().try_for_each(|part| reads(*part, function, module, found));
    match &function.expressions[expression] {
        E::Literal(_) | E::Constant(_) | E::Override(_) | E::FunctionArgument(_) | E::CallResult(_) => Ok(()),
        E::GlobalVariable(global) if module.global_variables[*global].space == AddressSpace::Uniform => Ok(()),
        E::Load { pointer } => match local(*pointer, function) {
            Some(variable) => {
                found.push(variable);
                Ok(())
            }
            None => all(&[*pointer]),
        },
        E::Access { base, .. } | E::AccessIndex { base, .. } => all(&[*base]),
        E::Unary { expr, .. } | E::As { expr, .. } => all(&[*expr]),
        E::Binary { left, right, .. } => all(&[*left, *right]),
        E::Select { condition, accept, reject } => all(&[*condition, *accept, *reject]),
        E::Math { arg, arg1, arg2, .. } => all(&[Some(*arg), *arg1, *arg2].into_iter().flatten().collect::<Vec<_>>()),
        other => Err(format!("has {other:?} in its bound")),
    }
}

/// The local variable and the bound that the loop's first `if !(variable < bound) { break; }` compares.
fn comparison(body: &Block, function: &Function) -> Option<(Handle<LocalVariable>, Handle<Expression>)> {
    for statement in body {
        match statement {
            Statement::Emit(_) => {}
            Statement::If { condition, accept, reject } => {
                let breaks = |block: &Block| block.iter().any(|s| matches!(s, Statement::Break));
                if !breaks(accept) && !breaks(reject) {
                    return None;
                }
                let mut expression = &function.expressions[*condition];
                while let Expression::Unary { expr, .. } = expression {
                    expression = &function.expressions[*expr];
                }
                let Expression::Binary { left, right, .. } = expression else { return None };
                return Some((loaded(*left, function)?, *right));
            }
            Statement::Block(inner) => return comparison(inner, function),
            _ => return None,
        }
    }
    None
}

fn loaded(expression: Handle<Expression>, function: &Function) -> Option<Handle<LocalVariable>> {
    match &function.expressions[expression] {
        Expression::Load { pointer } => local(*pointer, function),
        _ => None,
    }
}

fn local(pointer: Handle<Expression>, function: &Function) -> Option<Handle<LocalVariable>> {
    match &function.expressions[pointer] {
        Expression::LocalVariable(variable) => Some(*variable),
        Expression::AccessIndex { base, .. } | Expression::Access { base, .. } => local(*base, function),
        _ => None,
    }
}

fn stores(block: &Block, function: &Function, found: &mut Vec<Handle<LocalVariable>>) {
    for statement in block {
        match statement {
            Statement::Store { pointer, .. } => found.extend(local(*pointer, function)),
            Statement::Block(inner) => stores(inner, function, found),
            Statement::If { accept, reject, .. } => {
                stores(accept, function, found);
                stores(reject, function, found);
            }
            Statement::Loop { body, continuing, .. } => {
                stores(body, function, found);
                stores(continuing, function, found);
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| stores(&case.body, function, found)),
            Statement::Call { arguments, .. } => {
                found.extend(arguments.iter().filter_map(|argument| local(*argument, function)));
            }
            _ => {}
        }
    }
}
