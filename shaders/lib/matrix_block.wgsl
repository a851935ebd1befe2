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
// Both sides of a slab lie by strips, [row][k] and [column][k]: what multiplies takes k's that follow each other. The slab that
// comes next is read from memory while this one is multiplied (lib/gemm_matrix and lib/weight_matrix, which say where a and b come
// from).
//
// A subgroup's sums lie in no known order in its registers. So they go through workgroup memory once more, a quarter of each
// panel at a time, and each invocation takes those of its tile of 8 x 8 from there.
//
// What multiplies is a piece of its own, with UNIT, MatrixA, MatrixB, MatrixC, the workgroup memory and a few functions:
// lib/matrix_units, or lib/matrix_plain where there are no such units.

// Rows and columns of a block.
const PANE_ROWS: u32 = 64u; // @tune 64 128
const PANE_COLS: u32 = 64u; // @tune 64 128
const PANE_COLS4: u32 = PANE_COLS / 4u;
// Panels that a subgroup has at a time: more where subgroups are larger, because there are fewer.
const EACH: u32 = 1u; // @tune 1 2

/// Invocations of a workgroup: one for each tile of 8 x 8.
const MATRIX_GROUP: u32 = PANE_ROWS * PANE_COLS / 64u;
/// Squares of 64 x 64 results in a block, and side by side. Each has 64 invocations, one after the other.
const SQUARES: u32 = MATRIX_GROUP / 64u;
const SQUARES_SIDE: u32 = PANE_COLS / 64u;

// Numbers of k that are in workgroup memory at a time.
const DEPTH: u32 = 32u;
const DEPTH4: u32 = DEPTH / 4u;
// Strips are a little longer than what is in them, so that what stands one below the other is in different banks; and a multiple of
// 16 bytes, where matrices have to begin.
const STRIP: u32 = DEPTH + 8u;
const C_ROW: u32 = 2u * UNIT + 4u;

/// Of each slab, an invocation has vectors of the same four k (lid % DEPTH4) in some strips of a and of b: lid / DEPTH4 + i * APART.
const SLAB_A: u32 = PANE_ROWS * DEPTH4 / MATRIX_GROUP;
const SLAB_B: u32 = PANE_COLS * DEPTH4 / MATRIX_GROUP;
const APART: u32 = MATRIX_GROUP / DEPTH4;
/// Where it reads four strips side by side: so many of these.
const SLAB_A4: u32 = SLAB_A / 4u;
const SLAB_B4: u32 = SLAB_B / 4u;

const PANEL_ROWS: u32 = 2u * UNIT;
const PANEL_COLS: u32 = 4u * UNIT;
const PANELS_SIDE: u32 = PANE_COLS / PANEL_COLS;
const PANELS: u32 = (PANE_ROWS / PANEL_ROWS) * PANELS_SIDE;
/// Panels of which a quarter is in workgroup memory at a time: all that there is room for beside the slab.
const SLOTS: u32 = select(PANELS, PANELS / 4u, SQUARES == 4u);

const MATRIX_A_SIZE: u32 = PANE_ROWS * STRIP;
const MATRIX_B_SIZE: u32 = PANE_COLS * STRIP;
var<workgroup> matrix_c: array<f32, SLOTS * UNIT * C_ROW>;

/// Which row of the block is strip `at` of a, with `width` UNIT; which column is strip `at` of b, with 2 * UNIT. Of each 2 * width rows
/// the first half goes through matrix_c before the second. They are mixed in such a way that each half is four of the eight rows of
/// every invocation's tile:
///
///    strips     0..3  4..7  8..11 ..
///    first      0..3  8..11 16..19 ..     second   4..7  12..15 20..23 ..
fn spread(at: u32, width: u32) -> u32 {
    let half = at / width % 2u;
    let within = at / (2u * width) * width + at % width;
    return within / 4u * 8u + half * 4u + within % 4u;
}

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

/// Adds the products of a slab.
fn multiply_panel(me: Invocation, panel: u32, sums: ptr<function, Panel>) {
    let row = min(panel, PANELS - 1u) / PANELS_SIDE * PANEL_ROWS;
    let col = min(panel, PANELS - 1u) % PANELS_SIDE * PANEL_COLS;
    for (var k = 0u; k < DEPTH; k += UNIT) {
        let a0 = load_matrix_a(me, row * STRIP + k);
        let a1 = load_matrix_a(me, (row + UNIT) * STRIP + k);
        let b0 = load_matrix_b(me, col * STRIP + k);
        let b1 = load_matrix_b(me, (col + UNIT) * STRIP + k);
        let b2 = load_matrix_b(me, (col + 2u * UNIT) * STRIP + k);
        let b3 = load_matrix_b(me, (col + 3u * UNIT) * STRIP + k);
        (*sums).c00 = multiply_add(a0, b0, (*sums).c00);
        (*sums).c01 = multiply_add(a0, b1, (*sums).c01);
        (*sums).c02 = multiply_add(a0, b2, (*sums).c02);
        (*sums).c03 = multiply_add(a0, b3, (*sums).c03);
        (*sums).c10 = multiply_add(a1, b0, (*sums).c10);
        (*sums).c11 = multiply_add(a1, b1, (*sums).c11);
        (*sums).c12 = multiply_add(a1, b2, (*sums).c12);
        (*sums).c13 = multiply_add(a1, b3, (*sums).c13);
    }
}

