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
// lib/bilinear4 has the same of four channels, lib/bilinear_half4 the half-pixel rule with its constant weights.
//
// The including file has in_h, in_w and channels in its Params, x, and says
//   align_corners()        which rule
//   passed(n, oy, ox, c)   what of the gradient at an output comes through to u, the upsampled x

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

/// Image, row and column of a pixel of images `times` as large as x: of x itself, or of the output.
fn place(pixel: u32, times: u32) -> vec3<u32> {
    let row = pixel / (times * params.in_w);
    return vec3<u32>(row / (times * params.in_h), row % (times * params.in_h), pixel % (times * params.in_w));
}

/// Which of the output's pixels this is.
fn output(n: u32, oy: u32, ox: u32) -> u32 { return (n * 2u * params.in_h + oy) * 2u * params.in_w + ox; }

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
        var sum = 0.0;
        for (var ox = columns.x; ox < columns.y; ox++) {
            sum += weight_of(position(ox, params.in_w), ix) * passed(n, oy, ox, c);
        }
        total += weight_of(position(oy, params.in_h), iy) * sum;
    }
    return total;
}
