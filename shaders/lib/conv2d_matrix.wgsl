// The entry points of forward on matrix units, for each way to read x; only for images of 16-bit floats.
//
// The including file takes in lib/flat, lib/conv2d_tile and lib/conv2d_statistics, and has what they ask for.
// @include gemm_matrix
// @include matrix

@compute @workgroup_size(MATRIX_GROUP)
fn forward_v5(me: Invocation) {
    gemm_matrix(flat_group(me.wid, me.groups), me);
}

@compute @workgroup_size(MATRIX_GROUP)
fn forward_statistics_v5(me: Invocation) {
    let block = flat_group(me.wid, me.groups);
    gemm_matrix(block, me);
    storageBarrier(); // what one invocation has stored, others read
    // As in a block that has 8 tiles side by side and 8 below each other, one square after the other.
    let first = vec2(block / matrix_blocks_across() * PANE_ROWS, block % matrix_blocks_across() * PANE_COLS) / 8u;
    for (var square = 0u; square < SQUARES; square++) {
        let mine = me.lid - 64u * (square % (MATRIX_GROUP / 64u)); // other invocations have no tile of it
        let at = vec2(square / SQUARES_SIDE, square % SQUARES_SIDE) * 8u + vec2(mine / 8u, mine % 8u);
        leave_statistics(mine, 8u, first + at);
        workgroupBarrier(); // the statistics of this square are left
    }
}
