// What a workgroup's tiles have in common for a kernel that sums something up for each channel, and where its sums go.
//
//      lid: 0 1 2 3     group_side() tiles side by side. So a workgroup has some channels of 64 / group_side() * TILE_M pixels,
//           4 5 6 7     which are a chunk, and its first row of invocations adds up what lies below.
//           ...
//
// The including file has gemm_rows() pixels of gemm_cols() channels, of which a tile has TILE_M and 4 * TILE_N (lib/gemm_tile,
// lib/gemm_block), and sums_first and sums_chunks in its Params.

/// Pixels of a tile; none where there is no tile.
fn tile_rows(place: vec2<u32>) -> u32 {
    let first = place.x * TILE_M;
    if place.y >= tiles_across() { return 0u; }
    return min(TILE_M, gemm_rows() - min(first, gemm_rows()));
}

/// Where a sum of channel c goes, of `tiles` tiles one above the other of which this is the first: tables are
/// [which sum][channel][chunk of all launches].
fn sum_place(which: u32, c: u32, place: vec2<u32>, tiles: u32) -> u32 {
    let chunk = params.sums_first + place.x / tiles;
    return (which * gemm_cols() + c) * params.sums_chunks + chunk;
}
