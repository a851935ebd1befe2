// Stochastic gradient descent with momentum, as PyTorch computes it (dampening 0), for all parameters in one dispatch.
//
//   g' = factor * g + decay * p;   buffer = momentum * buffer + g'
//   p  = p - rate * (nesterov ? g' + momentum * buffer : buffer)
//
// The buffer starts at 0, which makes the first step PyTorch's. rate and factor (1 unless gradients are clipped or
// accumulated) stand in `step`, because they change at every step. With a factor of 0 nothing changes (unscale.wgsl). One
// invocation updates one number, in update_v2 four.
// @include flat

override WG: u32 = 64u;

struct Params {
    count: u32,
    momentum: f32,
    nesterov: u32,
    weight_decay: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> step: array<f32>; // rate, -, -, factor
@group(0) @binding(3) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(4) var<storage, read_write> buffer: array<f32>;

/// Four parameters and their momentum.
struct Four {
    p: vec4<f32>,
    b: vec4<f32>,
}

fn updated(old: Four, gradient: vec4<f32>) -> Four {
    let g = step[3] * gradient + params.weight_decay * old.p;
    let b = params.momentum * old.b + g;
    return Four(old.p - step[0] * select(b, g + params.momentum * b, params.nesterov == 1u), b);
}

@compute @workgroup_size(WG)
fn update_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.count || step[3] == 0.0 { return; }
    let next = updated(Four(vec4(parameter[at]), vec4(buffer[at])), vec4(gradient[at]));
    buffer[at] = next.b.x;
    parameter[at] = next.p.x;
}

@group(0) @binding(1) var<storage, read> gradient4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> parameter4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> buffer4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn update_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.count / 4u { return; }
    let next = updated(Four(parameter4[at], buffer4[at]), gradient4[at]);
    if step[3] == 0.0 { return; } // asked last: the numbers are on their way meanwhile
    buffer4[at] = next.b;
    parameter4[at] = next.p;
}
