//! Shader files checked without a device: they are valid, their structs equal the host's, their bindings follow the
//! convention, and every loop has a bound that its body does not change.

use std::collections::{HashMap, HashSet};

use naga::{AddressSpace, TypeInner};
use shadegrad::gpu::loops::unbounded;
use shadegrad::gpu::plan::{PlanEvent, PlannedLaunch};
use shadegrad::gpu::{AdapterFacts, Context, Form, Matrix};
use shadegrad::models::{Model, ModelConfig, build};
use shadegrad::ops::{BceDice, Mode, SHADERS, UNIFORMS, bce_dice, metric_counts, shaders};
use shadegrad::{DType, Device, Tape};

use crate::bench::harness::peaks::{PEAKS, PEAKS_F16};

/// The shaders of the ops and of `bench`.
fn modules() -> Vec<(&'static str, naga::Module)> {
    shaders()
        .chain(&[PEAKS, PEAKS_F16])
        .flat_map(|shader| {
            let half = shader.assemble_half(None, &[]).ok();
            [shader.assemble(None, &[])].into_iter().chain(half.map(Ok)).map(|text| {
                let module = text.and_then(|text| text.validate());
                (shader.name, module.unwrap_or_else(|error| panic!("{error}")))
            })
        })
        .collect()
}

#[test]
fn every_file_of_the_folder_is_listed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "wgsl") {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let listed = shaders().chain(&[PEAKS, PEAKS_F16]).any(|shader| shader.name == stem);
            assert!(listed, "{stem}.wgsl is neither in ops::shaders() nor in those of bench/peaks.rs");
        }
    }
}

#[test]
fn every_op_has_its_five_files() {
    let root = env!("CARGO_MANIFEST_DIR");
    for shader in SHADERS {
        let name = shader.name;
        for file in [
            format!("shaders/{name}.wgsl"),
            format!("src/ops/{name}.rs"),
            format!("src/cpu/{name}.rs"),
            format!("kernels-tests/ops/{name}.rs"),
            format!("bench/ops/{name}.rs"),
        ] {
            assert!(std::path::Path::new(root).join(&file).exists(), "{file} is missing");
        }
    }
}

#[test]
fn shaders_are_valid_and_use_the_common_workgroup_size() {
    for (name, module) in modules() {
        assert!(!module.entry_points.is_empty(), "{name} has no entry point");
        for (_, constant) in module.overrides.iter() {
            if constant.name.as_deref() == Some("WG") {
                let init = constant.init.expect("WG has a default");
                assert!(
                    matches!(module.global_expressions[init], naga::Expression::Literal(naga::Literal::U32(64))),
                    "{name}: WG must be 64"
                );
            }
        }
        assert!(module.overrides.iter().any(|(_, o)| o.name.as_deref() == Some("WG")), "{name} has no `override WG`");
    }
}

#[test]
fn host_structs_equal_shader_structs() {
    let modules: HashMap<_, _> = modules().into_iter().collect();
    for (shader, structure, fields) in UNIFORMS {
        let module = &modules[shader];
        let found = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(structure));
        let Some((_, ty)) = found else { panic!("{shader}.wgsl has no struct {structure}") };
        let TypeInner::Struct { members, span } = &ty.inner else { panic!("{structure} is no struct") };
        assert_eq!(*span as usize, fields.len() * 4, "{shader} {structure}: sizes differ");
        for (index, (member, (name, kind))) in members.iter().zip(*fields).enumerate() {
            assert_eq!(member.name.as_deref(), Some(*name), "{shader} {structure}");
            assert_eq!(member.offset as usize, index * 4, "{shader} {structure}.{name}");
            let scalar = match kind {
                &"u32" => naga::Scalar::U32,
                &"i32" => naga::Scalar::I32,
                &"f32" => naga::Scalar::F32,
                other => panic!("{structure}.{name}: {other}"),
            };
            assert_eq!(module.types[member.ty].inner, TypeInner::Scalar(scalar), "{shader} {structure}.{name}");
        }
    }
    for (name, module) in &modules {
        for (_, variable) in module.global_variables.iter() {
            if variable.space == AddressSpace::Uniform {
                // A struct, or a table of them.
                let of = match module.types[variable.ty].inner {
                    TypeInner::Array { base, .. } => base,
                    _ => variable.ty,
                };
                let ty = module.types[of].name.clone().unwrap_or_default();
                assert!(UNIFORMS.iter().any(|(s, t, _)| s == name && *t == ty), "{name}: {ty} is not in ops::UNIFORMS");
            }
        }
    }
}

