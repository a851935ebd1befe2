// The tile engine (lib/gemm_tile) with workgroup memory: the same tiles and functions of the including file, but what the
// invocations of a workgroup need is read from memory once for all of them.
//
//              `side` tiles side by side            A workgroup owns a block of tiles. For each tap, SLAB numbers of k at
//             +----+----+----+----+                 a time, it reads the block's part of a and b into workgroup memory;
//    `above`  | t  | t  | t  | t  |  one workgroup  then each invocation adds up its own tile from there.
//    tiles    +----+----+----+----+
//             | t  | t  | t  | t  |                 a is read (and normalised, if that is what load_a does) once per
//             +----+----+----+----+                 block instead of once per tile: 2 to 8 times less often.
//
// Sums have the order of gemm_tile: the same bits.

// Numbers of k that are in workgroup memory at a time.
const SLAB: u32 = 8u;
// Tiles side by side at most. Where there are few columns the block is higher: 64 tiles in any case.
const MOST_SIDE: u32 = 8u;
// Rows of the highest block, which is two tiles wide, and a few more: so the SLAB numbers of one row, which neighbouring
// invocations write, stand in different banks of the memory.
const HIGHEST: u32 = TILE_M * 32u;
const A_STRIDE: u32 = HIGHEST + 4u;
const B_STRIDE: u32 = MOST_SIDE * TILE_N;

var<workgroup> shared_at: array<u32, HIGHEST>;
var<workgroup> shared_a: array<f32, SLAB * A_STRIDE>;
var<workgroup> shared_b: array<vec4<f32>, SLAB * B_STRIDE>;

/// Tiles side by side in a block; the host counts with the same numbers.
fn block_side() -> u32 {
    let tiles = gemm_cols() / (4u * TILE_N);
    return select(select(2u, 4u, tiles >= 4u), 8u, tiles >= 8u);
}

fn gemm_shared(block: u32, lid: u32) {
    let side = block_side();
    let rows = TILE_M * (WG / side);
    let col_tiles = gemm_cols() / (4u * TILE_N);
    let blocks_side = (col_tiles + side - 1u) / side;
    let first_tile = (block % blocks_side) * side;
    let first_row = (block / blocks_side) * rows;
    let tile_row = (lid / side) * TILE_M; // within the block
    let tile_col = lid % side;

    var acc: array<array<vec4<f32>, TILE_N>, TILE_M>;
    let taps = gemm_taps();
    for (var tap = 0u; tap < taps; tap++) {
        // Rows and columns past the end are computed from the last ones, and not stored.
        for (var r = lid; r < rows; r += WG) {
            shared_at[r] = locate(origin(min(first_row + r, gemm_rows() - 1u)), tap);
        }
        workgroupBarrier(); // shared_at is whole
        let depth = gemm_depth(tap);
        var part: array<array<vec4<f32>, TILE_N>, TILE_M>;
        for (var first = 0u; first < depth; first += SLAB) {
            for (var i = lid; i < rows * SLAB; i += WG) {
                // Past the end b is 0.
                let k = min(first + i % SLAB, depth - 1u);
                shared_a[(i % SLAB) * A_STRIDE + i / SLAB] = load_a(shared_at[i / SLAB], k);
            }
            for (var i = lid; i < SLAB * side * TILE_N; i += WG) {
                let c = i % (side * TILE_N);
                let k = first + i / (side * TILE_N);
                let col4 = min(first_tile * TILE_N + c, col_tiles * TILE_N - 1u);
                // Vector j of each tile beside vector j of the next one: neighbours read neighbours.
                let to = (i / (side * TILE_N)) * B_STRIDE + (c % TILE_N) * MOST_SIDE + c / TILE_N;
                shared_b[to] = select(vec4(0.0), load_b(tap, min(k, depth - 1u), col4), vec4(k < depth));
            }
            workgroupBarrier(); // the slab is whole
            for (var k = 0u; k < SLAB; k++) {
                var b: array<vec4<f32>, TILE_N>;
                for (var j = 0u; j < TILE_N; j++) { b[j] = shared_b[k * B_STRIDE + j * MOST_SIDE + tile_col]; }
                for (var m = 0u; m < TILE_M; m++) {
                    let a = shared_a[k * A_STRIDE + tile_row + m];
                    for (var j = 0u; j < TILE_N; j++) { part[m][j] += a * b[j]; }
                }
            }
            workgroupBarrier(); // nobody reads the slab any more
            if (first + SLAB) % SUM_TERMS == 0u || first + SLAB >= depth {
                for (var m = 0u; m < TILE_M; m++) {
                    for (var j = 0u; j < TILE_N; j++) {
                        acc[m][j] += part[m][j];
                        part[m][j] = vec4(0.0);
                    }
                }
            }
        }
    }
    if first_tile + tile_col >= col_tiles { return; }
    for (var m = 0u; m < TILE_M; m++) {
        let row = first_row + tile_row + m;
        if row < gemm_rows() {
            for (var j = 0u; j < TILE_N; j++) { store(row, (first_tile + tile_col) * TILE_N + j, acc[m][j]); }
        }
    }
}
