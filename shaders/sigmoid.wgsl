// Logistic function, and its gradient.
//
//   forward         y[i]  = 1 / (1 + exp(-x[i]))
//   backward_input  gx[i] = gy[i] * y[i] * (1 - y[i])
//
// One invocation computes one element, in the _v2 entries four. Only exp(-|x|) is taken, which cannot overflow:
// for x < 0 the same quotient is exp(x) / (1 + exp(x)). Extents come from the bindings (arrayLength).
// @include flat
// @include element

override WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    let small = exp(-abs(f32(x[at])));
    y[at] = Element(select(1.0, small, f32(x[at]) < 0.0) / (1.0 + small));
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read_write> y4: array<Element4>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    let small = exp(-abs(vec4<f32>(x4[at])));
    y4[at] = Element4(select(vec4(1.0), small, vec4<f32>(x4[at]) < vec4(0.0)) / (1.0 + small));
}

@group(0) @binding(1) var<storage, read> gy: array<Element>;
@group(0) @binding(2) var<storage, read> kept: array<Element>; // y of the forward pass
@group(0) @binding(3) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx) { return; }
    gx[at] = Element(f32(gy[at]) * f32(kept[at]) * (1.0 - f32(kept[at])));
}

@group(0) @binding(1) var<storage, read> gy4: array<Element4>;
@group(0) @binding(2) var<storage, read> kept4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> gx4: array<Element4>;

@compute @workgroup_size(WG)
fn backward_input_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx4) { return; }
    gx4[at] = Element4(vec4<f32>(gy4[at]) * vec4<f32>(kept4[at]) * (1.0 - vec4<f32>(kept4[at])));
}