#[test]
fn bindings_follow_the_convention() {
    for (name, module) in modules() {
        for (index, entry) in module.entry_points.iter().enumerate() {
            let mut validator =
                naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
            let info = validator.validate(&module).unwrap();
            let uses = info.get_entry_point(index);
            let mut bound = Vec::new();
            let mut written = false;
            let mut globals: Vec<_> = module
                .global_variables
                .iter()
                .filter(|(handle, variable)| !uses[*handle].is_empty() && variable.binding.is_some())
                .map(|(_, variable)| (variable.binding.unwrap().binding, variable))
                .collect();
            globals.sort_by_key(|(binding, _)| *binding);
            for (binding, variable) in globals {
                bound.push(binding);
                match variable.space {
                    AddressSpace::Uniform => assert_eq!(binding, 0, "{name}.{}: params are binding 0", entry.name),
                    AddressSpace::Storage { access } => {
                        let writes = access.contains(naga::StorageAccess::STORE);
                        assert!(writes || !written, "{name}.{}: inputs come before outputs", entry.name);
                        written |= writes;
                    }
                    _ => panic!("{name}.{}: unexpected binding", entry.name),
                }
            }
            let storage = bound.iter().filter(|binding| **binding > 0).count();
            assert!(storage <= 8, "{name}.{}: more than 8 storage bindings", entry.name);
            let first = usize::from(bound.first() != Some(&0));
            let expected: Vec<u32> = (first as u32..first as u32 + bound.len() as u32).collect();
            assert_eq!(bound, expected, "{name}.{}: binding numbers have a gap", entry.name);
        }
    }
}

/// Whatever a step with mixed precision binds is what the kernel's text says: 16-bit floats, f32 or integers.
#[test]
fn a_kernel_gets_the_types_that_it_declares() {
    let mut seen = HashSet::new();
    for model in Model::ALL {
        for images in [DType::F32, DType::F16] {
            let context = Context::plan(None).unwrap();
            let device = Device::Gpu(context.clone());
            let net = build(&device, &ModelConfig { base: 16, ..ModelConfig::new(model) }, 0).unwrap();
            let x = device.empty_as("x", [2, 64, 64, 3], images).unwrap();
            let target = device.empty("target", [2, 64, 64, 1]).unwrap();
            let tape = Tape::new();
            let logits = net.forward(&tape.watch(&x), Mode::Train).unwrap();
            metric_counts(&logits, &target).unwrap();
            let loss = bce_dice(&logits, &target, &BceDice::batch()).unwrap();
            assert_eq!((logits.dtype(), loss.dtype()), (images, DType::F32));
            tape.backward(&loss).unwrap();
            for event in context.take_plan() {
                let PlanEvent::Launched(PlannedLaunch { shader, entry, types, .. }) = event else { continue };
                let half = types.contains(&DType::F16);
                assert!(images == DType::F16 || !half, "{shader}.{entry}: {types:?}");
                if seen.insert((shader, entry, types.clone())) {
                    compare_types(shader, entry, &types, half);
                }
            }
        }
    }
    assert!(seen.iter().filter(|(_, _, types)| types.contains(&DType::F16)).count() > 30, "{seen:?}");
}

