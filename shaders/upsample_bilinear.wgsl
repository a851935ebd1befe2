// Bilinear upsampling by 2, and its gradient. Layout NHWC, out = 2 * in along both axes.
//
//   forward         y[n,oy,ox,c]  = sum over the four x around the position of (oy,ox), weighted by their closeness
//   backward_input  gx[n,iy,ix,c] = sum over the (oy,ox) that read (iy,ix) of gy[n,oy,ox,c] with the same weights
//
// Position of output o in the input, as a fraction of integers so that it is not rounded:
//   half pixel     max(2o - 1, 0) / 4               (the pixels' areas match; UNeXt)
//   align_corners  o * (in - 1) / (out - 1)         (the corner pixels' centres match; ResUNet)
// A neighbour beyond the far edge is the edge itself.
//
// _v1  one invocation computes one element; both rules. The gradient gathers: no atomics, the same bits in every run.
// _v2  half pixel only: four channels of a 2x2 block of y (forward), or of one pixel of gx. The weights are constant:
//
//        x    i-1       i       i+1            y[2i]   = 1/4 x[i-1] + 3/4 x[i]
//        y  2i-2 2i-1 | 2i 2i+1 | 2i+2         y[2i+1] = 3/4 x[i] + 1/4 x[i+1]
//
//      gx[i] = 1/4 gy[2i-1] + 3/4 gy[2i] + 3/4 gy[2i+1] + 1/4 gy[2i+2]. Indices are clamped: that is the rule at edges.
// _corners_v2  align_corners: as _v1, four channels at a time. The weights differ from pixel to pixel.
// @include flat

override WG: u32 = 64u;

struct Params {
    in_h: u32,
    in_w: u32,
    channels: u32,
    align_corners: u32, // 0 or 1
}

@group(0) @binding(0) var<uniform> params: Params;

/// Where an output reads along one axis: low with weight 1 - fraction, high with weight fraction.
struct Position {
    low: u32,
    high: u32,
    fraction: f32,
}

fn position(o: u32, extent: u32) -> Position {
    var above = select(0u, 2u * o - 1u, o > 0u);
    var below = 4u;
    if params.align_corners == 1u {
        above = o * (extent - 1u);
        below = 2u * extent - 1u;
    }
    let low = above / below;
    return Position(low, min(low + 1u, extent - 1u), f32(above % below) / f32(below));
}

fn weight(p: Position, i: u32) -> f32 {
    return select(0.0, 1.0 - p.fraction, p.low == i) + select(0.0, p.fraction, p.high == i);
}

/// The first output that reads input i, and the first after it that does not.
fn readers(i: u32, extent: u32) -> vec2<u32> {
    var first = 2u * i - 1u;
    var end = 2u * i + 3u;
    if params.align_corners == 1u && extent > 1u {
        let steps = 2u * extent - 1u;
        first = (i - 1u) * steps / (extent - 1u) + 1u;
        end = ((i + 1u) * steps + extent - 2u) / (extent - 1u);
    }
    return vec2(select(first, 0u, i == 0u), select(min(end, 2u * extent), 2u * extent, i == extent - 1u));
}

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    let c = at % params.channels;
    let pixel = at / params.channels; // (n, oy, ox)
    let ox = pixel % (2u * params.in_w);
    let row = pixel / (2u * params.in_w); // (n, oy)
    let oy = row % (2u * params.in_h);
    let n = row / (2u * params.in_h);

    let v = position(oy, params.in_h);
    let h = position(ox, params.in_w);
    let top = (n * params.in_h + v.low) * params.in_w;
    let bottom = (n * params.in_h + v.high) * params.in_w;
    let upper = mix(x[(top + h.low) * params.channels + c], x[(top + h.high) * params.channels + c], h.fraction);
    let lower = mix(x[(bottom + h.low) * params.channels + c], x[(bottom + h.high) * params.channels + c], h.fraction);
    y[at] = mix(upper, lower, v.fraction);
}

/// Index next - 1, clamped to the axis.
fn inside(next: u32, extent: u32) -> u32 {
    return clamp(next, 1u, extent) - 1u;
}

