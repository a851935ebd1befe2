//! The kernel workbench: a kernel of somebody's own is checked before it is timed, and what does not fit is explained.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use shadegrad::debug::{Checks, Switches};
use shadegrad::gpu::plan::PlanEvent;
use shadegrad::gpu::{Answer, Context, GpuOptions, Matrix, Question, Replacement, Shader, Tuned};
use shadegrad::models::{Model, ModelConfig, build};
use shadegrad::ops::matrix::{compare, fault};
use shadegrad::ops::{BceDice, Mode, bce_dice, shaders as ops_shaders, text_hash};
use shadegrad::{Device, Tape};

use crate::devices;

/// Text of max pooling, and the same with the neighbour's channel.
const RIGHT: &str = "let candidate = f32(x[corner + ((k / 2u) * params.in_w + k % 2u) * params.channels]);";
const WRONG: &str = "let candidate = f32(x[corner + ((k / 2u) * params.in_w + k % 2u) * params.channels + 1u]);";

/// The device of the tests for `--device`, and a folder for files.
fn workplace() -> Option<(String, tempfile::TempDir)> {
    Some((devices::gpu()?.to_string(), tempfile::tempdir().unwrap()))
}

fn shader(name: &str) -> &'static Shader {
    ops_shaders().find(|shader| shader.name == name).unwrap()
}

/// A copy of an op's shader with some texts replaced.
fn edited(folder: &Path, op: &str, edits: &[(&str, &str)]) -> PathBuf {
    let mut text = shader(op).source.to_owned();
    for (right, wrong) in edits {
        assert!(text.contains(right), "{op}.wgsl does not contain {right:?} any more");
        text = text.replace(right, wrong);
    }
    let path = folder.join("edited.wgsl");
    std::fs::write(&path, text).unwrap();
    path
}

fn shadegrad(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shadegrad")).args(words).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_wrong_kernel_is_named_and_never_timed() {
    let Some((device, folder)) = workplace() else { return };
    let file = edited(folder.path(), "max_pool2d", &[(RIGHT, WRONG)]);
    let name = file.to_str().unwrap();
    let words = ["max_pool2d", "--shader", name, "--device", &device];
    for command in ["bench", "check"] {
        let (code, out, err) = said(&shadegrad(&[&[command], &words[..]].concat()));
        assert_eq!(code, Some(1), "{out}{err}");
        let wrong = out.lines().find(|line| line.starts_with("WRONG ")).unwrap_or_else(|| panic!("{out}{err}"));
        assert!(wrong.starts_with(&format!("WRONG max_pool2d of {name}: forward / v1 [1, 2, 2, 1] ")), "{wrong}");
        assert!(
            wrong.contains("; index ") && wrong.contains(": got ") && wrong.contains(", the reference is "),
            "{wrong}"
        );
        assert!(!out.contains(" ms"), "it was timed:\n{out}");
    }
    let (code, out, _) = said(&shadegrad(&[&["bench"], &words[..], &["--json"]].concat()));
    assert_eq!(code, Some(1));
    for line in out.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["ok"] == false && object.get("median_ms").is_none(), "{line}");
    }
}

