// Winograd's F(2x2, 3x3) for tiles of 2x2 pixels: its matrices, and the transform that forward (lib/winograd_forward has the rest)
// and the weight gradient (winograd_weight.wgsl) have in common.
//
//         1  0 -1  0           1    0    0            1  1  1  0
//   B^T = 0  1  1  0      G = 1/2  1/2  1/2     A^T = 0  1 -1 -1
//         0 -1  1  0          1/2 -1/2  1/2
//         0  1  0 -1           0    0    1
//
// Why it is right, in one dimension: (1 a a^2) are the values of a polynomial at a point a; the points 0, 1, -1 and
// infinity of x times those of w are those of their product, and A reads its coefficients off.
//
//   x: tiles overlap by two          y: tiles side by side; four in a row are a quad
//   +-----+-----+-----+-----+-----+     +-----+-----+-----+-----+
//   |     :     |     :     |     |     |     |     |     |     |
//   + . . t . . +           +     +     |  t  | t+1 | t+2 | t+3 |
//   |     :     |     :     |     |     |     |     |     |     |
//   +-----+-----+-----+-----+-----+     +-----+-----+-----+-----+
//    2 pixels                            2 pixels
//
// Tiles past the edge of y are computed with the others and not stored.

/// Products for one tile, ci and co.
const FREQUENCIES: u32 = 16u;

/// B^T times four numbers, four times: for the tiles of a quad, or for four channels.
fn of_pixels(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> array<vec4<f32>, 4> {
    return array<vec4<f32>, 4>(a - c, b + c, c - b, b - d);
}
