// A block of a product of matrices on matrix units: sums of products of 16-bit floats, added up in f32.
//
//                      4 * UNIT columns          A workgroup owns a block of PANE_ROWS x PANE_COLS results. DEPTH numbers of k
//                    +----+----+----+----+       at a time, it has the block's part of a and b as 16-bit floats in workgroup
//     b  UNIT of k   | b0 | b1 | b2 | b3 |       memory: a slab. There a subgroup multiplies them by matrices:
//                    +----+----+----+----+
//                                                    c[i][j] += a[i] * b[j]
//     a  UNIT of k
//       +----+       +----+----+----+----+       It has the sums of a panel of 2 x 4 matrices, or of EACH panels. Of a block of
//       | a0 |       | c00| c01| c02| c03|       64 x 64 there are 2, one above the other, if UNIT is 16; 4 x 2 if it is 8.
//       +----+       +----+----+----+----+       Subgroups are as large as the device wants them: if there are too few for the
//       | a1 |       | c10| c11| c12| c13|       panels, they take turns; if there are too many, some repeat the last one and
//       +----+       +----+----+----+----+       store nothing.
//
// A side of a slab lies by strips, [row][k] and [column][k], or across, [k][row] and [k][column], whichever it is read in: who multiplies
// says which. The slab that comes next is read from memory while this one is multiplied (lib/gemm_matrix and lib/weight_matrix, which say
// where a and b come from).
//
// A subgroup's sums lie in no known order in its registers. So they go through workgroup memory once more, a quarter of each
// panel at a time: of its upper or lower matrices, the two left or the two right ones. Each invocation takes a square of 4 x 4 from there.
//
// What multiplies is a piece of its own, with UNIT, MatrixA, MatrixB, MatrixC, the workgroup memory and a few functions:
// lib/matrix_units, or lib/matrix_plain where there are no such units.

// Rows and columns of a block.
const PANE_ROWS: u32 = 64u; // @tune 64 128 256
const PANE_COLS: u32 = 64u; // @tune 64 128
const PANE_COLS4: u32 = PANE_COLS / 4u;
// Panels that a subgroup has at a time, one above the other: b is read once for both. More where there are fewer subgroups, because they
// are larger or because invocations have more results.
const EACH: u32 = 1u; // @tune 1 2
// Results of an invocation.
const SHARE: u32 = 64u; // @tune 64 128
// Numbers of k that are in workgroup memory at a time.
const DEPTH: u32 = 32u; // @tune 32 64

/// Invocations of a workgroup.
const MATRIX_GROUP: u32 = PANE_ROWS * PANE_COLS / SHARE;
/// Squares of 64 x 64 results in a block, and side by side.
const SQUARES: u32 = PANE_ROWS * PANE_COLS / 4096u;
const SQUARES_SIDE: u32 = PANE_COLS / 64u;

const DEPTH8: u32 = DEPTH / 8u;
// Strips and rows are a little longer than what is in them, so that what stands one below the other is in different banks; and a
// multiple of 16 bytes, where matrices have to begin.
const STRIP: u32 = DEPTH + 8u;
const ACROSS_A: u32 = PANE_ROWS + 8u;
const ACROSS_B: u32 = PANE_COLS + 8u;
const C_ROW: u32 = 2u * UNIT + 4u;

/// Vectors of eight numbers of a slab of a, and of b, that an invocation has.
const SLAB_A: u32 = PANE_ROWS * DEPTH8 / MATRIX_GROUP;
const SLAB_B: u32 = PANE_COLS * DEPTH8 / MATRIX_GROUP;

const PANEL_ROWS: u32 = 2u * UNIT;
const PANEL_COLS: u32 = 4u * UNIT;
const PANELS_SIDE: u32 = PANE_COLS / PANEL_COLS;
const PANELS: u32 = (PANE_ROWS / PANEL_ROWS) * PANELS_SIDE;
/// Panels of which a quarter is in workgroup memory at a time: all that there is room for beside the slab.
const SLOTS: u32 = PANELS / select(1u, SQUARES, SQUARES >= 4u);

