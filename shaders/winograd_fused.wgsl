// Convolution 3x3 with stride 1 by Winograd's F(2x2, 3x3) in one kernel: version 7 of conv2d's forward and backward_input.
// Layout NHWC, weights [ky, kx, ci, co].
//
//   transform_weights      U[f,ci,co] = G g G^T    g: the 3x3 weights from ci to co; a launch of its own, before
//   forward_v7             y = A^T m A + bias,     m[f] = sum over ci of V[f,ci] * U[f,ci,co],     V[.,ci] = B^T d B
//   forward_statistics_v7  forward, and for the batch norm that follows: mean and sum of (y - mean)^2 per channel and chunk;
//                          a chunk is the pixels of a block
//
// d are the 4x4 pixels of x under a tile of 2x2 pixels of y. Matrices, tiles and quads: lib/winograd. winograd.wgsl, version
// 3, writes V and m to memory, four times as large as x and y; here they never leave the workgroup.
//
//      VECTORS vectors of four co     A workgroup owns a block: QUADS quads, of four tiles each, and VECTORS vectors of four
//      +----+----+----+----+          channels (the picture has 4 and 4). It takes slabs of channels ci, one after the other:
//      | a0 | a1 | b0 | b1 |
//   Q  +----+----+----+----+          1. Each invocation makes four numbers of V for one quad and one ci, from two rows of ten
//   U  | a2 | a3 | b2 | b3 |             pixels. They lie in workgroup memory.
//   A  +----+----+----+----+          2. Each invocation is the i-th of one f: it has the sums m of the cells ai, bi, ci and di,
//   D  | c0 | c1 | d0 | d1 |             that is 8 tiles x 8 channels. For each ci it adds the outer product of eight numbers
//   S  +----+----+----+----+             of V and eight of U: four multiply-adds for each number that it reads.
//      | c2 | c3 | d2 | d3 |          3. After SUM_TERMS channels the sums go through workgroup memory, a quarter of the block
//      +----+----+----+----+             (a, b, c, d) at a time, to the invocations that have its tiles of y: all 16 f of one
//        one such for each f             tile and vector.
//
// So an invocation adds up 2x2 pixels of y for one tile and one vector, over blocks of SUM_TERMS channels: A is linear, and
// no sum is one long chain. Workgroup memory holds all of V for a slab of VECTORS channels, or a quarter of the sums.
//
// backward_input is the same over gy with turned weights (transpose_weights.wgsl).
// @include flat
// @include element
// @include epilogue
// @include winograd
// @include winograd_forward

override WG: u32 = 64u;

/// Rows of pixels of a tile of y.
const TILE_ROWS: u32 = 2u;
/// Products for one tile, ci and co: f = 4 * fy + fx, with fx along the row.
const FREQUENCIES: u32 = 16u;

const QUADS: u32 = 8u; // @tune 4 8
const VECTORS: u32 = 8u; // @tune 4 8 16

/// Channels added up before they join the sum, as in lib/tile_constants.
const SUM_TERMS: u32 = 64u;

/// Channels ci of a slab: then there is one row of V to make for each invocation.
const SLAB: u32 = VECTORS;

/// Invocations of a workgroup of forward_v7: one for each tile and vector of y.
const GROUP: u32 = 4u * QUADS * VECTORS;
const QUARTER: u32 = GROUP / 4u;
/// Invocations at one frequency.
const AT_ONE: u32 = GROUP / FREQUENCIES;

@group(0) @binding(0) var<uniform> params: Params;

// ---- U ----------------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> u_out: array<f32>;

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

/// One invocation: a pair (ci, co).
@compute @workgroup_size(WG)
fn transform_weights(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at < params.kernels { transform_kernel(at); }
}

// ---- y ----------------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> u4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> table: array<f32>; // read with a batch norm only
@group(0) @binding(4) var<storage, read> joined: array<Element>; // second part of x, where it has two
@group(0) @binding(5) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y4: array<Element4>;
@group(0) @binding(7) var<storage, read_write> statistics: array<f32>; // [mean, sum of (y - mean)^2][co][chunk]

/// V of a slab, [f, ci, quad], then a quarter of the sums, [f, (tile, quad, vector)], then statistics,
/// [mean, sum of (y - mean)^2][quad, tile][vector].
var<workgroup> tile_4: array<vec4<f32>, FREQUENCIES * SLAB * QUADS>;

