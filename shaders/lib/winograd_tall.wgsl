// Winograd's F(4, 3) along the columns of tiles of 4x2 pixels: four neighbours of a sum over three weights, by 6 products instead
// of 12. With F(2, 3) along the rows (lib/winograd) that is F(4x2, 3x3): 24 products for a tile, where the plain sum takes 72.
//
//         9/16   0   -5/2   0    1   0           16/9   0     0             1   1    1    1     1   0
//          0   -9/8  -9/4  1/2   1   0            -1  -1/2  -1/4      A^T = 0  1/2 -1/2  3/2  -3/2  0
//   B^T =  0    9/8  -9/4 -1/2   1   0       G =  -1   1/2  -1/4            0  1/4  1/4  9/4   9/4  0
//          0   -3/8  -1/4  3/2   1   0            1/9  1/6   1/4            0  1/8 -1/8 27/8 -27/8  1
//          0    3/8  -1/4 -3/2   1   0            1/9 -1/6   1/4
//          0    9/16   0   -5/2  0   1             0    0     1
//
// The points are 0, 1/2, -1/2, 3/2, -3/2 and infinity. Rounding errors grow with the numbers in these matrices: with these points they
// are 1.9 times those of F(2x2, 3x3); with 0, 1, -1, 2 and -2, which most programs take, 2.7 times; of F(4x4, 3x3) 3.5
// times (root mean square, 16 to 256 channels). The numbers of A and B are exact in f32.
//
// The including file has v_out4, where V goes.
//
// In two rows of B, A or G that differ by signs only, the even terms are the same and the odd ones the opposite: both are
// made once.

/// Rows of pixels of a tile of y.
const TILE_ROWS: u32 = 4u;
/// Rows of pixels of x under it, and products along a column.
const TALL: u32 = 6u;
/// Products for one tile, ci and co: f = TALL * fx + fy, with fx along the row.
const FREQUENCIES: u32 = 4u * TALL;

/// B^T times six numbers, four times: for the tiles of a quad, or for four channels.
fn of_tall_pixels(d: array<vec4<f32>, TALL>) -> array<vec4<f32>, TALL> {
    let even1 = d[4] - 2.25 * d[2];
    let odd1 = 0.5 * (d[3] - 2.25 * d[1]);
    let even3 = d[4] - 0.25 * d[2];
    let odd3 = 1.5 * (d[3] - 0.25 * d[1]);
    return array<vec4<f32>, TALL>(
        0.5625 * d[0] - 2.5 * d[2] + d[4],
        even1 + odd1,
        even1 - odd1,
        even3 + odd3,
        even3 - odd3,
        0.5625 * d[1] - 2.5 * d[3] + d[5],
    );
}

/// The second half of V = B^T d B, from rows to which B has been applied: `at` is its place among the `plane` vectors of each f.
fn leave_v(rows: ptr<function, array<array<vec4<f32>, 4>, TALL>>, plane: u32, at: u32) {
    for (var fx = 0u; fx < 4u; fx++) {
        var column: array<vec4<f32>, TALL>;
        for (var r = 0u; r < TALL; r++) { column[r] = (*rows)[r][fx]; }
        let v = of_tall_pixels(column);
        for (var fy = 0u; fy < TALL; fy++) { v_out4[(TALL * fx + fy) * plane + at] = v[fy]; }
    }
}
