// Max pooling of an x that still has to be normalised, which others want too: a U-Net pools what it also keeps as a skip
// connection. Both are written in one pass; read and normalised twice, x would be as much traffic again.
//
//   forward         v = (x - center) * scale + shift, and 0 below floor;   y, winner as in max_pool2d.wgsl, of v; the winners of
//                   four channels share a word
//   backward_input  gradient of v: as there; and what that of the batch norm begins with, sums of gv and of gv * (x - center)
//                   per channel and chunk of windows, where gv is what comes through the ReLU (backward_merge of
//                   batch_norm.wgsl adds the chunks up)
//
// One invocation has four channels of a window: rows and columns of x are even, the channels divide by 4. v as it is stored
// decides who wins, so the results have the bits of batch_norm.wgsl and max_pool2d.wgsl one after the other. In backward_input a
// workgroup takes `columns` vectors of channels side by side (lib/columns), and its rows take turns with the windows of a chunk.
// @include flat
// @include element
// @include columns
// @include batch_norm_table4

override WG: u32 = 64u;

struct Params {
    windows: u32, // of this launch
    out_w: u32,
    channels: u32,
    floor: f32,
    accumulate: u32,  // backward_input: 1 if the gradient is added to what stands there
    chunk: u32,       // backward_input: windows of a chunk
    chunks: u32,      // backward_input: of all launches
    first_chunk: u32, // backward_input: of this launch
    columns: u32,     // backward_input
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> table4: array<vec4<f32>>;
/// The winner of channel i of a vector is the byte 8 * i of a word.
const FIRST_BITS = vec4(1u, 1u << 8u, 1u << 16u, 1u << 24u);

/// The first of the four pixels of a window, and the way from it to pixel k; both count vectors of channels.
fn corner(window: u32) -> u32 {
    let row = window / params.out_w; // (n, oy): rows of x are even, so its row is 2 * row
    return (2u * row * 2u * params.out_w + 2u * (window % params.out_w)) * (params.channels / 4u);
}
fn pixel(k: u32) -> u32 { return ((k / 2u) * 2u * params.out_w + k % 2u) * (params.channels / 4u); }

@group(0) @binding(3) var<storage, read_write> v4: array<Element4>;
@group(0) @binding(4) var<storage, read_write> y4: array<Element4>;
@group(0) @binding(5) var<storage, read_write> winners_out: array<u32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let quads = params.channels / 4u;
    if at >= params.windows * quads { return; }
    let quad = at % quads;
    let first = corner(at / quads) + quad;
    let norm = norm4(quad, quads);

    var best = vec4(0.0);
    var winner = vec4(0u);
    for (var k = 0u; k < 4u; k++) {
        let place = first + pixel(k);
        let v = Element4(normalised4(norm, vec4<f32>(x4[place])));
        v4[place] = v;
        let candidate = vec4<f32>(v);
        let better = (candidate > best) | vec4(k == 0u);
        best = select(best, candidate, better);
        winner = select(winner, vec4(k), better);
    }
    y4[at] = Element4(best);
    winners_out[at] = dot(winner, FIRST_BITS);
}

@group(0) @binding(3) var<storage, read> gy4: array<Element4>;
@group(0) @binding(4) var<storage, read> winners_in: array<u32>;
@group(0) @binding(5) var<storage, read_write> gv4: array<Element4>;
@group(0) @binding(6) var<storage, read_write> norm_sums: array<f32>; // [gv, gv * (x - center)][channel][chunk]

@compute @workgroup_size(WG)
fn backward_input(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let quads = params.channels / 4u;
    let blocks = (quads + params.columns - 1u) / params.columns; // of columns, side by side
    let group = flat_group(wid, groups);
    let chunk = group / blocks;
    if chunk * params.chunk >= params.windows { return; }
    let quad = (group % blocks) * params.columns + lid % params.columns;
    let inside = quad < quads; // the last block may be too wide; its idle columns still reach the barriers
    let end = select(0u, min((chunk + 1u) * params.chunk, params.windows), inside);
    let norm = norm4(min(quad, quads - 1u), quads);

    var sum = vec4(0.0);
    var product = vec4(0.0);
    for (var window = chunk * params.chunk + lid / params.columns; window < end; window += WG / params.columns) {
        let gy = vec4<f32>(gy4[window * quads + quad]);
        let winner = (vec4(winners_in[window * quads + quad]) / FIRST_BITS) & vec4(255u);
        for (var k = 0u; k < 4u; k++) {
            let place = corner(window) + quad + pixel(k);
            var gradient = select(vec4(0.0), gy, winner == vec4(k));
            if params.accumulate == 1u { gradient += vec4<f32>(gv4[place]); }
            let stored = Element4(gradient);
            gv4[place] = stored;
            let off = vec4<f32>(x4[place]) - norm.center;
            let gv = gated4(norm, vec4<f32>(stored), off);
            sum += gv;
            product += gv * off;
        }
    }
    sum = column_sum(sum, 0u, params.columns, lid);
    product = column_sum(product, 1u, params.columns, lid);
    if inside && lid < params.columns {
        for (var i = 0u; i < 4u; i++) {
            let to = (quad * 4u + i) * params.chunks + params.first_chunk + chunk;
            norm_sums[to] = sum[i];
            norm_sums[to + params.channels * params.chunks] = product[i];
        }
    }
}
