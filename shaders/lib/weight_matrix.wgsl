// The weight gradient by blocks on matrix units (lib/matrix_block), for images of 16-bit floats. Both sides lie across: a k is a pixel, of which
// eight channels follow each other in memory.
//
// The including file has Term, term_of, later and RowSource (lib/conv2d_weight_terms), and what lib/conv2d_eight_plain says.
// @include matrix_block
// @include weight_sums

/// Of each slab, an invocation has the same eight rows for some k, lid / ROWS8 + i * APART_A; and the same eight columns for others.
const ROWS8: u32 = PANE_ROWS / 8u;
const COLS8: u32 = PANE_COLS / 8u;
const APART_A: u32 = MATRIX_GROUP / ROWS8;
const APART_B: u32 = MATRIX_GROUP / COLS8;

/// What an invocation reads: its rows and columns, and the k's that come next.
struct WeightWalk {
    rows: RowSource,
    col: u32,
    k: u32, // of the slab
    terms: array<Term, SLAB_A>, // its pixels of it
}

/// What it has read of a slab.
struct WeightSlab {
    a: array<Eight, SLAB_A>,
    inside: array<bool, SLAB_A>, // of the image; past the last k a is 0, too
    b: array<Eight, SLAB_B>,
}

/// Past the last row and column the last ones are computed, and not stored.
fn begin_weights(p: Params, lid: u32, first_row: u32, first_col4: u32, first: u32, to: Destination) -> WeightWalk {
    var walk: WeightWalk;
    walk.rows = row_source(p, min(first_row + 8u * (lid % ROWS8), to.rows - 8u));
    walk.col = min(4u * first_col4 + 8u * (lid % COLS8), 4u * to.cols4 - 8u);
    walk.k = first;
    for (var i = 0u; i < SLAB_A; i++) { walk.terms[i] = term_of(p, first + lid / ROWS8 + i * APART_A); }
    return walk;
}

/// Reads a slab and goes on to the next. All reads are under way together: the bounds of these loops are constant.
fn read_weights(p: Params, lid: u32, walk: ptr<function, WeightWalk>, end: u32) -> WeightSlab {
    var slab: WeightSlab;
    for (var i = 0u; i < SLAB_A; i++) {
        let at = source_pixel(p, (*walk).rows, (*walk).terms[i]);
        let inside = at >= 0 && (*walk).k + lid / ROWS8 + i * APART_A < end;
        slab.inside[i] = inside;
        slab.a[i] = raw8(select(0u, u32(at), inside) * pixel_stride(), 4u * (*walk).rows.ci4);
        (*walk).terms[i] = later(p, (*walk).terms[i], DEPTH);
    }
    for (var i = 0u; i < SLAB_B; i++) {
        let pixel = min((*walk).k + lid / COLS8 + i * APART_B, end - 1u);
        slab.b[i] = gy8[(pixel * p.out_c + (*walk).col) / 8u];
    }
    (*walk).k += DEPTH;
    return slab;
}

/// Leaves it in workgroup memory.
fn leave_weights(lid: u32, rows: RowSource, slab: WeightSlab) {
    let norm = norm8(4u * rows.ci4);
    for (var i = 0u; i < SLAB_A; i++) {
        var eight = made8(norm, slab.a[i]);
        if !slab.inside[i] { eight = Eight(); }
        put_a8((lid / ROWS8 + i * APART_A) * ACROSS_A + 8u * (lid % ROWS8), eight);
    }
    for (var i = 0u; i < SLAB_B; i++) {
        put_b8((lid / COLS8 + i * APART_B) * ACROSS_B + 8u * (lid % COLS8), slab.b[i]);
    }
}

/// The block with these first rows and columns, summed over first <= k < end.
fn weight_matrix(p: Params, me: Invocation, first_row: u32, first_col4: u32, first: u32, end: u32, to: Destination) {
    let slabs = (end - first + DEPTH - 1u) / DEPTH;
    for (var first_panel = 0u; first_panel < PANELS; first_panel += panels_together(me)) {
        let panel = panel_of(me, first_panel);
        var sums: Panel;
        var more: Panel; // of the panel below it
        var walk = begin_weights(p, me.lid, first_row, first_col4, first, to);
        leave_weights(me.lid, walk.rows, WeightSlab()); // zeros: what is multiplied before the first slab
        workgroupBarrier(); // they are whole
        for (var slab = 0u; slab < slabs + 1u; slab++) {
            let next = read_weights(p, me.lid, &walk, end); // on its way while the slab before is multiplied
            multiply_across(me, panel, &sums, &more);
            workgroupBarrier(); // nobody reads the slab before any more
            leave_weights(me.lid, walk.rows, next); // behind the last slab one that nobody multiplies
            workgroupBarrier(); // the slab is whole
        }
        for (var round = 0u; round < ROUNDS; round++) {
            let square = square_of(me.lid, round);
            let mine = taken_sums(me, square, panel, sums, more);
            if is_of_turn(me, first_panel, square) {
                let r = first_row + panel_row(square.panel) + square.row;
                let col4 = first_col4 + (panel_col(square.panel) + square.col) / 4u;
                store_weights(to, r, col4, mine.upper_left);
                store_weights(to, r, col4 + UNIT / 2u, mine.upper_right);
                store_weights(to, r + UNIT, col4, mine.lower_left);
                store_weights(to, r + UNIT, col4 + UNIT / 2u, mine.lower_right);
            }
        }
    }
}

/// The gradient of the bias, as lib/weight_block has it.
fn bias_matrix(p: Params, lid: u32, first_col4: u32, first: u32, end: u32, to: Destination) {
    let col4 = first_col4 + lid % PANE_COLS4;
    let side = BIAS_LANES / PANE_COLS4;
    var sum = vec4(0.0);
    if lid < BIAS_LANES && col4 < to.cols4 {
        for (var k = first + lid / PANE_COLS4; k < end; k += side * 16u) {
            var part = vec4(0.0); // no long chain
            for (var i = 0u; i < 16u; i++) {
                let eight = gy8[(min(k + i * side, end - 1u) * to.cols4 + col4) / 2u];
                if k + i * side < end { part += vec4<f32>(select(eight[0], eight[1], col4 % 2u == 1u)); }
            }
            sum += part;
        }
    }
    leave_bias(lid, PANE_COLS4, first_col4, sum, to);
}
