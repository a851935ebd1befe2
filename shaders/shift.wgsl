// UNeXt's shifted tokens, and their gradient: the channels fall into up to five groups, and each group moves by its own
// number of pixels (-2, -1, 0, 1, 2) along one axis. What leaves the image is lost, what enters is 0.
//
//   forward  y[o,i,r,c] = x[o, i - s, r, c] where 0 <= i - s < length, else 0;  s = direction * (c / chunk - 2)
//
// The moved axis is i; o are the axes before it and r those between it and the channels: for rows o = n and r = x,
// for columns o = (n, y) and r is empty. `inner` counts the elements of (r, c). The gradient is the same kernel with
// direction -1. One invocation computes one element; in _v2 four channels, which lie in at most two groups because
// a group has at least three. The number of elements comes from the binding (arrayLength).
// @include flat
// @include element

override WG: u32 = 64u;

struct Params {
    length: u32,
    inner: u32,
    channels: u32,
    chunk: u32,     // channels of a group
    direction: i32, // 1 forward, -1 backward
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    let c = at % params.channels;
    let i = i32((at / params.inner) % params.length);
    let s = params.direction * (i32(c / params.chunk) - 2);
    var moved = 0.0;
    if i - s >= 0 && i - s < i32(params.length) { moved = f32(x[i32(at) - s * i32(params.inner)]); }
    y[at] = Element(moved);
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read_write> y4: array<Element4>;

/// Four channels at `at` (in vec4s), moved as group g moves. i is the position of `at` along the axis.
fn moved4(at: u32, i: u32, g: u32) -> vec4<f32> {
    let s = params.direction * (i32(g) - 2);
    let start = i32(i) - s;
    if start < 0 || start >= i32(params.length) { return vec4(0.0); }
    return vec4<f32>(x4[i32(at) - s * i32(params.inner / 4u)]);
}

@compute @workgroup_size(WG)
fn forward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    let c = (at % (params.channels / 4u)) * 4u;
    let i = (at / (params.inner / 4u)) % params.length;
    let first = c / params.chunk;
    let last = (c + 3u) / params.chunk;
    var moved = moved4(at, i, first);
    if last != first {
        // Lanes from the border on belong to the next group.
        let border = vec4(last * params.chunk - c);
        moved = select(moved, moved4(at, i, last), vec4(0u, 1u, 2u, 3u) >= border);
    }
    y4[at] = Element4(moved);
}
