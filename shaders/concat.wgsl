// Two tensors side by side along the channels, and the gradients. Rows are everything but the last axis.
//
//   forward   y[r, c]   = a[r, c] where c < a_channels, else b[r, c - a_channels]
//   backward  ga and gb = the same two parts of gy: each of its numbers goes to exactly one place
//
// One invocation copies one element of the wide tensor, in the _v2 entries four channels. The number of rows comes from
// the bindings (arrayLength).
// @include flat
// @include element

override WG: u32 = 64u;

struct Params {
    a_channels: u32,
    b_channels: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> a: array<Element>;
@group(0) @binding(2) var<storage, read> b: array<Element>;
@group(0) @binding(3) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    let width = params.a_channels + params.b_channels;
    let row = at / width;
    let c = at % width;
    if c < params.a_channels {
        y[at] = a[row * params.a_channels + c];
    } else {
        y[at] = b[row * params.b_channels + c - params.a_channels];
    }
}

@group(0) @binding(1) var<storage, read> a4: array<Element4>;
@group(0) @binding(2) var<storage, read> b4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> y4: array<Element4>;

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    let a_quads = params.a_channels / 4u;
    let b_quads = params.b_channels / 4u;
    let row = at / (a_quads + b_quads);
    let c = at % (a_quads + b_quads);
    if c < a_quads {
        y4[at] = a4[row * a_quads + c];
    } else {
        y4[at] = b4[row * b_quads + c - a_quads];
    }
}

@group(0) @binding(1) var<storage, read> gy: array<Element>;
@group(0) @binding(2) var<storage, read_write> ga: array<Element>;
@group(0) @binding(3) var<storage, read_write> gb: array<Element>;

@compute @workgroup_size(WG)
fn backward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let width = params.a_channels + params.b_channels;
    let row = at / width;
    if row >= arrayLength(&gy) / width { return; } // buffers are whole words: behind the last f16 may lie another one
    let c = at % width;
    if c < params.a_channels {
        ga[row * params.a_channels + c] = gy[at];
    } else {
        gb[row * params.b_channels + c - params.a_channels] = gy[at];
    }
}

@group(0) @binding(1) var<storage, read> gy4: array<Element4>;
@group(0) @binding(2) var<storage, read_write> ga4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> gb4: array<Element4>;

@compute @workgroup_size(WG)
fn backward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&gy4) { return; }
    let a_quads = params.a_channels / 4u;
    let b_quads = params.b_channels / 4u;
    let row = at / (a_quads + b_quads);
    let c = at % (a_quads + b_quads);
    if c < a_quads {
        ga4[row * a_quads + c] = gy4[at];
    } else {
        gb4[row * b_quads + c - a_quads] = gy4[at];
    }
}