const MATRIX_A_SIZE: u32 = max(PANE_ROWS * STRIP, DEPTH * ACROSS_A);
const MATRIX_B_SIZE: u32 = max(PANE_COLS * STRIP, DEPTH * ACROSS_B);
var<workgroup> matrix_c: array<f32, SLOTS * UNIT * C_ROW>;

/// The sums of a panel. By name: drivers are known to do arrays of matrices badly.
struct Panel {
    c00: MatrixC,
    c01: MatrixC,
    c02: MatrixC,
    c03: MatrixC,
    c10: MatrixC,
    c11: MatrixC,
    c12: MatrixC,
    c13: MatrixC,
}

/// The matrices of a panel's row of b at k.
struct Columns {
    b0: MatrixB,
    b1: MatrixB,
    b2: MatrixB,
    b3: MatrixB,
}

/// Of sides that lie by strips, and across.
fn strip_columns(me: Invocation, panel: u32, k: u32) -> Columns {
    let b = panel_col(panel) * STRIP + k;
    const NEXT: u32 = UNIT * STRIP;
    return Columns(strips_of_b(me, b), strips_of_b(me, b + NEXT), strips_of_b(me, b + 2u * NEXT), strips_of_b(me, b + 3u * NEXT));
}
fn columns_across(me: Invocation, panel: u32, k: u32) -> Columns {
    let b = k * ACROSS_B + panel_col(panel);
    return Columns(across_b(me, b), across_b(me, b + UNIT), across_b(me, b + 2u * UNIT), across_b(me, b + 3u * UNIT));
}

fn add_strips(me: Invocation, panel: u32, k: u32, sums: ptr<function, Panel>, more: ptr<function, Panel>) {
    let b = strip_columns(me, panel, k);
    let a = panel_row(panel) * STRIP + k;
    const NEXT: u32 = UNIT * STRIP;
    add_products(strips_of_a(me, a), strips_of_a(me, a + NEXT), b, sums);
    if EACH > 1u { add_products(strips_of_a(me, a + 2u * NEXT), strips_of_a(me, a + 3u * NEXT), b, more); }
}
fn add_across(me: Invocation, panel: u32, k: u32, sums: ptr<function, Panel>, more: ptr<function, Panel>) {
    let b = columns_across(me, panel, k);
    let a = k * ACROSS_A + panel_row(panel);
    add_products(across_a(me, a), across_a(me, a + UNIT), b, sums);
    if EACH > 1u { add_products(across_a(me, a + 2u * UNIT), across_a(me, a + 3u * UNIT), b, more); }
}

/// Adds the products of a slab to the sums of a subgroup's panels. Written out: where a compiler makes a loop of it, it waits before the
/// loop for all that was asked of memory.
fn multiply_strips(me: Invocation, panel: u32, sums: ptr<function, Panel>, more: ptr<function, Panel>) {
    add_strips(me, panel, 0u, sums, more);
    add_strips(me, panel, UNIT, sums, more);
    if 2u * UNIT < DEPTH {
        add_strips(me, panel, 2u * UNIT, sums, more);
        add_strips(me, panel, 3u * UNIT, sums, more);
    }
    if 4u * UNIT < DEPTH {
        add_strips(me, panel, 4u * UNIT, sums, more);
        add_strips(me, panel, 5u * UNIT, sums, more);
        add_strips(me, panel, 6u * UNIT, sums, more);
        add_strips(me, panel, 7u * UNIT, sums, more);
    }
}
fn multiply_across(me: Invocation, panel: u32, sums: ptr<function, Panel>, more: ptr<function, Panel>) {
    add_across(me, panel, 0u, sums, more);
    add_across(me, panel, UNIT, sums, more);
    if 2u * UNIT < DEPTH {
        add_across(me, panel, 2u * UNIT, sums, more);
        add_across(me, panel, 3u * UNIT, sums, more);
    }
    if 4u * UNIT < DEPTH {
        add_across(me, panel, 4u * UNIT, sums, more);
        add_across(me, panel, 5u * UNIT, sums, more);
        add_across(me, panel, 6u * UNIT, sums, more);
        add_across(me, panel, 7u * UNIT, sums, more);
    }
}

/// Which panels a subgroup has in a turn that begins with this one: EACH from this on. Past the last one it stores nothing.
fn panel_of(me: Invocation, first_panel: u32) -> u32 { return first_panel + EACH * subgroup_of(me); }