#[test]
fn a_right_kernel_is_checked_and_timed_beside_ours() {
    let Some((device, folder)) = workplace() else { return };
    // Another text for the same: the four candidates one by one. `other` is nothing of ours.
    let file = folder.path().join("mine.wgsl");
    let text = "
        struct Params { batch: u32, in_h: u32, in_w: u32, out_h: u32, out_w: u32, channels: u32, accumulate: u32 }
        @group(0) @binding(0) var<uniform> params: Params;
        @group(0) @binding(1) var<storage, read> x: array<f32>;
        @group(0) @binding(2) var<storage, read_write> y: array<f32>;
        @group(0) @binding(3) var<storage, read_write> winner: array<u32>;
        override WG: u32 = 64u;
        // @include flat
        @compute @workgroup_size(WG)
        fn forward(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
            let at = flat_index(gid, groups);
            if at >= arrayLength(&y) { return; }
            let c = at % params.channels;
            let ox = at / params.channels % params.out_w;
            let row = at / params.channels / params.out_w;
            let iy = row / params.out_h * params.in_h + row % params.out_h * 2u;
            let corner = (iy * params.in_w + ox * 2u) * params.channels + c;
            var best = x[corner];
            var which = 0u;
            let right = x[corner + params.channels];
            if right > best { best = right; which = 1u; }
            let below = x[corner + params.in_w * params.channels];
            if below > best { best = below; which = 2u; }
            let last = x[corner + (params.in_w + 1u) * params.channels];
            if last > best { best = last; which = 3u; }
            y[at] = best;
            winner[at] = which;
        }
        @compute @workgroup_size(WG)
        fn other() {}
    ";
    std::fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap();
    let words = ["max_pool2d", "--shader", name, "--device", &device];
    let (code, out, err) = said(&shadegrad(&[&["check"], &words[..]].concat()));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("forward of ") && out.contains("not used: other"), "{out}");

    let (code, out, err) = said(&shadegrad(&[&["bench"], &words[..], &["--runs", "1", "--json"]].concat()));
    assert_eq!(code, Some(0), "{out}{err}");
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty() && lines.len().is_multiple_of(2), "{out}");
    for pair in lines.chunks(2) {
        // The gradient needs forward's winners, so it is timed too.
        assert!(pair[0]["case"] == pair[1]["case"] && pair[0]["entry"] == pair[1]["entry"]);
        assert!(pair[0]["shader"] == "ours" && pair[1]["shader"] == name, "{out}");
        assert!(pair.iter().all(|line| line["median_ms"].as_f64().unwrap() > 0.0));
    }
}

#[test]
fn bindings_that_do_not_fit_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let x = "@group(0) @binding(1) var<storage, read> x: array<Element>;";
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("    winner_out[at] = winner;\n", "")], "it does not use @binding(3) (winner_out)"),
        (&[(x, "@group(1) @binding(1) var<storage, read> x: array<Element>;")], "@binding(1) (x) is in @group(1)"),
        (
            &[("var<uniform> params: Params", "var<storage, read> params: Params")],
            "@binding(0) (params) is var<storage, read> instead of var<uniform>",
        ),
        (
            &[(x, "@group(0) @binding(1) var<storage, read_write> x: array<Element>;")],
            "@binding(1) (x) is var<storage, read_write> instead of var<storage, read>",
        ),
        (
            &[("    out_h: u32,\n    out_w: u32,", "    out_w: u32,\n    out_h: u32,")],
            "@binding(0) (params) has out_w: u32 as field 4 instead of out_h: u32",
        ),
        (
            &[("    channels: u32,\n    accumulate", "    channels: u32,\n    more: u32,\n    accumulate")],
            "has more: u32 as field 7 instead of accumulate: u32",
        ),
        (
            &[
                ("var<storage, read_write> winner_out: array<u32>", "var<storage, read_write> winner_out: array<f32>"),
                ("winner_out[at] = winner", "winner_out[at] = f32(winner)"),
            ],
            "@binding(3) (winner_out) is array<f32> instead of array<u32>",
        ),
        (
            &[
                ("winner_out: array", "z: array"),
                ("winner_out[at]", "z[at]"),
                ("> y: array", "> winner_out: array"),
                ("y[at] =", "winner_out[at] ="),
            ],
            "@binding(2) (winner_out) is what the op calls y; its winner_out is @binding(3)",
        ),
        (
            &[
                ("y[at] = Element(best);", "y[at] = Element(best + more[at]);"),
                ("struct Params", "@group(0) @binding(7) var<storage, read> more: array<f32>;\nstruct Params"),
            ],
            "it uses @binding(7) (more), which the op does not bind",
        ),
    ];
    for (edits, reason) in cases {
        let file = edited(folder.path(), "max_pool2d", edits);
        let Err(error) = Replacement::of_user(shader("max_pool2d"), &file, None, None) else {
            panic!("taken: {reason}")
        };
        let message = error.to_string();
        println!("{message}\n");
        assert!(message.contains("edited.wgsl:") && message.contains(reason), "{reason}:\n{message}");
        for line in [
            "@binding(0) var<uniform> params: Params { batch: u32, in_h: u32, in_w: u32, out_h: u32, out_w: u32, channels: u32, accumulate: u32 }",
            "@binding(1) var<storage, read> x: array<f32>",
            "@binding(3) var<storage, read_write> winner_out: array<u32>",
        ] {
            assert!(message.contains(line), "{line} is not in the list:\n{message}");
        }
    }
}

