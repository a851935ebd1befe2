// As lib/conv2d_weight, for an x whose channels do not divide by 8: the eight rows of a tile look at different kernel positions,
// and x is read one number at a time.
//
// The including file takes in lib/conv2d_sizes, has x and partial4, and says what it reads of gy:
//   gy_quad(gy_norm(quad, quads), at)   gy's vector `at`, of the quad of channels

/// `tile` is (chunk, row tile, column tile).
fn weight_rows_tile(tile: u32) {
    let out_c4 = params.out_c / 4u;
    let col_tiles = out_c4 / 2u;
    let row_tiles = weight_rows() / TILE_R + 1u; // at least one row is left for the bias
    let co4 = (tile % col_tiles) * 2u;
    let r0 = ((tile / col_tiles) % row_tiles) * TILE_R;
    let chunk = tile / (col_tiles * row_tiles);
    let image_rows = params.batch * params.out_h;
    let first = chunk * params.chunk_rows;
    let last = min(first + params.chunk_rows, image_rows);
    if first >= image_rows { return; }

    // Where each weight row looks, relative to (oy, ox): kernel position and channel.
    var ky: array<u32, TILE_R>;
    var kx: array<u32, TILE_R>;
    var ci: array<u32, TILE_R>;
    for (var i = 0u; i < TILE_R; i++) {
        let r = r0 + i;
        ci[i] = r % params.in_c;
        kx[i] = (r / params.in_c) % params.kernel_w;
        ky[i] = r / (params.in_c * params.kernel_w);
    }
    let norms = array(gy_norm(co4, out_c4), gy_norm(co4 + 1u, out_c4));
    var sum: array<array<vec4<f32>, 2>, TILE_R>;
    for (var block = first; block < last; block += max(params.block_rows, 1u)) {
        // A block's sum is complete before it is added: no long chain.
        var acc: array<array<vec4<f32>, 2>, TILE_R>;
        for (var row = block; row < min(block + params.block_rows, last); row++) {
            let n = row / params.out_h;
            let oy = row % params.out_h;
            for (var ox = 0u; ox < params.out_w; ox++) {
                let g_at = (row * params.out_w + ox) * out_c4 + co4;
                let g0 = gy_quad(norms[0], g_at);
                let g1 = gy_quad(norms[1], g_at + 1u);
                for (var i = 0u; i < TILE_R; i++) {
                    let iy = source(oy, ky[i], params.pad_h, params.in_h);
                    let ix = source(ox, kx[i], params.pad_w, params.in_w);
                    let at = ((n * params.in_h + u32(iy)) * params.in_w + u32(ix)) * params.in_c + ci[i];
                    let is_bias = r0 + i == weight_rows();
                    let a = select(select(0.0, f32(x[at]), iy >= 0 && ix >= 0), 1.0, is_bias);
                    acc[i][0] += a * g0;
                    acc[i][1] += a * g1;
                }
            }
        }
        for (var i = 0u; i < TILE_R; i++) {
            sum[i][0] += acc[i][0];
            sum[i][1] += acc[i][1];
        }
    }
    for (var i = 0u; i < TILE_R; i++) {
        if r0 + i <= weight_rows() {
            let at = ((params.first_chunk + chunk) * (weight_rows() + 1u) + r0 + i) * out_c4 + co4;
            partial4[at] = sum[i][0];
            partial4[at + 1u] = sum[i][1];
        }
    }
}
