// Linear layer over the last axis, and its gradients. Rows are everything but the last axis.
//
//   forward          y[r,o]  = bias[o] + sum over i of x[r,i] * w[i,o]
//   backward_input   gx[r,i] = sum over o of gy[r,o] * v[o,i],  v[o,i] = w[i,o] (transpose_weights.wgsl): forward's kernels
//   backward_weight  gw[i,o] = sum over r of x[r,i] * gy[r,o];  gb[o] = sum over r of gy[r,o]
//                    as partial sums over chunks of rows, which sum_chunks.wgsl adds up in order
//
// _v1  one invocation computes one element.
// _v2  a tile of 8 rows x 8 columns (lib/gemm_tile); backward_weight 8 inputs x 8 outputs, both read as vec4. With BLOCK above 1
//      both go through workgroup memory, in blocks of 64 tiles (lib/gemm_block, lib/weight_block).
// @include flat
// @include element
// @include gemm
// @include gemm_columns
// @include all_taps
// @include gemm_forward
// @include linear_weights

override WG: u32 = 64u;

struct Params {
    rows: u32,
    inputs: u32,
    outputs: u32,
    has_bias: u32,
    chunk_rows: u32, // backward_weight: rows of a chunk
    first_chunk: u32, // backward_weight: chunks before this launch's
    bias_from: u32, // backward_weight_v2: of this launch's chunks, the first whose gy is summed up, too, for the bias
    bias_to: u32, // and the first after them
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.rows * params.outputs { return; }
    let o = at % params.outputs;
    let row = at / params.outputs;
    var sum = 0.0;
    for (var i = 0u; i < params.inputs; i++) { sum += f32(x[row * params.inputs + i]) * weight[i * params.outputs + o]; }
    if params.has_bias == 1u { sum += bias[o]; }
    y[at] = Element(sum);
}

@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y4: array<Element4>;

fn gemm_rows() -> u32 { return params.rows; }
fn gemm_cols() -> u32 { return params.outputs; }
fn gemm_taps() -> u32 { return 1u; }
fn gemm_depth(tap: u32) -> u32 { return params.inputs; }
fn origin(row: u32) -> vec3<i32> { return vec3<i32>(i32(row), 0, 0); }
fn locate(at: vec3<i32>, tap: u32) -> u32 { return u32(at.x) * params.inputs; }
fn load_a(at: u32, i: u32) -> f32 { return f32(x[at + i]); }
fn load_a4(at: u32, i: u32) -> vec4<f32> { return vec4<f32>(x4[(at + i) / 4u]); }
fn load_b(tap: u32, i: u32, col4: u32) -> vec4<f32> { return weight4[i * (params.outputs / 4u) + col4]; }

fn store(row: u32, col4: u32, value: vec4<f32>) {
    let with_bias = select(value, value + bias4[col4], params.has_bias == 1u);
    y4[row * (params.outputs / 4u) + col4] = Element4(with_bias);
}

// Row `inputs` of the gradient is the bias, whose "x" is 1. `partial` is [chunk, inputs + 1, outputs].
@group(0) @binding(2) var<storage, read> gy: array<Element>;
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;

@compute @workgroup_size(WG)
fn backward_weight_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // (chunk, i, o)
    let o = at % params.outputs;
    let i = (at / params.outputs) % (params.inputs + 1u);
    let first = at / (params.outputs * (params.inputs + 1u)) * params.chunk_rows;
    if first >= params.rows { return; }
    var sum = 0.0;
    for (var row = first; row < min(first + params.chunk_rows, params.rows); row++) {
        let a = select(f32(x[row * params.inputs + min(i, params.inputs - 1u)]), 1.0, i == params.inputs);
        sum += a * f32(gy[row * params.outputs + o]);
    }
    partial[at + params.first_chunk * (params.inputs + 1u) * params.outputs] = sum;
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> partial4: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn backward_weight_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    weights(flat_group(wid, groups), lid);
}
