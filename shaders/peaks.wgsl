// What this device can do at most, for `shadegrad bench`: bytes copied and multiply-adds, per second.
//
//   copy          y[i] = x[i]
//   multiply_add  y[i] = s0 + s1, where s <- s * x[0] + x[1], again and again
//
// One invocation copies four numbers, or keeps eight sums that do not wait for one another. 64 * ROUNDS operations each.
// @include flat

override WG: u32 = 64u;

const ROUNDS: u32 = 16u; // @tune 16 128 1024 16384

@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn copy(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y4) { return; }
    y4[at] = x4[at];
}

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// Four steps, so that counting rounds is a small part of the work.
fn steps(s: vec4<f32>, a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return fma(fma(fma(fma(s, a, b), a, b), a, b), a, b);
}

@compute @workgroup_size(WG)
fn multiply_add(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    let a = vec4<f32>(x[0]);
    let b = vec4<f32>(x[1]);
    var s0 = vec4<f32>(0.0, 1.0, 2.0, 3.0) + f32(at);
    var s1 = s0 + 4.0;
    for (var round = 0u; round < ROUNDS; round++) {
        s0 = steps(s0, a, b);
        s1 = steps(s1, a, b);
    }
    y[at] = dot(s0 + s1, vec4<f32>(1.0));
}
