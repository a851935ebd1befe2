// GELU in its exact form, and its gradient. P is the distribution function of the standard normal, p its density.
//
//   forward         y[i]  = x[i] * P(x[i])
//   backward_input  gx[i] = gy[i] * (P(x[i]) + x[i] * p(x[i]))
//
// One invocation computes one element, in the _v2 entries four. Extents come from the bindings (arrayLength).
// @include flat
// @include element
// @include gelu

override WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    y[at] = Element(gelu(f32(x[at])));
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read_write> y4: array<Element4>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    y4[at] = Element4(gelu4(vec4<f32>(x4[at])));
}

@group(0) @binding(1) var<storage, read> gy: array<Element>;
@group(0) @binding(2) var<storage, read> kept: array<Element>; // x of the forward pass
@group(0) @binding(3) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx) { return; }
    gx[at] = Element(f32(gy[at]) * slope(f32(kept[at])));
}

@group(0) @binding(1) var<storage, read> gy4: array<Element4>;
@group(0) @binding(2) var<storage, read> kept4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> gx4: array<Element4>;

@compute @workgroup_size(WG)
fn backward_input_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx4) { return; }
    gx4[at] = Element4(vec4<f32>(gy4[at]) * slope4(vec4<f32>(kept4[at])));
}