/// Every entry point of ours fits itself; numbers may be read four at a time.
#[test]
fn our_own_shaders_fit() {
    let folder = tempfile::tempdir().unwrap();
    for shader in ops_shaders() {
        let file = edited(folder.path(), shader.name, &[]);
        let own = Replacement::of_user(shader, &file, None, None).unwrap();
        assert!(own.ignored().is_empty() && own.notes().is_empty(), "{}: {:?}", shader.name, own.notes());
    }
    let v2 = ("forward_v2", "forward_v1");
    let file = edited(folder.path(), "relu", &[("forward_v1", "old"), v2]);
    let own = Replacement::of_user(shader("relu"), &file, Some("forward_v1"), None).unwrap();
    assert_eq!(own.entries(), ["forward_v1"]);
    let file = edited(folder.path(), "relu", &[("override WG: u32 = 64u", "override WG: u32 = 128u")]);
    let own = Replacement::of_user(shader("relu"), &file, Some("forward_v1"), None).unwrap();
    assert_eq!(own.notes(), ["forward_v1 has workgroups of 128 invocations; the op counts them as 64"]);
}

#[test]
fn what_is_no_kernel_of_the_op_is_said_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let pool = shader("max_pool2d");
    let refused = |file: &Path, entry: Option<&str>| match Replacement::of_user(pool, file, entry, None) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    };
    let file = edited(folder.path(), "max_pool2d", &[]);
    let message = refused(&file, Some("forward_v2"));
    assert!(
        message.ends_with("the shader of max_pool2d has no entry point forward_v2; it has forward, backward_input"),
        "{message}"
    );
    let file = edited(folder.path(), "max_pool2d", &[("fn backward_input", "fn back")]);
    let message = refused(&file, Some("backward_input"));
    assert!(message.ends_with("edited.wgsl has no entry point backward_input; it has forward, back"), "{message}");
    let file = edited(folder.path(), "relu", &[]);
    let message = refused(&file, None);
    assert!(message.contains("it has no entry point of max_pool2d: it has forward_v1, "), "{message}");
    let file = edited(folder.path(), "max_pool2d", &[("var best = f32(x[corner]);", "var best = nowhere;")]);
    let message = refused(&file, None);
    let line = pool.source.lines().position(|line| line.contains("var best")).unwrap() + 1;
    assert!(message.contains(&format!("edited.wgsl:{line}: ")) && message.contains("nowhere"), "{message}");
    assert!(refused(&folder.path().join("none.wgsl"), None).starts_with("cannot read "));

    for (words, reason) in [
        (&["check", "max_pool2d", "--shader", "x.wgsl", "--device", "cpu"][..], "--shader needs a GPU"),
        (&["check", "max_pool2d", "relu", "--shader", "x.wgsl", "--device", "cpu"], "--shader needs one op"),
        (&["bench", "unext", "--shader", "x.wgsl", "--device", "cpu"], "unext is no op with a shader"),
    ] {
        let (code, out, err) = said(&shadegrad(words));
        assert!(code == Some(1) && err.contains(reason), "{out}{err}");
    }
    let (code, _, err) = said(&shadegrad(&["check", "max_pool2d", "--entry", "forward"]));
    assert!(code == Some(2) && err.contains("--shader"), "{err}");
}

/// The tests' own `watch`, whose lines are read as JSON.
struct Watching {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Watching {
    fn start(op: &str, folder: &Path, device: &str, saves: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_shadegrad"))
            .args(["watch", op, "--device", device, "--runs", "1", "--json", "--saves", saves, "--shaders"])
            .arg(folder)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.lines.next().expect("watch has ended").unwrap()).unwrap()
    }

    /// The next verdict, and the lines of times before it.
    fn verdict(&mut self) -> (serde_json::Value, usize) {
        for timed in 0.. {
            let line = self.line();
            if line.get("save").is_some() {
                return (line, timed);
            }
            assert!(line["before_ms"].as_f64().unwrap() > 0.0 && line["median_ms"].as_f64().unwrap() > 0.0, "{line}");
        }
        unreachable!()
    }
}

/// The folder `shaders/`, as a copy.
fn shaders(folder: &Path) {
    std::fs::create_dir_all(folder.join("lib")).unwrap();
    for part in ["", "lib"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(part);
        for file in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            std::fs::copy(&file, folder.join(part).join(file.file_name().unwrap())).unwrap();
        }
    }
}

