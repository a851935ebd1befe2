// The gradients of the linear layer over shifted tokens (shifted_linear.wgsl). Rows are the pixels (n, y, x) of an image batch.
//
//   gx[r,i] = sum over o of gy[r + step * s(i), o] * v[o,i],  v[o,i] = w[i,o] (transpose_weights.wgsl)
//   gw[i,o] = sum over r of x[r - step * s(i), i] * gy[r,o];  gb[o] = sum over r of gy[r,o]
//             as partial sums over chunks of rows, which sum_chunks.wgsl adds up in order
//
// _v1  one invocation computes one element, or one partial sum.
// _v2  both in one launch: the layer has few pixels, and neither of the two would fill a GPU. The first workgroups make gx, a
//      tile of 8 rows x 8 channels an invocation (lib/gemm_tile); the others make partial sums, 8 inputs x 8 outputs each. With
//      BLOCK above 1 both go through workgroup memory (lib/gemm_block, lib/weight_block).
//
//      gx: the product is made row by row, and each number is stored where the shift had taken it from. Where that lies
//      outside of the image, a 0 is stored on the opposite side instead, from where nothing was taken:
//
//        s = 1    row of gy v:      0       1       2       3
//                 stored in row:    3 (0)   0       1       2
// @include flat
// @include element
// @include gemm
// @include gemm_columns
// @include all_taps
// @include shifted
// @include shifted_quad
// @include shifted_weights

override WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> gy: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>; // v
@group(0) @binding(3) var<storage, read_write> gx_out: array<Element>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.rows * params.inputs { return; }
    let i = at % params.inputs;
    let row = at / params.inputs;
    let s = shift_of(i);
    var sum = 0.0;
    if inside(position(row) + s) {
        let start = neighbour(row, s) * params.outputs;
        for (var o = 0u; o < params.outputs; o++) { sum += f32(gy[start + o]) * weight[o * params.inputs + i]; }
    }
    gx_out[at] = Element(sum);
}

// Row `inputs` of the weight gradient is the bias, whose "x" is 1. `partial` is [chunk, inputs + 1, outputs].

@group(0) @binding(2) var<storage, read> x: array<Element>;
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;

/// x[row - step * s, i]; 1 for the bias.
fn moved(row: u32, i: u32, s: i32) -> f32 {
    if i >= params.inputs { return 1.0; }
    if !inside(position(row) - s) { return 0.0; }
    return f32(x[neighbour(row, -s) * params.inputs + i]);
}

@compute @workgroup_size(WG)
fn backward_weight_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // (chunk, i, o)
    let o = at % params.outputs;
    let i = (at / params.outputs) % (params.inputs + 1u);
    let first = at / (params.outputs * (params.inputs + 1u)) * params.chunk_rows;
    if first >= params.rows { return; }
    var sum = 0.0;
    for (var row = first; row < min(first + params.chunk_rows, params.rows); row++) {
        sum += moved(row, i, shift_of(i)) * f32(gy[row * params.outputs + o]);
    }
    partial[at + params.first_chunk * (params.inputs + 1u) * params.outputs] = sum;
}

// ---- backward_v2 ------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> gathered4: array<Element4>; // gy
@group(0) @binding(2) var<storage, read> x4: array<Element4>;
@group(0) @binding(3) var<storage, read> gy4: array<Element4>; // gy again, as vectors
@group(0) @binding(4) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> gx: array<Element>;
@group(0) @binding(6) var<storage, read_write> partial4: array<vec4<f32>>;

fn gemm_rows() -> u32 { return params.rows; }
fn gemm_cols() -> u32 { return params.inputs; }
fn gemm_taps() -> u32 { return 1u; }
fn gemm_depth(tap: u32) -> u32 { return params.outputs; }
fn origin(row: u32) -> vec3<i32> { return vec3<i32>(i32(row), 0, 0); }
fn locate(at: vec3<i32>, tap: u32) -> u32 { return u32(at.x) * params.outputs; }
fn load_a(at: u32, o: u32) -> f32 { return f32(gy[at + o]); }
fn load_a4(at: u32, o: u32) -> vec4<f32> { return vec4<f32>(gathered4[(at + o) / 4u]); }
fn load_b(tap: u32, o: u32, col4: u32) -> vec4<f32> { return weight4[o * (params.inputs / 4u) + col4]; }

fn store(row: u32, col4: u32, value: vec4<f32>) {
    let length = i32(params.length);
    let here = position(row);
    for (var lane = 0u; lane < 4u; lane++) {
        let channel = col4 * 4u + lane;
        let source = here - shift_of(channel);
        let wrapped = (source + 2 * length) % length; // -2 and more: never negative
        let number = select(0.0, value[lane], wrapped == source);
        gx[neighbour(row, wrapped - here) * params.inputs + channel] = Element(number);
    }
}

@compute @workgroup_size(GROUP)
fn backward_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let group = flat_group(wid, groups);
    if group < params.input_groups { gemm(group, lid); } else { weights(group - params.input_groups, lid); }
}
