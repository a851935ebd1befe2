// The entry points of forward on matrix units, for each way to read x; only for images of 16-bit floats.
//
// The including file takes in lib/flat, lib/conv2d_tile and lib/conv2d_statistics, and has what they ask for.
// @include gemm_matrix
// @include matrix

@compute @workgroup_size(WG)
fn forward_v5(me: Invocation) {
    gemm_matrix(flat_group(me.wid, me.groups), me);
}

@compute @workgroup_size(WG)
fn forward_statistics_v5(me: Invocation) {
    let block = flat_group(me.wid, me.groups);
    gemm_matrix(block, me);
    // As in a block that has 8 tiles side by side and 8 below each other.
    let blocks_side = (gemm_cols() + PANE - 1u) / PANE;
    let row_tile = (block / blocks_side) * 8u + me.lid / 8u;
    leave_statistics(me.lid, 8u, vec2(row_tile, (block % blocks_side) * 8u + me.lid % 8u));
}
