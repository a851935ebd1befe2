// The weight gradient of everything that looks like a matrix product, through workgroup memory:
//
//   partial[chunk, r, col] = sum over the chunk's k of  row(k, r) * column(k, col)
//
// A workgroup owns a block of weights (lib/gemm_block: its tiles, slabs and parts) for one chunk of k: pixels, or rows of a
// linear layer. Both sides are read as vectors of four neighbours, and lie in workgroup memory as they are.
//
// The including file takes in lib/gemm_block, has partial4, and says
//   row_source(p, r) -> RowSource      whatever of rows r..r+3 does not depend on k
//   row_quad(p, source, k) -> vec4     those rows
//   column_source(p, col4), column_quad(p, source, k) -> vec4      the same for four columns
//   bias_quad(p, col4, k) -> vec4      what the bias is the sum of

/// Vectors of a side of a slab that an invocation reads, the last of them not all.
const A_READS: u32 = (SLAB * ROWS4 + TILES - 1u) / TILES;

/// Where the partial sums of a chunk go.
struct Destination {
    row: u32,   // that of weight row 0
    rows: u32,  // of weights, which divide by 4
    cols4: u32, // vectors of a row
}

/// The block with these first rows and columns, summed over first <= k < end.
fn weight_block(p: Params, lid: u32, first_row: u32, first_col4: u32, first: u32, end: u32, to: Destination) {
    let part = lid / TILES;
    let tile = lid % TILES;
    // Past the last row and column the last ones are computed, and not stored.
    let row = row_source(p, min(first_row + 4u * (tile % ROWS4), to.rows - 4u));
    let col = column_source(p, min(first_col4 + tile % COLS4, to.cols4 - 1u));
    let turns = (end - first + SLAB * SPLIT - 1u) / (SLAB * SPLIT);
    var sums: Sums;
    var terms: Sums;
    for (var turn = 0u; turn < turns; turn++) {
        let slab = first + (turn * SPLIT + part) * SLAB;
        var a: array<vec4<f32>, A_READS>;
        for (var i = 0u; i < A_READS; i++) { a[i] = row_quad(p, row, min(slab + (tile + i * TILES) / ROWS4, end - 1u)); }
        var b: array<vec4<f32>, B_READS>;
        for (var i = 0u; i < B_READS; i++) {
            let k = slab + (tile + i * TILES) / COLS4;
            b[i] = select(vec4(0.0), column_quad(p, col, min(k, end - 1u)), vec4(k < end)); // past the end 0
        }
        workgroupBarrier(); // nobody reads the slab before any more
        for (var i = 0u; i < A_READS; i++) {
            let at = tile + i * TILES;
            if at < SLAB * ROWS4 { slab_a[part * SLAB * ROWS4 + at] = a[i]; }
        }
        for (var i = 0u; i < B_READS; i++) {
            let at = tile + i * TILES;
            if at < SLAB * COLS4 { slab_b[(part * SLAB + at / COLS4) * COLS4 + place_of_b(at % COLS4)] = b[i]; }
        }
        workgroupBarrier(); // the slab is whole
        multiply_slab(part, tile, &terms);
        if (turn + 1u) % (SUM_TERMS / SLAB) == 0u { join(&sums, &terms); }
    }
    join(&sums, &terms);
    join_parts(part, tile, &sums);
    if part > 0u { return; }
    for (var m = 0u; m < TILE_M; m++) {
        let r = first_row + (tile / BLOCK) * TILE_M + m;
        for (var j = 0u; j < TILE_N; j++) {
            let col4 = first_col4 + (tile % BLOCK) * TILE_N + j;
            if r < to.rows && col4 < to.cols4 { partial4[(to.row + r) * to.cols4 + col4] = sums[m][j]; }
        }
    }
}

/// The gradient of the bias, the row of partial sums behind those of the weights: COLS4 vectors of it.
fn bias_block(p: Params, lid: u32, first_col4: u32, first: u32, end: u32, to: Destination) {
    let col4 = first_col4 + lid % COLS4;
    let side = TILES / COLS4; // invocations for one vector
    var sum = vec4(0.0);
    if lid < TILES && col4 < to.cols4 {
        for (var k = first + lid / COLS4; k < end; k += side * 16u) {
            var part = vec4(0.0); // no long chain
            for (var i = 0u; i < 16u; i++) {
                if k + i * side < end { part += bias_quad(p, col4, k + i * side); }
            }
            sum += part;
        }
    }
    workgroupBarrier(); // nobody reads workgroup memory any more
    if lid < TILES { slab_a[lid] = sum; }
    workgroupBarrier(); // the sums of all are in
    if lid >= COLS4 || col4 >= to.cols4 { return; }
    var whole = vec4(0.0);
    for (var i = 0u; i < side; i++) { whole += slab_a[i * COLS4 + lid]; }
    partial4[(to.row + to.rows) * to.cols4 + col4] = whole;
}
