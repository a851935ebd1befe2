// Bilinear upsampling by 2, alone or with a ReLU and the sum with a skip connection after it, and its gradient.
// Layout NHWC, out = 2 * in along both axes.
//
//   forward         u[n,oy,ox,c]  = sum over the four x around the position of (oy,ox), weighted by their closeness
//                   y = u,  or max(u, 0),  or either of them + skip
//   backward_input  gx[n,iy,ix,c] = sum over the (oy,ox) that read (iy,ix) of gu[n,oy,ox,c] with the same weights
//
// gu is gy; with a ReLU it is 0 where u <= 0. u is computed again from x, which is a quarter of its size.
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
    relu: u32,
    has_skip: u32,      // else the binding `skip` is not read
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
@group(0) @binding(2) var<storage, read> skip: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

/// u at output (n, oy, ox) of channel c.
fn sample(n: u32, oy: u32, ox: u32, c: u32) -> f32 {
    let v = position(oy, params.in_h);
    let h = position(ox, params.in_w);
    let top = (n * params.in_h + v.low) * params.in_w;
    let bottom = (n * params.in_h + v.high) * params.in_w;
    let upper = mix(x[(top + h.low) * params.channels + c], x[(top + h.high) * params.channels + c], h.fraction);
    let lower = mix(x[(bottom + h.low) * params.channels + c], x[(bottom + h.high) * params.channels + c], h.fraction);
    return mix(upper, lower, v.fraction);
}

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

    let u = sample(n, oy, ox, c);
    var total = select(u, 0.0, params.relu == 1u && u < 0.0);
    if params.has_skip == 1u { total += skip[at]; }
    y[at] = total;
}

/// Index next - 1, clamped to the axis.
fn inside(next: u32, extent: u32) -> u32 {
    return clamp(next, 1u, extent) - 1u;
}

@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> skip4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y4: array<vec4<f32>>;

fn sample4(n: u32, oy: u32, ox: u32, c: u32) -> vec4<f32> {
    let quads = params.channels / 4u;
    let v = position(oy, params.in_h);
    let h = position(ox, params.in_w);
    let top = (n * params.in_h + v.low) * params.in_w;
    let bottom = (n * params.in_h + v.high) * params.in_w;
    let upper = mix(x4[(top + h.low) * quads + c], x4[(top + h.high) * quads + c], h.fraction);
    let lower = mix(x4[(bottom + h.low) * quads + c], x4[(bottom + h.high) * quads + c], h.fraction);
    return mix(upper, lower, v.fraction);
}

/// y of u: the ReLU and the sum.
fn store4(at: u32, u: vec4<f32>) {
    var total = u;
    if params.relu == 1u { total = select(u, vec4(0.0), u < vec4(0.0)); }
    if params.has_skip == 1u { total += skip4[at]; }
    y4[at] = total;
}

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
    store4(corner, 0.25 * even[0] + 0.75 * even[1]);
    store4(corner + quads, 0.25 * odd[0] + 0.75 * odd[1]);
    store4(corner + out_w * quads, 0.75 * even[1] + 0.25 * even[2]);
    store4(corner + (out_w + 1u) * quads, 0.75 * odd[1] + 0.25 * odd[2]);
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
    store4(at, sample4(n, oy, ox, c));
}

@group(0) @binding(2) var<storage, read> gy: array<f32>;
@group(0) @binding(3) var<storage, read_write> gx: array<f32>;

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
            let g = gy[(start + ox) * params.channels + c];
            let shut = params.relu == 1u && sample(n, oy, ox, c) <= 0.0;
            sum += weight(position(ox, params.in_w), ix) * select(g, 0.0, shut);
        }
        total += weight(position(oy, params.in_h), iy) * sum;
    }
    gx[at] = total;
}

@group(0) @binding(2) var<storage, read> gy4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> gx4: array<vec4<f32>>;

/// gu: what of gy comes through the ReLU.
fn gated4(at: u32, u: vec4<f32>) -> vec4<f32> {
    return select(gy4[at], vec4(0.0), vec4<bool>(params.relu == 1u) & (u <= vec4(0.0)));
}

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

    // u in columns 2ix - 1 to 2ix + 2, of the rows of x above, here and below.
    var columns: array<array<vec4<f32>, 4>, 3>;
    if params.relu == 1u {
        for (var k = 0u; k < 3u; k++) {
            let start = (row - iy + inside(iy + k, params.in_h)) * params.in_w;
            let before = x4[(start + inside(ix, params.in_w)) * quads + c];
            let here = x4[(start + ix) * quads + c];
            let after = x4[(start + inside(ix + 2u, params.in_w)) * quads + c];
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
        g[0] = gated4((start + left) * quads + c, mix(upper[0], lower[0], down));
        g[1] = gated4((start + 2u * ix) * quads + c, mix(upper[1], lower[1], down));
        g[2] = gated4((start + 2u * ix + 1u) * quads + c, mix(upper[2], lower[2], down));
        g[3] = gated4((start + right) * quads + c, mix(upper[3], lower[3], down));
        total += select(0.25, 0.75, k == 1u || k == 2u) * (0.75 * (g[1] + g[2]) + 0.25 * (g[0] + g[3]));
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
            var u = vec4(0.0);
            if params.relu == 1u { u = sample4(n, oy, ox, c); }
            sum += weight(position(ox, params.in_w), ix) * gated4((start + ox) * quads + c, u);
        }
        total += weight(position(oy, params.in_h), iy) * sum;
    }
    gx4[at] = total;
}