/// On an NVIDIA card (an H200's facts; none need be there) a large U-Net takes what was timed on one, without `tune`.
#[test]
fn what_was_timed_on_a_card_is_taken_there() {
    let facts = || AdapterFacts {
        name: "NVIDIA H200".to_owned(),
        driver: "NVIDIA 580.159.04".to_owned(),
        max_binding_bytes: (1 << 31) - 4,
        max_buffer_bytes: 1 << 40,
        workgroup_bytes: 48 << 10,
        workgroup_invocations: 1024,
        subgroup: [32, 32],
        features: vec!["f16", "subgroup", "timestamps", "cooperative_matrix"],
        matrix_units: vec!["16x16x16 f16 to f32".to_owned()],
        ..AdapterFacts::default()
    };
    let launches = |facts: AdapterFacts, images: DType| {
        let context = Context::plan_as(facts).unwrap();
        let device = Device::Gpu(context.clone());
        let net = build(&device, &ModelConfig { base: 64, ..ModelConfig::new(Model::Unet) }, 0).unwrap();
        let x = device.empty_as("x", [8, 256, 256, 3], images).unwrap();
        let target = device.empty("target", [8, 256, 256, 1]).unwrap();
        let tape = Tape::new();
        let logits = net.forward(&tape.watch(&x), Mode::Train).unwrap();
        tape.backward(&bce_dice(&logits, &target, &BceDice::batch()).unwrap()).unwrap();
        let of = |event| match event {
            PlanEvent::Launched(PlannedLaunch { shader, entry, .. }) => Some(format!("{shader}.{entry}")),
            _ => None,
        };
        context.take_plan().into_iter().filter_map(of).collect::<Vec<_>>()
    };
    let count = |all: &[String], name: &str| all.iter().filter(|known| known.contains(name)).count();
    let half = launches(facts(), DType::F16);
    // 18 convolutions 3x3, of which one has three channels; each has a weight gradient, and all but that one an input gradient. The four
    // transposed ones have both gradients, too.
    let by_units =
        [".forward_statistics_v5", ".backward_weight_v6", "conv_transpose2d_normed.forward_v5", "conv2d.forward_v5"];
    assert_eq!(by_units.map(|name| count(&half, name)), [17, 21, 4, 21], "{half:?}");
    assert_eq!(["halve_quads", "transpose_weights.transpose"].map(|name| count(&half, name)), [21, 22], "{half:?}");
    let single = launches(facts(), DType::F32);
    assert_eq!(by_units.map(|name| count(&single, name)), [0; 4], "{single:?}");
    assert!(count(&single, "winograd") > 60, "{single:?}");
    let other = launches(AdapterFacts { name: "another".to_owned(), driver: String::new(), ..facts() }, DType::F16);
    assert_eq!(
        count(&other, "conv2d.forward_v5") + count(&other, "backward_weight_v6") + count(&other, "winograd"),
        0,
        "{other:?}"
    );
    println!("launches of a U-Net step: {} f16, {} f32, {} elsewhere", half.len(), single.len(), other.len());
}

fn compare_types(shader: &str, entry: &str, types: &[DType], half: bool) {
    let of = shaders().find(|known| known.name == shader).unwrap();
    let form = if half { Form::F16(Matrix::default()) } else { Form::F32 };
    let module = of.assemble_as(None, &[], form).unwrap().validate().unwrap();
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    let info = validator.validate(&module).unwrap();
    let index = module.entry_points.iter().position(|known| known.name == entry).unwrap();
    for (handle, variable) in module.global_variables.iter() {
        let (Some(at), AddressSpace::Storage { .. }) = (&variable.binding, variable.space) else { continue };
        if info.get_entry_point(index)[handle].is_empty() {
            continue;
        }
        let TypeInner::Array { base, .. } = module.types[variable.ty].inner else { panic!("{shader}: no array") };
        let scalar = module.types[base].inner.scalar();
        let declared = match scalar.map(|scalar| (scalar.kind, scalar.width)) {
            Some((naga::ScalarKind::Float, 2)) => DType::F16,
            Some((naga::ScalarKind::Float, 4)) => DType::F32,
            Some((naga::ScalarKind::Uint, 4)) => DType::U32,
            other => panic!("{shader}.{entry}: {other:?}"),
        };
        let name = variable.name.as_deref().unwrap_or_default();
        assert_eq!(declared, types[at.binding as usize - 1], "{shader}.{entry} @binding({}) {name}", at.binding);
    }
}

/// Whatever a kernel that `tune` may choose is made of, an answer is thrown away when it changes.
#[test]
fn an_answer_knows_every_piece_of_its_kernels() {
    let forms = [Form::F32, Form::F16(Matrix::Units16), Form::F16(Matrix::Units8)];
    let mut pieces = HashSet::new();
    for shader in shaders() {
        let known = shader.every_form(None).unwrap();
        for constants in shader.variants() {
            for form in forms {
                let Ok(text) = shader.assemble_as(None, &constants.list(), form) else { continue };
                for file in text.files() {
                    assert!(known.files().contains(&file), "{} {constants} {form:?}: {file}", shader.name);
                    pieces.insert(file.to_owned());
                }
            }
        }
    }
    for piece in ["gemm_block", "weight_block", "lanes_together", "matrix_units16", "matrix_vectors", "weight_matrix"]
        .map(|name| format!("lib/{name}.wgsl"))
    {
        assert!(pieces.contains(&piece), "{piece}");
    }
}

