// The weights of several layers as their input gradients read them, in one launch.
//
//   turned[to + (taps-1-tap, o, i)] = weights[from + (tap, i, o)]   for each part
//
// A layer's weight is [taps, inputs, outputs]: one tap for a linear layer, the positions (ky, kx) of a convolution's
// kernel. Its input gradient is the same sum with inputs and outputs exchanged and the kernel turned by 180 degrees:
//
//      a b c        i h g       and each letter, a matrix [inputs, outputs], is transposed
//      d e f   ->   f e d
//      g h i        c b a
//
// One invocation takes 4x4 numbers of a matrix; a workgroup belongs to one part.
// @include flat
// @include parts

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
    unused_0: u32,    // an element of a uniform array is a multiple of 16 bytes
    unused_1: u32,
}

@group(0) @binding(0) var<uniform> parts: array<Part, PARTS>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> turned: array<f32>;

@compute @workgroup_size(WG)
fn transpose(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let group = flat_group(wid, groups);
    let part = parts[part_of(group)];
    let block = (group - part.first_group) * WG + lid; // (tap, block of outputs, block of inputs)
    let across = (part.inputs + BLOCK - 1u) / BLOCK;
    let down = (part.outputs + BLOCK - 1u) / BLOCK;
    let i = (block % across) * BLOCK;
    let o = (block / across) % down * BLOCK;
    let tap = block / (across * down);
    if tap >= part.taps { return; }
    let matrix = part.inputs * part.outputs;
    let source = part.source + (part.taps - 1u - tap) * matrix;
    let to = part.to + tap * matrix;
    var numbers: array<vec4<f32>, BLOCK>; // all are read before the first is written; beyond an edge the last one again
    for (var row = 0u; row < BLOCK; row++) {
        let start = source + min(i + row, part.inputs - 1u) * part.outputs;
        for (var column = 0u; column < BLOCK; column++) {
            numbers[row][column] = weights[start + min(o + column, part.outputs - 1u)];
        }
    }
    for (var column = 0u; column < BLOCK; column++) {
        for (var row = 0u; row < BLOCK; row++) {
            if o + column < part.outputs && i + row < part.inputs {
                turned[to + (o + column) * part.inputs + i + row] = numbers[row][column];
            }
        }
    }
}
