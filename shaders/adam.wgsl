// Adam (Kingma and Ba, arXiv 1412.6980) and AdamW (Loshchilov and Hutter, arXiv 1711.05101) as PyTorch computes them,
// for all parameters in one dispatch.
//
//   g' = factor * g + decay * p;   m = b1*m + (1-b1)*g';   v = b2*v + (1-b2)*g'^2
//   p  = p - shrink * p - step_size * m / (sqrt(v) / root_correction + eps)
//
// step_size = lr / (1 - b1^t), root_correction = sqrt(1 - b2^t), shrink (AdamW: lr * decay, with decay = 0 above) and
// factor (1 unless gradients are clipped or accumulated) stand in `step`, because they change at every step while
// `params` do not. With a factor of 0 nothing changes (unscale.wgsl). One invocation updates one number.
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

@compute @workgroup_size(WG)
fn update(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.count || step[3] == 0.0 { return; }
    let p = parameter[at];
    let g = step[3] * gradient[at] + params.weight_decay * p;
    let m = params.beta1 * moment1[at] + params.one_minus_beta1 * g;
    let v = params.beta2 * moment2[at] + params.one_minus_beta2 * g * g;
    moment1[at] = m;
    moment2[at] = v;
    parameter[at] = p - step[2] * p - step[0] * m / (sqrt(v) / step[1] + params.eps);
}
