// What a kernel that makes y by tiles leaves for the batch norm that follows: mean and sum of (y - mean)^2 per channel and
// chunk; a chunk is the pixels of one workgroup (lib/tile_groups).
//
// The including file has y4 and statistics [mean, sum of (y - mean)^2][channel][chunk].
// @include tile_groups

var<workgroup> tile_means: array<vec4<f32>, TILE_N * WG>;
var<workgroup> tile_squares: array<vec4<f32>, TILE_N * WG>;

/// Of an invocation's tile and those of the workgroup, which has `side` of them side by side.
fn leave_statistics(lid: u32, side: u32, place: vec2<u32>) {
    let quads = gemm_cols() / 4u;
    let rows = select(0u, tile_rows(place), lid < WG); // further invocations have no tile of their own
    for (var j = 0u; j < TILE_N; j++) {
        // y as this invocation has just written it. Around the first number: as exact as f32 can hold a mean far from 0.
        let start = place.x * TILE_M * quads + place.y * TILE_N + j;
        var y: array<vec4<f32>, TILE_M>;
        for (var m = 0u; m < TILE_M; m++) {
            if m < rows { y[m] = vec4<f32>(y4[start + m * quads]); }
        }
        let origin = y[0];
        var sum = vec4(0.0);
        for (var m = 0u; m < TILE_M; m++) { sum += select(vec4(0.0), y[m] - origin, vec4(m < rows)); }
        let mean = origin + sum / f32(max(rows, 1u));
        var squares = vec4(0.0);
        for (var m = 0u; m < TILE_M; m++) {
            let off = select(vec4(0.0), y[m] - mean, vec4(m < rows));
            squares += off * off;
        }
        if lid < WG {
            tile_means[lid * TILE_N + j] = mean;
            tile_squares[lid * TILE_N + j] = squares;
        }
    }
    workgroupBarrier(); // the statistics of every tile are in
    if lid >= side || rows == 0u { return; }

    let tiles = WG / side; // one above the other
    let pixels = min(TILE_M * tiles, gemm_rows() - place.x * TILE_M);
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
            let c = (place.y * TILE_N + j) * 4u + i;
            statistics[sum_place(0u, c, place, tiles)] = mean[i];
            statistics[sum_place(1u, c, place, tiles)] = squares[i];
        }
    }
}
