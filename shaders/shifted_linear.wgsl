// Linear layer over shifted tokens (UNeXt), and its gradients. Rows are the pixels (n, y, x) of an image batch.
//
//   forward          y[r,o]  = bias[o] + residual[r,o] + sum over i of x[r - step * s(i), i] * w[i,o]
//   backward_input   gx[r,i] = sum over o of gy[r + step * s(i), o] * v[o,i],  v[o,i] = w[i,o] (transpose_weights.wgsl)
//   backward_weight  gw[i,o] = sum over r of x[r - step * s(i), i] * gy[r,o];  gb[o] = sum over r of gy[r,o]
//                    as partial sums over chunks of rows, which sum_chunks.wgsl adds up in order
//
// s(i) = i / chunk - 2: the channels of x fall into up to five groups, and each moves by its own number of pixels (-2 to 2)
// along one axis, on which neighbours are `step` rows apart (shift.wgsl has the picture). What would come from outside of the
// image is 0. The shifted tensor is never written: the shift is a part of the address.
//
// _v1  one invocation computes one element.
// _v2  a tile of 8 rows x 8 columns (lib/gemm_tile); backward_weight 8 inputs x 8 outputs.
//
//      forward: the groups are the taps of the tile engine. As a convolution looks at another pixel for each position of its
//      kernel, this one looks at another pixel for each group, and there at the channels of the group only.
//
//      backward_input: the product is made row by row, and each number is stored where the shift had taken it from. Where
//      that lies outside of the image, a 0 is stored on the opposite side instead, from where nothing was taken:
//
//        s = 1    gy v, row i:   0  1  2  3          what row i stores, and where:  0 -> row 3 (as 0)
//                                                    1 -> row 0,  2 -> row 1,  3 -> row 2
// @include flat
// @include gemm_tile

override WG: u32 = 64u;

struct Params {
    rows: u32,
    inputs: u32,      // of this product: for backward_input they are forward's outputs
    outputs: u32,
    chunk: u32,       // channels of a group
    length: u32,      // extent of the axis
    step: u32,        // rows between neighbours on the axis
    has_bias: u32,
    has_residual: u32,
    scatter: u32,     // v2: 0 forward, the shift is in what is read; 1 backward_input, in where results are stored
    chunk_rows: u32,  // backward_weight: rows of a chunk
    first_chunk: u32, // backward_weight: chunks before this launch's
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

/// By how many pixels a channel of forward's x moves.
fn shift_of(channel: u32) -> i32 {
    return i32(channel / params.chunk) - 2;
}

/// Where a row stands on the axis.
fn position(row: u32) -> i32 {
    return i32((row / params.step) % params.length);
}

fn inside(at: i32) -> bool {
    return at >= 0 && at < i32(params.length);
}

/// The row that stands `by` pixels further on the axis.
fn neighbour(row: u32, by: i32) -> u32 {
    return u32(i32(row) + by * i32(params.step));
}

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
            sum += x[neighbour(row, -s) * params.inputs + i] * weight[i * params.outputs + o];
        }
    }
    if params.has_bias == 1u { sum += bias[o]; }
    if params.has_residual == 1u { sum += residual[at]; }
    y[at] = sum;
}

@group(0) @binding(3) var<storage, read_write> gx: array<f32>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.rows * params.outputs { return; }
    let i = at % params.outputs;
    let row = at / params.outputs;
    let s = shift_of(i);
    var sum = 0.0;
    if inside(position(row) + s) {
        let start = neighbour(row, s) * params.inputs;
        for (var o = 0u; o < params.inputs; o++) { sum += x[start + o] * weight[o * params.outputs + i]; }
    }
    gx[at] = sum;
}

// ---- forward_v2, backward_input_v2 ------------------------------------------------------------------------------

@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;

fn group_channels() -> u32 { return select(params.chunk, params.inputs, params.scatter == 1u); }

fn gemm_rows() -> u32 { return params.rows; }
fn gemm_cols() -> u32 { return params.outputs; }
fn gemm_taps() -> u32 { return (params.inputs + group_channels() - 1u) / group_channels(); }
fn gemm_depth(tap: u32) -> u32 { return min(group_channels(), params.inputs - tap * group_channels()); }
fn origin(row: u32) -> vec3<i32> { return vec3<i32>(i32(row), position(row), 0); }