/// Panels of a turn.
fn panels_together(me: Invocation) -> u32 { return EACH * max(subgroups_of(me), 1u); }

/// First row and column of a panel in the block: EACH below each other, then those beside them. Past the last panel those of the last.
fn panel_row(panel: u32) -> u32 {
    let last = min(panel, PANELS - EACH);
    return (last / (EACH * PANELS_SIDE) * EACH + panel % EACH) * PANEL_ROWS;
}
fn panel_col(panel: u32) -> u32 { return min(panel, PANELS - EACH) / EACH % PANELS_SIDE * PANEL_COLS; }

/// Squares of 4 x 4 of a quarter of a panel.
const TAKEN: u32 = UNIT * UNIT / 8u;
/// Squares that an invocation takes of each quarter of the block, one in each round.
const ROUNDS: u32 = SHARE / 64u;

/// Of a square: its panel, and its first row and column there, if it is of the upper left quarter. The lower ones are UNIT rows below, the right
/// ones 2 * UNIT columns to the right.
struct Square {
    panel: u32,
    row: u32,
    col: u32,
}

/// The square that an invocation takes in a round.
fn square_of(lid: u32, round: u32) -> Square {
    let at = round * MATRIX_GROUP + lid;
    let square = at % TAKEN;
    return Square(at / TAKEN, square / (UNIT / 2u) * 4u, square % (UNIT / 2u) * 4u);
}

/// Whether the sums of a square are made in a turn.
fn is_of_turn(me: Invocation, first_panel: u32, square: Square) -> bool {
    return first_panel <= square.panel && square.panel < first_panel + panels_together(me);
}

/// The sums that an invocation takes, four rows of four columns each.
struct TakenSums {
    upper_left: mat4x4<f32>,
    upper_right: mat4x4<f32>,
    lower_left: mat4x4<f32>,
    lower_right: mat4x4<f32>,
}

/// What an invocation has to store, of the panels that its subgroup and the others have summed up.
fn taken_sums(me: Invocation, mine: Square, panel: u32, sums: Panel, more: Panel) -> TakenSums {
    return TakenSums(
        quarter(me, mine, panel, sums.c00, sums.c01, more.c00, more.c01),
        quarter(me, mine, panel, sums.c02, sums.c03, more.c02, more.c03),
        quarter(me, mine, panel, sums.c10, sums.c11, more.c10, more.c11),
        quarter(me, mine, panel, sums.c12, sums.c13, more.c12, more.c13),
    );
}

/// Subgroups leave c0 and c1, two matrices side by side, of `panel`, and d0 and d1 of the panel below it; each invocation takes its square.
fn quarter(me: Invocation, mine: Square, panel: u32, c0: MatrixC, c1: MatrixC, d0: MatrixC, d1: MatrixC) -> mat4x4<f32> {
    var taken: mat4x4<f32>;
    for (var first = 0u; first < PANELS; first += SLOTS) {
        let end = min(first + SLOTS, PANELS);
        leave_pair(me, panel, first, end, c0, c1);
        if EACH > 1u { leave_pair(me, panel + 1u, first, end, d0, d1); }
        workgroupBarrier(); // matrix_c is whole
        if first <= mine.panel && mine.panel < end {
            let at = ((mine.panel - first) * UNIT + mine.row) * C_ROW + mine.col;
            taken = mat4x4<f32>(c_quad(at), c_quad(at + C_ROW), c_quad(at + 2u * C_ROW), c_quad(at + 3u * C_ROW));
        }
        workgroupBarrier(); // everybody has read matrix_c
    }
    return taken;
}

fn leave_pair(me: Invocation, panel: u32, first: u32, end: u32, c0: MatrixC, c1: MatrixC) {
    if first <= panel && panel < end {
        leave_matrix(me, c0, (panel - first) * UNIT * C_ROW);
        leave_matrix(me, c1, (panel - first) * UNIT * C_ROW + UNIT);
    }
}

fn c_quad(at: u32) -> vec4<f32> { return vec4(matrix_c[at], matrix_c[at + 1u], matrix_c[at + 2u], matrix_c[at + 3u]); }
