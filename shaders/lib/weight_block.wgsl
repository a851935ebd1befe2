// The weight gradient of everything that looks like a matrix product, through workgroup memory:
//
//   partial[chunk, r, col] = sum over the chunk's k of  row(k, r) * column(k, col)
//
// A workgroup owns a block of weights (lib/gemm_block: its tiles, slabs and parts) for one chunk of k: pixels, or rows of a
// linear layer. Both sides are read as vectors of four neighbours, and lie in workgroup memory as they are.
//
// The including file takes in lib/gemm_block, has partial4, and says
//   term_of(p, k) -> Term, later(p, term, by) -> Term      what a k of the rows stands for, and the same `by` k later
//   row_source(p, r) -> RowSource      whatever of rows r..r+3 does not depend on k
//   row_quad(p, source, term) -> vec4   those rows
//   column_source(p, col4), column_quad(p, source, k) -> vec4      the same for four columns
//   bias_quad(p, col4, k) -> vec4      what the bias is the sum of
// @include weight_sums

/// Vectors of a side of a slab that an invocation reads, the last of them not all.
const A_READS: u32 = (SLAB * ROWS4 + TILES - 1u) / TILES;

/// The block with these first rows and columns, summed over first <= k < end.
fn weight_block(p: Params, lid: u32, first_row: u32, first_col4: u32, first: u32, end: u32, to: Destination) {
    let part = lid / TILES;
    let tile = lid % TILES;
    // Past the last row and column the last ones are computed, and not stored.
    let row = row_source(p, min(first_row + 4u * (tile % ROWS4), to.rows - 4u));
    let col = column_source(p, min(first_col4 + tile % COLS4, to.cols4 - 1u));
    let turns = (end - first + SLAB * SPLIT - 1u) / (SLAB * SPLIT);
    let a_row = tile / ROWS4;
    let b_row = tile / COLS4;
    var term = term_of(p, first + part * SLAB + a_row); // of the first k that this invocation reads of a slab
    var sums: Sums;
    var terms: Sums;
    for (var turn = 0u; turn < turns; turn++) {
        let slab = first + (turn * SPLIT + part) * SLAB;
        var a: array<vec4<f32>, A_READS>; // past the end 0, without a branch: all reads are under way together
        var here = term;
        for (var i = 0u; i < A_READS; i++) {
            let inside = slab + a_row + i * (TILES / ROWS4) < end;
            a[i] = select(vec4(0.0), row_quad(p, row, here), inside);
            here = later(p, here, TILES / ROWS4);
        }
        term = later(p, term, SLAB * SPLIT);
        var b: array<vec4<f32>, B_READS>;
        for (var i = 0u; i < B_READS; i++) {
            b[i] = column_quad(p, col, min(slab + b_row + i * (TILES / COLS4), end - 1u)); // there a is 0
        }
        workgroupBarrier(); // nobody reads the slab before any more
        for (var i = 0u; i < A_READS; i++) {
            let k = a_row + i * (TILES / ROWS4);
            if k < SLAB { slab_a[part][tile % ROWS4].k[k / 4u][k % 4u] = a[i]; }
        }
        leave_b(part, tile, b);
        workgroupBarrier(); // the slab is whole
        multiply_slab(part, tile, &terms);
        if (turn + 1u) % (SUM_TERMS / SLAB) == 0u { join(&sums, &terms); }
    }
    join(&sums, &terms);
    join_parts(part, tile, &sums);
    if part > 0u { return; }
    let r = first_row + (tile / BLOCK) * TILE_M;
    let col4 = first_col4 + (tile % BLOCK) * TILE_N;
    store_weights(to, r, col4, sums.upper_left);
    if LARGE {
        store_weights(to, r, col4 + 1u, sums.upper_right);
        store_weights(to, r + 4u, col4, sums.lower_left);
        store_weights(to, r + 4u, col4 + 1u, sums.lower_right);
    }
}

/// The gradient of the bias: `wide` vectors of it, summed over first <= k < end.
fn bias_block(p: Params, lid: u32, wide: u32, first_col4: u32, first: u32, end: u32, to: Destination) {
    let col4 = first_col4 + lid % wide;
    let side = BIAS_LANES / wide; // invocations for one vector
    var sum = vec4(0.0);
    if lid < BIAS_LANES && col4 < to.cols4 {
        for (var k = first + lid / wide; k < end; k += side * 16u) {
            var part = vec4(0.0); // no long chain
            for (var i = 0u; i < 16u; i++) {
                if k + i * side < end { part += bias_quad(p, col4, k + i * side); }
            }
            sum += part;
        }
    }
    leave_bias(lid, wide, first_col4, sum, to);
}
