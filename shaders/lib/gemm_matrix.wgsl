// The tile engine (lib/gemm_tile) on matrix units: blocks of lib/matrix_block, of what the including file has for lib/gemm_tile, with
// raw8(at, k), norm8(k) and made8(norm, raw), eight numbers k..k+7 of a row, in the place of load_a, and weight8(tap, k, col), those of a
// column, in the place of load_b (lib/conv2d_eight_plain), and the taps that the rows of a block see (lib/all_taps, lib/conv2d_order).
// All taps have gemm_depth(0) terms, which divide by 8. Both sides lie by strips.
// @include matrix_block

/// Of each slab, an invocation has vectors of the same eight k (lid % DEPTH8) in some strips of a and of b, lid / DEPTH8 + i * APART.
const APART: u32 = MATRIX_GROUP / DEPTH8;

/// What an invocation reads: its rows, where they are at a tap, and which slab of the tap comes next.
struct GemmWalk {
    origins: array<vec3<i32>, SLAB_A>,
    places: array<u32, SLAB_A>,
    cols: array<u32, SLAB_B>,
    taps: Taps,
    nth: u32, // of these taps
    tap: u32,
    first: u32, // k of the slab
}

/// What it has read of a slab, as it lies in memory.
struct GemmSlab {
    a: array<Eight, SLAB_A>,
    b: array<Eight, SLAB_B>,
}

fn matrix_blocks_across() -> u32 { return (gemm_cols() + PANE_COLS - 1u) / PANE_COLS; }

/// Rows and columns past the end are computed from the last ones, and not stored.
fn begin_gemm(lid: u32, first_row: u32, first_col4: u32, taps: Taps) -> GemmWalk {
    var walk: GemmWalk;
    walk.taps = taps;
    walk.tap = nth_tap(taps, 0u);
    for (var i = 0u; i < SLAB_A; i++) {
        walk.origins[i] = origin(min(first_row + lid / DEPTH8 + i * APART, gemm_rows() - 1u));
        walk.places[i] = locate(walk.origins[i], walk.tap);
    }
    for (var i = 0u; i < SLAB_B; i++) { walk.cols[i] = min(4u * first_col4 + lid / DEPTH8 + i * APART, gemm_cols() - 1u); }
    return walk;
}

/// The k from which on an invocation reads.
fn k_of(lid: u32, walk: ptr<function, GemmWalk>) -> u32 { return min((*walk).first + 8u * (lid % DEPTH8), gemm_depth(0u) - 8u); }

/// Reads the slab. All reads are under way together: the bounds of these loops are constant.
fn read_gemm(lid: u32, walk: ptr<function, GemmWalk>) -> GemmSlab {
    var slab: GemmSlab;
    let k = k_of(lid, walk);
    for (var i = 0u; i < SLAB_A; i++) {
        let place = (*walk).places[i];
        slab.a[i] = raw8(select(place, 0u, place == OUTSIDE), k);
    }
    for (var i = 0u; i < SLAB_B; i++) { slab.b[i] = weight8((*walk).tap, k, (*walk).cols[i]); }
    return slab;
}

/// Leaves it in workgroup memory, with zeros outside of the image, and past the last k.
fn leave_gemm(lid: u32, walk: ptr<function, GemmWalk>, slab: GemmSlab) {
    let norm = norm8(k_of(lid, walk));
    let k8 = 8u * (lid % DEPTH8);
    for (var i = 0u; i < SLAB_A; i++) {
        let outside = (*walk).places[i] == OUTSIDE;
        var eight = made8(norm, slab.a[i]);
        if outside { eight = Eight(); }
        put_a8((lid / DEPTH8 + i * APART) * STRIP + k8, eight);
    }
    let past = (*walk).first + k8 >= gemm_depth(0u);
    for (var i = 0u; i < SLAB_B; i++) {
        var eight = slab.b[i];
        if past { eight = Eight(); }
        put_b8((lid / DEPTH8 + i * APART) * STRIP + k8, eight);
    }
}

/// A slab of zeros: what is multiplied before the first one.
fn leave_nothing(lid: u32) {
    for (var i = 0u; i < SLAB_A; i++) { put_a8((lid / DEPTH8 + i * APART) * STRIP + 8u * (lid % DEPTH8), Eight()); }
    for (var i = 0u; i < SLAB_B; i++) { put_b8((lid / DEPTH8 + i * APART) * STRIP + 8u * (lid % DEPTH8), Eight()); }
    workgroupBarrier(); // it is whole
}

/// Goes on to the next slab, of the next tap if this one has no more; behind the last one to the first of the last tap.
fn next_gemm(walk: ptr<function, GemmWalk>) {
    (*walk).first += DEPTH;
    if (*walk).first >= gemm_depth(0u) {
        (*walk).first = 0u;
        (*walk).nth = min((*walk).nth + 1u, max((*walk).taps.count, 1u) - 1u);
        (*walk).tap = nth_tap((*walk).taps, (*walk).nth);
        for (var i = 0u; i < SLAB_A; i++) { (*walk).places[i] = locate((*walk).origins[i], (*walk).tap); }
    }
}

fn gemm_matrix(block: u32, me: Invocation) {
    let first_row = block / matrix_blocks_across() * PANE_ROWS;
    let first_col4 = block % matrix_blocks_across() * PANE_COLS4;
    let taps = taps_of(first_row, min(first_row + PANE_ROWS, gemm_rows()) - 1u);
    let slabs = taps.count * ((gemm_depth(0u) + DEPTH - 1u) / DEPTH);
    for (var first_panel = 0u; first_panel < PANELS; first_panel += panels_together(me)) {
        let panel = panel_of(me, first_panel);
        var sums: Panel;
        var more: Panel; // of the panel below it
        var walk = begin_gemm(me.lid, first_row, first_col4, taps);
        leave_nothing(me.lid);
        for (var slab = 0u; slab < slabs + 1u; slab++) {
            let next = read_gemm(me.lid, &walk); // on its way while the slab before is multiplied
            multiply_strips(me, panel, &sums, &more);
            workgroupBarrier(); // nobody reads the slab before any more
            leave_gemm(me.lid, &walk, next); // behind the last slab one that nobody multiplies
            workgroupBarrier(); // the slab is whole
            next_gemm(&walk);
        }
        for (var round = 0u; round < ROUNDS; round++) {
            let square = square_of(me.lid, round);
            let mine = taken_sums(me, square, panel, sums, more);
            if is_of_turn(me, first_panel, square) {
                let row = first_row + panel_row(square.panel) + square.row;
                let col4 = first_col4 + (panel_col(square.panel) + square.col) / 4u;
                store_quarter(row, col4, mine.upper_left);
                store_quarter(row, col4 + UNIT / 2u, mine.upper_right);
                store_quarter(row + UNIT, col4, mine.lower_left);
                store_quarter(row + UNIT, col4 + UNIT / 2u, mine.lower_right);
            }
        }
    }
}

fn store_quarter(row: u32, col4: u32, m: mat4x4<f32>) {
    if 4u * col4 >= gemm_cols() { return; }
    if row < gemm_rows() { store(row, col4, m[0]); }
    if row + 1u < gemm_rows() { store(row + 1u, col4, m[1]); }
    if row + 2u < gemm_rows() { store(row + 2u, col4, m[2]); }
    if row + 3u < gemm_rows() { store(row + 3u, col4, m[3]); }
}
