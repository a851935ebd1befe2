// Batch normalisation, alone or followed by a ReLU, and its gradient. Layout NHWC; per channel c over all n, y, x ("pixels").
//
//   statistics      per chunk of pixels: mean and sum of (x - mean)^2
//   finalize        mean[c], variance[c] (biased) of all chunks; running = (1-m) * running + m * batch;
//                   table [4, C]: center = mean, scale = w * rstd, shift = b, rstd
//   table_of_running    that table of the running statistics
//   forward         v = (x - mean) * rstd * w + b,   rstd = 1 / sqrt(variance + eps);   y = v, or max(v, 0). Not launched
//                   where a convolution alone reads y: it makes v of x itself (conv2d_normed.wgsl)
//   backward_sums   per chunk of pixels: sum of gv and of gv * xhat,   xhat = (x - mean) * rstd (lib/batch_norm_sums)
//   backward_input  gb[c] = sum of gv,   gw[c] = sum of gv * xhat,   both over all chunks (lib/batch_norm_input);
//                   gx = w * rstd * (gv - inverse_count * (gb + xhat * gw))
//   backward_merge  gb, gw and the table of backward_sums with one chunk, of the sums that the gradient of a convolution or a
//                   pooling leaves (lib/conv2d_norm_sums, max_pool2d_normed.wgsl)
//   backward_finalize   gb and gw alone: before backward_input_v1, and where nobody wants gx
//
// inverse_count is 1 / pixels in train mode and 0 in eval mode, where the statistics are constants. gv is gy; with a
// ReLU it is 0 where v <= 0. v is computed again from x: that is cheaper than reading y.
//
// The variance is never E[x^2] - E[x]^2: with |mean| 250 deviations away from 0, which doubly scaled images cause,
// that loses every digit. Each chunk subtracts its own mean first; chunks are merged around the total mean (Chan).
//
// A chunk lies within one image (the last of an image may be shorter), so partial sums do not depend on how many
// images one launch covers. partials[which][c][chunk]: `finalize` reads consecutive memory.
//
// _v1  one invocation walks through a chunk of one channel; forward and backward_input: one element.
// _v2  four channels at a time. A workgroup takes a chunk of `columns` vectors of channels (lib/columns):
//
//          columns (channels / 4)           row 0 takes pixels 0, rows, 2*rows, ... of the chunk,
//        +----+----+----+----+              row 1 takes pixels 1, rows+1, ...
//        | v4 | v4 | v4 | v4 |  row 0       then the rows are added up.
//        | v4 | v4 | v4 | v4 |  row 1
//        +----+----+----+----+  ...         forward: PIXELS vectors of the same four channels.
//
//      In the gradient workgroups have WIDE invocations, and backward_input takes slabs of pixels in the same way.
// @include flat
// @include element
// @include finite
// @include reduce
// @include columns
// @include batch_norm
// @include batch_norm_sums
// @include batch_norm_input

override WG: u32 = 64u;

const PIXELS: u32 = 4u; // @tune 1 2 4 8

struct Params {
    images: u32,        // of this launch
    image_pixels: u32,
    channels: u32,
    chunk: u32,         // pixels of a chunk
    image_chunks: u32,  // chunks of an image
    chunks: u32,        // chunks of all images
    first_chunk: u32,   // of this launch
    columns: u32,       // v2
    slab: u32,          // v2: pixels of a slab, a multiple of the rows of a workgroup
    turns: u32,         // v2: 1 if these rows take turns, 0 if each has a part of the slab of its own
    momentum: f32,
    eps: f32,
    inverse_count: f32,
    accumulate: u32,    // 1 if gx is added to what stands there
    floor: f32,         // v below this becomes 0: 0 with a ReLU, the lowest f32 without
}

@group(0) @binding(0) var<uniform> params: Params;

// ---- statistics ------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(WG)
fn statistics_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let c = at % params.channels;
    let chunk = at / params.channels;
    if chunk >= params.images * params.image_chunks { return; }
    let range = chunk_range(chunk);
    let start = range.x * params.channels + c;
    // Summed around the first pixel: the mean of numbers far from 0 is then as exact as f32 can hold it.
    let origin = f32(x[start]);
    var sum = 0.0;
    for (var p = 0u; p < range.y; p++) { sum += f32(x[start + p * params.channels]) - origin; }
    let mean = origin + sum / f32(range.y);
    var squares = 0.0;
    for (var p = 0u; p < range.y; p++) {
        let off = f32(x[start + p * params.channels]) - mean;
        squares += off * off;
    }
    let to = c * params.chunks + params.first_chunk + chunk;
    partials[to] = mean;
    partials[to + params.channels * params.chunks] = squares;
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;

