// Rectifier, and its gradient.
//
//   forward         y[i]  = x[i] where x[i] >= 0, else 0; -0 and NaN stay as they are, as in PyTorch
//   backward_input  gx[i] = gy[i] where y[i] > 0, else 0: the slope at 0 is 0
//
// One invocation computes one element, in the _v2 entries four. y says all that the gradient needs, so x need not be
// kept. Extents come from the bindings (arrayLength).
// @include flat
// @include element

override WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;

/// x, and 0 where it is below 0. Drivers make a maximum of `select(x, 0.0, x < 0.0)`, which loses NaN (seen with NVIDIA's): so the
/// bits are compared, where numbers below 0 stand between -0 and -infinity.
fn rectified(x: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(x);
    return select(x, vec4(0.0), (bits > vec4(0x80000000u)) & (bits <= vec4(0xff800000u)));
}

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    y[at] = Element(rectified(vec4(f32(x[at]))).x);
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read_write> y4: array<Element4>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    y4[at] = Element4(rectified(vec4<f32>(x4[at])));
}

@group(0) @binding(1) var<storage, read> gy: array<Element>;
@group(0) @binding(2) var<storage, read> kept: array<Element>; // y of the forward pass
@group(0) @binding(3) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx) { return; }
    gx[at] = Element(select(f32(gy[at]), 0.0, f32(kept[at]) <= 0.0));
}

@group(0) @binding(1) var<storage, read> gy4: array<Element4>;
@group(0) @binding(2) var<storage, read> kept4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> gx4: array<Element4>;

@compute @workgroup_size(WG)
fn backward_input_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx4) { return; }
    gx4[at] = Element4(select(vec4<f32>(gy4[at]), vec4(0.0), vec4<f32>(kept4[at]) <= vec4(0.0)));
}
