// The weight gradient by blocks on matrix units (lib/matrix_block): lib/weight_block, with the functions that it asks for, for
// images of 16-bit floats.
// @include matrix_block
// @include weight_sums

/// What an invocation reads: its rows and columns, and the k that comes next.
struct WeightWalk {
    rows: array<RowSource, SLAB_A4>,
    col4: array<u32, SLAB_B4>,
    k: u32,
    term: Term, // that k stands for
}

/// What it has read of a slab, by k.
struct WeightSlab {
    a: array<mat4x4<f32>, SLAB_A4>,
    b: array<mat4x4<f32>, SLAB_B4>,
}

/// Past the last row and column the last ones are computed, and not stored.
fn begin_weights(p: Params, lid: u32, first_row: u32, first_col4: u32, first: u32, to: Destination) -> WeightWalk {
    var walk: WeightWalk;
    for (var i = 0u; i < SLAB_A4; i++) {
        let row = first_row + spread(4u * (lid / DEPTH4 + i * APART), UNIT);
        walk.rows[i] = row_source(p, min(row, to.rows - 4u));
    }
    for (var i = 0u; i < SLAB_B4; i++) {
        walk.col4[i] = min(first_col4 + column4(lid, i), to.cols4 - 1u);
    }
    walk.k = first + 4u * (lid % DEPTH4);
    walk.term = term_of(p, walk.k);
    return walk;
}

/// Reads a slab and goes on to the next. All reads are under way together: the bounds of these loops are constant.
fn read_weights(p: Params, walk: ptr<function, WeightWalk>, end: u32) -> WeightSlab {
    var slab: WeightSlab;
    for (var j = 0u; j < 4u; j++) {
        let k = (*walk).k + j;
        if k >= end { (*walk).term = term_of(p, end - 1u); } // past the end a is 0
        for (var i = 0u; i < SLAB_A4; i++) {
            slab.a[i][j] = select(vec4(0.0), row_quad(p, (*walk).rows[i], (*walk).term), vec4(k < end));
        }
        for (var i = 0u; i < SLAB_B4; i++) {
            slab.b[i][j] = column_quad(p, column_source(p, (*walk).col4[i]), min(k, end - 1u));
        }
        (*walk).term = later(p, (*walk).term, select(1u, DEPTH - 3u, j == 3u));
    }
    (*walk).k += DEPTH;
    return slab;
}

/// Leaves it in workgroup memory.
fn leave_weights(lid: u32, slab: WeightSlab) {
    for (var i = 0u; i < SLAB_A4; i++) { put_turned_a(4u * (lid / DEPTH4 + i * APART), lid % DEPTH4, slab.a[i]); }
    for (var i = 0u; i < SLAB_B4; i++) { put_turned_b(4u * (lid / DEPTH4 + i * APART), lid % DEPTH4, slab.b[i]); }
}

/// The block with these first rows and columns, summed over first <= k < end.
fn weight_matrix(p: Params, me: Invocation, first_row: u32, first_col4: u32, first: u32, end: u32, to: Destination) {
    let slabs = (end - first + DEPTH - 1u) / DEPTH;
    for (var first_panel = 0u; first_panel < PANELS; first_panel += panels_together(me)) {
        let panel = panel_of(me, first_panel);
        var sums: Panel;
        var more: Panel; // of the panel behind it
        var walk = begin_weights(p, me.lid, first_row, first_col4, first, to);
        for (var slab = 0u; slab < slabs + 1u; slab++) {
            let next = read_weights(p, &walk, end); // on its way while the slab before is multiplied
            multiply_panels(me, panel, &sums, &more);
            if slab == 0u { // there was none before
                sums = Panel();
                more = Panel();
            }
            workgroupBarrier(); // nobody reads the slab before any more
            leave_weights(me.lid, next); // behind the last slab one that nobody multiplies
            workgroupBarrier(); // the slab is whole
        }
        let mine = tile_sums(me, panel, sums, more);
        if is_of_turn(me, first_panel) {
            let tile = matrix_tile(me.lid);
            let r = first_row + 8u * tile.x;
            let col4 = first_col4 + 2u * tile.y;
            store_weights(to, r, col4, mine.upper_left);
            store_weights(to, r, col4 + 1u, mine.upper_right);
            store_weights(to, r + 4u, col4, mine.lower_left);
            store_weights(to, r + 4u, col4 + 1u, mine.lower_right);
        }
    }
}
