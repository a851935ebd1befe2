// The weights of several layers as their input gradients read them, in one launch; or as matrix units read them, as 16-bit floats.
//
//   transpose     turned[to + (taps-1-tap, o, i)] = weights[from + (tap, i, o)]   for each part; for matrix units without the turn
//   halve_quads   turned[to + (taps-1-tap, i, o)] = weights[from + (tap, i, o)]   for their input gradients, or without the turn
//
// A layer's weight is [taps, inputs, outputs]: one tap for a linear layer, the positions (ky, kx) of a convolution's
// kernel. Its input gradient is the same sum with inputs and outputs exchanged and the kernel turned by 180 degrees:
//
//      a b c        i h g       and each letter, a matrix [inputs, outputs], is transposed
//      d e f   ->   f e d
//      g h i        c b a
//
// Matrix units read the numbers that are multiplied with one result after the other: those of a convolution lie apart in its weight, those
// of its input gradient side by side.
//
// One invocation takes 4x4 numbers of a matrix, or 16 of them as they stand; a workgroup belongs to one part.
// @include flat
// @include parts
// @include element

override WG: u32 = 64u;

const PARTS: u32 = 32u;

/// Rows and columns of what an invocation takes.
const BLOCK: u32 = 4u;

struct Part {
    first_group: u32, // its workgroups begin here (lib/parts)
    source: u32,      // where it stands in `weights`
    to: u32,          // where it goes in `turned`
    taps: u32,
    inputs: u32,
    outputs: u32,
    by_half_turn: u32, // 1 if the kernel is turned by 180 degrees, else 0
    unused: u32,      // an element of a uniform array is a multiple of 16 bytes
}

@group(0) @binding(0) var<uniform> parts: array<Part, PARTS>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> turned: array<Element>;

/// The tap that becomes this one.
fn source_tap(part: Part, tap: u32) -> u32 { return select(tap, part.taps - 1u - tap, part.by_half_turn == 1u); }

/// A square of 4x4 numbers of a matrix: which part it belongs to, and its first numbers there.
struct Square {
    part: Part,
    i: u32,
    o: u32,
    source: u32, // of the matrix
    to: u32,
}

/// The square of an invocation; past the last one `i` is no input.
fn square_of(wid: vec3<u32>, groups: vec3<u32>, lid: u32) -> Square {
    let group = flat_group(wid, groups);
    let part = parts[part_of(group)];
    let block = (group - part.first_group) * WG + lid; // (tap, block of outputs, block of inputs)
    let across = (part.inputs + BLOCK - 1u) / BLOCK;
    let down = (part.outputs + BLOCK - 1u) / BLOCK;
    let tap = block / (across * down);
    let i = select((block % across) * BLOCK, part.inputs, tap >= part.taps);
    let matrix = part.inputs * part.outputs;
    let source = part.source + source_tap(part, tap) * matrix;
    return Square(part, i, (block / across) % down * BLOCK, source, part.to + tap * matrix);
}

@compute @workgroup_size(WG)
fn transpose(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let at = square_of(wid, groups, lid);
    let part = at.part;
    if at.i >= part.inputs { return; }
    var numbers: array<vec4<f32>, BLOCK>; // all are read before the first is written; beyond an edge the last one again
    for (var row = 0u; row < BLOCK; row++) {
        let start = at.source + min(at.i + row, part.inputs - 1u) * part.outputs;
        for (var column = 0u; column < BLOCK; column++) {
            numbers[row][column] = weights[start + min(at.o + column, part.outputs - 1u)];
        }
    }
    for (var column = 0u; column < BLOCK; column++) {
        for (var row = 0u; row < BLOCK; row++) {
            if at.o + column < part.outputs && at.i + row < part.inputs {
                turned[at.to + (at.o + column) * part.inputs + at.i + row] = Element(numbers[row][column]);
            }
        }
    }
}

// Where inputs and outputs divide by 4, and with them all places: whole vectors.
@group(0) @binding(1) var<storage, read> weights4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> turned4: array<Element4>;

@compute @workgroup_size(WG)
fn transpose_quads(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let at = square_of(wid, groups, lid);
    if at.i >= at.part.inputs { return; }
    let first = (at.source + at.i * at.part.outputs + at.o) / 4u;
    let quads = at.part.outputs / 4u;
    let rows = mat4x4<f32>(weights4[first], weights4[first + quads], weights4[first + 2u * quads], weights4[first + 3u * quads]);
    let to = (at.to + at.o * at.part.inputs + at.i) / 4u;
    for (var column = 0u; column < BLOCK; column++) {
        let across = vec4(rows[0][column], rows[1][column], rows[2][column], rows[3][column]);
        turned4[to + column * (at.part.inputs / 4u)] = Element4(across);
    }
}

/// 16-bit floats in the order of the weight, but for the turn.
@compute @workgroup_size(WG)
fn halve_quads(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let group = flat_group(wid, groups);
    let part = parts[part_of(group)];
    let quads = part.inputs * part.outputs / 4u; // of a matrix
    for (var i = 0u; i < BLOCK; i++) {
        let at = ((group - part.first_group) * BLOCK + i) * WG + lid; // (tap, quad)
        let tap = at / quads;
        if tap < part.taps {
            turned4[part.to / 4u + at] = Element4(weights4[part.source / 4u + source_tap(part, tap) * quads + at % quads]);
        }
    }
}
