// What a convolution leaves for the batch norm that follows: mean and sum of (y - mean)^2 per channel and chunk; a chunk is
// the pixels of one workgroup.
//
// The including file takes in lib/conv2d_tile and lib/gemm_shared, and has y4 and statistics [mean, sum of (y - mean)^2][co][chunk].

var<workgroup> tile_means: array<vec4<f32>, TILE_N * WG>;
var<workgroup> tile_squares: array<vec4<f32>, TILE_N * WG>;

/// Computes a tile, and the statistics of the workgroup's. The column tiles are a power of two, so a workgroup computes all
/// channels of `chunk` pixels, or some channels of the pixels of one tile:
///
///        lid: column tiles 0 1 2 3
///                        4 5 6 7      invocation lid has the tile of row lid / 4 of the picture, column lid % 4;
///                        ...          the first row adds the others up.
fn tile_with_statistics(tile: u32, lid: u32) {
    gemm_tile(tile);
    let col_tiles = max(gemm_cols() / (4u * TILE_N), 1u);
    leave_statistics(lid, min(col_tiles, WG), (tile / col_tiles) * TILE_M, tile % col_tiles);
}

/// The same for a block of lib/gemm_shared.
fn block_with_statistics(block: u32, lid: u32) {
    gemm_shared(block, lid);
    let side = block_side();
    let blocks_side = (gemm_cols() / (4u * TILE_N) + side - 1u) / side;
    let row_tile = (block / blocks_side) * (WG / side) + lid / side;
    leave_statistics(lid, side, row_tile * TILE_M, (block % blocks_side) * side + lid % side);
}

/// Of the tile whose first row is `first`, in column `col_tile` of the tiles; the workgroup has `side` of them side by side.
fn leave_statistics(lid: u32, side: u32, first: u32, col_tile: u32) {
    let quads = params.out_c / 4u;
    let is_tile = first < gemm_rows() && col_tile * TILE_N < quads;
    let rows = select(0u, min(TILE_M, gemm_rows() - min(first, gemm_rows())), is_tile);
    for (var j = 0u; j < TILE_N; j++) {
        // y as this invocation has just written it. Around the first number: as exact as f32 can hold a mean far from 0.
        let start = first * quads + col_tile * TILE_N + j;
        var origin = vec4(0.0);
        if is_tile { origin = vec4<f32>(y4[start]); }
        var sum = vec4(0.0);
        for (var m = 0u; m < rows; m++) { sum += vec4<f32>(y4[start + m * quads]) - origin; }
        let mean = origin + sum / f32(max(rows, 1u));
        var squares = vec4(0.0);
        for (var m = 0u; m < rows; m++) {
            let off = vec4<f32>(y4[start + m * quads]) - mean;
            squares += off * off;
        }
        tile_means[lid * TILE_N + j] = mean;
        tile_squares[lid * TILE_N + j] = squares;
    }
    workgroupBarrier(); // the statistics of every tile are in
    if lid >= side || !is_tile { return; }

    let tiles = WG / side; // one above the other
    let chunk = first / (TILE_M * tiles);
    let chunks = (gemm_rows() + TILE_M * tiles - 1u) / (TILE_M * tiles);
    let pixels = min(TILE_M * tiles, gemm_rows() - first);
    for (var j = 0u; j < TILE_N; j++) {
        let origin = tile_means[lid * TILE_N + j];
        var sum = vec4(0.0);
        for (var t = 0u; t < tiles; t++) {
            let count = f32(min(TILE_M, pixels - min(t * TILE_M, pixels)));
            sum += count * (tile_means[(t * side + lid) * TILE_N + j] - origin);
        }
        let mean = origin + sum / f32(pixels);
        var squares = vec4(0.0);
        for (var t = 0u; t < tiles; t++) {
            let count = f32(min(TILE_M, pixels - min(t * TILE_M, pixels)));
            let off = tile_means[(t * side + lid) * TILE_N + j] - mean;
            squares += tile_squares[(t * side + lid) * TILE_N + j] + count * off * off;
        }
        for (var i = 0u; i < 4u; i++) {
            let to = ((col_tile * TILE_N + j) * 4u + i) * chunks + chunk;
            statistics[to] = mean[i];
            statistics[to + params.out_c * chunks] = squares[i];
        }
    }
}
