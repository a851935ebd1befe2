// What this device can do at most in f16, for `shadegrad bench`: multiply-adds per second.
//
//   multiply_add  y[i] = s0 + s1, where s <- s * x[0] + x[1], again and again
//
// One invocation keeps sixteen sums, because hardware that is faster in f16 takes them in pairs. 128 * ROUNDS operations
// each.
enable f16;
// @include flat

override WG: u32 = 64u;

const ROUNDS: u32 = 16u; // @tune 16 128 1024 16384

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// Four steps, so that counting rounds is a small part of the work.
fn steps(s: vec4<f16>, a: vec4<f16>, b: vec4<f16>) -> vec4<f16> {
    return fma(fma(fma(fma(s, a, b), a, b), a, b), a, b);
}

@compute @workgroup_size(WG)
fn multiply_add(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= arrayLength(&y) { return; }
    let a = vec4<f16>(f16(x[0]));
    let b = vec4<f16>(f16(x[1]));
    var s0 = vec4<f16>(0.0h, 1.0h, 2.0h, 3.0h) + f16(at % 16u);
    var s1 = s0 + 4.0h;
    var s2 = s0 + 8.0h;
    var s3 = s0 + 12.0h;
    for (var round = 0u; round < ROUNDS; round++) {
        s0 = steps(s0, a, b);
        s1 = steps(s1, a, b);
        s2 = steps(s2, a, b);
        s3 = steps(s3, a, b);
    }
    y[at] = f32(dot(s0 + s1 + s2 + s3, vec4<f16>(1.0h)));
}
