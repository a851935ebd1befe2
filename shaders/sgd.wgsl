// Stochastic gradient descent with momentum, as PyTorch computes it (dampening 0), for all parameters in one dispatch.
//
//   g' = factor * g + decay * p;   buffer = momentum * buffer + g'
//   p  = p - rate * (nesterov ? g' + momentum * buffer : buffer)
//
// The buffer starts at 0, which makes the first step PyTorch's. rate and factor (1 unless gradients are clipped or
// accumulated) stand in `step`, because they change at every step. With a factor of 0 nothing changes (unscale.wgsl). One
// invocation updates one number.
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

@compute @workgroup_size(WG)
fn update(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.count || step[3] == 0.0 { return; }
    let p = parameter[at];
    let g = step[3] * gradient[at] + params.weight_decay * p;
    let b = params.momentum * buffer[at] + g;
    buffer[at] = b;
    parameter[at] = p - step[0] * select(b, g + params.momentum * b, params.nesterov == 1u);
}
