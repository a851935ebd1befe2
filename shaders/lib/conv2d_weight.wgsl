// The weight gradient of a convolution: sums over chunks of image rows, which sum_chunks.wgsl adds up.
//
//   partial[chunk, r, co] = sum over the chunk's n,oy,ox of x[n, oy*s+ky-p, ox*s+kx-p, ci] * gy[n,oy,ox,co]
//
// Weights are rows r = (ky, kx, ci) of `out_c` numbers; row r = kernel_h*kernel_w*in_c is the bias, whose "x" is 1. Of a
// transposed convolution, whose result is this x, the bias is the sum of x: then the first in_c numbers of the row are that.
//
// The including file takes in lib/conv2d_sizes, has gy4 and partial4, and says what it reads and what it makes of it:
//   x_quad(pixel, quads, quad)      four of x's 4 * quads channels
//   x_of(x_norm(quad, quads), v)    v itself, or normalised
//   gy_of(gy_norm(quad, quads), v)  the same for gy
// Neighbours that read the same x may share it. `// @include conv2d_weights` stands for this file, or for lib/conv2d_weight_block,
// which goes through workgroup memory: with BLOCK above 1 (lib/gemm_tile).
// @include lanes
// @include outer_product

/// The tiles of a workgroup, of which there are as many as invocations.
fn weights(group: u32, lid: u32, p: Params) { weight_tile(group * WG + lid, p); }

/// The sums of eight channels over the rows of x that one row of gy meets: kernels stand side by side.
fn row_sums(first: u32, p: Params, quad: u32) -> array<vec4<f32>, 2> {
    var sums = array(vec4(0.0), vec4(0.0));
    for (var pixel = first; pixel < first + p.multiply * p.in_w; pixel++) {
        sums[0] += x_quad(pixel, p.in_c / 4u, quad);
        sums[1] += x_quad(pixel, p.in_c / 4u, quad + 1u);
    }
    return sums;
}

/// Eight rows of weights x eight channels of y. ci divides by 8, so the rows are neighbouring channels of one kernel
/// position: both sides are read as vec4, and bounds are checked once per image row.
/// `tile` is (chunk, row tile, column tile); p are forward's sizes.
fn weight_tile(tile: u32, p: Params) {
    let rows = p.kernel_h * p.kernel_w * p.in_c;
    let out_c4 = p.out_c / 4u;
    let in_c4 = p.in_c / 4u;
    let col_tiles = out_c4 / 2u;
    let row_tiles = rows / TILE_R + 1u; // the last one is the bias alone
    let co4 = (tile % col_tiles) * 2u;
    let row_tile = (tile / col_tiles) % row_tiles;
    let chunk = tile / (col_tiles * row_tiles);
    let image_rows = p.batch * p.out_h;
    let first = chunk * p.chunk_rows;
    let last = min(first + p.chunk_rows, image_rows);
    let lanes = lanes_of(tile / col_tiles, col_tiles);
    if first >= image_rows { return; } // with all that share
    let is_bias = row_tile == row_tiles - 1u;
    let r0 = row_tile * TILE_R;
    let ci4 = (r0 % p.in_c) / 4u;
    let kx = select((r0 / p.in_c) % p.kernel_w, 0u, is_bias);
    let ky = select(r0 / (p.in_c * p.kernel_w), 0u, is_bias);
    // The columns ox whose source lies inside: lo <= ox < hi.
    let offset = i32(kx) - p.pad_w;
    let s = i32(p.multiply);
    let lo = select(u32(max((s - 1 - offset) / s, 0)), 0u, is_bias || offset >= 0);
    let past = (i32(p.in_w) - offset + s - 1) / s;
    let hi = select(u32(clamp(past, 0, i32(p.out_w))), p.out_w, is_bias);

    let x_norms = array(x_norm(ci4, in_c4), x_norm(ci4 + 1u, in_c4));
    let gy_norms = array(gy_norm(co4, out_c4), gy_norm(co4 + 1u, out_c4));

    let at_sum = ((p.first_chunk + chunk) * (rows + 1u) + r0) * out_c4 + co4;
    for (var block = first; block < last; block += max(p.block_rows, 1u)) {
        var acc: array<array<vec4<f32>, 2>, TILE_R>;
        for (var row = block; row < min(block + p.block_rows, last); row++) {
            let n = row / p.out_h;
            let iy = i32((row % p.out_h) * p.multiply + ky) - p.pad_h;
            if is_bias && p.sums_x == 1u {
                if co4 < in_c4 {
                    let sums = row_sums((n * p.in_h + (row % p.out_h) * p.multiply) * p.in_w, p, co4);
                    acc[0][0] += sums[0];
                    acc[0][1] += sums[1];
                }
            } else if is_bias {
                for (var ox = 0u; ox < p.out_w; ox++) {
                    let g_at = (row * p.out_w + ox) * out_c4 + co4;
                    acc[0][0] += gy_of(gy_norms[0], vec4<f32>(gy4[g_at]));
                    acc[0][1] += gy_of(gy_norms[1], vec4<f32>(gy4[g_at + 1u]));
                }
            } else if iy >= 0 && iy < i32(p.in_h) {
                let x_row = (n * p.in_h + u32(iy)) * p.in_w;
                for (var slab = lo; slab < hi; slab += lanes.side) {
                    // The pixel of x that this lane reads.
                    let own = x_row + u32(i32(min(slab + lanes.mine, hi - 1u)) * s + offset);
                    let own0 = x_of(x_norms[0], x_quad(own, in_c4, ci4));
                    let own1 = x_of(x_norms[1], x_quad(own, in_c4, ci4 + 1u));
                    let steps = shared_steps(lanes, hi - slab);
                    for (var step = 0u; step < steps; step++) {
                        let g_at = (row * p.out_w + slab + step) * out_c4 + co4;
                        let g0 = gy_of(gy_norms[0], vec4<f32>(gy4[g_at]));
                        let g1 = gy_of(gy_norms[1], vec4<f32>(gy4[g_at + 1u]));
                        let a0 = of_step4(lanes, step, own0);
                        let a1 = of_step4(lanes, step, own1);
                        add_outer_product(&acc, array(a0, a1), array(g0, g1));
                    }
                }
            }
        }
        // A block's sum is complete before it is added: no long chain. Nobody else touches these numbers.
        for (var i = 0u; i < TILE_R; i++) {
            if r0 + i <= rows {
                let at = at_sum + i * out_c4;
                if block == first {
                    partial4[at] = acc[i][0];
                    partial4[at + 1u] = acc[i][1];
                } else {
                    partial4[at] += acc[i][0];
                    partial4[at + 1u] += acc[i][1];
                }
            }
        }
    }
}
