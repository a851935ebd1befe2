// A convolution by tiles, and what it leaves for the batch norm that follows (lib/tile_statistics).
//
// The including file takes in lib/conv2d_tile and lib/gemm_shared.
// @include tile_statistics

/// Computes a tile, and the statistics of the workgroup's.
fn tile_with_statistics(group: u32, lid: u32) {
    let place = tile_place(group, lid);
    gemm_tile(tile_number(place));
    leave_statistics(lid, group_side(), place);
}

/// The same for a block of lib/gemm_shared.
fn block_with_statistics(block: u32, lid: u32) {
    gemm_shared(block, lid);
    let side = block_side();
    let blocks_side = (tiles_across() + side - 1u) / side;
    let row_tile = (block / blocks_side) * (WG / side) + lid / side;
    leave_statistics(lid, side, vec2(row_tile, (block % blocks_side) * side + lid % side));
}
