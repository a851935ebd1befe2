// Batch normalisation, bilinear upsampling by 2 (half pixel), with or without a ReLU, and the sum with a skip connection, and
// the gradient of all. Layout NHWC. The statistics and the last step of the gradient are those of batch_norm.wgsl: mean[c] and
// variance[c], its backward_input and backward_finalize.
//
//   forward        u = the four x around an output, weighted by their closeness (lib/bilinear)
//                  v = (u - mean) * rstd * w + b,   rstd = 1 / sqrt(variance + eps);   y = v + skip, or max(v, 0) + skip
//   backward_sums  gv[n,iy,ix,c] = sum over the outputs that read (iy,ix) of what of gy comes through the ReLU, weighted;
//                  per chunk of pixels of x: sum of gv and of gv * xhat,   xhat = (x - mean) * rstd (lib/batch_norm_sums)
//
// The weights of an output add up to 1, so it is the same whether x is normalised before or u after. A chunk lies within
// one image, as in batch_norm.wgsl.
//
// _v1  forward: one element of y. backward_sums: one invocation walks through a chunk of one channel.
// _v2  four channels at a time: of a 2x2 block of y, whose corner is a pixel of x. A workgroup takes a chunk (lib/columns).
// @include flat
// @include element
// @include batch_norm
// @include batch_norm_sums
// @include bilinear
// @include bilinear_half4

override WG: u32 = 64u;

struct Params {
    images: u32,       // of this launch
    in_h: u32,
    in_w: u32,
    image_pixels: u32, // of x
    channels: u32,
    chunk: u32,        // pixels of x of a chunk
    image_chunks: u32,
    chunks: u32,       // of all images
    first_chunk: u32,  // of this launch
    columns: u32,      // v2
    eps: f32,
    floor: f32,        // v below this becomes 0: 0 with a ReLU, the lowest f32 without
}

@group(0) @binding(0) var<uniform> params: Params;

fn align_corners() -> bool { return false; }

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> skip: array<Element>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> mean: array<f32>;
@group(0) @binding(6) var<storage, read> variance: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<Element>;

/// What the channel of this invocation is normalised with.
var<private> per: Affine;

fn take_channel(c: u32) { per = affine(mean[c], variance[c], weight[c], bias[c]); }

fn normalized(u: f32) -> f32 { return (u - per.center) * per.scale + per.shift; }

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> skip4: array<Element4>;
@group(0) @binding(3) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> mean4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> variance4: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> y4: array<Element4>;

var<private> per4: Affine4;

fn take_channels(q: u32) { per4 = affine4(mean4[q], variance4[q], weight4[q], bias4[q]); }

fn normalized4(u: vec4<f32>) -> vec4<f32> { return (u - per4.center) * per4.scale + per4.shift; }

// ---- forward ---------------------------------------------------------------------------------------------------

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= 4u * params.images * params.image_pixels * params.channels { return; }
    let c = at % params.channels;
    let p = place(at / params.channels, 2u);
    take_channel(c);
    y[at] = Element(activated(normalized(sample(p.x, p.y, p.z, c))) + f32(skip[at]));
}

fn store4(at: u32, u: vec4<f32>) { y4[at] = Element4(activated4(normalized4(u)) + vec4<f32>(skip4[at])); }

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let quads = params.channels / 4u;
    let at = flat_index(gid, groups);
    if at >= params.images * params.image_pixels * quads { return; } // one invocation per vec4 of x
    let q = at % quads;
    let pixel = at / quads; // (n, iy, ix)
    let ix = pixel % params.in_w;
    let row = pixel / params.in_w; // (n, iy)
    take_channels(q);
    let u = block4(row, row % params.in_h, ix, q);
    let out_w = 2u * params.in_w;
    let corner = (2u * row * out_w + 2u * ix) * quads + q;
    store4(corner, u[0]);
    store4(corner + quads, u[1]);
    store4(corner + out_w * quads, u[2]);
    store4(corner + (out_w + 1u) * quads, u[3]);
}

// ---- backward --------------------------------------------------------------------------------------------------

@group(0) @binding(2) var<storage, read> gy: array<Element>;
@group(0) @binding(7) var<storage, read_write> gv: array<Element>;
@group(0) @binding(8) var<storage, read_write> table_out: array<f32>; // as lib/batch_norm_sums says

/// The ReLU asks for u. (Without one its floor is so low that everything comes through.)
fn gates() -> bool { return true; }

fn passed(n: u32, oy: u32, ox: u32, c: u32) -> f32 {
    return gated(f32(gy[output(n, oy, ox) * params.channels + c]), normalized(sample(n, oy, ox, c)));
}

@compute @workgroup_size(WG)
fn backward_sums_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let c = at % params.channels;
    let chunk = at / params.channels;
    if chunk >= params.images * params.image_chunks { return; }
    let range = chunk_range(chunk);
    take_channel(c);
    var sum = 0.0;
    var product = 0.0;
    for (var p = 0u; p < range.y; p++) {
        let pixel = range.x + p; // (n, iy, ix)
        let row = pixel / params.in_w; // (n, iy)
        let g = gathered(row / params.in_h, row % params.in_h, pixel % params.in_w, c);
        gv[pixel * params.channels + c] = Element(g);
        sum += g;
        product += g * (f32(x[pixel * params.channels + c]) - per.center);
    }
    leave_sums(chunk, c, per, sum, product);
}

@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(7) var<storage, read_write> gv4: array<Element4>;
@group(0) @binding(8) var<storage, read_write> table_out4: array<vec4<f32>>;

fn passed4_by(at: u32, u: vec4<f32>) -> vec4<f32> { return gated4(vec4<f32>(gy4[at]), normalized4(u)); }

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
    take_channels(q);
    var sum = vec4(0.0);
    var product = vec4(0.0);
    for (var pixel = share.first; pixel < share.end; pixel += share.step) { // (n, iy, ix)
        let row = pixel / params.in_w; // (n, iy)
        let g = gathered_half4(row, row % params.in_h, pixel % params.in_w, q);
        gv4[pixel * quads + q] = Element4(g);
        sum += g;
        product += g * (vec4<f32>(x4[pixel * quads + q]) - per4.center);
    }
    leave_sums4(share, per4, sum, product, lid);
}