/// As careful editors do: a new file takes the place of the old one.
fn save(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

#[test]
fn watch_sees_a_break_a_fault_and_a_fix() {
    let Some((device, folder)) = workplace() else { return };
    shaders(folder.path());
    let (file, piece) = (folder.path().join("max_pool2d.wgsl"), folder.path().join("lib/flat.wgsl"));
    let right = std::fs::read_to_string(&file).unwrap();
    let flat = std::fs::read_to_string(&piece).unwrap();
    let mut watch = Watching::start("max_pool2d", folder.path(), &device, "6");
    let (verdict, _) = watch.verdict();
    assert!(verdict["save"] == 0 && verdict["ok"] == true && verdict["passed"].as_u64().unwrap() > 10, "{verdict}");

    // It does not compile: file and line.
    save(&file, &right.replace("    y[at] = Element(best);", "    y[at] = Element(nowhere * best);"));
    let (verdict, _) = watch.verdict();
    let line = right.lines().position(|line| line.contains("y[at] = Element(best)")).unwrap() + 1;
    let error = verdict["errors"][0].as_str().unwrap();
    assert!(verdict["ok"] == false && error.contains(&format!("max_pool2d.wgsl:{line}: ")), "{verdict}");
    assert!(error.contains("nowhere"), "{error}");

    // It is wrong.
    save(&file, &right.replace(RIGHT, WRONG));
    let (verdict, _) = watch.verdict();
    let error = verdict["errors"][0].as_str().unwrap();
    assert!(verdict["ok"] == false && error.starts_with("WRONG max_pool2d: forward / v1 "), "{verdict}");
    assert!(error.contains(": got "), "{error}");

    // Its piece is broken: the piece's own file and line. Written in place, as other editors do.
    save(&file, &right);
    let (verdict, _) = watch.verdict();
    assert!(verdict["ok"] == true && verdict["seconds"].as_f64().unwrap() >= 0.0, "{verdict}");
    std::fs::write(&piece, flat.replace("return gid.y", "return nowhere * gid.y")).unwrap();
    let (verdict, timed) = watch.verdict();
    assert_eq!(timed, 0, "the code is the one of the start");
    let error = verdict["errors"][0].as_str().unwrap();
    assert!(verdict["ok"] == false && error.starts_with("lib/flat.wgsl:6: ") && error.contains("nowhere"), "{verdict}");
    std::fs::write(&piece, &flat).unwrap();
    let (verdict, _) = watch.verdict();
    assert!(verdict["save"] == 5 && verdict["ok"] == true, "{verdict}");

    // Other code that is right is timed beside the text before it.
    save(
        &file,
        &right.replace(
            "if candidate > best { best = candidate; winner = k; }",
            "if candidate > best { winner = k; best = candidate; }",
        ),
    );
    let (verdict, _) = watch.verdict();
    assert!(verdict["save"] == 6 && verdict["ok"] == true, "{verdict}");
    let rest: Vec<_> = watch.lines.by_ref().map(Result::unwrap).collect();
    assert!(!rest.is_empty() && rest.iter().all(|line| line.contains("\"change_percent\":")), "{rest:?}");
    assert!(watch.child.wait().unwrap().success());
}

#[test]
fn watch_says_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, _, err) = said(&shadegrad(&["watch", "max_pool2d", "--device", "cpu", "--shaders", path]));
    assert!(code == Some(1) && err.contains("max_pool2d.wgsl; name the folder with --shaders"), "{err}");
    shaders(folder.path());
    let (code, _, err) = said(&shadegrad(&["watch", "max_pool2d", "--device", "cpu", "--shaders", path]));
    assert!(code == Some(1) && err.contains("watch needs a GPU"), "{err}");
}

/// A loop without a bound keeps wgpu's counters, and says so; the files as they are need none.
#[test]
fn edited_loops_are_proved_before_they_are_trusted() {
    let conv = shader("linear");
    let text = conv.assemble(None, &[]).unwrap();
    assert!(Replacement::edited(conv, text.clone()).unwrap().notes().is_empty());
    let mut endless = text.clone();
    endless.text = text.text.replace("first += SUM_TERMS) {", "first += SUM_TERMS) { first = first;");
    assert_ne!(endless.text, text.text);
    let notes = Replacement::edited(conv, endless).unwrap().notes().join("\n");
    assert!(notes.contains("a loop of gemm_tile changes its counter in its body"), "{notes}");
}

