// The tile engine through workgroup memory: the tiles and functions of lib/gemm_tile, but what the invocations of a workgroup
// need is read from memory once for all of them.
//
//      BLOCK tiles side by side          A workgroup owns a block of 64 tiles. It takes SLAB numbers of k of one tap at a time:
//     +----+----+----+----+
//     | t  | t  | t  | t  |              1. Each invocation reads four rows x four k of a, and some vectors of b, and leaves
//     +----+----+----+----+                 them in workgroup memory: a by columns, as vectors of four rows.
//     | t  | t  | t  | t  |              2. Each invocation adds up its own tile from there: for each k, TILE_M + 4 * TILE_N
//     +----+----+----+----+                 numbers are read for TILE_M * 4 * TILE_N multiply-adds.
//
// a is read (and normalised, if that is what load_columns does) once per block instead of once per tile. All loops over registers
// have constant bounds: the reads of a slab are under way together.
//
// A small image has few blocks, too few for a GPU. With SPLIT = 4 a workgroup has four times 64 invocations, each part adds up
// every fourth slab, and the first part adds up the four.
//
// The including file has what lib/gemm_tile asks for, with load_columns(places, k), the numbers k..k+3 of four rows, in the place of
// load_a (lib/gemm_columns), and the taps that the rows of a block see (lib/all_taps, lib/conv2d_order); gemm_depth divides by 4 and
// is largest for tap 0.

const TILE_M: u32 = 8u; // @tune 4 8
const TILE_N: u32 = 2u; // @tune 1 2
const BLOCK: u32 = 8u; // @tune 1 2 4 8
const SPLIT: u32 = 1u; // @tune 1 4

// Terms added up before they join the sum, as in lib/tile_constants.
const SUM_TERMS: u32 = 64u;

const OUTSIDE: u32 = 0xffffffffu;

const TILES: u32 = 64u;
/// Invocations of a workgroup.
const GROUP: u32 = TILES * SPLIT;
/// Vectors of four rows, and of four columns, of a block.
const ROWS4: u32 = TILES / BLOCK * TILE_M / 4u;
const COLS4: u32 = BLOCK * TILE_N;
/// Numbers of k that a part has in workgroup memory: one slab is four rows x four k of a for each invocation, or for every second.
const SLAB: u32 = 2u * BLOCK;
const SLAB4: u32 = SLAB / 4u;
/// Vectors of b that an invocation reads of a slab, the last of them not all.
const B_READS: u32 = (SLAB * COLS4 + TILES - 1u) / TILES;

/// One vector of four rows or columns in workgroup memory: its numbers of the slab, four k at a time. One vector more than there
/// are, so that what neighbours read and write at a time lies in different banks.
struct Strip {
    k: array<array<vec4<f32>, 4>, SLAB4>,
    unused: vec4<f32>,
}
var<workgroup> slab_a: array<array<Strip, ROWS4>, SPLIT>; // [part][four rows]
var<workgroup> slab_b: array<array<Strip, COLS4>, SPLIT>; // [part][vector of a tile, tile]

/// The sums of a tile: matrices, of which m[i] is row i of four columns. By name: what nobody can index, no compiler moves to
/// memory. A tile of 4 x 4 has the first only.
struct Sums {
    upper_left: mat4x4<f32>,
    upper_right: mat4x4<f32>,
    lower_left: mat4x4<f32>,
    lower_right: mat4x4<f32>,
}
const LARGE: bool = TILE_M > 4u;

/// What one k adds to four rows of four columns.
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> { return mat4x4<f32>(a.x * b, a.y * b, a.z * b, a.w * b); }

/// Tiles side by side in the whole picture.
fn tiles_across() -> u32 { return gemm_cols() / (4u * TILE_N); }

/// Tiles side by side in a workgroup.
fn group_side() -> u32 { return BLOCK; }

fn blocks_across() -> u32 { return (tiles_across() + BLOCK - 1u) / BLOCK; }

