// The tile engine (lib/gemm_tile) on matrix units: sums of products of 16-bit floats, added up in f32.
//
//                      4 * UNIT columns          A workgroup owns a block of 64 x 64 results. For each tap, DEPTH numbers of k
//                    +----+----+----+----+       at a time, it turns the block's part of a and b into 16-bit floats in
//     b  UNIT of k   | b0 | b1 | b2 | b3 |       workgroup memory. There a subgroup multiplies them by matrices:
//                    +----+----+----+----+
//                                                    c[i][j] += a[i] * b[j]
//     a  UNIT of k
//       +----+       +----+----+----+----+       It has the sums of a panel of 2 x 4 matrices. A block is 2 panels, one
//       | a0 |       | c00| c01| c02| c03|       above the other, if UNIT is 16; 4 x 2 if it is 8. Subgroups are as large as
//       +----+       +----+----+----+----+       the device wants them: if there are fewer than panels, they take turns; if
//       | a1 |       | c10| c11| c12| c13|       there are more, some repeat the last one and store nothing.
//       +----+       +----+----+----+----+
//
// A subgroup's sums lie in no known order in its registers. So they go through workgroup memory once more, a quarter of each
// panel at a time, and from there each invocation stores its tile of 8 x 8: the one that it would have in a block of gemm_block.
//
// What multiplies is a piece of its own, with UNIT, MatrixA, MatrixB, MatrixC and a few functions: lib/matrix_units, or
// lib/matrix_plain where there are no such units.

// Rows, and columns, of a block: WG tiles of 8 x 8.
const PANE: u32 = 64u;
// Numbers of k that are in workgroup memory at a time.
const DEPTH: u32 = 32u;
// Rows of workgroup memory are a little longer than what is in them, so that what stands one below the other is in
// different banks; and a multiple of 16 bytes, where matrices have to begin.
const A_ROW: u32 = DEPTH + 8u;
const B_ROW: u32 = PANE + 8u;
const C_ROW: u32 = PANE / 2u + 4u;

/// The same in vectors of four, and how many of each side of a slab an invocation reads.
const DEPTH4: u32 = DEPTH / 4u;
const PANE4: u32 = PANE / 4u;
const WG_LANES: u32 = 64u;
const READS: u32 = PANE * DEPTH4 / WG_LANES;

const PANEL_ROWS: u32 = 2u * UNIT;
const PANEL_COLS: u32 = 4u * UNIT;
const PANELS_SIDE: u32 = PANE / PANEL_COLS;
const PANELS: u32 = (PANE / PANEL_ROWS) * PANELS_SIDE;

var<workgroup> matrix_at: array<u32, PANE>;
var<workgroup> matrix_a: array<Element, PANE * A_ROW>;
var<workgroup> matrix_b: array<Element, DEPTH * B_ROW>;
var<workgroup> matrix_c: array<f32, (PANE / 2u) * C_ROW>;

/// Which row of the block is row `at` of matrix_a, with `width` UNIT; which column is column `at` of matrix_b, with 2 * UNIT.
/// Of each 2 * width rows the first half goes through matrix_c before the second. They are mixed in such a way that each half
/// is four of the eight rows of every invocation's tile:
///
///    matrix_c   0..3  4..7  8..11 ..
///    first      0..3  8..11 16..19 ..     second   4..7  12..15 20..23 ..
fn spread(at: u32, width: u32) -> u32 {
    let half = at / width % 2u;
    let within = at / (2u * width) * width + at % width; // matrix_c
    return within / 4u * 8u + half * 4u + within % 4u;
}

/// Where a quarter of the panels is to go.
struct Quarter {
    first_row: u32,  // of the block
    first_col4: u32, // of the block
    first: u32,      // the panels of this turn: first <= panel < end
    end: u32,
    mine: bool,      // whether this subgroup's panel is one that no other has
    at: u32,         // its place in matrix_c
}

