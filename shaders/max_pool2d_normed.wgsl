// Max pooling of an x that still has to be normalised, which others want too: a U-Net pools what it also keeps as a skip
// connection. Both are written in one pass; read and normalised twice, x would be as much traffic again.
//
//   forward    v = (x - center) * scale + shift, and 0 below floor;   y, winner as in max_pool2d.wgsl, of v
//
// One invocation has four channels of a window: rows and columns of x are even, the channels divide by 4. v as it is stored
// decides who wins, so the results have the bits of batch_norm.wgsl and max_pool2d.wgsl one after the other.
// @include flat
// @include element
// @include batch_norm_table4

override WG: u32 = 64u;

struct Params {
    windows: u32, // of all images
    out_w: u32,
    channels: u32,
    floor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> table4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> v4: array<Element4>;
@group(0) @binding(4) var<storage, read_write> y4: array<Element4>;
@group(0) @binding(5) var<storage, read_write> winner_out4: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let quads = params.channels / 4u;
    if at >= params.windows * quads { return; }
    let quad = at % quads;
    let window = at / quads; // (n, oy, ox)
    let row = window / params.out_w; // (n, oy): rows of x are even, so its row is 2 * row
    let corner = (2u * row * 2u * params.out_w + 2u * (window % params.out_w)) * quads + quad;
    let norm = norm4(quad, quads);

    var best = vec4(0.0);
    var winner = vec4(0u);
    for (var k = 0u; k < 4u; k++) {
        let place = corner + ((k / 2u) * 2u * params.out_w + k % 2u) * quads;
        let v = Element4(normalised4(norm, vec4<f32>(x4[place])));
        v4[place] = v;
        let candidate = vec4<f32>(v);
        let better = (candidate > best) | vec4(k == 0u);
        best = select(best, candidate, better);
        winner = select(winner, vec4(k), better);
    }
    y4[at] = Element4(best);
    winner_out4[at] = winner;
}
