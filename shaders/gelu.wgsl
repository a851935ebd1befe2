// GELU in its exact form, and its gradient. P is the distribution function of the standard normal, p its density.
//
//   forward         y[i]  = x[i] * P(x[i])
//   backward_input  gx[i] = gy[i] * (P(x[i]) + x[i] * p(x[i]))
//
// One invocation computes one element, in the _v2 entries four. Extents come from the bindings (arrayLength).
// @include flat
// @include gelu

override WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    y[at] = gelu(x[at]);
}

@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    y4[at] = gelu4(x4[at]);
}

@group(0) @binding(1) var<storage, read> gy: array<f32>;
@group(0) @binding(2) var<storage, read> kept: array<f32>; // x of the forward pass
@group(0) @binding(3) var<storage, read_write> gx: array<f32>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx) { return; }
    gx[at] = gy[at] * slope(kept[at]);
}

@group(0) @binding(1) var<storage, read> gy4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kept4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> gx4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn backward_input_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx4) { return; }
    gx4[at] = gy4[at] * slope4(kept4[at]);
}