/// Workgroups that cover the picture.
fn gemm_groups() -> u32 { return (gemm_rows() + 4u * ROWS4 - 1u) / (4u * ROWS4) * blocks_across(); }
fn sums_groups() -> u32 { return gemm_groups(); }

/// Row and column of an invocation's tile, counted in tiles.
fn tile_place(group: u32, lid: u32) -> vec2<u32> {
    let tile = lid % TILES;
    return vec2((group / blocks_across()) * (TILES / BLOCK) + tile / BLOCK, (group % blocks_across()) * BLOCK + tile % BLOCK);
}

/// Adds the products of a slab.
fn multiply_slab(part: u32, tile: u32, sums: ptr<function, Sums>) {
    let row4 = (tile / BLOCK) * (TILE_M / 4u);
    let col4 = tile % BLOCK;
    for (var k4 = 0u; k4 < SLAB4; k4++) {
        for (var i = 0u; i < 4u; i++) {
            let a = slab_a[part][row4].k[k4][i];
            let b = slab_b[part][col4].k[k4][i];
            (*sums).upper_left += outer(a, b);
            if LARGE {
                let below = slab_a[part][row4 + 1u].k[k4][i];
                let right = slab_b[part][BLOCK + col4].k[k4][i];
                (*sums).upper_right += outer(a, right);
                (*sums).lower_left += outer(below, b);
                (*sums).lower_right += outer(below, right);
            }
        }
    }
}

/// Where vector c of a row of b stands in its row of workgroup memory: vector j of each tile beside vector j of the next one, so
/// that neighbours read neighbours.
fn place_of_b(c: u32) -> u32 { return (c % TILE_N) * BLOCK + c / TILE_N; }

/// Adds the terms to the sums, and begins new ones.
fn join(sums: ptr<function, Sums>, terms: ptr<function, Sums>) {
    (*sums).upper_left += (*terms).upper_left;
    if LARGE {
        (*sums).upper_right += (*terms).upper_right;
        (*sums).lower_left += (*terms).lower_left;
        (*sums).lower_right += (*terms).lower_right;
    }
    *terms = Sums();
}

/// Adds the sums of the other parts to those of the first, one after the other through workgroup memory. Tiles of 4 x 4: their four
/// vectors stand where a strip has four k.
fn join_parts(part: u32, tile: u32, sums: ptr<function, Sums>) {
    let strip = tile / SLAB4;
    let to = &slab_a[strip / ROWS4][strip % ROWS4].k[tile % SLAB4];
    for (var other = 1u; other < SPLIT; other++) {
        workgroupBarrier(); // nobody reads workgroup memory any more
        let own = (*sums).upper_left;
        if part == other { *to = array<vec4<f32>, 4>(own[0], own[1], own[2], own[3]); }
        workgroupBarrier(); // the sums of this part are in
        if part == 0u { (*sums).upper_left += mat4x4<f32>((*to)[0], (*to)[1], (*to)[2], (*to)[3]); }
    }
}

/// The places of four rows at a tap.
fn locate4(origins: array<vec3<i32>, 4>, tap: u32) -> vec4<u32> {
    return vec4(locate(origins[0], tap), locate(origins[1], tap), locate(origins[2], tap), locate(origins[3], tap));
}

