// Linear layer over shifted tokens (UNeXt), with a residual. Rows are the pixels (n, y, x) of an image batch.
//
//   y[r,o] = bias[o] + residual[r,o] + sum over i of x[r - step * s(i), i] * w[i,o]
//
// s(i) = i / chunk - 2 (lib/shifted); what would come from outside of the image is 0. The shifted tensor is never written: the
// shift is a part of the address. The gradients are in shifted_linear_backward.wgsl.
//
// _v1  one invocation computes one element.
// _v2  a tile of 8 rows x 8 columns (lib/gemm_tile). The groups are the taps of the tile engine: as a convolution looks at
//      another pixel for each position of its kernel, this one looks at another pixel for each group, and there at the channels
//      of the group only. Through workgroup memory (lib/gemm_block, with BLOCK above 1) there is one tap: four channels at a time
//      are read from where they came from, which may be two pixels.
// @include flat
// @include element
// @include gemm
// @include gemm_columns
// @include all_taps
// @include gemm_forward
// @include shifted
// @include shifted_quad

override WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<Element>;
@group(0) @binding(5) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.rows * params.outputs { return; }
    let o = at % params.outputs;
    let row = at / params.outputs;
    var sum = 0.0;
    for (var i = 0u; i < params.inputs; i++) {
        let s = shift_of(i);
        if inside(position(row) - s) {
            sum += f32(x[neighbour(row, -s) * params.inputs + i]) * weight[i * params.outputs + o];
        }
    }
    if params.has_bias == 1u { sum += bias[o]; }
    if params.has_residual == 1u { sum += f32(residual[at]); }
    y[at] = Element(sum);
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> residual4: array<Element4>;
@group(0) @binding(5) var<storage, read_write> y4: array<Element4>;

fn gemm_rows() -> u32 { return params.rows; }
fn gemm_cols() -> u32 { return params.outputs; }
fn gemm_taps() -> u32 { return select((params.inputs + params.chunk - 1u) / params.chunk, 1u, BLOCK > 1u); }
fn gemm_depth(tap: u32) -> u32 {
    return select(min(params.chunk, params.inputs - tap * params.chunk), params.inputs, BLOCK > 1u);
}
fn origin(row: u32) -> vec3<i32> { return vec3<i32>(i32(row), position(row), 0); }

fn locate(at: vec3<i32>, tap: u32) -> u32 {
    if BLOCK > 1u { return u32(at.x); }
    let s = i32(tap) - 2;
    let start = neighbour(u32(at.x), -s) * params.inputs + tap * params.chunk;
    return select(OUTSIDE, start, inside(at.y - s));
}

fn load_a(at: u32, i: u32) -> f32 { return select(f32(x[at + i]), 0.0, at == OUTSIDE); }
fn load_a4(row: u32, i: u32) -> vec4<f32> { return moved4(row, position(row), quad_of(i)); }

fn load_b(tap: u32, i: u32, col4: u32) -> vec4<f32> {
    return weight4[(tap * params.chunk + i) * (params.outputs / 4u) + col4];
}

fn store(row: u32, col4: u32, value: vec4<f32>) {
    let at = row * (params.outputs / 4u) + col4;
    var result = value;
    if params.has_bias == 1u { result += bias4[col4]; }
    if params.has_residual == 1u { result += vec4<f32>(residual4[at]); }
    y4[at] = Element4(result);
}
