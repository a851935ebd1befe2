// The tile engine (lib/gemm_tile) on matrix units: blocks of lib/matrix_block, of what the including file has for lib/gemm_tile, with
// load_a4(place, k), the numbers k..k+3 of a row, in the place of load_a. All taps have gemm_depth(0) terms, which divide by 4.
// @include matrix_block

/// What an invocation reads: its rows, where they are at a tap, and which slab of the tap comes next.
struct GemmWalk {
    origins: array<vec3<i32>, SLAB_A>,
    places: array<u32, SLAB_A>,
    col4: array<u32, SLAB_B4>,
    tap: u32,
    first: u32, // k of the slab
}

/// What it has read of a slab: a by rows, b by k.
struct GemmSlab {
    a: array<vec4<f32>, SLAB_A>,
    b: array<mat4x4<f32>, SLAB_B4>,
}

fn matrix_blocks_across() -> u32 { return (gemm_cols() + PANE_COLS - 1u) / PANE_COLS; }

/// Rows and columns past the end are computed from the last ones, and not stored.
fn begin_gemm(lid: u32, first_row: u32, first_col4: u32) -> GemmWalk {
    var walk: GemmWalk;
    for (var i = 0u; i < SLAB_A; i++) {
        let row = first_row + spread(lid / DEPTH4 + i * APART, UNIT);
        walk.origins[i] = origin(min(row, gemm_rows() - 1u));
        walk.places[i] = locate(walk.origins[i], 0u);
    }
    for (var i = 0u; i < SLAB_B4; i++) {
        walk.col4[i] = min(first_col4 + column4(lid, i), gemm_cols() / 4u - 1u);
    }
    return walk;
}

/// Reads the slab. All reads are under way together: the bounds of these loops are constant.
fn read_gemm(lid: u32, walk: ptr<function, GemmWalk>) -> GemmSlab {
    let last = gemm_depth(0u);
    let k = (*walk).first + 4u * (lid % DEPTH4);
    let at = min(k, last - 4u);
    let inside = vec4(k < last); // past the end b is 0
    var slab: GemmSlab;
    for (var i = 0u; i < SLAB_A; i++) { slab.a[i] = load_a4((*walk).places[i], at); }
    for (var i = 0u; i < SLAB_B4; i++) {
        let col4 = (*walk).col4[i];
        let tap = (*walk).tap;
        slab.b[i] = mat4x4<f32>(
            select(vec4(0.0), load_b(tap, at, col4), inside), select(vec4(0.0), load_b(tap, at + 1u, col4), inside),
            select(vec4(0.0), load_b(tap, at + 2u, col4), inside), select(vec4(0.0), load_b(tap, at + 3u, col4), inside),
        );
    }
    return slab;
}

/// Leaves it in workgroup memory.
fn leave_gemm(lid: u32, slab: GemmSlab) {
    let k4 = lid % DEPTH4;
    for (var i = 0u; i < SLAB_A; i++) { put_a((lid / DEPTH4 + i * APART) * STRIP + 4u * k4, Element4(slab.a[i])); }
    for (var i = 0u; i < SLAB_B4; i++) { put_turned_b(4u * (lid / DEPTH4 + i * APART), k4, slab.b[i]); }
}

/// Goes on to the next slab, of the next tap if this one has no more; behind the last one to the first of the last tap.
fn next_gemm(walk: ptr<function, GemmWalk>) {
    (*walk).first += DEPTH;
    if (*walk).first >= gemm_depth(0u) {
        (*walk).first = 0u;
        (*walk).tap = min((*walk).tap + 1u, gemm_taps() - 1u);
        for (var i = 0u; i < SLAB_A; i++) { (*walk).places[i] = locate((*walk).origins[i], (*walk).tap); }
    }
}

fn gemm_matrix(block: u32, me: Invocation) {
    let first_row = block / matrix_blocks_across() * PANE_ROWS;
    let first_col4 = block % matrix_blocks_across() * PANE_COLS4;
    let slabs = gemm_taps() * ((gemm_depth(0u) + DEPTH - 1u) / DEPTH);
    for (var first_panel = 0u; first_panel < PANELS; first_panel += panels_together(me)) {
        let panel = panel_of(me, first_panel);
        var sums: Panel;
        var more: Panel; // of the panel behind it
        var walk = begin_gemm(me.lid, first_row, first_col4);
        for (var slab = 0u; slab < slabs + 1u; slab++) {
            let next = read_gemm(me.lid, &walk); // on its way while the slab before is multiplied
            multiply_panels(me, panel, &sums, &more);
            if slab == 0u { // there was none before
                sums = Panel();
                more = Panel();
            }
            workgroupBarrier(); // nobody reads the slab before any more
            leave_gemm(me.lid, next); // behind the last slab one that nobody multiplies
            workgroupBarrier(); // the slab is whole
            next_gemm(&walk);
        }
        let mine = tile_sums(me, panel, sums, more);
        if is_of_turn(me, first_panel) {
            let tile = matrix_tile(me.lid);
            let row = first_row + 8u * tile.x;
            let col4 = first_col4 + 2u * tile.y;
            store_quarter(row, col4, mine.upper_left);
            store_quarter(row, col4 + 1u, mine.upper_right);
            store_quarter(row + 4u, col4, mine.lower_left);
            store_quarter(row + 4u, col4 + 1u, mine.lower_right);
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