/// Where V of a quad stands. The quads of each ci are moved round by ci places: then those that neighbouring invocations
/// write, of one quad, and those that they read, of one ci, are all in different banks of the memory.
fn place_in_tile(f: u32, ci: u32, quad: u32) -> u32 {
    return (f * SLAB + ci) * QUADS + (quad + ci) % QUADS;
}

/// One invocation: row fy of B^T d B for a channel of the slab that begins at `slab`, and a quad. Neighbouring invocations
/// take neighbouring channels. Channels past the last are 0.
fn transform_row(corner: vec3<u32>, slab: u32, lid: u32) {
    let ci = lid % SLAB;
    let quad = lid / SLAB % QUADS;
    let fy = lid / (SLAB * QUADS);
    let source_ci = min(slab + ci, params.in_c - 1u);
    let norm = norm_of(source_ci);
    // A row of B^T has two numbers that are not 0.
    let one = row_of_pixels(corner, vec4<u32>(0u, 1u, 2u, 1u)[fy], source_ci, norm);
    let other = row_of_pixels(corner, vec4<u32>(2u, 2u, 1u, 3u)[fy], source_ci, norm);
    let sign = select(-1.0, 1.0, fy == 1u);
    var pixels: array<f32, 10>;
    for (var c = 0u; c < 10u; c++) { pixels[c] = select(0.0, one[c] + sign * other[c], slab + ci < params.in_c); }
    let v = of_row(pixels);
    for (var fx = 0u; fx < 4u; fx++) { tile_4[place_in_tile(4u * fy + fx, ci, quad)] = v[fx]; }
}

/// Brings a quarter of the sums to the invocations that have its tiles of y, which add A^T m A to that.
fn transform_back(quarter: u32, lid: u32, sums: array<vec4<f32>, 4>, y: ptr<function, array<array<vec4<f32>, 2>, 2>>) {
    workgroupBarrier(); // nobody reads the slab or the quarter before any more
    for (var i = 0u; i < 4u; i++) { tile_4[(lid / AT_ONE) * QUARTER + i * AT_ONE + lid % AT_ONE] = sums[i]; }
    workgroupBarrier(); // the quarter is whole
    if lid / QUARTER != quarter { return; }
    var columns: array<array<vec4<f32>, 2>, 4>; // A^T applied to each column of m
    for (var fx = 0u; fx < 4u; fx++) {
        let at = fx * QUARTER + lid % QUARTER;
        columns[fx] =
            of_products(tile_4[at], tile_4[at + 4u * QUARTER], tile_4[at + 8u * QUARTER], tile_4[at + 12u * QUARTER]);
    }
    for (var r = 0u; r < 2u; r++) {
        let pixels = of_products(columns[0][r], columns[1][r], columns[2][r], columns[3][r]);
        (*y)[r][0] += pixels[0];
        (*y)[r][1] += pixels[1];
    }
}

/// Which block a workgroup has: its first quad and its first vector of channels.
fn block_of(group: u32) -> vec2<u32> {
    let blocks_side = (params.out_c / 4u + VECTORS - 1u) / VECTORS;
    return vec2((group / blocks_side) * QUADS, (group % blocks_side) * VECTORS);
}

/// Which tile and vector of y of its block an invocation has.
struct Mine {
    quad: u32,
    tile: u32,
    vector: u32,
}

fn mine_of(lid: u32) -> Mine {
    let quarter = lid / QUARTER;
    let quad = lid % AT_ONE / (VECTORS / 2u) + quarter / 2u * (QUADS / 2u);
    return Mine(quad, lid % QUARTER / AT_ONE, lid % (VECTORS / 2u) + quarter % 2u * (VECTORS / 2u));
}

