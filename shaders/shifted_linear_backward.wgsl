// The gradients of the linear layer over shifted tokens (shifted_linear.wgsl). Rows are the pixels (n, y, x) of an image batch.
//
//   gx[r,i] = sum over o of gy[r + step * s(i), o] * v[o,i],  v[o,i] = w[i,o] (transpose_weights.wgsl)
//   gw[i,o] = sum over r of x[r - step * s(i), i] * gy[r,o];  gb[o] = sum over r of gy[r,o]
//             as partial sums over chunks of rows, which sum_chunks.wgsl adds up in order
//
// _v1  one invocation computes one element, or one partial sum.
// _v2  both in one launch: the layer has few pixels, and neither of the two would fill a GPU. The first workgroups make gx, a
//      tile of 8 rows x 8 channels an invocation (lib/gemm_tile); the others make partial sums, 8 inputs x 8 outputs each.
//
//      gx: the product is made row by row, and each number is stored where the shift had taken it from. Where that lies
//      outside of the image, a 0 is stored on the opposite side instead, from where nothing was taken:
//
//        s = 1    row of gy v:      0       1       2       3
//                 stored in row:    3 (0)   0       1       2
// @include flat
// @include element
// @include gemm_tile
// @include outer_product
// @include shifted

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

const TILE_I: u32 = 8u;

/// Four channels of x. They lie in one group or two: `border` of them in the first.
struct Quad {
    channel4: u32, // in vectors
    shifts: vec2<i32>,
    border: u32,
}

fn quad_of(channel: u32) -> Quad {
    let last = (channel + 3u) / params.chunk;
    let border = select(4u, last * params.chunk - channel, last != channel / params.chunk);
    return Quad(channel / 4u, vec2(shift_of(channel), shift_of(channel + 3u)), border);
}

/// The quad where it was before its groups moved to this row; `here` is the row's position.
fn moved4(row: u32, here: i32, quad: Quad) -> vec4<f32> {
    let inputs4 = params.inputs / 4u;
    var result = vec4(0.0);
    if inside(here - quad.shifts.x) { result = vec4<f32>(x4[neighbour(row, -quad.shifts.x) * inputs4 + quad.channel4]); }
    if quad.border < 4u {
        var others = vec4(0.0);
        if inside(here - quad.shifts.y) {
            others = vec4<f32>(x4[neighbour(row, -quad.shifts.y) * inputs4 + quad.channel4]);
        }
        result = select(result, others, vec4(0u, 1u, 2u, 3u) >= vec4(quad.border));
    }
    return result;
}

fn weight_tile(tile: u32) {
    let outputs4 = params.outputs / 4u;
    let col_tiles = outputs4 / 2u; // tile = (chunk, input tile, output tile)
    let row_tiles = params.inputs / TILE_I + 1u; // the last one is the bias alone
    let o4 = (tile % col_tiles) * 2u;
    let i0 = ((tile / col_tiles) % row_tiles) * TILE_I;
    let chunk = tile / (col_tiles * row_tiles);
    let first = chunk * params.chunk_rows;
    if first >= params.rows { return; }
    let is_bias = i0 == params.inputs;
    let left = quad_of(select(i0, 0u, is_bias));
    let right = quad_of(select(i0 + 4u, 0u, is_bias));
    var here = position(first);
    var beside = first % params.step; // rows since the position changed
    var acc: array<array<vec4<f32>, 2>, TILE_I>;
    for (var row = first; row < min(first + params.chunk_rows, params.rows); row++) {
        let g0 = vec4<f32>(gy4[row * outputs4 + o4]);
        let g1 = vec4<f32>(gy4[row * outputs4 + o4 + 1u]);
        let a0 = select(moved4(row, here, left), vec4(1.0), is_bias);
        let a1 = moved4(row, here, right);
        add_outer_product(&acc, array(a0, a1), array(g0, g1));
        // The next row's position, without a division.
        beside++;
        if beside == params.step {
            beside = 0u;
            here = select(here + 1, 0, here + 1 == i32(params.length));
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

@compute @workgroup_size(WG)
fn backward_v2(
    @builtin(global_invocation_id) gid: vec3<u32>,
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let at = flat_index(gid, groups);
    if flat_group(wid, groups) < params.input_groups {
        gemm_tile(at);
    } else {
        weight_tile(at - params.input_groups * WG);
    }
}