fn gemm_matrix(block: u32, me: Invocation) {
    let lid = me.lid;
    let blocks_side = (gemm_cols() + PANE - 1u) / PANE;
    let first_row = (block / blocks_side) * PANE;
    let first_col4 = (block % blocks_side) * (PANE / 4u);
    let last_col4 = gemm_cols() / 4u - 1u;
    let taps = gemm_taps();
    let together = max(subgroups_of(me), 1u);
    for (var first_panel = 0u; first_panel < PANELS; first_panel += together) {
        let panel = min(first_panel + subgroup_of(me), PANELS - 1u);
        let panel_row = panel / PANELS_SIDE;
        let panel_col = panel % PANELS_SIDE;
        // Variables one by one: drivers are known to do arrays of matrices badly.
        var c00 = MatrixC();
        var c01 = MatrixC();
        var c02 = MatrixC();
        var c03 = MatrixC();
        var c10 = MatrixC();
        var c11 = MatrixC();
        var c12 = MatrixC();
        var c13 = MatrixC();
        for (var tap = 0u; tap < taps; tap++) {
            // Rows and columns past the end are computed from the last ones, and not stored.
            for (var r = lid; r < PANE; r += WG) {
                matrix_at[r] = locate(origin(min(first_row + spread(r, UNIT), gemm_rows() - 1u)), tap);
            }
            workgroupBarrier(); // matrix_at is whole
            let depth = gemm_depth(tap);
            for (var first = 0u; first < depth; first += DEPTH) {
                // All reads of the slab are under way together: the bounds of these loops are constant.
                var a: array<vec4<f32>, READS>;
                var b: array<vec4<f32>, READS>;
                for (var i = 0u; i < READS; i++) {
                    let k = first + 4u * (lid % DEPTH4);
                    a[i] = load_a4(matrix_at[lid / DEPTH4 + i * (WG_LANES / DEPTH4)], min(k, depth - 4u)); // past the end b is 0
                }
                for (var i = 0u; i < READS; i++) {
                    let k = first + lid / PANE4 + i * (WG_LANES / PANE4);
                    let col4 = min(first_col4 + spread(4u * (lid % PANE4), 2u * UNIT) / 4u, last_col4);
                    b[i] = select(vec4(0.0), load_b(tap, min(k, depth - 1u), col4), vec4(k < depth));
                }
                workgroupBarrier(); // nobody reads the slab before any more
                for (var i = 0u; i < READS; i++) {
                    let to_a = (lid / DEPTH4 + i * (WG_LANES / DEPTH4)) * A_ROW + 4u * (lid % DEPTH4);
                    let to_b = (lid / PANE4 + i * (WG_LANES / PANE4)) * B_ROW + 4u * (lid % PANE4);
                    for (var j = 0u; j < 4u; j++) {
                        matrix_a[to_a + j] = Element(a[i][j]);
                        matrix_b[to_b + j] = Element(b[i][j]);
                    }
                }
                workgroupBarrier(); // the slab is whole
                for (var k = 0u; k < DEPTH; k += UNIT) {
                    let a_at = panel_row * PANEL_ROWS * A_ROW + k;
                    let b_at = k * B_ROW + panel_col * PANEL_COLS;
                    let a0 = load_matrix_a(me, a_at);
                    let a1 = load_matrix_a(me, a_at + UNIT * A_ROW);
                    let b0 = load_matrix_b(me, b_at);
                    let b1 = load_matrix_b(me, b_at + UNIT);
                    let b2 = load_matrix_b(me, b_at + 2u * UNIT);
                    let b3 = load_matrix_b(me, b_at + 3u * UNIT);
                    c00 = multiply_add(a0, b0, c00);
                    c01 = multiply_add(a0, b1, c01);
                    c02 = multiply_add(a0, b2, c02);
                    c03 = multiply_add(a0, b3, c03);
                    c10 = multiply_add(a1, b0, c10);
                    c11 = multiply_add(a1, b1, c11);
                    c12 = multiply_add(a1, b2, c12);
                    c13 = multiply_add(a1, b3, c13);
                }
            }
        }
        let at = panel_row * UNIT * C_ROW + panel_col * 2u * UNIT;
        let mine = first_panel + subgroup_of(me) < PANELS;
        let quarter = Quarter(first_row, first_col4, first_panel, first_panel + together, mine, at);
        store_quarter(quarter, 0u, 0u, c00, c01, me);
        store_quarter(quarter, 0u, 1u, c02, c03, me);
        store_quarter(quarter, 1u, 0u, c10, c11, me);
        store_quarter(quarter, 1u, 1u, c12, c13, me);
    }
}

/// Stores the upper (0) or lower (1) matrices of each panel, of those the left (0) or right (1) two.
fn store_quarter(quarter: Quarter, lower: u32, right: u32, c0: MatrixC, c1: MatrixC, me: Invocation) {
    if quarter.mine {
        leave_matrix(me, c0, quarter.at);
        leave_matrix(me, c1, quarter.at + UNIT);
    }
    workgroupBarrier(); // matrix_c is whole
    let tile_row = me.lid / 8u;
    let tile_col = me.lid % 8u;
    let panel = (4u * tile_row / UNIT) * PANELS_SIDE + 4u * tile_col / (2u * UNIT);
    let col4 = quarter.first_col4 + 2u * tile_col + right;
    if quarter.first <= panel && panel < quarter.end && 4u * col4 < gemm_cols() {
        for (var m = 0u; m < 4u; m++) {
            let at = (4u * tile_row + m) * C_ROW + 4u * tile_col;
            let row = quarter.first_row + 8u * tile_row + 4u * lower + m;
            let value = vec4(matrix_c[at], matrix_c[at + 1u], matrix_c[at + 2u], matrix_c[at + 3u]);
            if row < gemm_rows() { store(row, col4, value); }
        }
    }
    workgroupBarrier(); // everybody has read matrix_c
}
