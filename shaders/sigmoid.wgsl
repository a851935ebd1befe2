// Logistic function, and its gradient.
//
//   forward         y[i]  = 1 / (1 + exp(-x[i]))
//   backward_input  gx[i] = gy[i] * y[i] * (1 - y[i])
//
// One invocation computes one element, in the _v2 entries four. Only exp(-|x|) is taken, which cannot overflow:
// for x < 0 the same quotient is exp(x) / (1 + exp(x)). Extents come from the bindings (arrayLength).
// @include flat

override WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    let small = exp(-abs(x[at]));
    y[at] = select(1.0, small, x[at] < 0.0) / (1.0 + small);
}

@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    let small = exp(-abs(x4[at]));
    y4[at] = select(vec4(1.0), small, x4[at] < vec4(0.0)) / (1.0 + small);
}

@group(0) @binding(1) var<storage, read> gy: array<f32>;
@group(0) @binding(2) var<storage, read> kept: array<f32>; // y of the forward pass
@group(0) @binding(3) var<storage, read_write> gx: array<f32>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx) { return; }
    gx[at] = gy[at] * kept[at] * (1.0 - kept[at]);
}

@group(0) @binding(1) var<storage, read> gy4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kept4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> gx4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn backward_input_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gx4) { return; }
    gx4[at] = gy4[at] * kept4[at] * (1.0 - kept4[at]);
}