fn locate(at: vec3<i32>, tap: u32) -> u32 {
    let s = select(i32(tap) - 2, 0, params.scatter == 1u);
    let start = neighbour(u32(at.x), -s) * params.inputs + tap * group_channels();
    return select(OUTSIDE, start, inside(at.y - s));
}

fn load_a(at: u32, i: u32) -> f32 { return select(x[at + i], 0.0, at == OUTSIDE); }

fn load_b(tap: u32, i: u32, col4: u32) -> vec4<f32> {
    return weight4[(tap * group_channels() + i) * (params.outputs / 4u) + col4];
}

fn store(row: u32, col4: u32, value: vec4<f32>) {
    var result = value;
    if params.has_bias == 1u { result += bias4[col4]; }
    for (var lane = 0u; lane < 4u; lane++) {
        let column = col4 * 4u + lane;
        if params.scatter == 1u {
            let origin = position(row) - shift_of(column);
            let length = i32(params.length);
            let wrapped = (origin + 2 * length) % length; // -2 and more: never negative
            let to = neighbour(row, wrapped - position(row)) * params.outputs + column;
            y[to] = select(0.0, result[lane], wrapped == origin);
        } else {
            let to = row * params.outputs + column;
            if params.has_residual == 1u { result[lane] += residual[to]; }
            y[to] = result[lane];
        }
    }
}

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    gemm_tile(flat_index(gid, groups));
}

@compute @workgroup_size(WG)
fn backward_input_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    gemm_tile(flat_index(gid, groups));
}

// ---- backward_weight --------------------------------------------------------------------------------------------
// Row `inputs` of the gradient is the bias, whose "x" is 1. `partial` is [chunk, inputs + 1, outputs].

@group(0) @binding(2) var<storage, read> gy: array<f32>;
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;

/// x[row - step * s, i]; 1 for the bias.
fn moved(row: u32, i: u32, s: i32) -> f32 {
    if i >= params.inputs { return 1.0; }
    if !inside(position(row) - s) { return 0.0; }
    return x[neighbour(row, -s) * params.inputs + i];
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
        sum += moved(row, i, shift_of(i)) * gy[row * params.outputs + o];
    }
    partial[at + params.first_chunk * (params.inputs + 1u) * params.outputs] = sum;
}

@group(0) @binding(2) var<storage, read> gy4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> partial4: array<vec4<f32>>;

const TILE_I: u32 = 8u;

@compute @workgroup_size(WG)
fn backward_weight_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let tile = flat_index(gid, groups); // (chunk, input tile, output tile)
    let outputs4 = params.outputs / 4u;
    let col_tiles = outputs4 / 2u;
    let row_tiles = params.inputs / TILE_I + 1u; // the last one is the bias alone
    let o4 = (tile % col_tiles) * 2u;
    let i0 = ((tile / col_tiles) % row_tiles) * TILE_I;
    let chunk = tile / (col_tiles * row_tiles);
    let first = chunk * params.chunk_rows;
    if first >= params.rows { return; }
    var shifts: array<i32, TILE_I>;
    for (var i = 0u; i < TILE_I; i++) { shifts[i] = shift_of(i0 + i); }
    var acc: array<array<vec4<f32>, 2>, TILE_I>;
    for (var row = first; row < min(first + params.chunk_rows, params.rows); row++) {
        let g0 = gy4[row * outputs4 + o4];
        let g1 = gy4[row * outputs4 + o4 + 1u];
        for (var i = 0u; i < TILE_I; i++) {
            let a = moved(row, i0 + i, shifts[i]);
            acc[i][0] += a * g0;
            acc[i][1] += a * g1;
        }
    }
    for (var i = 0u; i < TILE_I; i++) {
        if i0 + i <= params.inputs {
            let at = ((params.first_chunk + chunk) * (params.inputs + 1u) + i0 + i) * outputs4 + o4;
            partial4[at] = acc[i][0];
            partial4[at + 1u] = acc[i][1];
        }
    }
}
