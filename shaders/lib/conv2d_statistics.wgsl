// A convolution by tiles, and what it leaves for the batch norm that follows (lib/tile_statistics).
//
// The including file takes in lib/conv2d_tile.
// @include tile_statistics

/// Computes the tiles of a workgroup, and their statistics.
fn tiles_with_statistics(group: u32, lid: u32) {
    gemm_for_sums(group, lid);
    leave_statistics(lid, group_side(), tile_place(group, lid));
}
