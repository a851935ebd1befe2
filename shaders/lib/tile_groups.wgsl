// Which tiles a workgroup takes that sums something up for each channel, and where its sums go.
//
//      lid: 0 1 2 3     `side` tiles side by side: the largest power of two that divides the tiles of a row, WG at most. So
//           4 5 6 7     a workgroup has some channels of WG / side * TILE_M pixels, which are a chunk, and its first row of
//           ...         invocations adds up what lies below.
//
// The including file has gemm_rows() pixels of gemm_cols() channels, of which a tile has TILE_M and 4 * TILE_N (lib/gemm_tile),
// and sums_first and sums_chunks in its Params.

/// Tiles side by side in the whole picture.
fn tiles_across() -> u32 { return gemm_cols() / (4u * TILE_N); }

/// Tiles side by side in a workgroup.
fn group_side() -> u32 { return min(1u << countTrailingZeros(tiles_across()), WG); }

/// Workgroups that cover the picture.
fn tile_groups() -> u32 {
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

/// The number of a tile, as lib/gemm_tile counts them.
fn tile_number(place: vec2<u32>) -> u32 { return place.x * tiles_across() + place.y; }

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
