// The weight gradient of linear.wgsl by tiles that each invocation reads for itself. `// @include linear_weights` stands for this
// file, or for lib/linear_weight_block, which goes through workgroup memory: with BLOCK above 1 (lib/gemm_tile).
// @include lanes
// @include outer_product

const TILE_I: u32 = 8u;

/// Eight inputs x eight outputs; the tiles of a workgroup are (chunk, input tile, output tile).
fn weights(group: u32, lid: u32) {
    let tile = group * WG + lid;
    let outputs4 = params.outputs / 4u;
    let inputs4 = params.inputs / 4u;
    let col_tiles = outputs4 / 2u;
    let row_tiles = params.inputs / TILE_I + 1u; // the last one is the bias alone
    let o4 = (tile % col_tiles) * 2u;
    let row_tile = (tile / col_tiles) % row_tiles;
    let chunk = tile / (col_tiles * row_tiles);
    let first = chunk * params.chunk_rows;
    let lanes = lanes_of(tile / col_tiles, col_tiles);
    let is_bias = row_tile == row_tiles - 1u;
    let wanted = !is_bias || (chunk >= params.bias_from && chunk < params.bias_to);
    if first >= params.rows || !wanted { return; } // with all that share
    let i4 = select(row_tile * 2u, 0u, is_bias);
    var acc: array<array<vec4<f32>, 2>, TILE_I>;
    let end = min(first + params.chunk_rows, params.rows);
    for (var begin = first; begin < end; begin += SUM_TERMS) {
        var part: array<array<vec4<f32>, 2>, TILE_I>;
        let part_end = min(begin + SUM_TERMS, end);
        for (var slab = begin; slab < part_end; slab += lanes.side) {
            let own = min(slab + lanes.mine, part_end - 1u); // the row of x that this lane reads
            let own0 = select(vec4<f32>(x4[own * inputs4 + i4]), vec4<f32>(1.0), is_bias);
            let own1 = vec4<f32>(x4[own * inputs4 + i4 + 1u]);
            let steps = shared_steps(lanes, part_end - slab);
            for (var step = 0u; step < steps; step++) {
                let g0 = vec4<f32>(gy4[(slab + step) * outputs4 + o4]);
                let g1 = vec4<f32>(gy4[(slab + step) * outputs4 + o4 + 1u]);
                let a0 = of_step4(lanes, step, own0);
                let a1 = of_step4(lanes, step, own1);
                add_outer_product(&part, array(a0, a1), array(g0, g1));
            }
        }
        for (var i = 0u; i < TILE_I; i++) {
            acc[i][0] += part[i][0];
            acc[i][1] += part[i][1];
        }
    }
    for (var i = 0u; i < TILE_I; i++) {
        let r = row_tile * TILE_I + i;
        if r <= params.inputs {
            let at = ((params.first_chunk + chunk) * (params.inputs + 1u) + r) * outputs4 + o4;
            partial4[at] = acc[i][0];
            partial4[at + 1u] = acc[i][1];
        }
    }
}