@compute @workgroup_size(WG)
fn statistics_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let quads = params.channels / 4u;
    let blocks = (quads + params.columns - 1u) / params.columns; // of columns, side by side
    let group = flat_group(wid, groups);
    let chunk = group / blocks;
    if chunk >= params.images * params.image_chunks { return; }
    let quad = (group % blocks) * params.columns + lid % params.columns;
    let inside = quad < quads; // the last block may be too wide; its idle columns still reach the barriers
    let range = chunk_range(chunk);
    let start = range.x * quads + min(quad, quads - 1u);
    let end = select(0u, range.y, inside);
    let rows = WG / params.columns;

    let origin = vec4<f32>(x4[start]);
    var sum = vec4(0.0);
    for (var p = lid / params.columns; p < end; p += rows) { sum += vec4<f32>(x4[start + p * quads]) - origin; }
    let mean = origin + column_sum(sum, 0u, params.columns, lid) / f32(range.y);
    var squares = vec4(0.0);
    for (var p = lid / params.columns; p < end; p += rows) {
        let off = vec4<f32>(x4[start + p * quads]) - mean;
        squares += off * off;
    }
    squares = column_sum(squares, 1u, params.columns, lid);
    if inside && lid < params.columns {
        for (var i = 0u; i < 4u; i++) {
            let to = (quad * 4u + i) * params.chunks + params.first_chunk + chunk;
            partials[to] = mean[i];
            partials[to + params.channels * params.chunks] = squares[i];
        }
    }
}

@group(0) @binding(1) var<storage, read> partials_in: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> mean_out: array<f32>;
@group(0) @binding(5) var<storage, read_write> variance_out: array<f32>;
@group(0) @binding(6) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(7) var<storage, read_write> running_var: array<f32>;
@group(0) @binding(8) var<storage, read_write> norm_table_out: array<f32>; // [4, C]: center, scale, shift, rstd

/// One workgroup merges the chunks of one channel.
@compute @workgroup_size(WG)
fn finalize(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let c = flat_group(wid, groups);
    if c >= params.channels { return; }
    let means = c * params.chunks;
    let squares = means + params.channels * params.chunks;
    let count = f32(params.images * params.image_pixels);

    let origin = partials_in[means];
    var sum = 0.0;
    for (var k = lid; k < params.chunks; k += WG) {
        sum += f32(chunk_range(k).y) * (partials_in[means + k] - origin);
    }
    let mean = origin + workgroup_sum(sum, lid) / count;
    var total = 0.0;
    for (var k = lid; k < params.chunks; k += WG) {
        let off = partials_in[means + k] - mean;
        total += partials_in[squares + k] + f32(chunk_range(k).y) * off * off;
    }
    total = workgroup_sum(total, lid);
    if lid == 0u {
        mean_out[c] = mean;
        variance_out[c] = total / count;
        // The running variance gets the unbiased one, as in PyTorch. A step whose numbers are none is a skipped one.
        if is_finite(total) {
            running_mean[c] += params.momentum * (mean - running_mean[c]);
            running_var[c] += params.momentum * (total / (count - 1.0) - running_var[c]);
        }
        norm_table_out[c] = mean;
        let rstd = 1.0 / sqrt(total / count + params.eps);
        norm_table_out[params.channels + c] = weight[c] * rstd;
        norm_table_out[2u * params.channels + c] = bias[c];
        norm_table_out[3u * params.channels + c] = rstd;
    }
}

@group(0) @binding(1) var<storage, read> given_mean: array<f32>;
@group(0) @binding(4) var<storage, read> given_variance: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_table: array<f32>;

/// The same table of given statistics: one channel.
@compute @workgroup_size(WG)
fn table_of_running(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let c = flat_index(gid, groups);
    if c >= params.channels { return; }
    running_table[c] = given_mean[c];
    let rstd = 1.0 / sqrt(given_variance[c] + params.eps);
    running_table[params.channels + c] = weight[c] * rstd;
    running_table[2u * params.channels + c] = bias[c];
    running_table[3u * params.channels + c] = rstd;
}

// ---- forward ---------------------------------------------------------------------------------------------------

@group(0) @binding(2) var<storage, read> norm_table: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.images * params.image_pixels * params.channels { return; }
    let c = at % params.channels;
    let v = (f32(x[at]) - norm_table[c]) * norm_table[params.channels + c] + norm_table[2u * params.channels + c];
    y[at] = Element(activated(v));
}

@group(0) @binding(2) var<storage, read> norm_table4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y4: array<Element4>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let quads = params.channels / 4u;
    let pixels = params.images * params.image_pixels;
    // A stride of whole pixels: every step of an invocation meets the same channels.
    let stride = (pixels + PIXELS - 1u) / PIXELS * quads;
    let first = flat_index(gid, groups);
    if first >= stride { return; }
    let q = first % quads;
    let center = norm_table4[q];
    let scale = norm_table4[quads + q];
    let shift = norm_table4[2u * quads + q];
    for (var i = 0u; i < PIXELS; i++) {
        let at = first + i * stride;
        if at < pixels * quads { y4[at] = Element4(activated4((vec4<f32>(x4[at]) - center) * scale + shift)); }
    }
}

// ---- backward --------------------------------------------------------------------------------------------------

@group(0) @binding(2) var<storage, read> gy: array<Element>;
@group(0) @binding(3) var<storage, read> sums_mean: array<f32>;
@group(0) @binding(4) var<storage, read> sums_variance: array<f32>;
@group(0) @binding(5) var<storage, read> sums_weight: array<f32>;
@group(0) @binding(6) var<storage, read> sums_bias: array<f32>;
@group(0) @binding(7) var<storage, read_write> table_out: array<f32>; // as lib/batch_norm_sums says

