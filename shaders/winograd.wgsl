// Convolution 3x3 with stride 1 by Winograd's F(2x2, 3x3): 16 products for 2x2 pixels of y, where the plain sum takes 36.
// These are version 3 of conv2d's forward and backward_input. Layout NHWC, weights [ky, kx, ci, co].
//
//   transform_input    V[f,t,ci]  = B^T d B    d: the 4x4 pixels of x under the tile t
//                      U[f,ci,co] = G g G^T    g: the 3x3 weights from ci to co
//   forward_v3         M[f,t,co]  = sum over ci of V[f,t,ci] * U[f,ci,co]     16 matrix products, one for each f
//   transform_output   y = A^T m A + bias      m: the 4x4 numbers M[.,t,co]; 2x2 pixels
//
//         1  0 -1  0           1    0    0            1  1  1  0
//   B^T = 0  1  1  0      G = 1/2  1/2  1/2     A^T = 0  1 -1 -1
//         0 -1  1  0          1/2 -1/2  1/2
//         0  1  0 -1           0    0    1
//
// Why it is right, in one dimension: (1 a a^2) are the values of a polynomial at a point a; the points 0, 1, -1 and
// infinity of x times those of w are those of their product, and A reads its coefficients off.
//
//   x: tiles overlap by two          y: tiles side by side; four in a row are a quad
//   +-----+-----+-----+-----+-----+     +-----+-----+-----+-----+
//   |     :     |     :     |     |     |     |     |     |     |
//   + . . t . . +           +     +     |  t  | t+1 | t+2 | t+3 |
//   |     :     |     :     |     |     |     |     |     |     |
//   +-----+-----+-----+-----+-----+     +-----+-----+-----+-----+
//    2 pixels                            2 pixels
//
// backward_input is the same over gy with turned weights (transpose_weights.wgsl).
//
// V and M are four times as large as x and y, so the host works in slabs: some quads at a time. Every tile has its own
// sum; where the cuts lie changes no bit. Two quads, eight tiles, are a group: the rows of a tile of forward_v3. In V
// the eight numbers of a group and channel lie together: V is [f, group, ci, 8], M is [f, group, 8, co].
// Tiles past the edge of y, and a quad that a group lacks, are computed with the others and not stored.
// @include flat
// @include element
// @include epilogue

override WG: u32 = 64u;

struct Params {
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    pad_h: i32,
    pad_w: i32,
    has_bias: u32,
    accumulate: u32, // 1 if the result is added to what stands in y
    tiles_y: u32,    // rows of tiles of an image: out_h / 2, rounded up
    quads_x: u32,    // quads of a row of tiles: out_w / 8, rounded up
    first_quad: u32, // quads before the slab
    quads: u32,      // quads of the slab
    groups: u32,     // groups of the slab: quads / 2, rounded up
    kernels: u32,    // pairs (ci, co) that transform_input transforms first; 0 where U is there already
    normed: u32,     // 1 if x is normalised where it is read, as in conv2d_normed.wgsl
    split: u32,      // channels of x where a second part follows, as in conv2d_joined.wgsl; else all
    floor: f32,      // with a batch norm, normalised numbers below this are 0
}

@group(0) @binding(0) var<uniform> params: Params;

/// Products for one tile, ci and co.
const FREQUENCIES: u32 = 16u;

/// Where a quad stands: image, first row and column in y.
fn place(quad: u32) -> vec3<u32> {
    let row = quad / params.quads_x; // (n, ty)
    return vec3<u32>(row / params.tiles_y, 2u * (row % params.tiles_y), 8u * (quad % params.quads_x));
}

// ---- V and U ----------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<f32>; // read with a batch norm only
@group(0) @binding(4) var<storage, read> joined: array<Element>; // second part of x, where it has two
@group(0) @binding(5) var<storage, read_write> v_out4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> u_out: array<f32>;

/// G times three weights.
fn of_weights(a: f32, b: f32, c: f32) -> vec4<f32> {
    return vec4<f32>(a, 0.5 * (a + b + c), 0.5 * (a - b + c), c);
}

/// U of a pair (ci, co).
fn transform_kernel(at: u32) {
    let pairs = params.in_c * params.out_c;
    var columns: array<vec4<f32>, 3>;
    for (var kx = 0u; kx < 3u; kx++) {
        let first = kx * pairs + at;
        columns[kx] = of_weights(weight[first], weight[first + 3u * pairs], weight[first + 6u * pairs]);
    }
    for (var fy = 0u; fy < 4u; fy++) {
        let row = of_weights(columns[0][fy], columns[1][fy], columns[2][fy]);
        for (var fx = 0u; fx < 4u; fx++) { u_out[(4u * fy + fx) * pairs + at] = row[fx]; }
    }
}

