// Global norm of all gradients, and the factor that brings it below a limit (torch.nn.utils.clip_grad_norm_).
//
//   norm    = step[3] * sqrt(sum of g^2)
//   step[3] = step[3] * min(1, max_norm / (norm + 1e-6))
//
// partial   one workgroup adds up one chunk, number by number or (v2) four at a time; for unscale.wgsl too
// finalize  one workgroup adds up the chunks and writes norm and factor; the optimizer multiplies by step[3]
// @include flat
// @include reduce

override WG: u32 = 64u;

struct Params {
    count: u32,
    chunk: u32, // v2: divides by 4
    chunks: u32,
    max_norm: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(WG)
fn partial_v1(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let chunk = flat_group(wid, groups);
    if chunk >= params.chunks { return; }
    let end = min((chunk + 1u) * params.chunk, params.count);
    var sum = 0.0;
    for (var i = chunk * params.chunk + lid; i < end; i += WG) { sum += gradient[i] * gradient[i]; }
    sum = workgroup_sum(sum, lid);
    if lid == 0u { partials[chunk] = sum; }
}

@group(0) @binding(1) var<storage, read> gradient4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn partial_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let chunk = flat_group(wid, groups);
    if chunk >= params.chunks { return; }
    let quads_end = min((chunk + 1u) * params.chunk, params.count) / 4u;
    var sums = vec4(0.0);
    for (var i = chunk * params.chunk / 4u + lid; i < quads_end; i += WG) { sums += gradient4[i] * gradient4[i]; }
    let sum = workgroup_sum((sums.x + sums.y) + (sums.z + sums.w), lid);
    if lid == 0u { partials[chunk] = sum; }
}

@group(0) @binding(1) var<storage, read> partials_in: array<f32>;
@group(0) @binding(2) var<storage, read_write> step: array<f32>;
@group(0) @binding(3) var<storage, read_write> norm_out: array<f32>;

@compute @workgroup_size(WG)
fn finalize(@builtin(local_invocation_index) lid: u32) {
    var sum = 0.0;
    for (var i = lid; i < params.chunks; i += WG) { sum += partials_in[i]; }
    sum = workgroup_sum(sum, lid);
    if lid == 0u {
        // A factor of 0 is kept: the step is skipped (unscale.wgsl), and the sum may be infinite.
        let norm = select(step[3] * sqrt(sum), 0.0, step[3] == 0.0);
        norm_out[0] = norm;
        step[3] *= min(1.0, params.max_norm / (norm + 1e-6));
    }
}
