// Exponential moving average of all parameters, in one dispatch.
//
//   average = average + (1 - decay) * (parameter - average)
//
// One invocation updates one number, in update_v2 four.
// @include flat

override WG: u32 = 64u;

struct Params {
    count: u32,
    one_minus_decay: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> parameter: array<f32>;
@group(0) @binding(2) var<storage, read_write> average: array<f32>;

@compute @workgroup_size(WG)
fn update_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.count { return; }
    average[at] += params.one_minus_decay * (parameter[at] - average[at]);
}

@group(0) @binding(1) var<storage, read> parameter4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> average4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn update_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.count / 4u { return; }
    average4[at] += params.one_minus_decay * (parameter4[at] - average4[at]);
}
