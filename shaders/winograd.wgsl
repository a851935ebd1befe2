// Convolution 3x3 with stride 1 by Winograd's F(4x2, 3x3): 24 products for 4x2 pixels of y, where the plain sum takes 72.
// These are version 3 of conv2d's forward and backward_input. Layout NHWC, weights [ky, kx, ci, co].
//
//   transform_input    V[f,t,ci]  = B^T d B    d: the 6x4 pixels of x under the tile t
//                      U[f,ci,co] = G g G^T    g: the 3x3 weights from ci to co
//   forward_v3         M[f,t,co]  = sum over ci of V[f,t,ci] * U[f,ci,co]     24 matrix products, one for each f
//   transform_output   y = A^T m A + bias      m: the 6x4 numbers M[.,t,co]; 4x2 pixels
//
// The matrix on the left works along columns (lib/winograd_tall), that on the right along rows (lib/winograd).
//
// backward_input is the same over gy with turned weights (transpose_weights.wgsl).
//
// V and M are three times as large as x and y, so the host works in slabs: some quads at a time. Every tile has its own
// sum; where the cuts lie changes no bit. Two quads, eight tiles, are a group. In V the eight numbers of a group and channel
// lie together: V is [f, group, ci, 8], M is [f, group, 8, co].
// A quad that a group lacks is computed with the others and not stored.
// @include flat
// @include element
// @include epilogue
// @include winograd
// @include winograd_tall
// @include winograd_forward
// @include winograd_products

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;

// ---- V and U ----------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<f32>; // read with a batch norm only
@group(0) @binding(4) var<storage, read> joined: array<Element>; // second part of x, where it has two
@group(0) @binding(5) var<storage, read_write> v_out4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> u_out: array<f32>;

/// G times three weights of a column.
fn of_tall_weights(a: f32, b: f32, c: f32) -> array<f32, TALL> {
    let even1 = -a - 0.25 * c;
    let even3 = a / 9.0 + 0.25 * c;
    return array<f32, TALL>(a * 16.0 / 9.0, even1 - 0.5 * b, even1 + 0.5 * b, even3 + b / 6.0, even3 - b / 6.0, c);
}

/// U of a pair (ci, co).
fn transform_kernel(at: u32) {
    let pairs = params.in_c * params.out_c;
    var columns: array<array<f32, TALL>, 3>;
    for (var kx = 0u; kx < 3u; kx++) {
        let first = kx * pairs + at;
        columns[kx] = of_tall_weights(weight[first], weight[first + 3u * pairs], weight[first + 6u * pairs]);
    }
    for (var fy = 0u; fy < TALL; fy++) {
        let row = of_weights(columns[0][fy], columns[1][fy], columns[2][fy]);
        for (var fx = 0u; fx < 4u; fx++) { u_out[(TALL * fx + fy) * pairs + at] = row[fx]; }
    }
}

/// One invocation: the 24 numbers of a channel for the four tiles of a quad, which lie under 6 rows of 10 pixels.
@compute @workgroup_size(WG)
fn transform_input(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // pairs (ci, co), then (quad, ci)
    if at < params.kernels { transform_kernel(at); return; }
    let ci = (at - params.kernels) % params.in_c;
    let quad = (at - params.kernels) / params.in_c;
    if quad >= params.quads { return; }
    let corner = place(params.first_quad + quad);
    let norm = norm_of(ci);
    var rows: array<array<vec4<f32>, 4>, TALL>; // B applied to each row
    for (var r = 0u; r < TALL; r++) { rows[r] = of_row(row_of_pixels(corner, r, ci, norm)); }
    let plane = params.groups * params.in_c * 2u;
    let v_at = ((quad / 2u) * params.in_c + ci) * 2u + quad % 2u;
    leave_v(&rows, plane, v_at);
}

// ---- M ----------------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> v4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> u4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> m_out4: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn forward_v3(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    products(flat_group(wid, groups), lid);
}

// ---- y ----------------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> m4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y4: array<Element4>;

/// A^T times six numbers of a column, of four channels.
fn of_tall_products(m: array<vec4<f32>, TALL>) -> array<vec4<f32>, TILE_ROWS> {
    let even1 = m[1] + m[2];
    let odd1 = m[1] - m[2];
    let even3 = m[3] + m[4];
    let odd3 = m[3] - m[4];
    return array<vec4<f32>, TILE_ROWS>(
        m[0] + even1 + even3,
        0.5 * odd1 + 1.5 * odd3,
        0.25 * even1 + 2.25 * even3,
        0.125 * odd1 + 3.375 * odd3 + m[5],
    );
}

/// One invocation: the 4x2 pixels of a tile for four channels.
@compute @workgroup_size(WG)
fn transform_output(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // (t, four channels)
    let out_c4 = params.out_c / 4u;
    let co4 = at % out_c4;
    let t = at / out_c4;
    if t >= 4u * params.quads { return; }
    let corner = place(params.first_quad + t / 4u) + vec3<u32>(0u, 0u, 2u * (t % 4u));
    let plane = params.groups * 8u * out_c4;
    var columns: array<array<vec4<f32>, TILE_ROWS>, 4>; // A^T applied to each column of m
    for (var fx = 0u; fx < 4u; fx++) {
        var m: array<vec4<f32>, TALL>;
        for (var fy = 0u; fy < TALL; fy++) { m[fy] = m4[(TALL * fx + fy) * plane + at]; }
        columns[fx] = of_tall_products(m);
    }
    for (var r = 0u; r < TILE_ROWS; r++) {
        let pixels = of_products(columns[0][r], columns[1][r], columns[2][r], columns[3][r]);
        store_tile_row(corner + vec3<u32>(0u, r, 0u), co4, pixels);
    }
}
