// Winograd's F(2, 3): two neighbours of a sum over three weights, by 4 products instead of 6. Its matrices, and how tiles lie.
//
//         1  0 -1  0           1    0    0            1  1  1  0
//   B^T = 0  1  1  0      G = 1/2  1/2  1/2     A^T = 0  1 -1 -1
//         0 -1  1  0          1/2 -1/2  1/2
//         0  1  0 -1           0    0    1
//
// y = A^T [(G g) * (B^T d)], for three weights g and the four pixels d under two pixels of y. Why it is right: (1 a a^2) are the
// values of a polynomial at a point a; the points 0, 1, -1 and infinity of x times those of w are those of their product, and
// A reads its coefficients off.
//
// A tile of y is two pixels wide, and this is its transform along a row. Along a column it is the same, for tiles of 2x2
// pixels (winograd_fused), or that for four pixels (lib/winograd_tall).
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

/// B^T times four numbers, four times: for the tiles of a quad, or for four channels.
fn of_pixels(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> array<vec4<f32>, 4> {
    return array<vec4<f32>, 4>(a - c, b + c, c - b, b - d);
}
