// Which tiles the workgroups of a kernel take that sums something up of its tiles (lib/tile_groups), where each invocation reads for
// itself. lib/gemm_block has the same functions for its blocks.
//
// The including file has gemm_rows() pixels of gemm_cols() channels, of which a tile has TILE_M and 4 * TILE_N.

/// Tiles side by side in the whole picture.
fn tiles_across() -> u32 { return gemm_cols() / (4u * TILE_N); }

/// Tiles side by side in a workgroup: the largest power of two that divides the tiles of a row, WG at most.
fn group_side() -> u32 { return min(1u << countTrailingZeros(tiles_across()), WG); }

/// Workgroups that cover the picture.
fn sums_groups() -> u32 {
    let side = group_side();
    let rows = TILE_M * (WG / side);
    return (gemm_rows() + rows - 1u) / rows * (tiles_across() / side);
}

/// Row and column of an invocation's tile, counted in tiles.
fn tile_place(group: u32, lid: u32) -> vec2<u32> {
    let side = group_side();
    let across = tiles_across() / side;
    return vec2((group / across) * (WG / side) + lid / side, (group % across) * side + lid % side);
}
