//! Cases of the sum: every way to broadcast (channel, plane, sample, scalar, lower rank, both sides), extents of 1,
//! sizes that do not divide by 4, and sums over broadcast axes of one, two and three stages.

use shadegrad::cpu::add::{AddParams, ReduceParams, assign, forward, reduce};
use shadegrad::ops::Version;
use shadegrad::{Shape, Tape, ops};

use super::{Case, EXACT, GradientCase, SUMS, Tolerance, doubles, numbers};

const OP: &str = "add";

/// y, a, b with four axes.
type Shapes = [[usize; 4]; 3];

fn strides([_, h, w, c]: [usize; 4]) -> [u32; 4] {
    [h * w * c, w * c, c, 1].map(|step| step as u32)
}

fn params([y, a, b]: Shapes) -> AddParams {
    let of = |dims: [usize; 4]| [0, 1, 2, 3].map(|axis| if dims[axis] == 1 { 0 } else { strides(dims)[axis] });
    let ([a_batch, a_row, a_column, a_channel], [b_batch, b_row, b_column, b_channel]) = (of(a), of(b));
    AddParams {
        height: y[1] as u32,
        width: y[2] as u32,
        channels: y[3] as u32,
        a_batch,
        a_row,
        a_column,
        a_channel,
        b_batch,
        b_row,
        b_column,
        b_channel,
    }
}

/// The gradient of an operand, the obvious way: each element of gy is added to the element it came from.
fn scatter(gy: &[f64], y: [usize; 4], operand: [usize; 4]) -> Vec<f64> {
    let (from, to) = (strides(y), strides(operand));
    let mut g = vec![0.0; operand.iter().product()];
    for (at, gy) in gy.iter().enumerate() {
        let index = |axis: usize| (at / from[axis] as usize) % y[axis];
        g[(0..4).map(|axis| index(axis) % operand[axis] * to[axis] as usize).sum::<usize>()] += gy;
    }
    g
}

fn wide(dims: &[usize]) -> [usize; 4] {
    let mut all = [1; 4];
    all[4 - dims.len()..].copy_from_slice(dims);
    all
}

pub fn cases() -> Vec<Case> {
    let image = &[2, 7, 9, 5][..];
    let mut cases = vec![
        case("same odd", image, image),
        case("same", &[2, 16, 16, 16], &[2, 16, 16, 16]),
        case("same vector", &[4], &[4]),
        case("channel", image, &[1, 1, 1, 5]),
        case("plane", image, &[1, 7, 9, 1]),
        case("sample", image, &[2, 1, 1, 1]),
        case("scalar", image, &[1]),
        case("lower rank", image, &[5]),
        case("lower rank first", &[9, 5], image),
        case("alternating", image, &[1, 7, 1, 5]),
        case("both", &[2, 7, 1, 5], &[1, 7, 9, 1]),
        case("ones", &[1, 1, 1, 1], &[1]),
        case("many images", &[8, 16, 16, 8], &[1, 16, 16, 8]),
        case("three stages", &[2, 50, 50, 3], &[3]),
    ];
    cases.extend([[1], [67], [256]].map(in_place));
    cases
}

fn case(what: &str, a: &[usize], b: &[usize]) -> Case {
    let (a, b) = (a.to_vec(), b.to_vec());
    let name = format!("{what} {a:?} {b:?}");
    let count = |dims: &[usize]| dims.iter().product::<usize>();
    let broadcasts = count(&a) != count(&b);
    let case = Case::new(OP, name, move |device, checks| {
        let (wide_a, wide_b) = (wide(&a), wide(&b));
        let y_shape = [0, 1, 2, 3].map(|axis| wide_a[axis].max(wide_b[axis]));
        let rank = a.len().max(b.len());
        let values_a = checks.stored(numbers("a", a.iter().product()));
        let values_b = checks.stored(numbers("b", b.iter().product()));
        let gy = checks.stored(numbers("gy", y_shape.iter().product()));
        let mut want = vec![0.0; gy.len()];
        forward(&params([y_shape, wide_a, wide_b]), &doubles(&values_a), &doubles(&values_b), &mut want);

        let versions: &[Version] =
            if a == b && gy.len().is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            let tape = Tape::new();
            let left = tape.watch_input(&checks.image(device, Shape::new(&a)?, &values_a)?);
            let right = tape.watch_input(&checks.image(device, Shape::new(&b)?, &values_b)?);
            let y = ops::add::forward(&left, &right, version)?;
            let grads = tape.backward_from(&y, &checks.image(device, Shape::new(&y_shape[4 - rank..])?, &gy)?)?;
            checks.compare("forward", version.name(), &y, &want, EXACT)?;
            for (operand, dims) in [(&left, wide_a), (&right, wide_b)] {
                let g = grads.of(operand).expect("watched");
                assert_eq!(g.shape(), operand.shape(), "a gradient has its operand's shape");
                let tolerance: Tolerance = if dims == y_shape { EXACT } else { SUMS };
                checks.compare("reduce", "v1", g, &scatter(&doubles(&gy), y_shape, dims), tolerance)?;
            }
        }
        Ok(())
    });
    // The gradient of a broadcast operand is a sum, and sums are f32.
    if broadcasts { case.f32_only() } else { case }
}

fn in_place(shape: [usize; 1]) -> Case {
    Case::new(OP, format!("in place {shape:?}"), move |device, checks| {
        let first = checks.stored(numbers("sum", shape[0]));
        let second = checks.stored(numbers("added", shape[0]));
        let mut want = doubles(&first);
        assign(&mut want, &doubles(&second));
        let versions: &[Version] =
            if shape[0].is_multiple_of(4) { &[Version::V1, Version::V2] } else { &[Version::V1] };
        for &version in versions {
            let sum = checks.image(device, shape, &first)?;
            ops::add::assign(&sum, &checks.image(device, shape, &second)?, version)?;
            checks.compare("assign", version.name(), &sum, &want, EXACT)?;
        }
        Ok(())
    })
}

pub fn gradients() -> Vec<GradientCase> {
    let shapes = [[2, 3, 2, 4], [2, 3, 2, 4], [1, 3, 1, 4]];
    let [a, b] = [doubles(&numbers("finite a", 48)), doubles(&numbers("finite b", 12))];
    let gy = doubles(&numbers("finite gy", 48));
    // The axes n and x of gy are summed one after the other, as the op does it.
    let (mut over_n, mut gb) = (vec![0.0; 24], vec![0.0; 12]);
    reduce(&ReduceParams { count: 2, inner: 24, parts: 1 }, &gy, &mut over_n);
    reduce(&ReduceParams { count: 2, inner: 4, parts: 1 }, &over_n, &mut gb);
    vec![GradientCase {
        name: format!("{OP} a, b"),
        inputs: vec![a, b],
        gradients: vec![gy.clone(), gb],
        value: Box::new(move |inputs| {
            let mut y = vec![0.0; 48];
            forward(&params(shapes), &inputs[0], &inputs[1], &mut y);
            y.iter().zip(&gy).map(|(y, g)| y * g).sum()
        }),
        tolerance: 1e-8,
    }]
}
