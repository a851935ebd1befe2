// Batch normalisation, with or without a ReLU, then max pooling over 2x2 windows with stride 2, and the gradient of all.
// Layout NHWC; an odd last row or column belongs to no window. The statistics are those of batch_norm.wgsl: mean[c] and
// variance[c] of all pixels. So is backward_finalize, for gb and gw alone.
//
//   forward         v = (x - mean) * rstd * w + b,   rstd = 1 / sqrt(variance + eps);
//                   y[n,oy,ox,c] = max of v[n,2oy+ky,2ox+kx,c] for ky, kx in {0, 1}, or of that and 0
//   backward_sums   per chunk of windows: sum of gv and of gv * xhat, xhat = (x - mean) * rstd, both of the winner
//                   (lib/batch_norm_sums)
//   backward_input  gb = sum of gv,   gw = sum of gv * xhat,   both over all chunks (lib/batch_norm_input);
//                   gx = w * rstd * (gv - inverse_count * (gb + xhat * gw)) for every pixel
//
// gv is gy at the winner of each window, and 0 at the other pixels, or everywhere if the ReLU was shut (v <= 0).
//
// v rises with x where w is above 0 and falls where it is below: the winner is the largest sign(w) * x. So v is computed
// once a window, and rounding decides nothing. Ties go to the first in row order (all tie where w is 0).
//
// A chunk of windows lies within one image, as in batch_norm.wgsl.
//
// _v1  forward: one element of y. backward_sums: one invocation walks through a chunk of one channel. backward_input: one
//      element of gx.
// _v2  the same, four channels at a time; a workgroup takes a chunk (lib/columns), or a slab of windows of which each
//      invocation of backward_input takes one after the other:
//
//        +----+----+          gy and winner are read once for four pixels of gx. Windows are counted as if the last odd
//        | 0  | 1  |          row and column began further ones, of which no pixel has won and some lie outside.
//        +----+----+
//        | 2  | 3  |
//        +----+----+
// @include flat
// @include element
// @include batch_norm
// @include batch_norm_sums
// @include batch_norm_input

override WG: u32 = 64u;

struct Params {
    images: u32,       // of this launch
    in_h: u32,
    in_w: u32,
    image_pixels: u32, // windows of an image: pixels of y
    channels: u32,
    chunk: u32,        // windows of a chunk
    image_chunks: u32,
    chunks: u32,       // of all images
    first_chunk: u32,  // of this launch
    columns: u32,      // v2
    slab: u32,         // v2: windows of a slab, a multiple of the rows of a workgroup
    turns: u32,        // v2: 1 if these rows take turns, 0 if each has a part of the slab of its own
    eps: f32,
    inverse_count: f32,
    floor: f32,        // v below this becomes 0: 0 with a ReLU, the lowest f32 without
}

@group(0) @binding(0) var<uniform> params: Params;

/// The first pixel of a window of image n.
fn corner(n: u32, window: u32) -> u32 {
    let out_w = params.in_w / 2u;
    return (n * params.in_h + 2u * (window / out_w)) * params.in_w + 2u * (window % out_w);
}

/// From there to pixel k of the window.
fn pixel(k: u32) -> u32 { return (k / 2u) * params.in_w + k % 2u; }

// ---- forward ---------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> variance: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<Element>;
@group(0) @binding(7) var<storage, read_write> winner_out: array<u32>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.images * params.image_pixels * params.channels { return; }
    let c = at % params.channels;
    let window = at / params.channels; // (n, oy, ox)
    let start = corner(window / params.image_pixels, window % params.image_pixels) * params.channels + c;

    let direction = sign(weight[c]);
    var best = f32(x[start]);
    var winner = 0u;
    for (var k = 1u; k < 4u; k++) {
        let candidate = f32(x[start + pixel(k) * params.channels]);
        if direction * candidate > direction * best { best = candidate; winner = k; }
    }
    y[at] = Element(activated((best - mean[c]) * (weight[c] / sqrt(variance[c] + params.eps)) + bias[c]));
    winner_out[at] = winner;
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> mean4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> variance4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y4: array<Element4>;
@group(0) @binding(7) var<storage, read_write> winner_out4: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let quads = params.channels / 4u;
    let at = flat_index(gid, groups);
    if at >= params.images * params.image_pixels * quads { return; }
    let q = at % quads;
    let window = at / quads; // (n, oy, ox)
    let start = corner(window / params.image_pixels, window % params.image_pixels) * quads + q;

    let direction = sign(weight4[q]);
    var best = vec4<f32>(x4[start]);
    var winner = vec4(0u);
    for (var k = 1u; k < 4u; k++) {
        let candidate = vec4<f32>(x4[start + pixel(k) * quads]);
        let better = direction * candidate > direction * best;
        best = select(best, candidate, better);
        winner = select(winner, vec4(k), better);
    }
    y4[at] = Element4(activated4((best - mean4[q]) * (weight4[q] / sqrt(variance4[q] + params.eps)) + bias4[q]));
    winner_out4[at] = winner;
}

// ---- backward --------------------------------------------------------------------------------------------------