@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) / 4u { return; } // one invocation per vec4 of x
    let quads = params.channels / 4u;
    let c = at % quads;
    let pixel = at / quads; // (n, iy, ix)
    let ix = pixel % params.in_w;
    let row = pixel / params.in_w; // (n, iy)
    let iy = row % params.in_h;
    let left = inside(ix, params.in_w);
    let right = inside(ix + 2u, params.in_w);

    // Columns 2ix and 2ix + 1 of the rows above, here and below.
    var even: array<vec4<f32>, 3>;
    var odd: array<vec4<f32>, 3>;
    for (var k = 0u; k < 3u; k++) {
        let start = (row - iy + inside(iy + k, params.in_h)) * params.in_w;
        let here = 0.75 * x4[(start + ix) * quads + c];
        even[k] = 0.25 * x4[(start + left) * quads + c] + here;
        odd[k] = here + 0.25 * x4[(start + right) * quads + c];
    }
    let out_w = 2u * params.in_w;
    let corner = (2u * row * out_w + 2u * ix) * quads + c;
    y4[corner] = 0.25 * even[0] + 0.75 * even[1];
    y4[corner + quads] = 0.25 * odd[0] + 0.75 * odd[1];
    y4[corner + out_w * quads] = 0.75 * even[1] + 0.25 * even[2];
    y4[corner + (out_w + 1u) * quads] = 0.75 * odd[1] + 0.25 * odd[2];
}

@compute @workgroup_size(WG)
fn forward_corners_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    let quads = params.channels / 4u;
    let c = at % quads;
    let pixel = at / quads; // (n, oy, ox)
    let ox = pixel % (2u * params.in_w);
    let row = pixel / (2u * params.in_w); // (n, oy)
    let oy = row % (2u * params.in_h);
    let n = row / (2u * params.in_h);

    let v = position(oy, params.in_h);
    let h = position(ox, params.in_w);
    let top = (n * params.in_h + v.low) * params.in_w;
    let bottom = (n * params.in_h + v.high) * params.in_w;
    let upper = mix(x4[(top + h.low) * quads + c], x4[(top + h.high) * quads + c], h.fraction);
    let lower = mix(x4[(bottom + h.low) * quads + c], x4[(bottom + h.high) * quads + c], h.fraction);
    y4[at] = mix(upper, lower, v.fraction);
}

@group(0) @binding(1) var<storage, read> gy: array<f32>;
@group(0) @binding(2) var<storage, read_write> gx: array<f32>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx) { return; }
    let c = at % params.channels;
    let pixel = at / params.channels; // (n, iy, ix)
    let ix = pixel % params.in_w;
    let row = pixel / params.in_w; // (n, iy)
    let iy = row % params.in_h;
    let n = row / params.in_h;

    let rows = readers(iy, params.in_h);
    let columns = readers(ix, params.in_w);
    var total = 0.0;
    for (var oy = rows.x; oy < rows.y; oy++) {
        let start = (n * 2u * params.in_h + oy) * 2u * params.in_w;
        var sum = 0.0;
        for (var ox = columns.x; ox < columns.y; ox++) {
            sum += weight(position(ox, params.in_w), ix) * gy[(start + ox) * params.channels + c];
        }
        total += weight(position(oy, params.in_h), iy) * sum;
    }
    gx[at] = total;
}

@group(0) @binding(1) var<storage, read> gy4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> gx4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn backward_input_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx4) { return; }
    let quads = params.channels / 4u;
    let c = at % quads;
    let pixel = at / quads; // (n, iy, ix)
    let ix = pixel % params.in_w;
    let row = pixel / params.in_w; // (n, iy)
    let iy = row % params.in_h;
    let out_w = 2u * params.in_w;
    let left = inside(2u * ix, out_w);
    let right = inside(2u * ix + 3u, out_w);

    var total = vec4(0.0);
    for (var k = 0u; k < 4u; k++) {
        let start = (2u * (row - iy) + inside(2u * iy + k, 2u * params.in_h)) * out_w;
        let middle = gy4[(start + 2u * ix) * quads + c] + gy4[(start + 2u * ix + 1u) * quads + c];
        let outside = gy4[(start + left) * quads + c] + gy4[(start + right) * quads + c];
        total += select(0.25, 0.75, k == 1u || k == 2u) * (0.75 * middle + 0.25 * outside);
    }
    gx4[at] = total;
}

@compute @workgroup_size(WG)
fn backward_input_corners_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx4) { return; }
    let quads = params.channels / 4u;
    let c = at % quads;
    let pixel = at / quads; // (n, iy, ix)
    let ix = pixel % params.in_w;
    let row = pixel / params.in_w; // (n, iy)
    let iy = row % params.in_h;
    let n = row / params.in_h;

    let rows = readers(iy, params.in_h);
    let columns = readers(ix, params.in_w);
    var total = vec4(0.0);
    for (var oy = rows.x; oy < rows.y; oy++) {
        let start = (n * 2u * params.in_h + oy) * 2u * params.in_w;
        var sum = vec4(0.0);
        for (var ox = columns.x; ox < columns.y; ox++) {
            sum += weight(position(ox, params.in_w), ix) * gy4[(start + ox) * quads + c];
        }
        total += weight(position(oy, params.in_h), iy) * sum;
    }
    gx4[at] = total;
}
