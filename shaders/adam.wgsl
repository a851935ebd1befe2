// Adam (Kingma and Ba, arXiv 1412.6980) and AdamW (Loshchilov and Hutter, arXiv 1711.05101) as PyTorch computes them,
// for all parameters in one dispatch.
//
//   g' = factor * g + decay * p;   m = b1*m + (1-b1)*g';   v = b2*v + (1-b2)*g'^2
//   p  = p - shrink * p - step_size * m / (sqrt(v) / root_correction + eps)
//
// step_size = lr / (1 - b1^t), root_correction = sqrt(1 - b2^t), shrink (AdamW: lr * decay, with decay = 0 above) and
// factor (1 unless gradients are clipped or accumulated) stand in `step`, because they change at every step while
// `params` do not. With a factor of 0 nothing changes (unscale.wgsl). One invocation updates one number, in update_v2 four.
// @include flat

override WG: u32 = 64u;

struct Params {
    count: u32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    eps: f32,
    weight_decay: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> step: array<f32>; // step_size, root_correction, shrink, factor
@group(0) @binding(3) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(4) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(5) var<storage, read_write> moment2: array<f32>;

/// Four parameters and their moments.
struct Four {
    p: vec4<f32>,
    m: vec4<f32>,
    v: vec4<f32>,
}

fn updated(old: Four, gradient: vec4<f32>) -> Four {
    let g = step[3] * gradient + params.weight_decay * old.p;
    let m = params.beta1 * old.m + params.one_minus_beta1 * g;
    let v = params.beta2 * old.v + params.one_minus_beta2 * g * g;
    return Four(old.p - step[2] * old.p - step[0] * m / (sqrt(v) / step[1] + params.eps), m, v);
}

@compute @workgroup_size(WG)
fn update_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.count || step[3] == 0.0 { return; }
    let next = updated(Four(vec4(parameter[at]), vec4(moment1[at]), vec4(moment2[at])), vec4(gradient[at]));
    moment1[at] = next.m.x;
    moment2[at] = next.v.x;
    parameter[at] = next.p.x;
}

@group(0) @binding(1) var<storage, read> gradient4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> parameter4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> moment1_4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> moment2_4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn update_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.count / 4u { return; }
    let next = updated(Four(parameter4[at], moment1_4[at], moment2_4[at]), gradient4[at]);
    if step[3] == 0.0 { return; } // asked last: the numbers are on their way meanwhile
    moment1_4[at] = next.m;
    moment2_4[at] = next.v;
    parameter4[at] = next.p;
}
