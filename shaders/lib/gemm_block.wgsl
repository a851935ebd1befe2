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
// a is read (and normalised, if that is what load_a4 does) once per block instead of once per tile. All loops over registers
// have constant bounds: the reads of a slab are under way together.
//
// A small image has few blocks, too few for a GPU. With SPLIT = 4 a workgroup has four times 64 invocations, each part adds up
// every fourth slab, and the first part adds up the four.
//
// The including file has what lib/gemm_tile asks for, with load_a4(at, k), the numbers k..k+3 of a row, in the place of load_a;
// gemm_depth divides by 4 and is largest for tap 0.

const TILE_M: u32 = 8u; // @tune 4 8
const TILE_N: u32 = 2u; // @tune 1 2
const BLOCK: u32 = 8u; // @tune 1 2 4 8
const SPLIT: u32 = 1u; // @tune 1 4

// Terms added up before they join the sum, as in lib/gemm_tile.
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

var<workgroup> slab_a: array<vec4<f32>, SPLIT * SLAB * ROWS4>; // [part][k][rows]
var<workgroup> slab_b: array<vec4<f32>, SPLIT * SLAB * COLS4>; // [part][k][vector of a tile][tile]

alias Sums = array<array<vec4<f32>, TILE_N>, TILE_M>;

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
    for (var k = 0u; k < SLAB; k++) {
        var b: array<vec4<f32>, TILE_N>;
        for (var j = 0u; j < TILE_N; j++) { b[j] = slab_b[(part * SLAB + k) * COLS4 + j * BLOCK + tile % BLOCK]; }
        for (var m = 0u; m < TILE_M; m += 4u) {
            let a = slab_a[(part * SLAB + k) * ROWS4 + (tile / BLOCK) * (TILE_M / 4u) + m / 4u];
            for (var i = 0u; i < 4u; i++) {
                for (var j = 0u; j < TILE_N; j++) { (*sums)[m + i][j] += a[i] * b[j]; }
            }
        }
    }
}

/// Where vector c of a row of b stands in its row of workgroup memory: vector j of each tile beside vector j of the next one, so
/// that neighbours read neighbours.
fn place_of_b(c: u32) -> u32 { return (c % TILE_N) * BLOCK + c / TILE_N; }

fn join(sums: ptr<function, Sums>, terms: ptr<function, Sums>) {
    for (var m = 0u; m < TILE_M; m++) {
        for (var j = 0u; j < TILE_N; j++) {
            (*sums)[m][j] += (*terms)[m][j];
            (*terms)[m][j] = vec4(0.0);
        }
    }
}

/// Adds the sums of the other parts to those of the first, one after the other through workgroup memory.
fn join_parts(part: u32, tile: u32, sums: ptr<function, Sums>) {
    for (var other = 1u; other < SPLIT; other++) {
        workgroupBarrier(); // nobody reads workgroup memory any more
        for (var m = 0u; m < TILE_M; m++) {
            for (var j = 0u; j < TILE_N; j++) {
                if part == other { slab_a[(m * TILE_N + j) * TILES + tile] = (*sums)[m][j]; }
            }
        }
        workgroupBarrier(); // the sums of this part are in
        for (var m = 0u; m < TILE_M; m++) {
            for (var j = 0u; j < TILE_N; j++) {
                if part == 0u { (*sums)[m][j] += slab_a[(m * TILE_N + j) * TILES + tile]; }
            }
        }
    }
}

fn gemm(group: u32, lid: u32) {
    let part = lid / TILES;
    let tile = lid % TILES;
    let cols4 = gemm_cols() / 4u;
    let first_row = (group / blocks_across()) * (4u * ROWS4);
    let first_col4 = (group % blocks_across()) * COLS4;
    // The four rows, and the four k of a slab, that this invocation reads. Rows past the end are computed from the last one, and
    // not stored.
    let row4 = min(tile / SLAB4, ROWS4 - 1u);
    let k4 = tile % SLAB4;
    var origins: array<vec3<i32>, 4>;
    for (var i = 0u; i < 4u; i++) { origins[i] = origin(min(first_row + 4u * row4 + i, gemm_rows() - 1u)); }

    let slabs = (gemm_depth(0u) + SLAB - 1u) / SLAB; // of a tap
    let steps = gemm_taps() * slabs;
    let turns = (steps + SPLIT - 1u) / SPLIT;
    var sums: Sums;
    var terms: Sums;
    for (var turn = 0u; turn < turns; turn++) {
        let step = turn * SPLIT + part;
        let tap = min(step / slabs, gemm_taps() - 1u);
        let first = (step % slabs) * SLAB;
        let last = gemm_depth(tap);
        let depth = select(0u, last, step < steps); // past the end b is 0
        var rows: array<vec4<f32>, 4>;
        for (var i = 0u; i < 4u; i++) { rows[i] = load_a4(locate(origins[i], tap), min(first + 4u * k4, last - 4u)); }
        var b: array<vec4<f32>, B_READS>;
        for (var i = 0u; i < B_READS; i++) {
            let k = first + (tile + i * TILES) / COLS4;
            let col4 = min(first_col4 + (tile + i * TILES) % COLS4, cols4 - 1u);
            b[i] = select(vec4(0.0), load_b(tap, min(k, last - 1u), col4), vec4(k < depth));
        }
        workgroupBarrier(); // nobody reads the slab before any more
        if tile / SLAB4 < ROWS4 {
            for (var i = 0u; i < 4u; i++) {
                let column = vec4(rows[0][i], rows[1][i], rows[2][i], rows[3][i]);
                slab_a[(part * SLAB + 4u * k4 + i) * ROWS4 + row4] = column;
            }
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
    let place = tile_place(group, lid);
    if part > 0u || place.y >= tiles_across() { return; }
    for (var m = 0u; m < TILE_M; m++) {
        let row = place.x * TILE_M + m;
        if row < gemm_rows() {
            for (var j = 0u; j < TILE_N; j++) { store(row, place.y * TILE_N + j, sums[m][j]); }
        }
    }
}

/// As gemm, for a kernel that then sums something up of the workgroup's tiles.
fn gemm_for_sums(group: u32, lid: u32) { gemm(group, lid); }
