// The weight gradient of a 3x3 convolution with stride 1 by Winograd's F(4x2, 3x3): 24 products for 4x2 pixels of gy, where the
// plain sum takes 72. Version 5 of conv2d's backward_weight. Layout NHWC, weights [ky, kx, ci, co].
//
//   transform_both   V[f,t,ci]  = B^T d B    d: the 6x4 pixels of x under the tile t
//                    N[f,t,co]  = A g A^T    g: the 4x2 pixels of gy of the tile
//   linear.wgsl      P[f,ci,co] = sum over t of V[f,t,ci] * N[f,t,co]    24 weight gradients of a linear layer, whose rows are tiles
//   backward_weight  gw = G^T P G,  gb[co]: the sum of gy, from those over t of some N[f,t,co]
//
// Forward computes y = A^T [(G w G^T) * (B^T d B)] A, linear in the weights w: the gradient takes A and G the other way round.
// The matrices, and how tiles lie: lib/winograd (along rows), lib/winograd_tall (along columns).
//
// V and N are three times as large as x and gy, so the host works in slabs: some tiles at a time. The rows of a slab are cut into
// chunks, each with its sums P; in the rows that the last chunk lacks N is 0.
// @include flat
// @include element
// @include winograd
// @include winograd_tall
// @include batch_norm_table4

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
    tiles_y: u32,    // rows of tiles of an image: out_h / TILE_ROWS, rounded up
    tiles_x: u32,    // tiles of a row: out_w / 2, rounded up
    first_tile: u32, // tiles before the slab
    tiles: u32,      // tiles of the slab
    rows: u32,       // and with those behind them
    chunks: u32,     // chunks of a slab
    slabs: u32,
    normed: u32,     // 1 if x is normalised where it is read, as in conv2d_normed.wgsl
    split: u32,      // channels of x where a second part follows, as in conv2d_joined.wgsl; else all
    floor: f32,      // with a batch norm, normalised numbers below this are 0
}

@group(0) @binding(0) var<uniform> params: Params;

// ---- V and N ----------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(3) var<storage, read> table4: array<vec4<f32>>; // read with a batch norm only
@group(0) @binding(4) var<storage, read> joined4: array<Element4>; // second part of x, where it has two
@group(0) @binding(5) var<storage, read_write> v_out4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> n_out4: array<vec4<f32>>;

/// Where a tile stands: image, first row and column in y.
fn place(tile: u32) -> vec3<u32> {
    let row = tile / params.tiles_x; // (n, ty)
    return vec3<u32>(row / params.tiles_y, TILE_ROWS * (row % params.tiles_y), 2u * (tile % params.tiles_x));
}

/// Four channels of x. Around the image lie zeros.
fn pixel_of_x(n: u32, iy: i32, ix: i32, ci4: u32, norm: Norm4) -> vec4<f32> {
    if iy < 0 || iy >= i32(params.in_h) || ix < 0 || ix >= i32(params.in_w) { return vec4(0.0); }
    let pixel = (n * params.in_h + u32(iy)) * params.in_w + u32(ix);
    let split4 = params.split / 4u;
    if ci4 >= split4 { return vec4<f32>(joined4[pixel * (params.in_c / 4u - split4) + ci4 - split4]); }
    let v = vec4<f32>(x4[pixel * split4 + ci4]);
    if params.normed == 0u { return v; }
    return normalised4(norm, v);
}

/// The 24 numbers of V for four channels of a tile; `at` counts the vectors of V[0].
fn transform_x(at: u32) {
    let in_c4 = params.in_c / 4u;
    let ci4 = at % in_c4;
    // Rows behind the last tile are computed from that; there N is 0.
    let corner = place(params.first_tile + min(at / in_c4, params.tiles - 1u));
    let first_y = i32(corner.y) - params.pad_h;
    let first_x = i32(corner.z) - params.pad_w;
    var norm: Norm4;
    if params.normed == 1u { norm = norm4(ci4, in_c4); }
    var rows: array<array<vec4<f32>, 4>, TALL>; // B applied to each row
    for (var r = 0u; r < TALL; r++) {
        var d: array<vec4<f32>, 4>;
        for (var c = 0u; c < 4u; c++) {
            d[c] = pixel_of_x(corner.x, first_y + i32(r), first_x + i32(c), ci4, norm);
        }
        rows[r] = of_pixels(d[0], d[1], d[2], d[3]);
    }
    leave_v(&rows, params.rows * in_c4, at);
}

/// Four channels of gy. Past the edge of the image lie zeros.
fn pixel_of_gy(n: u32, oy: u32, ox: u32, co4: u32) -> vec4<f32> {
    if oy >= params.out_h || ox >= params.out_w { return vec4(0.0); }
    return vec4<f32>(gy4[((n * params.out_h + oy) * params.out_w + ox) * (params.out_c / 4u) + co4]);
}

/// A times two numbers of a row.
fn of_gradients(a: vec4<f32>, b: vec4<f32>) -> array<vec4<f32>, 4> {
    return array<vec4<f32>, 4>(a, a + b, a - b, -b);
}