/// The same for a subgroup's panels: this one, and with EACH = 2 the one behind it.
fn multiply_panels(me: Invocation, panel: u32, sums: ptr<function, Panel>, more: ptr<function, Panel>) {
    multiply_panel(me, panel, sums);
    if EACH > 1u { multiply_panel(me, panel + 1u, more); }
}

/// The first of the four columns of the block whose strips an invocation reads together, counted in vectors.
fn column4(lid: u32, i: u32) -> u32 { return spread(4u * (lid / DEPTH4 + i * APART), 2u * UNIT) / 4u; }

/// Leaves four vectors, of four k's of four strips side by side, by strips.
fn put_turned_a(strip: u32, k4: u32, by_k: mat4x4<f32>) {
    let turned = transpose(by_k);
    for (var i = 0u; i < 4u; i++) { put_a((strip + i) * STRIP + 4u * k4, Element4(turned[i])); }
}
fn put_turned_b(strip: u32, k4: u32, by_k: mat4x4<f32>) {
    let turned = transpose(by_k);
    for (var i = 0u; i < 4u; i++) { put_b((strip + i) * STRIP + 4u * k4, Element4(turned[i])); }
}

/// Which panels a subgroup has in a turn that begins with this one: EACH from this on. Past the last one it stores nothing.
fn panel_of(me: Invocation, first_panel: u32) -> u32 { return first_panel + EACH * subgroup_of(me); }

/// Panels of a turn.
fn panels_together(me: Invocation) -> u32 { return EACH * max(subgroups_of(me), 1u); }

/// Row and column of an invocation's tile in the block, counted in tiles: those of a square follow each other.
fn matrix_tile(lid: u32) -> vec2<u32> {
    let square = lid / 64u;
    return vec2(square / SQUARES_SIDE * 8u + lid % 64u / 8u, square % SQUARES_SIDE * 8u + lid % 8u);
}

/// Whether the sums of an invocation's tile are made in a turn.
fn is_of_turn(me: Invocation, first_panel: u32) -> bool {
    let panel = panel_of_tile(matrix_tile(me.lid));
    return first_panel <= panel && panel < first_panel + panels_together(me);
}

fn panel_of_tile(tile: vec2<u32>) -> u32 {
    return (4u * tile.x / UNIT) * PANELS_SIDE + 4u * tile.y / (2u * UNIT);
}

/// The sums of an invocation's tile, four rows of four columns each.
struct TileSums {
    upper_left: mat4x4<f32>,
    upper_right: mat4x4<f32>,
    lower_left: mat4x4<f32>,
    lower_right: mat4x4<f32>,
}

/// What an invocation has to store, of the panels that its subgroup and the others have summed up.
fn tile_sums(me: Invocation, panel: u32, sums: Panel, more: Panel) -> TileSums {
    return TileSums(
        quarter(me, panel, sums.c00, sums.c01, more.c00, more.c01),
        quarter(me, panel, sums.c02, sums.c03, more.c02, more.c03),
        quarter(me, panel, sums.c10, sums.c11, more.c10, more.c11),
        quarter(me, panel, sums.c12, sums.c13, more.c12, more.c13),
    );
}

/// Four rows of four columns of an invocation's tile. Subgroups leave c0 and c1, two matrices side by side, of `panel`, and d0 and d1
/// of the panel behind it: if they are the upper ones of a panel, these are the upper rows; if the left ones, the left columns.
fn quarter(me: Invocation, panel: u32, c0: MatrixC, c1: MatrixC, d0: MatrixC, d1: MatrixC) -> mat4x4<f32> {
    let tile = matrix_tile(me.lid);
    let of_tile = panel_of_tile(tile);
    var taken: mat4x4<f32>;
    for (var first = 0u; first < PANELS; first += SLOTS) {
        let end = min(first + SLOTS, PANELS);
        leave_pair(me, panel, first, end, c0, c1);
        if EACH > 1u { leave_pair(me, panel + 1u, first, end, d0, d1); }
        workgroupBarrier(); // matrix_c is whole
        if first <= of_tile && of_tile < end {
            let at = ((of_tile - first) * UNIT + 4u * tile.x % UNIT) * C_ROW + 4u * tile.y % (2u * UNIT);
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