@group(0) @binding(2) var<storage, read> gy: array<Element>;
@group(0) @binding(3) var<storage, read> winner_in: array<u32>;
@group(0) @binding(4) var<storage, read> sums_mean: array<f32>;
@group(0) @binding(5) var<storage, read> sums_variance: array<f32>;
@group(0) @binding(6) var<storage, read> sums_weight: array<f32>;
@group(0) @binding(7) var<storage, read> sums_bias: array<f32>;
@group(0) @binding(8) var<storage, read_write> table_out: array<f32>; // as lib/batch_norm_sums says

@compute @workgroup_size(WG)
fn backward_sums_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let c = at % params.channels;
    let chunk = at / params.channels;
    if chunk >= params.images * params.image_chunks { return; }
    let range = chunk_range(chunk);
    let n = chunk / params.image_chunks;
    let per = affine(sums_mean[c], sums_variance[c], sums_weight[c], sums_bias[c]);
    var sum = 0.0;
    var product = 0.0;
    for (var p = 0u; p < range.y; p++) {
        let window = range.x + p;
        let won = corner(n, window - n * params.image_pixels) + pixel(winner_in[window * params.channels + c]);
        let off = f32(x[won * params.channels + c]) - per.center;
        let g = gated(f32(gy[window * params.channels + c]), off * per.scale + per.shift);
        sum += g;
        product += g * off;
    }
    leave_sums(chunk, c, per, sum, product);
}

@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(3) var<storage, read> winner_in4: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> sums_mean4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> sums_variance4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> sums_weight4: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> sums_bias4: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> table_out4: array<vec4<f32>>;

@compute @workgroup_size(WIDE)
fn backward_sums_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let group = flat_group(wid, groups);
    if group >= sums_groups() { return; }
    let quads = params.channels / 4u;
    let share = share_of(group, lid);
    let n = share.chunk / params.image_chunks;
    let q = share.quad;
    let per = affine4(sums_mean4[q], sums_variance4[q], sums_weight4[q], sums_bias4[q]);
    var sum = vec4(0.0);
    var product = vec4(0.0);
    for (var window = share.first; window < share.end; window += share.step) {
        let start = corner(n, window - n * params.image_pixels);
        let winner = winner_in4[window * quads + q];
        var off = -per.center;
        for (var i = 0u; i < 4u; i++) { off[i] += f32(x[(start + pixel(winner[i])) * params.channels + 4u * q + i]); }
        let g = gated4(vec4<f32>(gy4[window * quads + q]), off * per.scale + per.shift);
        sum += g;
        product += g * off;
    }
    leave_sums4(share, per, sum, product, lid);
}

@group(0) @binding(4) var<storage, read> table: array<f32>;
@group(0) @binding(5) var<storage, read> gw_in: array<f32>;
@group(0) @binding(6) var<storage, read> gb_in: array<f32>;
@group(0) @binding(7) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.images * params.in_h * params.in_w * params.channels { return; }
    let c = at % params.channels;
    let place = at / params.channels; // (n, iy, ix)
    let ix = place % params.in_w;
    let row = place / params.in_w; // (n, iy)
    let iy = row % params.in_h;
    let n = row / params.in_h;
    let out_h = params.in_h / 2u;
    let out_w = params.in_w / 2u;
    var g = 0.0;
    if iy < 2u * out_h && ix < 2u * out_w {
        let window = ((n * out_h + iy / 2u) * out_w + ix / 2u) * params.channels + c;
        if winner_in[window] == (iy % 2u) * 2u + ix % 2u { g = f32(gy[window]); }
    }
    gx[at] = Element(input_gradient(channel(c), f32(x[at]), g));
}

@group(0) @binding(4) var<storage, read> table4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> gw_out4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> gb_out4: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> gx4: array<Element4>;

@compute @workgroup_size(WIDE)
fn backward_input_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let group = flat_group(wid, groups);
    let wide = (params.in_w + 1u) / 2u;
    let high = (params.in_h + 1u) / 2u;
    let places = params.images * high * wide;
    if group / blocks() * params.slab >= places { return; }
    let quads = params.channels / 4u;
    let out_h = params.in_h / 2u;
    let out_w = params.in_w / 2u;
    let q = slab_quad(group, lid);
    let per = slab_channel4(group, lid);
    let walk = slab_walk(group, lid, places);
    for (var place = walk.first; place < walk.end; place += walk.step) { // (n, oy, ox)
        let ox = place % wide;
        let row = place / wide; // (n, oy)
        let oy = row % high;
        let n = row / high;
        var g = vec4(0.0);
        var winner = vec4(4u); // nobody
        if oy < out_h && ox < out_w {
            let window = ((n * out_h + oy) * out_w + ox) * quads + q;
            g = vec4<f32>(gy4[window]);
            winner = winner_in4[window];
        }
        for (var k = 0u; k < 4u; k++) {
            let iy = 2u * oy + k / 2u;
            let ix = 2u * ox + k % 2u;
            if iy < params.in_h && ix < params.in_w {
                let at = ((n * params.in_h + iy) * params.in_w + ix) * quads + q;
                gx4[at] = Element4(input_gradient4(per, vec4<f32>(x4[at]), select(vec4(0.0), g, winner == vec4(k))));
            }
        }
    }
}