fn convolve(block: vec2<u32>, lid: u32) {
    let out_c4 = params.out_c / 4u;
    // The part of the sums: one quad and one vector of each quarter. Vectors past the last are computed from that.
    let f = lid / AT_ONE;
    let quad = lid % AT_ONE / (VECTORS / 2u);
    let co4 = min(block.y + lid % (VECTORS / 2u) + vec2<u32>(0u, VECTORS / 2u), vec2(out_c4 - 1u));

    let corner = place(block.x + lid / SLAB % QUADS); // of the quad whose numbers of V this invocation makes
    var y: array<array<vec4<f32>, 2>, 2>; // 2x2 pixels
    for (var first = 0u; first < params.in_c; first += SUM_TERMS) {
        var sums: array<array<vec4<f32>, 4>, 4>; // [quarter][tile of the quad]
        for (var slab = first; slab < min(first + SUM_TERMS, params.in_c); slab += SLAB) {
            workgroupBarrier(); // nobody reads the slab or the sums any more
            transform_row(corner, slab, lid);
            workgroupBarrier(); // V of the slab is whole
            for (var k = 0u; k < SLAB; k++) {
                // Past the last channel V is 0.
                let u_at = (f * params.in_c + min(slab + k, params.in_c - 1u)) * out_c4;
                let u0 = u4[u_at + co4.x];
                let u1 = u4[u_at + co4.y];
                let v0 = tile_4[place_in_tile(f, k, quad)];
                let v1 = tile_4[place_in_tile(f, k, quad + QUADS / 2u)];
                for (var i = 0u; i < 4u; i++) {
                    sums[0][i] += v0[i] * u0;
                    sums[1][i] += v0[i] * u1;
                    sums[2][i] += v1[i] * u0;
                    sums[3][i] += v1[i] * u1;
                }
            }
        }
        // One by one, not in a loop: then drivers keep the sums in registers.
        transform_back(0u, lid, sums[0], &y);
        transform_back(1u, lid, sums[1], &y);
        transform_back(2u, lid, sums[2], &y);
        transform_back(3u, lid, sums[3], &y);
    }
    let mine = mine_of(lid);
    if block.x + mine.quad < params.quads && block.y + mine.vector < out_c4 {
        let corner = place(block.x + mine.quad) + vec3<u32>(0u, 0u, 2u * mine.tile);
        for (var r = 0u; r < TILE_ROWS; r++) { store_tile_row(corner + vec3<u32>(0u, r, 0u), block.y + mine.vector, y[r]); }
    }
}

/// The statistics of a block of whole quads, whose tiles all have four pixels.
fn leave_statistics(block: vec2<u32>, lid: u32) {
    let out_c4 = params.out_c / 4u;
    let quads = min(QUADS, params.quads - min(block.x, params.quads)); // that there are
    let mine = mine_of(lid);
    workgroupBarrier(); // nobody reads the sums any more
    if mine.quad < quads && block.y + mine.vector < out_c4 {
        // y as this invocation has just written it. Around the first number: as exact as f32 can hold a mean far from 0.
        let corner = place(block.x + mine.quad);
        let row = ((corner.x * params.out_h + corner.y) * params.out_w + corner.z + 2u * mine.tile) * out_c4;
        let at = vec2<u32>(row, row + params.out_w * out_c4) + block.y + mine.vector;
        let origin = vec4<f32>(y4[at.x]);
        let off = array<vec4<f32>, 3>(
            vec4<f32>(y4[at.x + out_c4]) - origin, vec4<f32>(y4[at.y]) - origin, vec4<f32>(y4[at.y + out_c4]) - origin
        );
        let mean = (off[0] + off[1] + off[2]) / 4.0; // less the origin
        var squares = mean * mean;
        for (var i = 0u; i < 3u; i++) { squares += (off[i] - mean) * (off[i] - mean); }
        let to = (4u * mine.quad + mine.tile) * VECTORS + mine.vector;
        tile_4[to] = origin + mean;
        tile_4[GROUP + to] = squares;
    }
    workgroupBarrier(); // the statistics of every tile are in
    if lid >= VECTORS || block.y + lid >= out_c4 || quads == 0u { return; }

    let origin = tile_4[lid];
    var sum = vec4(0.0);
    for (var tile = 0u; tile < 4u * quads; tile++) { sum += tile_4[tile * VECTORS + lid] - origin; }
    let mean = origin + sum / f32(4u * quads);
    var squares = vec4(0.0);
    for (var tile = 0u; tile < 4u * quads; tile++) {
        let off = tile_4[tile * VECTORS + lid] - mean;
        squares += tile_4[GROUP + tile * VECTORS + lid] + 4.0 * off * off;
    }
    for (var i = 0u; i < 4u; i++) {
        let to = (4u * (block.y + lid) + i) * params.sums_chunks + params.sums_first + block.x / QUADS;
        statistics[to] = mean[i];
        statistics[to + params.out_c * params.sums_chunks] = squares[i];
    }
}

@compute @workgroup_size(GROUP)
fn forward_v7(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    convolve(block_of(flat_group(wid, groups)), lid);
}

/// Of images whose quads are whole: their rows are a multiple of 8 pixels, and even in number.
@compute @workgroup_size(GROUP)
fn forward_statistics_v7(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let block = block_of(flat_group(wid, groups));
    convolve(block, lid);
    leave_statistics(block, lid);
}