/// A training step of two small networks, which have all sorts of ops, and their weights' new gradients.
fn step(device: &Device) -> Vec<f32> {
    let planning = matches!(device, Device::Gpu(context) if context.is_planning());
    let made = |name, channels: usize| {
        let shape = [2, 64, 64, channels];
        if planning {
            return device.empty(name, shape).unwrap();
        }
        let values: Vec<f32> = (0..2 * 64 * 64 * channels).map(|at| (at * at % 17) as f32 / 17.0).collect();
        device.tensor(name, shape, &values).unwrap()
    };
    let mut all = Vec::new();
    for config in [ModelConfig::unext_small(), ModelConfig { base: 8, ..ModelConfig::new(Model::Unet) }] {
        let net = build(device, &config, 0).unwrap();
        let tape = Tape::new();
        let logits = net.forward(&tape.watch(&made("x", 3)), Mode::Train).unwrap();
        let loss = bce_dice(&logits, &made("target", 1), &BceDice::batch()).unwrap();
        let gradients = tape.backward(&loss).unwrap();
        let parameters = net.parameters();
        parameters.check(&gradients).unwrap();
        if !planning {
            all.extend(parameters.gradients.to_vec().unwrap());
        }
    }
    all
}

/// What the ops of a step ask, with the usual kernel and all others.
fn asked() -> Vec<(Question, String, Vec<String>)> {
    let context = Context::plan(None).unwrap();
    step(&Device::Gpu(context.clone()));
    let of = |event| match event {
        PlanEvent::Asked { question, usual, candidates } => Some((question, usual, candidates)),
        _ => None,
    };
    context.take_plan().into_iter().filter_map(of).collect()
}

/// Answers that take kernels that are not the usual ones, of each sort some.
fn others(context: &Context) -> Tuned {
    let mut tuned = Tuned::default();
    let mut taken = BTreeMap::<String, usize>::new();
    for (question, usual, candidates) in asked() {
        // The one that the fewest have taken before.
        let other = candidates.into_iter().filter(|kernel| *kernel != usual);
        let kernel = other.min_by_key(|kernel| taken.get(kernel).copied()).unwrap();
        *taken.entry(kernel.clone()).or_default() += 1;
        tuned.insert(Answer {
            op: question.op.to_owned(),
            question: question.to_string(),
            shader: text_hash(context, question.op).unwrap(),
            kernel,
            ms: 1.0,
            usual,
            usual_ms: 2.0,
        });
    }
    tuned
}

fn opened(switches: Switches) -> Option<Arc<Context>> {
    let options = GpuOptions { name: Some(devices::gpu()?.to_string()), ..Default::default() };
    Some(Context::open_with(&options, switches).unwrap())
}

/// The gradients of a step, and the names of the kernels that it launched; empty on an adapter without timestamps.
fn launched(context: &Arc<Context>) -> (Vec<f32>, BTreeSet<String>) {
    context.start_profile().unwrap();
    let gradients = step(&Device::Gpu(context.clone()));
    (gradients, context.stop_profile().unwrap().into_iter().map(|timing| timing.label).collect())
}

/// Every op of a step with other kernels than the usual ones is right, and the same answers give the same bits.
#[test]
fn tuned_kernels_are_right_and_repeat_their_bits() {
    let checks = Arc::new(Checks::default());
    let Some(checked) = opened(Switches { checks: Some(checks.clone()), ..Switches::default() }) else { return };
    let tuned = others(&checked);
    let changes = tuned.changes();
    for part in [
        "conv2d forward",
        "conv2d backward_input",
        "conv2d backward_weight",
        "shifted_linear forward",
        "batch_norm both",
    ] {
        assert!(changes.keys().any(|question| question.starts_with(part)), "nobody asks for {part}");
    }
    for kernel in
        ["v1", "v2", "v2 TILE_M=4", "v2 TILE_N=1", "v2 TILE_M=4 TILE_N=1 BLOCK=4", "v2 PIXELS=1", "v2 PIXELS=8"]
    {
        assert!(changes.values().any(|other| *other == kernel), "nobody takes {kernel}: {changes:?}");
    }
    checked.use_tuned(tuned.clone());
    step(&Device::Gpu(checked));
    assert!(checks.compared().len() > 8, "{:?}", checks.compared());

    let run = |tuned: &Tuned| {
        let context = opened(Switches::default()).unwrap();
        context.use_tuned(tuned.clone());
        launched(&context)
    };
    let ((first, kernels), (second, _)) = (run(&tuned), run(&tuned));
    assert!(first == second, "the same kernels give other bits");
    assert!(kernels.is_empty() || kernels.contains("depthwise_conv2d.forward_gelu_v1"), "{kernels:?}");
}

