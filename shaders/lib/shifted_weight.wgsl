// The weight gradient of shifted_linear.wgsl by tiles that each invocation reads for itself. `// @include shifted_weights` stands
// for this file, or for lib/shifted_weight_block, which goes through workgroup memory: with BLOCK above 1 (lib/gemm_tile).
// @include outer_product
// @include shifted_quad

const TILE_I: u32 = 8u;

/// Eight inputs x eight outputs; the tiles of a workgroup are (chunk, input tile, output tile).
fn weights(group: u32, lid: u32) {
    let tile = group * WG + lid;
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