/// A times four numbers of a column.
fn of_tall_gradients(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> array<vec4<f32>, TALL> {
    let even1 = a + 0.25 * c;
    let odd1 = 0.5 * b + 0.125 * d;
    let even3 = a + 2.25 * c;
    let odd3 = 1.5 * b + 3.375 * d;
    return array<vec4<f32>, TALL>(a, even1 + odd1, even1 - odd1, even3 + odd3, even3 - odd3, d);
}

/// The 24 numbers of N for four channels of a tile; `at` counts the vectors of N[0].
fn transform_gy(at: u32) {
    let out_c4 = params.out_c / 4u;
    let corner = place(params.first_tile + at / out_c4);
    var rows: array<array<vec4<f32>, 4>, TILE_ROWS>; // A applied to each row
    if at / out_c4 < params.tiles {
        for (var r = 0u; r < TILE_ROWS; r++) {
            let left = pixel_of_gy(corner.x, corner.y + r, corner.z, at % out_c4);
            rows[r] = of_gradients(left, pixel_of_gy(corner.x, corner.y + r, corner.z + 1u, at % out_c4));
        }
    }
    let plane = params.rows * out_c4;
    for (var fx = 0u; fx < 4u; fx++) {
        let column = of_tall_gradients(rows[0][fx], rows[1][fx], rows[2][fx], rows[3][fx]);
        for (var fy = 0u; fy < TALL; fy++) { n_out4[(TALL * fx + fy) * plane + at] = column[fy]; }
    }
}

/// One invocation: the 24 numbers of a tile for four channels, of x or of gy.
@compute @workgroup_size(WG)
fn transform_both(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // (row, four ci), then (row, four co)
    let of_x = params.rows * (params.in_c / 4u);
    if at < of_x {
        transform_x(at);
    } else if at - of_x < params.rows * (params.out_c / 4u) {
        transform_gy(at - of_x);
    }
}

// ---- gw and gb --------------------------------------------------------------------------------------------------
// The sums are [slab, f, chunk, ci and then the bias, co]; the gradient is [ky, kx, ci and then the bias, co].

@group(0) @binding(1) var<storage, read> sums4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> gradient4: array<vec4<f32>>;

/// The first of the four f of which the bias is made: the sums of each row of gy (fx = 1) at the points 1/2, -1/2, 3/2 and -3/2.
const OF_BIAS: u32 = TALL + 1u;

/// P, over all slabs and chunks.
fn sum_of(f: u32, row: u32, co4: u32) -> vec4<f32> {
    var sum = vec4(0.0);
    for (var slab = 0u; slab < params.slabs; slab++) {
        for (var chunk = 0u; chunk < params.chunks; chunk++) {
            let table = (slab * FREQUENCIES + f) * params.chunks + chunk;
            sum += sums4[(table * (params.in_c + 1u) + row) * (params.out_c / 4u) + co4];
        }
    }
    return sum;
}

/// G^T times six numbers of a column.
fn of_tall_sums(p: array<vec4<f32>, TALL>) -> array<vec4<f32>, 3> {
    let even1 = p[1] + p[2];
    let even3 = p[3] + p[4];
    return array<vec4<f32>, 3>(
        p[0] * 16.0 / 9.0 - even1 + even3 / 9.0,
        0.5 * (p[2] - p[1]) + (p[3] - p[4]) / 6.0,
        0.25 * (even3 - even1) + p[5],
    );
}

/// What a polynomial of third degree is at 1, from its values at 1/2, -1/2, 3/2 and -3/2: the sum of its coefficients, which are
/// the rows of gy.
fn at_one(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return 0.9375 * a - 0.3125 * b + 0.3125 * c + 0.0625 * d;
}

/// G^T times four numbers of a row.
fn of_sums(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> array<vec4<f32>, 3> {
    return array<vec4<f32>, 3>(a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d);
}

/// One invocation: the nine weights from ci to four co, or the bias of four co.
@compute @workgroup_size(WG)
fn backward_weight_v5(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups); // (ci and then the bias, four co)
    let out_c4 = params.out_c / 4u;
    let ci = at / out_c4;
    let co4 = at % out_c4;
    if ci > params.in_c { return; }
    if ci == params.in_c {
        gradient4[9u * params.in_c * out_c4 + co4] = at_one(
            sum_of(OF_BIAS, ci, co4), sum_of(OF_BIAS + 1u, ci, co4), sum_of(OF_BIAS + 2u, ci, co4), sum_of(OF_BIAS + 3u, ci, co4),
        );
        return;
    }
    var columns: array<array<vec4<f32>, 3>, 4>; // G^T applied to each column of P
    for (var fx = 0u; fx < 4u; fx++) {
        var p: array<vec4<f32>, TALL>;
        for (var fy = 0u; fy < TALL; fy++) { p[fy] = sum_of(TALL * fx + fy, ci, co4); }
        columns[fx] = of_tall_sums(p);
    }
    for (var ky = 0u; ky < 3u; ky++) {
        let row = of_sums(columns[0][ky], columns[1][ky], columns[2][ky], columns[3][ky]);
        for (var kx = 0u; kx < 3u; kx++) { gradient4[((3u * ky + kx) * params.in_c + ci) * out_c4 + co4] = row[kx]; }
    }
}
