// Bilinear upsampling by 2: where outputs read, what they get, and the gradient's way back. Layout NHWC.
//
// Position of output o in the input, as a fraction of integers so that it is not rounded:
//   half pixel     max(2o - 1, 0) / 4               (the pixels' areas match; UNeXt)
//   align_corners  o * (in - 1) / (out - 1)         (the corner pixels' centres match; ResUNet)
// A neighbour beyond the far edge is the edge itself.
//
// Along one axis by the half-pixel rule:
//
//   x    i-1       i       i+1            y[2i]   = 1/4 x[i-1] + 3/4 x[i]
//   y  2i-2 2i-1 | 2i 2i+1 | 2i+2         y[2i+1] = 3/4 x[i] + 1/4 x[i+1]
//
//   gx[i] = 1/4 gy[2i-1] + 3/4 gy[2i] + 3/4 gy[2i+1] + 1/4 gy[2i+2]. Indices are clamped: that is the rule at edges.
//
// The including file has in_h, in_w and channels in its Params, x and x4, and says
//   align_corners()                which rule
//   gates()                        whether the gradient depends on u, the upsampled x
//   passed(at, u), passed4(at, u)  what of gy[at] comes through to u

/// Where an output reads along one axis: low with weight 1 - fraction, high with weight fraction.
struct Position {
    low: u32,
    high: u32,
    fraction: f32,
}

fn position(o: u32, extent: u32) -> Position {
    var above = select(0u, 2u * o - 1u, o > 0u);
    var below = 4u;
    if align_corners() {
        above = o * (extent - 1u);
        below = 2u * extent - 1u;
    }
    let low = above / below;
    return Position(low, min(low + 1u, extent - 1u), f32(above % below) / f32(below));
}

/// Of what output position p takes of input i.
fn weight_of(p: Position, i: u32) -> f32 {
    return select(0.0, 1.0 - p.fraction, p.low == i) + select(0.0, p.fraction, p.high == i);
}

/// The first output that reads input i, and the first after it that does not.
fn readers(i: u32, extent: u32) -> vec2<u32> {
    var first = 2u * i - 1u;
    var end = 2u * i + 3u;
    if align_corners() && extent > 1u {
        let steps = 2u * extent - 1u;
        first = (i - 1u) * steps / (extent - 1u) + 1u;
        end = ((i + 1u) * steps + extent - 2u) / (extent - 1u);
    }
    return vec2(select(first, 0u, i == 0u), select(min(end, 2u * extent), 2u * extent, i == extent - 1u));
}

/// u at output (n, oy, ox) of channel c.
fn sample(n: u32, oy: u32, ox: u32, c: u32) -> f32 {
    let v = position(oy, params.in_h);
    let h = position(ox, params.in_w);
    let top = (n * params.in_h + v.low) * params.in_w;
    let bottom = (n * params.in_h + v.high) * params.in_w;
    let channels = params.channels;
    let upper = mix(f32(x[(top + h.low) * channels + c]), f32(x[(top + h.high) * channels + c]), h.fraction);
    let lower = mix(f32(x[(bottom + h.low) * channels + c]), f32(x[(bottom + h.high) * channels + c]), h.fraction);
    return mix(upper, lower, v.fraction);
}

/// The gradient of u gathered at input (n, iy, ix).
fn gathered(n: u32, iy: u32, ix: u32, c: u32) -> f32 {
    let rows = readers(iy, params.in_h);
    let columns = readers(ix, params.in_w);
    var total = 0.0;
    for (var oy = rows.x; oy < rows.y; oy++) {
        let start = (n * 2u * params.in_h + oy) * 2u * params.in_w;
        var sum = 0.0;
        for (var ox = columns.x; ox < columns.y; ox++) {
            var u = 0.0;
            if gates() { u = sample(n, oy, ox, c); }
            sum += weight_of(position(ox, params.in_w), ix) * passed((start + ox) * params.channels + c, u);
        }
        total += weight_of(position(oy, params.in_h), iy) * sum;
    }
    return total;
}

// ---- half pixel, four channels ---------------------------------------------------------------------------------

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

/// As `gathered`, by the half-pixel rule; row is (n, iy).
fn gathered4(row: u32, iy: u32, ix: u32, c: u32) -> vec4<f32> {
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
        g[0] = passed4((start + left) * quads + c, mix(upper[0], lower[0], down));
        g[1] = passed4((start + 2u * ix) * quads + c, mix(upper[1], lower[1], down));
        g[2] = passed4((start + 2u * ix + 1u) * quads + c, mix(upper[2], lower[2], down));
        g[3] = passed4((start + right) * quads + c, mix(upper[3], lower[3], down));
        total += select(0.25, 0.75, k == 1u || k == 2u) * (0.75 * (g[1] + g[2]) + 0.25 * (g[0] + g[3]));
    }
    return total;
}