/// B^T times four numbers, for each tile of a quad.
fn of_pixels(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> array<vec4<f32>, 4> {
    return array<vec4<f32>, 4>(a - c, b + c, c - b, b - d);
}

fn channel(pixel: u32, ci: u32) -> f32 {
    if ci < params.split { return f32(x[pixel * params.split + ci]); }
    return f32(joined[pixel * (params.in_c - params.split) + ci - params.split]);
}

/// One invocation: the 16 numbers of a channel for the four tiles of a quad, which lie under 4 rows of 10 pixels.
@compute @workgroup_size(WG)
fn transform_input(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // pairs (ci, co), then (quad, ci)
    if at < params.kernels { transform_kernel(at); return; }
    let ci = (at - params.kernels) % params.in_c;
    let quad = (at - params.kernels) / params.in_c;
    if quad >= params.quads { return; }
    let corner = place(params.first_quad + quad);
    var center = 0.0;
    var scale = 1.0;
    var shift = 0.0;
    let normed = params.normed == 1u;
    if normed {
        center = table[ci];
        scale = table[params.in_c + ci];
        shift = table[2u * params.in_c + ci];
    }
    var rows: array<array<vec4<f32>, 4>, 4>; // B applied to the columns of each row
    for (var r = 0u; r < 4u; r++) {
        let iy = i32(corner.y + r) - params.pad_h;
        let row_at = (corner.x * params.in_h + u32(iy)) * params.in_w;
        let row_inside = iy >= 0 && iy < i32(params.in_h);
        var pixels: array<f32, 10>;
        for (var c = 0u; c < 10u; c++) {
            let ix = i32(corner.z + c) - params.pad_w;
            let inside = row_inside && ix >= 0 && ix < i32(params.in_w);
            let v = (channel(row_at + u32(ix), ci) - center) * scale + shift;
            pixels[c] = select(0.0, v, inside && !(normed && v < params.floor));
        }
        var d: array<vec4<f32>, 4>; // pixel c of each tile
        for (var c = 0u; c < 4u; c++) { d[c] = vec4<f32>(pixels[c], pixels[c + 2u], pixels[c + 4u], pixels[c + 6u]); }
        rows[r] = of_pixels(d[0], d[1], d[2], d[3]);
    }
    let plane = params.groups * params.in_c * 2u;
    let v_at = ((quad / 2u) * params.in_c + ci) * 2u + quad % 2u;
    for (var fx = 0u; fx < 4u; fx++) {
        let column = of_pixels(rows[0][fx], rows[1][fx], rows[2][fx], rows[3][fx]);
        for (var fy = 0u; fy < 4u; fy++) { v_out4[(4u * fy + fx) * plane + v_at] = column[fy]; }
    }
}

// ---- M ----------------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> v4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> u4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> m_out4: array<vec4<f32>>;

/// Terms added up before they join the sum, as in lib/gemm_tile.
const SUM_TERMS: u32 = 64u;

/// One invocation: the eight tiles of a group x eight channels co, of one f. For each ci it loads two vectors of V and
/// two of U and adds their outer product. (lib/gemm_tile loads its rows one number at a time: on software Vulkan that
/// takes 1.5 times as long.) Neighbouring invocations take neighbouring channels: the same V and consecutive U.
@compute @workgroup_size(WG)
fn forward_v3(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let tile = flat_index(gid, groups); // (f, group, column tile)
    let out_c4 = params.out_c / 4u;
    let col_tiles = out_c4 / 2u;
    let plane = tile / col_tiles; // (f, group)
    let f = plane / params.groups;
    if f >= FREQUENCIES { return; }
    let co4 = (tile % col_tiles) * 2u;
    let v_at = plane * params.in_c * 2u;
    let u_at = f * params.in_c * out_c4 + co4;
    var acc: array<array<vec4<f32>, 2>, 8>;
    for (var first = 0u; first < params.in_c; first += SUM_TERMS) {
        var part: array<array<vec4<f32>, 2>, 8>;
        for (var ci = first; ci < min(first + SUM_TERMS, params.in_c); ci++) {
            let v0 = v4[v_at + 2u * ci];
            let v1 = v4[v_at + 2u * ci + 1u];
            let u0 = u4[u_at + ci * out_c4];
            let u1 = u4[u_at + ci * out_c4 + 1u];
            for (var i = 0u; i < 4u; i++) {
                part[i][0] += v0[i] * u0;
                part[i][1] += v0[i] * u1;
                part[i + 4u][0] += v1[i] * u0;
                part[i + 4u][1] += v1[i] * u1;
            }
        }
        for (var i = 0u; i < 8u; i++) {
            acc[i][0] += part[i][0];
            acc[i][1] += part[i][1];
        }
    }
    for (var i = 0u; i < 8u; i++) {
        let at = (plane * 8u + i) * out_c4 + co4;
        m_out4[at] = acc[i][0];
        m_out4[at + 1u] = acc[i][1];
    }
}

// ---- y ----------------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> m4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y4: array<Element4>;

/// One invocation: the 2x2 pixels of a tile for four channels.
@compute @workgroup_size(WG)
fn transform_output(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // (t, four channels)
    let out_c4 = params.out_c / 4u;
    let co4 = at % out_c4;
    let t = at / out_c4;
    if t >= 4u * params.quads { return; }
    let corner = place(params.first_quad + t / 4u) + vec3<u32>(0u, 0u, 2u * (t % 4u));
    let plane = params.groups * 8u * out_c4;
    var rows: array<array<vec4<f32>, 4>, 2>; // A^T applied to each column of m
    for (var fx = 0u; fx < 4u; fx++) {
        let m_at = fx * plane + at;
        let second = m4[m_at + 4u * plane];
        let third = m4[m_at + 8u * plane];
        rows[0][fx] = m4[m_at] + second + third;
        rows[1][fx] = second - third - m4[m_at + 12u * plane];
    }
    for (var r = 0u; r < 2u; r++) {
        let oy = corner.y + r;
        if oy < params.out_h {
            let y_at = ((corner.x * params.out_h + oy) * params.out_w + corner.z) * out_c4 + co4;
            if corner.z < params.out_w { store_at(y_at, co4, rows[r][0] + rows[r][1] + rows[r][2]); }
            if corner.z + 1u < params.out_w { store_at(y_at + out_c4, co4, rows[r][1] - rows[r][2] - rows[r][3]); }
        }
    }
}