/// A text that stands in for ours has none of our constants.
#[test]
fn answers_do_not_hold_for_a_replaced_text() {
    let Some(context) = opened(Switches::default()) else { return };
    context.use_tuned(others(&context));
    let (_, before) = launched(&context);
    let folder = tempfile::tempdir().unwrap();
    let own =
        Replacement::of_user(shader("depthwise_conv2d"), &edited(folder.path(), "depthwise_conv2d", &[]), None, None)
            .unwrap();
    context.replace("depthwise_conv2d", Some(Arc::new(own)));
    let (_, after) = launched(&context);
    if context.has_timestamps() {
        assert!(
            before.contains("depthwise_conv2d.forward_gelu_v1") && !before.contains("depthwise_conv2d.forward_gelu_v2"),
            "{before:?}"
        );
        assert!(
            after.contains("depthwise_conv2d.forward_gelu_v2") && !after.contains("depthwise_conv2d.forward_gelu_v1"),
            "{after:?}"
        );
        assert!(after.contains("layer_norm.forward_v1"), "the answers of other ops hold: {after:?}");
    }
}

/// A step that is the same as the one before notices that a text was replaced in between.
#[test]
fn a_repeated_step_takes_a_replaced_text() {
    let Some(context) = opened(Switches::default()) else { return };
    let device = Device::Gpu(context.clone());
    let (first, again) = (step(&device), step(&device));
    assert!(first == again, "two steps differ");
    let folder = tempfile::tempdir().unwrap();
    let file = edited(folder.path(), "bce_dice", &[("both += pq.x * t;", "both += pq.x;")]);
    let own = Replacement::of_user(shader("bce_dice"), &file, None, None).unwrap();
    context.replace("bce_dice", Some(Arc::new(own)));
    assert!(step(&device) != first, "the replaced text was not used");
    context.replace("bce_dice", None);
    assert!(step(&device) == first, "the replaced text is still used");
}

