// Softmax over the last axis (channels: classes), and its gradient. Rows are everything else.
//
//   forward         y[r,c]  = exp(x[r,c] - m) / sum over k of exp(x[r,k] - m),  m = the largest x of the row
//   backward_input  gx[r,c] = y[r,c] * (gy[r,c] - sum over k of gy[r,k] * y[r,k])
//
// One invocation computes one row, in the _v2 entries with four channels at a time. Without m, exp would overflow at 89.
// The number of rows comes from the bindings (arrayLength).
// @include flat
// @include element

override WG: u32 = 64u;

struct Params {
    channels: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let start = flat_index(gid, groups) * params.channels;
    if start >= arrayLength(&y) { return; }
    var largest = f32(x[start]);
    for (var c = 1u; c < params.channels; c++) { largest = max(largest, f32(x[start + c])); }
    var sum = 0.0;
    for (var c = 0u; c < params.channels; c++) {
        let e = exp(f32(x[start + c]) - largest);
        y[start + c] = Element(e);
        sum += e;
    }
    for (var c = 0u; c < params.channels; c++) { y[start + c] = Element(f32(y[start + c]) / sum); }
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read_write> y4: array<Element4>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let quads = params.channels / 4u;
    let start = flat_index(gid, groups) * quads;
    if start >= arrayLength(&y4) { return; }
    var lanes = vec4<f32>(x4[start]);
    for (var c = 1u; c < quads; c++) { lanes = max(lanes, vec4<f32>(x4[start + c])); }
    let largest = max(max(lanes.x, lanes.y), max(lanes.z, lanes.w));
    var sums = vec4(0.0);
    for (var c = 0u; c < quads; c++) {
        let e = exp(vec4<f32>(x4[start + c]) - largest);
        y4[start + c] = Element4(e);
        sums += e;
    }
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
    for (var c = 0u; c < quads; c++) { y4[start + c] = Element4(vec4<f32>(y4[start + c]) / sum); }
}

@group(0) @binding(1) var<storage, read> gy: array<Element>;
@group(0) @binding(2) var<storage, read> kept: array<Element>; // y of the forward pass
@group(0) @binding(3) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let start = flat_index(gid, groups) * params.channels;
    if start >= arrayLength(&gx) { return; }
    var mean = 0.0; // of gy, weighted by y
    for (var c = 0u; c < params.channels; c++) { mean += f32(gy[start + c]) * f32(kept[start + c]); }
    for (var c = 0u; c < params.channels; c++) {
        gx[start + c] = Element(f32(kept[start + c]) * (f32(gy[start + c]) - mean));
    }
}

@group(0) @binding(1) var<storage, read> gy4: array<Element4>;
@group(0) @binding(2) var<storage, read> kept4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> gx4: array<Element4>;

@compute @workgroup_size(WG)
fn backward_input_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let quads = params.channels / 4u;
    let start = flat_index(gid, groups) * quads;
    if start >= arrayLength(&gx4) { return; }
    var sums = vec4(0.0);
    for (var c = 0u; c < quads; c++) { sums += vec4<f32>(gy4[start + c]) * vec4<f32>(kept4[start + c]); }
    let mean = (sums.x + sums.y) + (sums.z + sums.w);
    for (var c = 0u; c < quads; c++) {
        gx4[start + c] = Element4(vec4<f32>(kept4[start + c]) * (vec4<f32>(gy4[start + c]) - mean));
    }
}