fn gemm(group: u32, lid: u32) {
    let part = lid / TILES;
    let tile = lid % TILES;
    // What this invocation reads of a slab: four k of four rows, and every TILES / COLS4-th k of a vector of columns. Rows past the
    // end are computed from the last one, and not stored.
    let first_row = (group / blocks_across()) * (4u * ROWS4);
    let row4 = min(tile / SLAB4, ROWS4 - 1u);
    let k4 = tile % SLAB4;
    let last_row = gemm_rows() - 1u;
    let row = first_row + 4u * row4;
    let origins = array<vec3<i32>, 4>(
        origin(min(row, last_row)), origin(min(row + 1u, last_row)),
        origin(min(row + 2u, last_row)), origin(min(row + 3u, last_row)),
    );
    let col4 = min((group % blocks_across()) * COLS4 + tile % COLS4, gemm_cols() / 4u - 1u);
    let b_row = tile / COLS4;

    let taps = taps_of(first_row, min(first_row + 4u * ROWS4 - 1u, last_row));
    let slabs = (gemm_depth(0u) + SLAB - 1u) / SLAB; // of a tap
    let turns = (taps.count * slabs + SPLIT - 1u) / SPLIT;
    var nth = part / slabs;
    var slab = part % slabs;
    var tap: u32;
    var places: vec4<u32>; // of the rows, at this tap
    var located = OUTSIDE;
    var sums: Sums;
    var terms: Sums;
    for (var turn = 0u; turn < turns; turn++) {
        let here = min(nth, taps.count - 1u);
        if located != here {
            located = here;
            tap = nth_tap(taps, here);
            places = locate4(origins, tap);
        }
        let first = slab * SLAB;
        let last = gemm_depth(tap);
        let depth = select(0u, last, nth < taps.count); // past the end b is 0
        let k = min(first + 4u * k4, last - 4u);
        let columns = load_columns(places, k);
        var b: array<vec4<f32>, B_READS>;
        for (var i = 0u; i < B_READS; i++) {
            let b_k = first + b_row + i * (TILES / COLS4);
            b[i] = select(vec4(0.0), load_b(tap, min(b_k, last - 1u), col4), vec4(b_k < depth));
        }
        workgroupBarrier(); // nobody reads the slab before any more
        if tile / SLAB4 < ROWS4 {
            slab_a[part][row4].k[k4] = array<vec4<f32>, 4>(columns[0], columns[1], columns[2], columns[3]);
        }
        leave_b(part, tile, b);
        workgroupBarrier(); // the slab is whole
        multiply_slab(part, tile, &terms);
        if (turn + 1u) % (SUM_TERMS / SLAB) == 0u { join(&sums, &terms); }
        for (var i = 0u; i < SPLIT; i++) { // past the slabs of the other parts, without a division
            slab++;
            if slab == slabs {
                slab = 0u;
                nth++;
            }
        }
    }
    join(&sums, &terms);
    join_parts(part, tile, &sums);
    let place = tile_place(group, lid);
    if part > 0u || place.y >= tiles_across() { return; }
    let y_row = place.x * TILE_M;
    let y_col4 = place.y * TILE_N;
    store_rows(y_row, y_col4, sums.upper_left, sums.upper_right);
    if LARGE { store_rows(y_row + 4u, y_col4, sums.lower_left, sums.lower_right); }
}

/// Leaves what an invocation has read of b in workgroup memory.
fn leave_b(part: u32, tile: u32, b: array<vec4<f32>, B_READS>) {
    let strip = place_of_b(tile % COLS4);
    for (var i = 0u; i < B_READS; i++) {
        let k = tile / COLS4 + i * (TILES / COLS4);
        if k < SLAB { slab_b[part][strip].k[k / 4u][k % 4u] = b[i]; }
    }
}

fn store_rows(row: u32, col4: u32, left: mat4x4<f32>, right: mat4x4<f32>) {
    store_row(row, col4, left[0], right[0]);
    store_row(row + 1u, col4, left[1], right[1]);
    store_row(row + 2u, col4, left[2], right[2]);
    store_row(row + 3u, col4, left[3], right[3]);
}

fn store_row(row: u32, col4: u32, left: vec4<f32>, right: vec4<f32>) {
    if row >= gemm_rows() { return; }
    store(row, col4, left);
    if LARGE { store(row, col4 + 1u, right); }
}

/// As gemm, for a kernel that then sums something up of the workgroup's tiles.
fn gemm_for_sums(group: u32, lid: u32) { gemm(group, lid); }
