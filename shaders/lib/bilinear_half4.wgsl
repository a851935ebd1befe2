// Bilinear upsampling by 2 and its gradient, four channels at a time, by the half-pixel rule of lib/bilinear, whose weights are
// the same for all pixels.
//
// The including file has in_h, in_w and channels in its Params, x4, and says
//   gates()            whether the gradient depends on u, the upsampled x
//   passed4_by(at, u)  what of gy4[at] comes through to this u

/// Index next - 1, clamped to the axis.
fn inside(next: u32, extent: u32) -> u32 {
    return clamp(next, 1u, extent) - 1u;
}

/// u of the 2x2 block whose corner is (2iy, 2ix), in row order; row is (n, iy).
fn block4(row: u32, iy: u32, ix: u32, c: u32) -> array<vec4<f32>, 4> {
    let quads = params.channels / 4u;
    let left = inside(ix, params.in_w);
    let right = inside(ix + 2u, params.in_w);
    // Columns 2ix and 2ix + 1 of the rows above, here and below.
    var even: array<vec4<f32>, 3>;
    var odd: array<vec4<f32>, 3>;
    for (var k = 0u; k < 3u; k++) {
        let start = (row - iy + inside(iy + k, params.in_h)) * params.in_w;
        let here = 0.75 * vec4<f32>(x4[(start + ix) * quads + c]);
        even[k] = 0.25 * vec4<f32>(x4[(start + left) * quads + c]) + here;
        odd[k] = here + 0.25 * vec4<f32>(x4[(start + right) * quads + c]);
    }
    return array(
        0.25 * even[0] + 0.75 * even[1],
        0.25 * odd[0] + 0.75 * odd[1],
        0.75 * even[1] + 0.25 * even[2],
        0.75 * odd[1] + 0.25 * odd[2],
    );
}

/// The gradient of u gathered at input (iy, ix); row is (n, iy).
fn gathered_half4(row: u32, iy: u32, ix: u32, c: u32) -> vec4<f32> {
    let quads = params.channels / 4u;
    let out_w = 2u * params.in_w;
    let left = inside(2u * ix, out_w);
    let right = inside(2u * ix + 3u, out_w);

    // u in columns 2ix - 1 to 2ix + 2, of the rows of x above, here and below.
    var columns: array<array<vec4<f32>, 4>, 3>;
    if gates() {
        for (var k = 0u; k < 3u; k++) {
            let start = (row - iy + inside(iy + k, params.in_h)) * params.in_w;
            let before = vec4<f32>(x4[(start + inside(ix, params.in_w)) * quads + c]);
            let here = vec4<f32>(x4[(start + ix) * quads + c]);
            let after = vec4<f32>(x4[(start + inside(ix + 2u, params.in_w)) * quads + c]);
            columns[k][0] = 0.75 * before + 0.25 * here;
            columns[k][1] = 0.25 * before + 0.75 * here;
            columns[k][2] = 0.75 * here + 0.25 * after;
            columns[k][3] = 0.25 * here + 0.75 * after;
        }
    }
    var total = vec4(0.0);
    for (var k = 0u; k < 4u; k++) {
        let start = (2u * (row - iy) + inside(2u * iy + k, 2u * params.in_h)) * out_w;
        // Rows 2iy - 1 and 2iy lie between the upper two rows of x, the others between the lower two.
        let upper = columns[k / 2u];
        let lower = columns[k / 2u + 1u];
        let down = select(0.25, 0.75, k % 2u == 1u);
        var g: array<vec4<f32>, 4>;
        g[0] = passed4_by((start + left) * quads + c, mix(upper[0], lower[0], down));
        g[1] = passed4_by((start + 2u * ix) * quads + c, mix(upper[1], lower[1], down));
        g[2] = passed4_by((start + 2u * ix + 1u) * quads + c, mix(upper[2], lower[2], down));
        g[3] = passed4_by((start + right) * quads + c, mix(upper[3], lower[3], down));
        total += select(0.25, 0.75, k == 1u || k == 2u) * (0.75 * (g[1] + g[2]) + 0.25 * (g[0] + g[3]));
    }
    return total;
}