/// The loader switches wgpu's own loop counters off on the strength of this.
#[test]
fn every_loop_is_bounded() {
    for (name, module) in modules() {
        assert_eq!(unbounded(&module), None, "{name}");
    }
}

#[test]
fn a_fault_is_reported_with_file_and_line() {
    let broken = shadegrad::gpu::Shader {
        name: "broken",
        source: "// @include flat\noverride WG: u32 = 64u;\n\nfn f() -> u32 { return 1.5; }\n",
    };
    let message = broken.assemble(None, &[]).unwrap().validate().unwrap_err().to_string();
    assert!(message.starts_with("broken.wgsl:4: "), "{message}");
}

#[test]
fn a_loop_that_changes_its_counter_or_bound_is_found() {
    let texts = [
        "fn f() { for (var i = 0u; i < 4u; i++) { i = 0u; } }",
        "fn f() { var n = 4u; for (var i = 0u; i < n; i++) { n += 1u; } }",
        "fn f() { for (var i = 0u; i < g(); i++) {} } fn g() -> u32 { return 4u; }",
    ];
    for text in texts {
        let module = naga::front::wgsl::parse_str(text).unwrap();
        let reason = unbounded(&module).unwrap_or_else(|| panic!("taken for bounded: {text}"));
        assert!(reason.starts_with("a loop of f "), "{reason}");
    }
}

/// The table of samples is a storage buffer, so `host_structs_equal_shader_structs` does not see it.
#[test]
fn the_table_of_samples_equals_its_shader_struct() {
    use shadegrad::cpu::load_batch::SampleRow;
    macro_rules! fields { ($($field:ident),*) => { [$((stringify!($field), std::mem::offset_of!(SampleRow, $field))),*] }; }
    let want = fields!(slice, group, image, turn, flips, shows, changes, seed, to_x, reach, to_y, cell, tones);
    let modules: HashMap<_, _> = modules().into_iter().collect();
    let module = &modules["load_batch"];
    let (_, ty) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Sample")).unwrap();
    let TypeInner::Struct { members, span } = &ty.inner else { panic!("Sample is no struct") };
    assert_eq!(*span as usize, size_of::<SampleRow>());
    let found: Vec<_> =
        members.iter().map(|member| (member.name.as_deref().unwrap(), member.offset as usize)).collect();
    assert_eq!(found, want);
}

/// What the emulation of matrix units shows of a kernel holds with the units themselves only if it has their functions, and the rest of the
/// kernel is the same.
#[test]
fn matrix_units_and_their_emulation_have_the_same_functions() {
    let functions = |matrix: Matrix| -> (Vec<String>, Vec<String>) {
        let conv2d = shaders().find(|shader| shader.name == "conv2d").unwrap();
        let text = conv2d.assemble_as(None, &[], Form::F16(matrix)).unwrap();
        let of = |piece: fn(&str) -> bool| {
            let lines = text.text.lines().zip(&text.origin).filter(move |(_, (file, _))| piece(file));
            let heads = lines.filter_map(|(line, _)| {
                let function = line.starts_with("fn ").then(|| line.split_once(" {").unwrap().0);
                let declared =
                    line.starts_with("alias ") || line.starts_with("const UNIT:") || line.starts_with("struct In");
                function.or_else(|| declared.then(|| line.split([' ', ':']).nth(1).unwrap())).map(str::to_owned)
            });
            let mut heads: Vec<String> = heads.collect();
            heads.sort();
            heads
        };
        let multiplies = |file: &str| file.starts_with("lib/matrix_") && !file.starts_with("lib/matrix_block");
        (of(multiplies), of(|file| ["lib/gemm_matrix", "lib/matrix_block"].iter().any(|piece| file.starts_with(piece))))
    };
    let (units, kernel) = functions(Matrix::Units16);
    assert_eq!(units.iter().filter(|head| head.starts_with("fn ")).count(), 12, "{units:?}");
    for matrix in Matrix::ALL {
        let (found, rest) = functions(matrix);
        let missing: Vec<_> = units.iter().filter(|head| !found.contains(head)).collect();
        assert!(missing.is_empty() && rest == kernel, "{matrix}: {missing:?}");
    }
}