@compute @workgroup_size(WG)
fn backward_sums_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let c = at % params.channels;
    let chunk = at / params.channels;
    if chunk >= params.images * params.image_chunks { return; }
    let range = chunk_range(chunk);
    let start = range.x * params.channels + c;
    let per = affine(sums_mean[c], sums_variance[c], sums_weight[c], sums_bias[c]);
    var sum = 0.0;
    var product = 0.0;
    for (var p = 0u; p < range.y; p++) {
        let off = f32(x[start + p * params.channels]) - per.center;
        let g = gated(f32(gy[start + p * params.channels]), off * per.scale + per.shift);
        sum += g;
        product += g * off;
    }
    leave_sums(chunk, c, per, sum, product);
}

@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(3) var<storage, read> sums_mean4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> sums_variance4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> sums_weight4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> sums_bias4: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> table_out4: array<vec4<f32>>;

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
    let q = share.quad;
    let per = affine4(sums_mean4[q], sums_variance4[q], sums_weight4[q], sums_bias4[q]);
    var sum = vec4(0.0);
    var product = vec4(0.0);
    for (var p = share.first; p < share.end; p += share.step) {
        let off = vec4<f32>(x4[p * quads + q]) - per.center;
        let g = gated4(vec4<f32>(gy4[p * quads + q]), off * per.scale + per.shift);
        sum += g;
        product += g * off;
    }
    leave_sums4(share, per, sum, product, lid);
}

@group(0) @binding(3) var<storage, read_write> merged: array<f32>; // as lib/batch_norm_sums says
@group(0) @binding(4) var<storage, read_write> gw_merged: array<f32>;
@group(0) @binding(5) var<storage, read_write> gb_merged: array<f32>;

/// One workgroup adds up the chunks of one channel.
@compute @workgroup_size(WG)
fn backward_merge(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let c = flat_group(wid, groups);
    if c >= params.channels { return; }
    let sums = c * params.chunks;
    let products = sums + params.channels * params.chunks;
    var pair = vec4(0.0); // of which two are used
    for (var k = lid; k < params.chunks; k += WG) {
        pair.x += partials_in[sums + k];
        pair.y += partials_in[products + k];
    }
    pair = column_sum(pair, 0u, 1u, lid);
    if lid == 0u {
        for (var row = 0u; row < 4u; row++) { merged[row * params.channels + c] = norm_table[row * params.channels + c]; }
        let product = pair.y * norm_table[3u * params.channels + c]; // with xhat, not with x - center
        merged[4u * params.channels + c] = pair.x;
        merged[5u * params.channels + c] = product;
        gb_merged[c] = pair.x;
        gw_merged[c] = product;
    }
}

@group(0) @binding(1) var<storage, read> table_in: array<f32>;
@group(0) @binding(2) var<storage, read_write> gw_out: array<f32>;
@group(0) @binding(3) var<storage, read_write> gb_out: array<f32>;

/// One workgroup adds up the chunks of one channel.
@compute @workgroup_size(WG)
fn backward_finalize(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let c = flat_group(wid, groups);
    if c >= params.channels { return; }
    var pair = vec4(0.0); // of which two are used
    for (var k = lid; k < params.chunks; k += WG) {
        pair.x += table_in[(4u + 2u * k) * params.channels + c];
        pair.y += table_in[(5u + 2u * k) * params.channels + c];
    }
    pair = column_sum(pair, 0u, 1u, lid);
    if lid == 0u {
        gb_out[c] = pair.x;
        gw_out[c] = pair.y;
    }
}

@group(0) @binding(3) var<storage, read> table: array<f32>;
@group(0) @binding(4) var<storage, read> gw_in: array<f32>;
@group(0) @binding(5) var<storage, read> gb_in: array<f32>;
@group(0) @binding(6) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.images * params.image_pixels * params.channels { return; }
    var result = input_gradient(channel(at % params.channels), f32(x[at]), f32(gy[at]));
    if params.accumulate == 1u { result += f32(gx[at]); }
    gx[at] = Element(result);
}

@group(0) @binding(3) var<storage, read> table4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> gw_out4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> gb_out4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> gx4: array<Element4>;

@compute @workgroup_size(WIDE)
fn backward_input_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let group = flat_group(wid, groups);
    let places = params.images * params.image_pixels;
    if group / blocks() * params.slab >= places { return; }
    let quads = params.channels / 4u;
    let quad = slab_quad(group, lid);
    let per = slab_channel4(group, lid);
    let walk = slab_walk(group, lid, places);
    for (var p = walk.first; p < walk.end; p += walk.step) {
        let at = p * quads + quad;
        var result = input_gradient4(per, vec4<f32>(x4[at]), vec4<f32>(gy4[at]));
        if params.accumulate == 1u { result += vec4<f32>(gx4[at]); }
        gx4[at] = Element4(result);
    }
}
