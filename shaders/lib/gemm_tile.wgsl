// The tile engine of everything that looks like a matrix product.
//
//   y[row, col] = sum over taps and k of  a(row, tap, k) * b(tap, k, col)
//
//            col tile: 4 * TILE_N columns           One invocation owns TILE_M x 4*TILE_N outputs in registers.
//           +----+----+                             For each (tap, k) it loads TILE_M numbers of a and TILE_N
//   row     | v4 | v4 |  <- acc[m][0..TILE_N]       vectors of b, and adds their outer product.
//   tile    | v4 | v4 |                             Neighbouring invocations take neighbouring column tiles,
//   TILE_M  | v4 | v4 |                             so that they read the same a and consecutive b.
//           +----+----+
//
// The including file says what a and b are, and where the result goes:
//   gemm_rows(), gemm_cols(), gemm_taps(), gemm_depth(tap)  extents; columns divide by 4 * TILE_N
//   origin(row) -> vec3<i32>                                whatever of the row does not depend on the tap
//   locate(origin, tap) -> u32                              where a's k = 0 stands, or OUTSIDE: a is 0 there
//   load_a(at, k) -> f32,  load_b(tap, k, col4) -> vec4     col4 counts vectors of four columns
//   store(row, col4, value)                                 bias, residual, ...
//
// Divisions stay in origin and locate, out of the loop over k. Neighbours that read the same a may share it (lib/lanes_apart,
// lib/lanes_together).
//
// `// @include gemm` stands for this file, or for lib/gemm_block, which goes through workgroup memory: with BLOCK above 1.
// @include tile_constants
// @include lanes
// @include tile_places

const OUTSIDE: u32 = 0xffffffffu;

fn gemm_tile(tile: u32) {
    let col_tiles = gemm_cols() / (4u * TILE_N);
    let col4 = (tile % col_tiles) * TILE_N;
    let row = (tile / col_tiles) * TILE_M;
    let lanes = lanes_of(row, col_tiles);
    if row >= gemm_rows() { return; } // with all that share

    var acc: array<array<vec4<f32>, TILE_N>, TILE_M>;
    var origins: array<vec3<i32>, TILE_M>;
    for (var m = 0u; m < TILE_M; m++) {
        origins[m] = origin(min(row + m, gemm_rows() - 1u));
    }
    let taps = gemm_taps();
    for (var tap = 0u; tap < taps; tap++) {
        var at: array<u32, TILE_M>;
        var nothing = true; // to read: as at a tap that none of these pixels sees, because the stride leaves it out
        for (var m = 0u; m < TILE_M; m++) {
            at[m] = locate(origins[m], tap);
            nothing = nothing && at[m] == OUTSIDE;
        }
        if nothing { continue; } // with all that share
        let depth = gemm_depth(tap);
        for (var first = 0u; first < depth; first += SUM_TERMS) {
            var part: array<array<vec4<f32>, TILE_N>, TILE_M>;
            let end = min(first + SUM_TERMS, depth);
            for (var slab = first; slab < end; slab += lanes.side) {
                var own: array<f32, TILE_M>; // of this lane's k
                for (var m = 0u; m < TILE_M; m++) { own[m] = load_a(at[m], min(slab + lanes.mine, end - 1u)); }
                let steps = shared_steps(lanes, end - slab);
                for (var i = 0u; i < steps; i++) {
                    var b: array<vec4<f32>, TILE_N>;
                    for (var j = 0u; j < TILE_N; j++) { b[j] = load_b(tap, slab + i, col4 + j); }
                    for (var m = 0u; m < TILE_M; m++) {
                        let a = of_step(lanes, i, own[m]);
                        for (var j = 0u; j < TILE_N; j++) { part[m][j] += a * b[j]; }
                    }
                }
            }
            for (var m = 0u; m < TILE_M; m++) {
                for (var j = 0u; j < TILE_N; j++) { acc[m][j] += part[m][j]; }
            }
        }
    }
    for (var m = 0u; m < TILE_M; m++) {
        if row + m < gemm_rows() {
            for (var j = 0u; j < TILE_N; j++) { store(row + m, col4 + j, acc[m][j]); }
        }
    }
}

/// Workgroups that cover the picture: tiles one after the other, row by row.
fn gemm_groups() -> u32 { return ((gemm_rows() + TILE_M - 1u) / TILE_M * tiles_across() + WG - 1u) / WG; }

fn gemm(group: u32, lid: u32) { gemm_tile(group * WG + lid); }

/// As gemm, for a kernel that then sums something up of the workgroup's tiles (lib/tile_places).
fn gemm_for_sums(group: u32, lid: u32) {
    let place = tile_place(group, lid);
    gemm_tile(place.x * tiles_across() + place.y);
}