#[test]
fn a_dry_run_lists_the_space_without_a_device() {
    let list = |words: &[&str]| -> Vec<serde_json::Value> {
        let all = [&["tune"], words, &["--dry-run", "--json", "--device", "nothing"]].concat();
        let (code, out, err) = said(&shadegrad(&all));
        assert_eq!(code, Some(0), "{err}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = list(&["unext", "--batch", "1", "--size", "64"]);
    let (counts, questions) = all.split_last().unwrap();
    assert_eq!(counts["questions"], questions.len());
    let candidates: usize = questions.iter().map(|line| line["candidates"].as_array().unwrap().len()).sum();
    assert!(counts["candidates"] == candidates && candidates > 2 * questions.len(), "{counts}");
    let conv = |part: &str, sizes: &str| {
        let same = |line: &&serde_json::Value| line["op"] == "conv2d" && line["part"] == part && line["sizes"] == sizes;
        questions.iter().find(same).unwrap_or_else(|| panic!("{part} {sizes}"))["candidates"].clone()
    };
    let tiles =
        |version: &str| ["", " TILE_M=4 TILE_N=1", " TILE_M=4", " TILE_N=1"].map(|tile| format!("{version}{tile}"));
    let few = ["v6", "v6 TILE_N=1"].map(str::to_owned);
    let fused =
        ["v7", "v7 QUADS=4 VECTORS=4", "v7 QUADS=4", "v7 QUADS=4 VECTORS=16", "v7 VECTORS=4"].map(str::to_owned);
    let versions = [&["v1".to_owned()][..], &tiles("v2"), &["v3".to_owned()], &few, &fused].concat();
    assert_eq!(conv("forward", "1x64x64x3 3x3 16 s1 p1"), serde_json::json!(versions));
    assert_eq!(conv("backward_weight", "1x64x64x3 3x3 16 s1 p1"), serde_json::json!(["v1", "v2", "v4"]));
    // Blocks are as wide as the channels, for those that divide by 4.
    let blocks =
        |version: &str| ["", " TILE_M=4 TILE_N=1 BLOCK=8", " BLOCK=4"].map(|block| format!("{version}{block}"));
    assert_eq!(
        conv("backward_weight", "1x32x32x16 3x3 32 s1 p1"),
        serde_json::json!([&["v1", "v2"].map(str::to_owned)[..], &blocks("v3"), &blocks("v5")].concat())
    );
    let forward = conv("forward", "1x32x32x16 3x3 32 s1 p1");
    for winograd in blocks("v3") {
        assert!(forward.as_array().unwrap().contains(&winograd.clone().into()), "{winograd}: {forward}");
    }
    let only = list(&["unet", "batch_norm", "--base", "8", "--batch", "1", "--size", "32"]);
    assert!(only.len() > 3 && only[..only.len() - 1].iter().all(|line| line["op"] == "batch_norm"), "{only:?}");
    let (code, _, err) = said(&shadegrad(&["tune", "max_pool2d", "--dry-run"]));
    assert!(code == Some(1) && err.contains("there is nothing to choose"), "{err}");
    let (code, _, err) = said(&shadegrad(&["tune", "unext", "--size", "40", "--dry-run"]));
    assert!(code == Some(1) && err.contains("divides by 32"), "{err}");
}

#[test]
fn what_tune_finds_is_kept_and_used() {
    let Some((device, folder)) = workplace() else { return };
    let run = |words: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shadegrad"));
        command.args(words).args(["--batch", "1", "--size", "64", "--device", &device]);
        command.env_remove("SHADEGRAD_TUNE").env("SHADEGRAD_CACHE", folder.path()).envs(variables.iter().copied());
        said(&command.output().unwrap())
    };
    let tune = |more: &[&str]| {
        let (code, out, err) = run(&[&["tune", "depthwise_conv2d", "--runs", "2", "--json"], more].concat(), &[]);
        assert_eq!(code, Some(0), "{out}{err}");
        let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines
    };
    let first = tune(&[]);
    let (counts, answers) = first.split_last().unwrap();
    assert!(!answers.is_empty() && counts["questions"] == answers.len() && counts["known"] == 0, "{counts}");
    for answer in answers {
        assert_eq!(answer["times"].as_array().unwrap().len(), 2, "{answer}");
        assert!(answer["times"][0]["median_ms"].as_f64().unwrap() > 0.0, "{answer}");
    }
    // The second run asks nothing, unless it is told to.
    let second = tune(&[]);
    assert!(second.len() == 1 && second[0]["known"] == answers.len(), "{second:?}");
    assert_eq!(tune(&["--again"]).len(), first.len());

    // Its answers are used: here the naive kernel wherever it was asked for.
    let file = PathBuf::from(counts["file"].as_str().unwrap());
    let text = std::fs::read_to_string(&file).unwrap();
    let mut cache: serde_json::Value = serde_json::from_str(&text).unwrap();
    for answer in cache["answers"].as_array_mut().unwrap() {
        answer["kernel"] = "v1".into();
    }
    std::fs::write(&file, cache.to_string()).unwrap();
    let network = ["bench", "unext", "--train", "--runs", "1"];
    let (code, _, err) = run(&network, &[("SHADEGRAD_DEBUG", "3"), ("SHADEGRAD_CHECK", "1")]);
    let tuned = |err: &str| {
        err.lines().filter(|line| line.contains("depthwise_conv2d both ") && line.contains(": v1, tuned;")).count()
    };
    assert_eq!((code, tuned(&err)), (Some(0), answers.len()), "{err}");
    assert!(
        err.contains(" depthwise_conv2d.forward_gelu_v1 ") && !err.contains(" depthwise_conv2d.forward_gelu_v2 "),
        "{err}"
    );
    let (code, _, err) = run(&network, &[("SHADEGRAD_DEBUG", "3"), ("SHADEGRAD_TUNE", "0")]);
    assert_eq!((code, tuned(&err)), (Some(0), 0), "{err}");
    assert!(err.contains(" depthwise_conv2d.forward_gelu_v2 "), "{err}");

    // A damaged file is said in a line and not used; tune writes it anew.
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let (code, _, err) = run(&network, &[]);
    let warnings: Vec<&str> = err.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert!(code == Some(0) && warnings.len() == 1 && warnings[0].contains("is damaged"), "{err}");
    assert_eq!(tune(&[]).len(), first.len());
    assert_eq!(tune(&[]).len(), 1);
}

/// A kernel that the cases find wrong is not timed; the fastest, if it is wrong at the very size only, is not kept.
#[test]
fn tune_keeps_no_wrong_kernel() {
    let Some((device, folder)) = workplace() else { return };
    let kernels = shader("depthwise_conv2d").source;
    let everywhere = ("y[at] = Element(convolved(at));", "y[at] = Element(convolved(at) + 0.5);");
    let far_out = (
        "y4[at] = Element4(convolved4(at));",
        "y4[at] = Element4(convolved4(at) + select(0.0, 1.0, at % (params.channels / 4u) == 25u));",
    );
    for ((right, wrong), said_of) in [
        (everywhere, "WRONG depthwise_conv2d: forward / v1 "),
        // The usual kernel: a single run shows no lead of another one.
        (far_out, "WRONG depthwise_conv2d both 1x32x32x128 3x3 128 s1 p1 v2: "),
    ] {
        assert!(kernels.matches(right).count() == 1, "depthwise_conv2d.wgsl has other text now");
        shaders(folder.path());
        std::fs::write(folder.path().join("depthwise_conv2d.wgsl"), kernels.replace(right, wrong)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shadegrad"));
        command.args([
            "tune",
            "depthwise_conv2d",
            "--batch",
            "1",
            "--size",
            "256",
            "--runs",
            "1",
            "--json",
            "--device",
            &device,
        ]);
        command.env("SHADEGRAD_CACHE", folder.path().join("cache")).env("SHADEGRAD_SHADERS", folder.path());
        let (code, out, err) = said(&command.output().unwrap());
        assert!(code == Some(0) && err.contains(said_of), "{out}{err}");
        let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let large = lines.iter().find(|line| line["sizes"] == "1x32x32x128 3x3 128 s1 p1");
        if right == far_out.0 {
            assert!(
                large.is_none() && err.contains("v2, the usual kernel, is not right here; no answer is kept"),
                "{err}"
            );
            continue;
        }
        let large = large.unwrap();
        assert_eq!(large["kernel"], "v2", "{large}");
        assert!(large["times"].as_array().unwrap().iter().all(|time| time["kernel"] == "v2"), "{large}");
    }
}

/// Before a kernel for matrix units is timed or used it is compared with another one on the device. Here its emulation is.
#[test]
fn matrices_that_multiply_wrongly_are_found() {
    let Some(context) = opened(Switches::default()).filter(|context| context.has_f16()) else { return };
    for matrix in [Some(Matrix::Plain16), Some(Matrix::Plain8), context.matrix()].into_iter().flatten() {
        assert_eq!(compare(&Device::Gpu(context.clone()), matrix).unwrap(), None, "{matrix}");
    }
    assert_eq!(fault(&Device::Gpu(context)), None);

    let folder = tempfile::tempdir().unwrap();
    shaders(folder.path());
    let file = folder.path().join("lib/matrix_plain.wgsl");
    let text = std::fs::read_to_string(&file).unwrap();
    let right = "            (*sums).c00[i] += upper * numbers.x;\n";
    assert_eq!(text.matches(right).count(), 1, "matrix_plain.wgsl has other text now");
    // One of 256 sums loses something, everywhere; and another one, but only where it is large: in a long sum.
    for (wrong, said) in [
        ("if i == 3u && a0.lane == 5u { (*sums).c00[i] += 0.1; }", "a small one"),
        ("if i == 3u && a0.lane == 5u { (*sums).c00[i] = clamp((*sums).c00[i], -24.0, 24.0); }", "a long sum"),
    ] {
        std::fs::write(&file, text.replace(right, &format!("{right}            {wrong}\n"))).unwrap();
        let switches = Switches { shaders: Some(folder.path().to_owned()), ..Switches::default() };
        let device = Device::Gpu(opened(switches).unwrap());
        let found = compare(&device, Matrix::Plain16).unwrap().unwrap_or_else(|| panic!("{wrong}: not found"));
        assert!(found.contains(said) && found.contains("v2 gets "), "{wrong}: {found}");
    }
}

#[test]
fn mixed_precision_of_a_single_kernel_is_refused() {
    let (code, _, err) = said(&shadegrad(&["bench", "relu", "--precision", "f16", "--device", "cpu"]));
    assert!(code == Some(1) && err.contains("--precision f16 is for networks"), "{err}");
}
