// Bilinear upsampling by 2, alone or with a ReLU and the sum with a skip connection after it, and its gradient.
// Layout NHWC, out = 2 * in along both axes.
//
//   forward         u[n,oy,ox,c]  = sum over the four x around the position of (oy,ox), weighted by their closeness
//                   y = u,  or max(u, 0),  or either of them + skip
//   backward_input  gx[n,iy,ix,c] = sum over the (oy,ox) that read (iy,ix) of gu[n,oy,ox,c] with the same weights
//
// gu is gy; with a ReLU it is 0 where u <= 0. u is computed again from x, which is a quarter of its size. Where outputs
// read, by the half-pixel rule (UNeXt) and by that of corners on corners (ResUNet): lib/bilinear.
//
// _v1  one invocation computes one element; both rules. The gradient gathers: no atomics, the same bits in every run.
// _v2  half pixel only: four channels of a 2x2 block of y (forward), or of one pixel of gx. The weights are constant.
// _corners_v2  align_corners: as _v1, four channels at a time. The weights differ from pixel to pixel.
// @include flat
// @include element
// @include bilinear
// @include bilinear4
// @include bilinear_half4

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

fn align_corners() -> bool { return params.align_corners == 1u; }

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> skip: array<Element>;
@group(0) @binding(3) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    let p = place(at / params.channels, 2u);
    let u = sample(p.x, p.y, p.z, at % params.channels);
    var total = select(u, 0.0, params.relu == 1u && u < 0.0);
    if params.has_skip == 1u { total += f32(skip[at]); }
    y[at] = Element(total);
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> skip4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> y4: array<Element4>;

/// y of u: the ReLU and the sum.
fn store4(at: u32, u: vec4<f32>) {
    var total = u;
    if params.relu == 1u { total = select(u, vec4(0.0), u < vec4(0.0)); }
    if params.has_skip == 1u { total += vec4<f32>(skip4[at]); }
    y4[at] = Element4(total);
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

    let u = block4(row, iy, ix, c);
    let out_w = 2u * params.in_w;
    let corner = (2u * row * out_w + 2u * ix) * quads + c;
    store4(corner, u[0]);
    store4(corner + quads, u[1]);
    store4(corner + out_w * quads, u[2]);
    store4(corner + (out_w + 1u) * quads, u[3]);
}

@compute @workgroup_size(WG)
fn forward_corners_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    let quads = params.channels / 4u;
    let p = place(at / quads, 2u);
    store4(at, sample4(p.x, p.y, p.z, at % quads));
}

@group(0) @binding(2) var<storage, read> gy: array<Element>;
@group(0) @binding(3) var<storage, read_write> gx: array<Element>;

/// Whether u decides what comes through to x.
fn gates() -> bool { return params.relu == 1u; }

/// gu: what of gy comes through the ReLU.
fn passed(n: u32, oy: u32, ox: u32, c: u32) -> f32 {
    var u = 1.0;
    if gates() { u = sample(n, oy, ox, c); }
    return select(f32(gy[output(n, oy, ox) * params.channels + c]), 0.0, u <= 0.0);
}

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx) { return; }
    let p = place(at / params.channels, 1u);
    gx[at] = Element(gathered(p.x, p.y, p.z, at % params.channels));
}

@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> gx4: array<Element4>;

fn passed4(n: u32, oy: u32, ox: u32, c: u32) -> vec4<f32> {
    var u = vec4(0.0);
    if gates() { u = sample4(n, oy, ox, c); }
    return passed4_by(output(n, oy, ox) * (params.channels / 4u) + c, u);
}

fn passed4_by(at: u32, u: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(gy4[at]), vec4(0.0), vec4<bool>(gates()) & (u <= vec4(0.0)));
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
    gx4[at] = Element4(gathered_half4(row, iy, ix, c));
}

@compute @workgroup_size(WG)
fn backward_input_corners_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx4) { return; }
    let quads = params.channels / 4u;
    let p = place(at / quads, 1u);
    gx4[at] = Element4(gathered4(p.x, p.y, p.z, at % quads));
}
