// The matrix products of winograd.wgsl by tiles that each invocation reads for itself. `// @include winograd_products` stands
// for this file, or for lib/winograd_product_block, which goes through workgroup memory: with BLOCK above 1 (lib/gemm_tile).
// @include tile_constants
// @include lanes
// @include outer_product

/// One invocation: the eight tiles of a group x eight channels co, of one f (the other sizes of a tile are for blocks). For each
/// ci it loads two vectors of V and two of U and adds their outer product. (lib/gemm_tile loads its rows one number at a time: on
/// software Vulkan that takes longer, with neighbours that share 1.1 times.) Neighbouring invocations take neighbouring channels:
/// the same V and consecutive U.
fn products(workgroup: u32, lid: u32) {
    let tile = workgroup * WG + lid; // (f, group, column tile)
    let out_c4 = params.out_c / 4u;
    let col_tiles = out_c4 / 2u;
    let plane = tile / col_tiles; // (f, group)
    let f = plane / params.groups;
    let lanes = lanes_of(plane, col_tiles);
    if f >= FREQUENCIES { return; } // with all that share
    let co4 = (tile % col_tiles) * 2u;
    let v_at = plane * params.in_c * 2u;
    let u_at = f * params.in_c * out_c4 + co4;
    var acc: array<array<vec4<f32>, 2>, 8>;
    for (var first = 0u; first < params.in_c; first += SUM_TERMS) {
        var part: array<array<vec4<f32>, 2>, 8>;
        let end = min(first + SUM_TERMS, params.in_c);
        for (var slab = first; slab < end; slab += lanes.side) {
            let own = min(slab + lanes.mine, end - 1u); // the ci whose V this lane reads
            let own0 = v4[v_at + 2u * own];
            let own1 = v4[v_at + 2u * own + 1u];
            let steps = shared_steps(lanes, end - slab);
            for (var step = 0u; step < steps; step++) {
                let v0 = of_step4(lanes, step, own0);
                let v1 = of_step4(lanes, step, own1);
                let u0 = u4[u_at + (slab + step) * out_c4];
                let u1 = u4[u_at + (slab + step) * out_c4 + 1u];
                add_outer_product(&part, array(v0, v1), array(u0, u1));
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
